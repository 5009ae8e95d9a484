"""Recordings opened by their stream ids for those who look again and again, each remembered for a while."""

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from archive.generation import Recording, chunk_at, open_committed, open_recording
from archive.retrying_bucket import ArchiveStore
from errors import TransientError
from recording.layout import BucketLayout, RecordingId

SETTLED_SECONDS = 30.0
"""How long a manifest is believed: a new revision keeps most chunks, and a missing one is noticed."""

GROWING_SECONDS = 2.0
"""Until the next chunks of a growing recording are looked for: one LIST and one GET."""

MAX_OPEN = 4
"""Recordings whose chunks are remembered; one of 100 GB in chunks of 10 MiB takes 4 MB."""

OPENING_SECONDS = 10.0
"""For which one waits until another recording is opened; then players are asked to come again."""

_STREAM_ID = re.compile(r"(.+)@([1-9][0-9]{0,8})(?:-([0-9a-f]{8}))?", re.DOTALL)


class Recordings:
    """Recordings opened by their stream ids, each remembered for a while. Safe to use from any thread.

    Parameters:
        store: the bucket.
        prefix: `S3_PREFIX`.
        clock: monotonic seconds.
    """

    def __init__(
        self, store: ArchiveStore, *, prefix: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store = store
        self._layout = BucketLayout(prefix)
        self._clock = clock
        self._opening = threading.Lock()  # one at a time, so that a recording asked for twice is opened once
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[Recording, float]] = OrderedDict()  # guarded by _lock

    def find(self, stream_id: str) -> Recording | None:
        """Open a recording; None when S3 holds nothing of it.

        Raises:
            ManifestError: its manifest cannot be trusted.
            StoreUnavailable: S3 does not answer, or refuses us.
            TransientError: another recording took too long to open.
        """
        match = _STREAM_ID.fullmatch(stream_id)
        if not match or not self._can_be_key(match[1]):
            return None
        with self._lock:
            known, opened_at = self._open.get(stream_id, (None, 0.0))
        age = self._clock() - opened_at
        if known and age < (GROWING_SECONDS if known.status == "growing" else SETTLED_SECONDS):
            return known
        if not self._opening.acquire(timeout=OPENING_SECONDS):
            raise TransientError("another recording is being opened", kind="busy")
        try:
            found = self._opened(stream_id, known, match[1], int(match[2]), match[3])
        finally:
            self._opening.release()
        return found

    def _opened(
        self, stream_id: str, known: Recording | None, keys: str, generation: int, owner: str | None
    ) -> Recording | None:
        found = (
            self._grown(known)
            if known and known.status == "growing"
            else self._first(keys, generation, owner)
        )
        if found:
            self._remember(stream_id, found)
        return found

    def _first(self, keys: str, generation: int, owner: str | None) -> Recording | None:
        """Open the generation of one owner, or the first that there is."""
        if owner:
            return open_recording(self.store, self._layout, RecordingId(keys, generation, owner))
        folders, _ = self.store.level(f"{self._layout.path(keys)}g{generation:04d}-")
        found = filter(None, map(self._layout.recording, folders))
        return next(filter(None, (open_recording(self.store, self._layout, each) for each in found)), None)

    def forget(self, stream_id: str) -> None:
        """Open it anew the next time: a chunk was not what it should be."""
        with self._lock:
            self._open.pop(stream_id, None)

    def _remember(self, stream_id: str, found: Recording) -> None:
        with self._lock:
            self._open[stream_id] = (found, self._clock())
            self._open.move_to_end(stream_id)
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)

    def _grown(self, known: Recording) -> Recording:
        """Look only for what comes behind the chunks that are known: a store may hash all that it lists."""
        committed = open_committed(self.store, self._layout, known.id)
        if committed:
            return committed
        chunks = list(known.chunks)
        while not chunks or chunks[-1].size == known.chunk_size:
            upcoming = chunk_at(self.store, self._layout, known.id, len(chunks))
            if upcoming is None or upcoming.size > known.chunk_size:
                break
            chunks.append(upcoming)
        return replace(known, chunks=tuple(chunks), size=sum(chunk.size for chunk in chunks))

    def _can_be_key(self, keys: str) -> bool:
        plain = keys.isprintable() and not {"", ".", ".."} & {*keys.split("/")}
        return plain and self._layout.takes(keys)
