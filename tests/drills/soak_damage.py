"""Damage to the records of a soak: junk, values of other recordings, forged chunk records, evicted keys."""

import json
import random
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import redis

from tests.drills.soak_store import number_of

if TYPE_CHECKING:
    from tests.drills.soak import Soak
    from tests.drills.soak_sites import SoakSite

JUNK = ("", "abc", "-1", "1e9", "9" * 30, "../../x", "\x00\x01", '{"a": 1}', "g" * 64, "x" * 5000)
EVICTED = (
    "paths",
    "active",
    "complete",
    "incomplete",
    "failed",
    "generations",
    "inodes",
    "volumes",
    "audits",
    "findings",
    "pulse",
    "store",
)
"""What leads to the records. A Redis that evicts drops whole keys."""


class Records:
    """The raw records of one namespace.

    Parameters:
        client: of its Redis.
        namespace: of the records.
        rng: decides what is damaged, and how.
    """

    def __init__(self, client: Any, namespace: str, rng: random.Random) -> None:
        self._client, self._base, self._rng = client, f"{{{namespace}}}:", rng

    def _keys(self, kind: str) -> list[bytes]:
        return sorted(self._client.scan_iter(f"{self._base}{kind}:*", count=1000))

    def junk(self) -> str:
        """Write nonsense into one field of a record."""
        key, field = self._field("stream")
        value = self._rng.choice(JUNK)
        self._client.hset(key, field, value)
        return f"{key} {field} = {value[:40]!r}"

    def mixed(self) -> str:
        """Write a value of another record into one field of a record."""
        key, field = self._field("stream")
        other = self._rng.choice(self._keys("stream"))
        value = self._client.hget(other, field) or b""
        self._client.hset(key, field, value)
        return f"{key} {field} = {value[:40]!r} of {other.decode()}"

    def copied(self) -> str:
        """Write all of another record into a record."""
        key, other = (self._rng.choice(self._keys("stream")) for _ in range(2))
        self._client.hset(key, mapping=self._client.hgetall(other))
        return f"{key.decode()} = {other.decode()}"

    def forged_chunk(self) -> str:
        """Let the record of a chunk say something else."""
        key, index = self._field("chunks")
        chunk = json.loads(self._client.hget(key, index))
        another = self._client.hget(*self._field("chunks")).decode()
        value = self._rng.choice(
            (
                self._rng.choice(JUNK),
                another,
                json.dumps(chunk | {"sha256": self._rng.randbytes(32).hex()}),
                json.dumps(chunk | {"size": chunk["size"] + 1}),
                json.dumps(chunk | {"etag": "0" * 32}),
            )
        )
        self._client.hset(key, index, value)
        return f"{key} {index} = {value[:80]!r}"

    def dropped_chunk(self) -> str:
        """Drop the record of a chunk."""
        key, index = self._field("chunks")
        self._client.hdel(key, index)
        return f"{key} {index}"

    def evicted(self) -> str:
        """Drop a whole key: a record, the chunks of one, or what leads to the records."""
        kind = self._rng.choice(("stream", "chunks", "", ""))
        key = self._rng.choice(self._keys(kind)).decode() if kind else self._base + self._rng.choice(EVICTED)
        self._client.delete(key)
        return key

    def _field(self, kind: str) -> tuple[str, str]:
        key = self._rng.choice(self._keys(kind))
        return key.decode(), self._rng.choice(sorted(self._client.hkeys(key))).decode()


WAYS: dict[str, Callable[[Records], str]] = {
    "field of a record damaged": Records.junk,
    "field of another record": Records.mixed,
    "record of another recording": Records.copied,
    "chunk record forged": Records.forged_chunk,
    "chunk record dropped": Records.dropped_chunk,
    "key evicted": Records.evicted,
}


def damaged_records(soak: "Soak", rng: random.Random, site: "SoakSite") -> Generator[float, None, None]:
    """Damage a record of a site now and then, if its Redis works and has one."""
    records = Records(site.valkey.client, site.plan.name, rng)
    while True:
        yield rng.uniform(5, 20)
        way = rng.choice(sorted(WAYS))
        if soak.down:
            continue
        try:
            told = WAYS[way](records)
        except (IndexError, AttributeError, TypeError, ValueError, redis.RedisError):
            continue  # there is none, it is gone by now, or it is damaged already
        number = number_of(told.split(":", 2)[2]) if told.count(":") > 1 else None
        if number is not None:
            site.damaged[number] = time.time()
        soak.say(way, told)
