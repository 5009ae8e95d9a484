"""Closed recordings whose volume was exchanged for another: what was not stored of them is only on theirs.

Their records say so, and the pulse of the namespace lists them. This is what one daemon knows of it.
"""

import threading
from collections.abc import Collection

from checkpoint import LOOKUP_BATCH, Checkpoints
from errors import PermanentError, SourceGone, TransientError
from folder.source import open_source
from folder.volumes import Volumes
from recording.stream import RecordedError, Stream

EXCHANGED = RecordedError(
    "away", "another volume is mounted where its own was; what is not stored of it is only there"
)
"""What the record of such a recording says until its volume is back."""


class LeftBehind:
    """The recordings that were left behind on volumes that are away. Safe to use from any thread.

    Parameters:
        checkpoints: the records.
        volumes: at and below the watched folder.
    """

    def __init__(self, checkpoints: Checkpoints, volumes: Volumes) -> None:
        self._checkpoints = checkpoints
        self.volumes = volumes
        self._lock = threading.Lock()
        self._streams: dict[str, Stream] = {}  # by id; guarded by _lock

    def streams(self) -> list[Stream]:
        """Return those that are known."""
        with self._lock:
            return list(self._streams.values())

    def is_on_another(self, stream: Stream) -> bool:
        """Return whether the volume of a source that is not at its path any more is not there either."""
        self.volumes.refresh()
        return bool(stream.volume) and not self.volumes.holds(stream.path, stream.volume)

    def add(self, stream: Stream) -> None:
        """Take note of a recording that was just closed, so that it counts as not safe at once."""
        with self._lock:
            self._streams[stream.stream_id] = stream

    def update(self, listed: Collection[str]) -> bool:
        """Take over what Redis says; returns whether that is news.

        What is not listed any more counts until its record says so, too: Redis may have lost the list.

        Parameters:
            listed: the ids that it lists.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        with self._lock:
            differ = list(self._streams.keys() ^ set(listed))[:LOOKUP_BATCH]
        found = [record.stream for record in self._checkpoints.records(differ)]
        with self._lock:
            for stream in found:
                if stream.left_behind:
                    self._streams[stream.stream_id] = stream
                else:
                    self._streams.pop(stream.stream_id, None)
        return bool(found)

    def end_returned(self) -> list[Stream]:
        """Return those whose volume is back, and let their records say so: their paths must be looked at.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        back = [each for each in self.streams() if self._is_back(each)]
        for stream in back:
            self._checkpoints.end_left_behind(stream.stream_id)
            with self._lock:
                self._streams.pop(stream.stream_id, None)
        return back

    def _is_back(self, stream: Stream) -> bool:
        if self.volumes.holds(stream.path, stream.volume):
            return True
        if not stream.born_ns:
            return False
        try:  # its volume may have another name each time that it is mounted (exFAT), its source has not
            with open_source(self.volumes.root, stream.path) as source:
                return source.born_ns() == stream.born_ns
        except (SourceGone, PermanentError, TransientError):
            return False
