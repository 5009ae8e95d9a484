"""Scans of the watched folder: every source below it, no link followed, and what no event told of them."""

import fnmatch
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import logs
import metrics
from errors import OUT_OF_FILES
from folder.disk_space import disk_space
from folder.other_videos import OtherVideosCount
from recording.stream import Signature

if TYPE_CHECKING:
    from folder.silence import SilentFolders

log = logs.get_logger(__name__)

MAX_SKIPPED_NAMES = 10_000
"""Entries of which it is remembered that their skipping was logged; more are only counted."""

LATE_SECONDS = 5.0
"""How old a change must be before its event counts as missing; a move holds all others up for 0.5 s."""


def is_source_name(name: str, patterns: tuple[str, ...]) -> bool:
    """Return whether a file name is that of a source; case does not matter.

    Names that begin with a dot are temporary files of others, unless a pattern begins with one too.
    """
    lowered = name.lower()
    return any(
        fnmatch.fnmatchcase(lowered, pattern.lower())
        and (not name.startswith(".") or pattern.startswith("."))
        for pattern in patterns
    )


def is_hidden(folder: str) -> bool:
    """Return whether a relative folder is, or lies in, one with a leading dot: those hold no sources."""
    return folder.startswith(".") or "/." in folder


class FolderScan:
    """Finds the sources below a folder. Owned by one thread.

    Parameters:
        root: the watched folder.
        patterns: of file names.
        entered: called with each folder that is looked into, also with one that cannot be read.
        quiet: what is skipped is not logged.
    """

    def __init__(
        self,
        root: str,
        patterns: tuple[str, ...],
        entered: Callable[[str], None] = lambda _: None,
        *,
        quiet: bool = False,
    ) -> None:
        self._quiet = quiet
        self._root = root
        self._patterns = patterns
        self._entered = entered
        self._logged: set[str] = set()  # entries whose skipping was logged
        self._skipped: set[str] = set()  # those that the scan under way met again
        self._count = 0
        self._unread: list[str] = []  # by the scan under way
        self.other_videos = OtherVideosCount(patterns)
        self.silences: SilentFolders | None = None  # if anybody wants to know
        self.unreadable = ""
        """What the last full scan could not look at, and why; "" for nothing. For any thread."""

    def everything(self) -> Iterator[tuple[str, Signature]]:
        """Find every source; counts what is skipped, and forgets what is not there any more."""
        self._skipped, self._count, self._unread = set(), 0, []
        self.other_videos.begin()
        for path, signature in self.below(""):
            if self.silences:
                self.silences.note(path, signature)
            yield path, signature
        self.other_videos.end()
        if self.silences:
            self.silences.end()
        metrics.SKIPPED.set(self._count)
        if space := disk_space(self._root):
            metrics.DISK_FREE.set(space.free)
            metrics.DISK_SIZE.set(space.total)
        self._logged &= self._skipped
        more = f" (and {len(self._unread) - 1} more)" if len(self._unread) > 1 else ""
        self.unreadable = self._unread[0] + more if self._unread else ""

    def below(self, folder: str) -> Iterator[tuple[str, Signature]]:
        """Find every source below a folder.

        Parameters:
            folder: relative to the root; "" for all of it.
        """
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            for entry in self._entries(here):
                path = f"{here}/{entry.name}" if here else entry.name
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith("."):
                            waiting.append(path)
                        continue
                    signature = self._signature(entry, path)
                except FileNotFoundError:
                    continue  # deleted while we looked
                except OSError as error:
                    self._skip(path, f"it cannot be looked at: {error.strerror}")
                    self._unread.append(f"{path}: {error.strerror}")
                    continue
                if signature:
                    yield path, signature

    def _entries(self, folder: str) -> Iterator["os.DirEntry[str]"]:
        self._entered(folder)
        try:
            with os.scandir(os.path.join(self._root, folder)) as entries:
                yield from entries
        except (FileNotFoundError, NotADirectoryError):
            return  # deleted or exchanged while we looked
        except OSError as error:
            if error.errno in OUT_OF_FILES:
                raise
            self._skip(folder or ".", f"the folder cannot be read: {error.strerror}")
            if os.path.basename(folder) != "lost+found":  # of the file system itself, and for root alone
                self._unread.append(f"{folder or '.'}: {error.strerror}")

    def _signature(self, entry: "os.DirEntry[str]", path: str) -> Signature | None:
        if not is_source_name(entry.name, self._patterns):
            self.other_videos.note(path, entry.name)
            return None
        found = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            return Signature.of(found)
        self._skip(path, "a link" if stat.S_ISLNK(found.st_mode) else "no regular file")
        return None

    def _skip(self, path: str, reason: str) -> None:
        self._count += 1
        if len(self._skipped) < MAX_SKIPPED_NAMES:
            self._skipped.add(path)
        if not self._quiet and path not in self._logged and len(self._logged) < MAX_SKIPPED_NAMES:
            self._logged.add(path)
            log.warning("skipped", path=path, reason=reason)


class ScanRequests:
    """Folders that somebody wants scanned soon. Safe for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: set[str] = set()  # guarded by _lock
        self._asked = threading.Event()

    def add(self, folder: str = "") -> None:
        """Have a folder scanned soon.

        Parameters:
            folder: relative to the root; "" for all of it.
        """
        with self._lock:
            self._folders.add(folder)
        self._asked.set()

    def wait(self, timeout: float) -> None:
        """Wait until a folder is asked for.

        Parameters:
            timeout: seconds to wait at the most.
        """
        # Not cleared by `take`: a folder that is missing is not scanned, and its watcher must not spin.
        if self._asked.wait(timeout):
            self._asked.clear()

    def take(self) -> set[str]:
        """Return what was asked for, and forget it; no folder lies below another."""
        with self._lock:
            taken, self._folders = self._folders, set()
        if "" in taken:
            return {""}
        parents = tuple(folder + "/" for folder in taken)
        return {folder for folder in taken if not folder.startswith(parents)}


class MissedEvents:
    """Notices that events do not come: a full scan finds what changed since the one before and was not told.

    `reported` and `lost` are for any thread, the rest is for the watcher's.
    """

    def __init__(self) -> None:
        self._reported: set[str] = set()  # since the last full scan; never changed after it was exchanged
        self._since: float | None = None  # wall clock; no event was lost since then as far as is known
        self._expected: set[str] = set()  # below: of the scan under way; changes between these times count
        self._from = self._until = 0.0
        self._count, self._first = 0, ""
        self._warned = False

    def reported(self, path: str) -> None:
        """Note that an event named a source."""
        self._reported.add(path)

    def lost(self) -> None:
        """Events may be missing for a reason that is known."""
        self._since = None

    @contextmanager
    def compared(self) -> Iterator[None]:
        """Compare what a full scan finds within this block with what was told since the last one."""
        began = time.time()
        since, self._since = self._since, began
        self._expected, self._reported = self._reported, set()
        self._from, self._until = (began, began) if since is None else (since, began - LATE_SECONDS)
        self._count = 0
        yield
        if self._count:
            self._complain()

    def compare(self, path: str, signature: Signature) -> None:
        """Take note of a source that the scan found."""
        if self._from < signature.mtime_ns / 1e9 < self._until and path not in self._expected:
            self._count += 1
            self._first = path

    def _complain(self) -> None:
        metrics.WATCHER_MISSED.inc(self._count)
        if not self._warned:
            log.warning(
                "a scan found changes of which no event told",
                files=self._count,
                path=self._first,
                hint="set WATCH_MODE=polling if the folder is a share, or one of Docker Desktop",
            )
        self._warned = True
