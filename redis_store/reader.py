"""Reading the records of streams from Redis: one, many by path, or all that are worth showing."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from recording.layout import BucketLayout
from recording.layout import stream_id as spelled_id
from recording.stream import UNFINISHED, Chunk, State, Stream
from redis_store import scripts
from redis_store.errors import translated
from redis_store.fields import FIELDS, DamagedRecord, chunk_of, encode_path, stream_of
from redis_store.requests import OperatorRequest, Outcome, outcome_of, request_of

if TYPE_CHECKING:
    import redis

LOOKUP_BATCH = 500
"""Records asked for in one round trip; about 100 kB each way."""

COUNTED = (State.ACTIVE, State.COMPLETE, State.INCOMPLETE, State.FAILED)
"""The states that have a set of stream ids each; finalizing streams are in that of the active ones."""

_NO_BUCKET = BucketLayout("")
"""For those who want to know sizes and times of chunks, and no keys."""


class Record(NamedTuple):
    """A stream with what only its record says.

    `owner` holds the lease now, "" is nobody. `latest` are the newest chunks of an unfinished stream.
    """

    stream: Stream
    owner: str
    latest: list[Chunk]


class CheckpointReader:
    """Reads the records of one namespace of one Redis, and writes nothing. Safe to use from any thread.

    Every method raises `StoreUnavailable` when Redis is down or refuses us.

    Parameters:
        client: made by `checkpoint.connect`.
        namespace: first part of every key.
    """

    def __init__(self, client: "redis.Redis", *, namespace: str) -> None:
        self._redis = client
        self._base = f"{{{namespace}}}:"
        self._paths = self._base + "paths"
        self._inodes = self._base + "inodes"
        self._generations = self._base + "generations"
        self._requests = self._base + "requests"
        self._zsets = [self._base + str(state) for state in COUNTED]
        self._active, self._complete, _, self._failed = self._zsets
        self._lookup = client.register_script(scripts.LOOKUP)

    def _stream_key(self, stream_id: str) -> str:
        return f"{self._base}stream:{stream_id}"

    def _chunks_key(self, stream_id: str) -> str:
        return f"{self._base}chunks:{stream_id}"

    def counts(self) -> dict[State, int]:
        """Count the streams in each state; finalizing ones count as active."""
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for zset in self._zsets:
                pipe.zcard(zset)
            return dict(zip(COUNTED, pipe.execute(), strict=True))

    def newest(self, key_paths: Sequence[str]) -> list[str | None]:
        """Return the id of the newest generation of each key path that was ever begun."""
        with translated():
            numbers: Any = self._redis.hmget(self._generations, list(key_paths)) if key_paths else []
        both = zip(key_paths, numbers, strict=True)
        return [spelled_id(keys, int(number)) if str(number).isdigit() else None for keys, number in both]

    def request(self, stream_id: str) -> tuple[OperatorRequest | None, Outcome | None]:
        """Return the request that stands for a stream, and what came of the last one."""
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hget(self._requests, stream_id)
            pipe.hget(self._stream_key(stream_id), "outcome")
            request, outcome = pipe.execute()
        return request_of(request), outcome_of(outcome)

    def find(self, path: str) -> Stream | None:
        """Return the newest stream at a path."""
        return self.find_all([path])[0]

    def find_all(self, paths: Sequence[str]) -> list[Stream | None]:
        """Return the newest stream at each path, in one round trip.

        Parameters:
            paths: at most `LOOKUP_BATCH`.
        """
        if not paths:
            return []
        arguments: list[Any] = [self._stream_key(""), len(FIELDS), *FIELDS, *map(encode_path, paths)]
        with translated():
            rows: Any = self._lookup(keys=[self._paths], args=arguments)
        return [
            self._believed(row[0], row[1:], path) if row else None
            for row, path in zip(rows, paths, strict=True)
        ]

    def _believed(self, stream_id: str, values: Sequence[Any], path: str = "") -> Stream | None:
        """Return the stream that a record speaks of; None when it cannot be true.

        Parameters:
            stream_id: of the stream.
            values: of `FIELDS`.
            path: that led to it, "" for none. A move changes both at once, so they differ only by damage.
        """
        try:
            stream = stream_of(stream_id, values or [None] * len(FIELDS))
        except DamagedRecord as error:
            self._disbelieve(stream_id, path, str(error))
            return None
        if path and stream.path != path:
            self._disbelieve(stream_id, path, f"it is about {stream.path[:200]!r}")
            return None
        return stream

    def _disbelieve(self, stream_id: str, path: str, why: str) -> None:
        """Pass over a record that cannot be ours; whoever may write discards it."""

    def find_inode(self, dev: int, ino: int) -> Stream | None:
        """Return the stream whose source was last known to be this file."""
        with translated():
            stream_id: Any = self._redis.hget(self._inodes, f"{dev}:{ino}")
            return self._load(stream_id) if stream_id else None

    def stream(self, stream_id: str) -> Stream | None:
        """Return the record of a stream; None when there is none."""
        with translated():
            return self._load(stream_id)

    def chunks(self, stream: Stream, layout: BucketLayout) -> list[Chunk]:
        """Return the chunks of an unfinished stream that its records claim, in order.

        Parameters:
            stream: whose.
            layout: of the bucket, for the keys.
        """
        return self._claimed_chunks(stream, layout)[0]

    def _claimed_chunks(self, stream: Stream, layout: BucketLayout) -> tuple[list[Chunk], str]:
        """Return the chunks whose records can be true, and what is wrong with another one; "" for nothing."""
        with translated():
            records: Any = self._redis.hgetall(self._chunks_key(stream.stream_id))
        found, problem = [], ""
        for index, record in records.items():
            try:
                found.append(chunk_of(stream, index, record, layout))
            except DamagedRecord as error:
                problem = str(error)
        return sorted(found, key=lambda chunk: chunk.index), problem

    def _load(self, stream_id: str) -> Stream | None:
        values: Any = self._redis.hmget(self._stream_key(stream_id), list(FIELDS))
        return self._believed(stream_id, values) if any(values) else None

    # ------------------------------------------------------------------ many at once

    def ids(self, *, unfinished: int, finished: int) -> list[str]:
        """Return the streams worth showing: active and finalizing ones, those that ended, those that failed.

        Parameters:
            unfinished: at most so many that are active or finalizing, those that changed longest ago, and
                at most so many that failed, the last ones.
            finished: at most so many that are complete, and so many that are incomplete, the last ones.
        """
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zrange(self._active, 0, unfinished - 1)
            for zset, number in zip(self._zsets[1:], (finished, finished, unfinished), strict=True):
                pipe.zrange(zset, -number, -1) if number else pipe.zrange(zset, 1, 0)  # "-0" is the first
            found: list[list[str]] = pipe.execute()
        return [stream_id for each in found for stream_id in each]

    def failed_ids(self, *, at_most: int) -> list[str]:
        """Return the streams that failed, the last ones.

        Parameters:
            at_most: so many.
        """
        with translated():
            ids: Any = self._redis.zrange(self._failed, -at_most, -1)
        return list(ids)

    def complete_ids(self) -> list[str]:
        """Return all complete streams, about 60 bytes each; their records are asked for in batches."""
        with translated():
            ids: Any = self._redis.zrange(self._complete, 0, -1)
        return list(ids)

    def records(self, ids: Sequence[str], *, latest_chunks: int = 0) -> list[Record]:
        """Read many records, `LOOKUP_BATCH` in a round trip; one that is not there is left out.

        Parameters:
            ids: of the streams.
            latest_chunks: at most so many of each stream that is unfinished.
        """
        found: list[Record] = []
        for start in range(0, len(ids), LOOKUP_BATCH):
            with translated():
                batch = self._some(ids[start : start + LOOKUP_BATCH])
                found += self._with_chunks(batch, latest_chunks) if latest_chunks else batch
        return found

    def _some(self, ids: Sequence[str]) -> list[Record]:
        pipe = self._redis.pipeline(transaction=False)
        pipe.time()
        for stream_id in ids:
            pipe.hmget(self._stream_key(stream_id), [*FIELDS, "owner", "lease_until"])
        (seconds, microseconds), *rows = pipe.execute()
        now = seconds * 1_000_000 + microseconds
        records = []
        for stream_id, (*values, owner, lease_until) in zip(ids, rows, strict=True):
            stream = self._believed(stream_id, values) if any(values) else None
            if stream:
                held = owner if str(lease_until).isdigit() and int(lease_until) > now else ""
                records.append(Record(stream, held, []))
        return records

    def _with_chunks(self, records: list[Record], number: int) -> list[Record]:
        working = [record.stream for record in records if record.stream.state in UNFINISHED]
        asked = [(each, range(max(each.next_index - number, 0), each.next_index)) for each in working]
        asked = [(each, indexes) for each, indexes in asked if indexes]
        pipe = self._redis.pipeline(transaction=False)
        for stream, indexes in asked:
            pipe.hmget(self._chunks_key(stream.stream_id), [str(index) for index in indexes])
        latest: dict[str, list[Chunk]] = {}
        for (stream, indexes), row in zip(asked, pipe.execute(), strict=True):
            for index, text in zip(indexes, row, strict=True):
                with suppress(DamagedRecord):
                    chunk = chunk_of(stream, str(index), text, _NO_BUCKET)
                    latest.setdefault(stream.stream_id, []).append(chunk)
        return [each._replace(latest=latest.get(each.stream.stream_id, [])) for each in records]
