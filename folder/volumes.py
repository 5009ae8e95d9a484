"""On which volume a path lies: a file that is not there was deleted only if its volume is.

A device number does not tell. Two bind mounts of one disk share it, and a disk that is plugged in again
gets another. A volume is known by the folder that is mounted: its inode number and birth time, or, where
the file system keeps no birth time, its inode number and what is mounted.
"""

import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

from folder.birth_time import born_ns
from folder.file_systems import unescaped

_MOUNTS = "/proc/self/mountinfo"


class FolderIdentity(NamedTuple):
    """What says that two paths, perhaps on two machines, lead to one folder; `born_ns` is 0 if unknown."""

    inode: int
    born_ns: int

    @classmethod
    def of(cls, folder: str) -> "FolderIdentity":
        """Return the identity of a folder; links are followed.

        Raises:
            OSError: it is not there.
        """
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return cls(os.fstat(fd).st_ino, born_ns(fd))
        finally:
            os.close(fd)


class _Table(NamedTuple):
    """`mounts` as the kernel listed them, and `sources` (mount point ending in "/" → what is mounted there).

    `real` is the root without links, `points` (mount point, volume), the longest first.
    """

    mounts: bytes
    real: str
    sources: dict[str, bytes]
    points: list[tuple[str, str]]

    def mounted_at(self, path: str) -> tuple[str, str]:
        full = f"{self.real}/{path}"
        return next((entry for entry in self.points if full.startswith(entry[0])), ("/", ""))


class Volumes:
    """The volumes at, above and below the watched folder. Safe to use from any thread.

    Parameters:
        root: the watched folder.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._lock = threading.Lock()  # or a slow look would take the place of a later one
        self._table = _Table(b"", "", {}, [])  # never changed after it was exchanged; written under _lock
        self.refresh()

    def refresh(self) -> None:
        """Look which volumes are mounted now; in less than a millisecond."""
        with self._lock:
            self._table = self._look()

    def _look(self) -> _Table:
        try:
            with open(_MOUNTS, "rb") as file:
                mounts = file.read()
        except OSError:  # not Linux
            mounts = b""
        before, real = self._table, os.path.realpath(self.root)
        same = (mounts, real) == (before.mounts, before.real)
        sources = before.sources if same else dict(_relevant(mounts, f"{real}/"))
        # Another volume may have got the same line in that list, so the folders are looked at each time.
        points = [(point, _volume(point, source)) for point, source in sources.items()]
        return _Table(mounts, real, sources, sorted(points, key=lambda entry: -len(entry[0])))

    def of(self, path: str) -> str:
        """Return the name of the volume that a path leads to now, whether something is there or not.

        Parameters:
            path: relative to the watched folder.

        Returns:
            "" where the system does not tell.
        """
        return self._table.mounted_at(path)[1]

    def holds(self, path: str, volume: str) -> bool:
        """Return whether a path leads to the volume on which its source was.

        Also when another machine sees that volume at another place: then it is a folder above the source.

        Parameters:
            path: relative to the watched folder.
            volume: as `of` named it, here or on another machine.
        """
        table = self._table
        point, mounted = table.mounted_at(path)
        if mounted == volume:
            return True
        folders = os.path.dirname(os.path.join(table.real, path))[len(point) :].split("/")
        below = (point + "/".join(folders[:depth]) for depth in range(len(folders), 0, -1))
        return any(_volume(folder, b"") == volume for folder in below)


def _relevant(mounts: bytes, root: str) -> Iterator[tuple[str, bytes]]:
    """Find what is mounted at, above or below the root; of two at one point the later one is seen."""
    for line in filter(None, mounts.split(b"\n")):
        row = line.split(b" ")  # proc_pid_mountinfo(5)
        point = os.path.join(os.fsdecode(unescaped(row[4])), "")
        kind, source = row[row.index(b"-", 6) + 1 :][:2]
        # To look at what an automounter has unmounted would mount it again.
        if kind != b"autofs" and (point.startswith(root) or root.startswith(point)):
            yield point, source


def _volume(folder: str, source: bytes) -> str:
    try:
        found = FolderIdentity.of(folder)
    except (OSError, ValueError):
        return ""
    return f"{found.inode}:{found.born_ns or source.decode(errors='backslashreplace')}"
