"""What Redis says of the store that its records are about, and the way to begin these anew."""

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from redis_store.errors import translated
from redis_store.reader import LOOKUP_BATCH, CheckpointReader

if TYPE_CHECKING:
    import redis


class Claim(NamedTuple):
    """The store that the records are about, by its random id, and when the id was made or taken over."""

    store_id: str
    claimed_at: float

    @property
    def age_seconds(self) -> float:
        """How long ago that was, by this machine's clock; one that lies ahead is as long ago."""
        return abs(time.time() - self.claimed_at)


class StoreClaim(CheckpointReader):
    """The id of the store in one namespace of one Redis. Safe to use from any thread.

    Every method raises `StoreUnavailable` when Redis is down or refuses us.

    Parameters:
        client: made by `checkpoint.connect`.
        namespace: first part of every key.
    """

    def __init__(self, client: "redis.Redis", *, namespace: str) -> None:
        super().__init__(client, namespace=namespace)
        self._key = self._base + "store"

    def read(self) -> Claim | None:
        """Return the id of the store that the records are about; None when there is none of our form."""
        return _claim_of(self._text())

    def claim(self, store_id: str, *, replace: bool = False) -> Claim:
        """Write down which store the records are about; returns what stands there then.

        Parameters:
            store_id: random, as in the marker of the store.
            replace: take the place of another id. Without it the first of several daemons wins.
        """
        mine = Claim(store_id, time.time())
        before = self._text()
        damaged = before is not None and _claim_of(before) is None
        with translated():
            self._redis.set(self._key, json.dumps(mine._asdict()), nx=not (replace or damaged))
        return self.read() or mine

    def _text(self) -> Any:
        with translated():
            found: Any = self._redis.mget(self._key)
        return found[0]

    def recordings(self) -> int:
        """Count the recordings that there are records of, finished or not."""
        return sum(self.counts().values())

    def forget_all(self) -> None:
        """Drop every record, so that each source is compared with S3 again, as after a loss of Redis.

        A daemon that is killed in between leaves records, so that the next start does it again: the sets
        of ids, which say that there are records, go last.
        """
        with translated():
            for zset in self._zsets:
                self._forget(zset)
            self._redis.delete(self._paths, self._inodes, self._generations, self._orders, *self._zsets)

    def _forget(self, zset: str) -> None:
        start = 0
        while ids := self._ids_from(zset, start):
            pipe = self._redis.pipeline(transaction=False)
            for stream_id in ids:
                pipe.delete(self._stream_key(stream_id), self._chunks_key(stream_id))
            pipe.execute()
            start += len(ids)

    def _ids_from(self, zset: str, start: int) -> list[str]:
        found: Any = self._redis.zrange(zset, start, start + LOOKUP_BATCH - 1)
        return list(found)


def _claim_of(text: Any) -> Claim | None:
    try:
        fields = json.loads(text)
        return Claim(str(fields["store_id"]), float(fields["claimed_at"]))
    except (KeyError, TypeError, ValueError):
        return None
