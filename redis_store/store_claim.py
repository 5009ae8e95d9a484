"""What Redis says of the store that its records are about, and the way to begin these anew."""

import re
from typing import TYPE_CHECKING, Any

from recording.layout import BucketLayout
from recording.stream import State
from redis_store.errors import translated
from redis_store.reader import LOOKUP_BATCH, CheckpointReader

if TYPE_CHECKING:
    import redis

STORE_ID = re.compile(r"[0-9a-f]{32}")
"""The form of the random id of a store."""

CHECKSUM_SECONDS = 7 * 86_400
"""For which it counts what a store was seen to check: it may be updated, or replaced by another program."""


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

    def read(self) -> str:
        """Return the id of the store that the records are about; "" when there is none of our form."""
        found = self._text(self._key)
        return found if STORE_ID.fullmatch(found) else ""

    def claim(self, store_id: str, *, replace: bool = False) -> str:
        """Write down which store the records are about; returns the id that stands there then.

        Parameters:
            store_id: random, as in the marker of the store.
            replace: take the place of another id. Without it the first of several daemons wins.
        """
        damaged = bool(self._text(self._key)) and not self.read()
        with translated():
            self._redis.set(self._key, store_id, nx=not (replace or damaged))
        return self.read() or store_id

    def checksum(self, store_id: str) -> str:
        """Return by which checksum puts are confirmed on a store; "" when nobody has tried it lately."""
        return self._text(self._checksum_key(store_id))

    def remember_checksum(self, store_id: str, algorithm: str) -> None:
        """Write down what `checksum` returns from now on, for `CHECKSUM_SECONDS`."""
        with translated():
            self._redis.set(self._checksum_key(store_id), algorithm, ex=CHECKSUM_SECONDS)

    def _checksum_key(self, store_id: str) -> str:
        return f"{self._base}checksum:{store_id}"

    def _text(self, key: str) -> str:
        with translated():
            found: Any = self._redis.mget(key)
        return found[0] or ""

    def recordings(self) -> int:
        """Count the recordings that there are records of, finished or not."""
        return sum(self.counts().values())

    def stored_keys(self, layout: BucketLayout) -> list[str]:
        """Return a few objects that must be in the store if the records are about it.

        Of each state two, of the recordings that changed first and last and have anything stored: into a
        store that was emptied, recordings may have gone since. Records that say of nothing that it is
        stored give none.

        Parameters:
            layout: of the bucket.
        """
        with translated():
            found = [
                self._stored_key(zset, layout, newest_first=newest_first)
                for zset in self._zsets
                for newest_first in (False, True)
            ]
        return list(dict.fromkeys(filter(None, found)))

    def _stored_key(self, zset: str, layout: BucketLayout, *, newest_first: bool) -> str:
        start = 0
        while ids := self._ids_from(zset, start, newest_first=newest_first):
            for stream in (record.stream for record in self.records(ids)):
                if stream.offset and stream.state in (State.COMPLETE, State.INCOMPLETE):
                    return layout.manifest(stream.recording)
                if chunks := self.chunks(stream, layout) if stream.offset else []:
                    return chunks[-1 if newest_first else 0].key
            start += len(ids)
        return ""

    def forget_all(self) -> None:
        """Drop every record, so that each source is compared with S3 again, as after a loss of Redis.

        A daemon that is killed in between leaves records, so that the next start does it again: the sets
        of ids, which say that there are records, go last. Without the pulse every daemon notices at its
        next look, also when as many new records came meanwhile, and scans its folder.
        """
        with translated():
            for zset in self._zsets:
                self._forget(zset)
            self._redis.delete(self._base + "pulse", self._paths, self._inodes, self._generations)
            self._redis.delete(self._requests, *self._zsets)

    def _forget(self, zset: str) -> None:
        start = 0
        while ids := self._ids_from(zset, start):
            pipe = self._redis.pipeline(transaction=False)
            for stream_id in ids:
                pipe.delete(self._stream_key(stream_id), self._chunks_key(stream_id))
            pipe.execute()
            start += len(ids)

    def _ids_from(self, zset: str, start: int, *, newest_first: bool = False) -> list[str]:
        found: Any = self._redis.zrange(zset, start, start + LOOKUP_BATCH - 1, desc=newest_first)
        return list(found)
