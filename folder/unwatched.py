"""Folders of which the kernel tells nothing, because nobody may read them yet."""

import os
from typing import Any

MAX_UNWATCHED = 1_000
"""Folders that are looked at each second; about 5 us each."""


class UnwatchedFolders:
    """Finds folders that could be watched by now. Owned by the watcher's thread.

    watchdog passes over a folder that it may not read when it appears, and does not try again.
    """

    def __init__(self) -> None:
        self._observer: Any = None
        self._root = ""  # "" while the folder is polled
        self._unwatched: set[str] = set()
        self._tried: set[str] = set()  # those for which an observer was started

    def observed(self, observer: object, root: str) -> None:
        """Begin anew with an observer; the scan that follows finds what it does not watch.

        Parameters:
            observer: watchdog's.
            root: the folder without links; "" if it is polled.
        """
        self._observer, self._root = observer, root
        self._unwatched.clear()

    def entered(self, folder: str) -> None:
        """Take note of a folder that a scan looks into, or could not.

        Parameters:
            folder: relative to the root; "" for the root.
        """
        if self._has_watch(folder):
            self._tried.discard(folder)
        elif folder not in self._tried and len(self._unwatched) < MAX_UNWATCHED:
            self._unwatched.add(folder)

    def readable(self) -> str:
        """Return a folder without a watch that may be read now; "" for none.

        Each is returned once, unless it had a watch since: another observer may not get one either.
        """
        for folder in list(self._unwatched):
            path = os.path.join(self._root, folder)
            if self._has_watch(folder) or not os.path.isdir(path):
                self._unwatched.discard(folder)
            elif os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
                self._tried.add(folder)
                return folder
        return ""

    def _has_watch(self, folder: str) -> bool:
        if not self._root or not folder:
            return True
        path = os.fsencode(os.path.join(self._root, folder))
        for emitter in self._observer.emitters:
            # There is no public way to ask watchdog; one that is built otherwise is believed.
            watches = getattr(getattr(emitter, "_inotify", None), "_active_callbacks_by_path", {path: 0})
            if watches.get(path, -1) < 0:
                return False
        return True
