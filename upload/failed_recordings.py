"""Failed recordings: no turn works on them, and what of them is not in S3 counts until somebody mends it."""

import time
from collections.abc import Callable
from typing import NamedTuple

from checkpoint import Checkpoints
from folder.source import signature_at
from recording.stream import State, Stream
from scheduling.backlog import written_at

MAX_FAILED = 2_000
"""That are counted: 10 ms each second, and four round trips to Redis every few seconds."""


class FailedBacklog(NamedTuple):
    """How many failed recordings are not whole in S3, their bytes that are not, and the age of the oldest."""

    sources: int = 0
    bytes: int = 0
    oldest_seconds: float = 0.0


class FailedRecordings:
    """The failed recordings as Redis listed them last, so that they count while it is away. For one thread.

    Parameters:
        checkpoints: the records.
        root: the watched folder.
    """

    def __init__(self, checkpoints: Checkpoints, root: str) -> None:
        self._checkpoints = checkpoints
        self._root = root
        self._streams: list[Stream] = []

    def update(self, number: int) -> bool:
        """Read their records, unless Redis has none; returns whether that is news.

        Parameters:
            number: that Redis lists.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        ids = self._checkpoints.failed_ids(at_most=MAX_FAILED) if number else []
        found = (record.stream for record in self._checkpoints.records(ids))
        before, self._streams = self._streams, [stream for stream in found if stream.state is State.FAILED]
        return self._streams != before

    def backlog(self, is_watched: Callable[[str], bool]) -> FailedBacklog:
        """Return what is not in S3 of them.

        Parameters:
            is_watched: returns whether a path is counted already, because it is tried again now.
        """
        now, sources, waiting, oldest = time.time(), 0, 0, 0.0
        for stream in self._streams:
            known = signature_at(self._root, stream) or stream.signature
            if known.size > stream.offset and not is_watched(stream.path):
                sources, waiting = sources + 1, waiting + known.size - stream.offset
                oldest = max(oldest, now - written_at(stream, known))
        return FailedBacklog(sources, waiting, oldest)
