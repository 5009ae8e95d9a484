"""The file that a restore writes: partial beside its destination, resumable, never over another file."""

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

from archive.chunks import agrees
from errors import UploaderError
from recording.stream import Chunk

READ_BYTES = 1024 * 1024

WRITE_BYTES = 128 * 1024
"""In one call. On ext4 (Linux 6.18) a restore took 3.2 CPU s/GB with 1 or 10 MiB in a call and 2.2 with this:
for longer writes the page cache takes large, new pieces of memory instead of those that it just cleaned."""

PARTIAL_ENDING = ".restoring"
"""Of the partial file's name: no pattern for recordings matches it, so that no daemon takes it for one."""

FILE_MODE, FOLDER_MODE = 0o600, 0o700
"""Of what a restore makes, less what the umask takes: a manifest does not say who might read the source, and
a recording that nobody else could read must not become one that everybody can."""

_NAME_BYTES = 200
"""Of the destination's name in the partial file's; a whole name may have 255 bytes (`NAME_MAX`)."""

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PARTIAL_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES})
_OPEN_ATTEMPTS = 3


class TargetError(UploaderError):
    """The destination cannot be written; the message says why and what to do."""


class Target:
    """A destination: a name in an open folder. Made by `open_target`.

    Parameters:
        folder_fd: the open folder.
        name: in that folder.
        shown: the path for people.
    """

    def __init__(self, folder_fd: int, name: str, shown: str) -> None:
        self._folder = folder_fd
        self._name = name
        self.shown = shown

    def beside(self, ending: str) -> "Target":
        """Return a destination in the same folder, with more behind its name. Used while this one is open."""
        return Target(self._folder, self._name + ending, self.shown + ending)

    def exists(self) -> bool:
        """Return whether anything has the destination's name, a link to nowhere too."""
        return self._look(self._name) is not None

    def holds(self, chunks: Sequence[Chunk]) -> bool:
        """Return whether a regular file is there that has exactly these chunks."""
        found = self._look(self._name)
        if found is None or not stat.S_ISREG(found.st_mode):
            return False
        if found.st_size != sum(chunk.size for chunk in chunks):
            return False
        fd = os.open(self._name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            return len(_matching(fd, chunks)) == len(chunks)
        finally:
            os.close(fd)

    @contextmanager
    def partial(self, mark: str) -> Iterator["Partial"]:
        """Open the partial file, a new one or the one that an interrupted restore left.

        Parameters:
            mark: names what is restored, so that only its own restore goes on with the file.

        Raises:
            TargetError: another restore writes it, or it is not ours.
        """
        name = self._partial_name(mark)
        fd = self._open_partial(name)
        try:
            yield Partial(fd, self._folder, name)
        finally:
            os.close(fd)

    def publish(self, partial: "Partial", *, force: bool) -> None:
        """Rename the finished partial file to the destination's name, at once and durably.

        Parameters:
            partial: complete and synced.
            force: whether it may take the place of another file.

        Raises:
            TargetError: something is there and `force` was not given.
        """
        try:
            if force:
                self._rename(partial)
            else:
                self._link(partial)
        except FileExistsError as error:
            raise TargetError(f"{self.shown} exists: --force replaces it") from error
        with suppress(OSError):  # some network file systems cannot sync a folder
            os.fsync(self._folder)

    def discard_partial(self, mark: str) -> None:
        """Remove the second name of a restore that was killed right after it had published its file."""
        name = self._partial_name(mark)
        found = self._look(name)
        if found and found.st_nlink > 1:
            os.unlink(name, dir_fd=self._folder)

    def _look(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _partial_name(self, mark: str) -> str:
        start = os.fsdecode(os.fsencode(self._name)[:_NAME_BYTES])
        digest = hashlib.sha256(os.fsencode(mark)).hexdigest()[:12]
        return f".{start}.{digest}{PARTIAL_ENDING}"

    def _open_partial(self, name: str) -> int:
        for _ in range(_OPEN_ATTEMPTS):
            try:
                create = _PARTIAL_FLAGS | os.O_CREAT | os.O_EXCL
                fd = os.open(name, create, FILE_MODE, dir_fd=self._folder)
            except FileExistsError:
                try:
                    fd = os.open(name, _PARTIAL_FLAGS, dir_fd=self._folder)
                except FileNotFoundError:
                    continue
            try:
                if self._take(fd, name):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        raise TargetError(f"{name} beside {self.shown} keeps changing: remove it")

    def _take(self, fd: int, name: str) -> bool:
        """Lock an open partial file; false when its name is gone or another file's meanwhile."""
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise TargetError(f"{name} beside {self.shown} is not ours: remove it")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TargetError(f"another restore is writing {self.shown}") from error
        here = self._look(name)
        if here is None or (here.st_dev, here.st_ino) != (found.st_dev, found.st_ino):
            return False
        if here.st_nlink > 1:  # it has its final name already: its bytes must not change any more
            os.unlink(name, dir_fd=self._folder)
            return False
        return True

    def _link(self, partial: "Partial") -> None:
        """Rename without replacing: of the calls that do so only this one is everywhere in Python."""
        folder = self._folder
        try:
            os.link(partial.name, self._name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if self.exists():
                raise FileExistsError(self.shown) from error
            self._rename(partial)
        else:
            os.unlink(partial.name, dir_fd=folder)

    def _rename(self, partial: "Partial") -> None:
        os.rename(partial.name, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)


class Partial:
    """An open partial file, locked for this process. Every read and write is positional."""

    def __init__(self, fd: int, folder_fd: int, name: str) -> None:
        self._fd = fd
        self._folder = folder_fd
        self.name = name

    def prepare(self, chunks: Sequence[Chunk]) -> set[int]:
        """Set the file's size; return which chunks are in it already, by their hashes.

        Raises:
            TargetError: the others have no room on the disk.
        """
        size = sum(chunk.size for chunk in chunks)
        held = _matching(self._fd, chunks) if os.fstat(self._fd).st_size else set()
        missing = size - sum(chunk.size for chunk in chunks if chunk.index in held)
        room = os.fstatvfs(self._fd)
        if missing > room.f_bavail * room.f_frsize:
            free = room.f_bavail * room.f_frsize
            raise TargetError(f"the disk has room for {free} bytes, {missing} are needed")
        os.ftruncate(self._fd, size)
        return held

    def write(self, offset: int, body: memoryview) -> None:
        """Write all of a block at its place."""
        written = 0
        while written < len(body):
            end = min(written + WRITE_BYTES, len(body))
            written += os.pwrite(self._fd, body[written:end], offset + written)
        if hasattr(os, "posix_fadvise"):
            # The kernel begins to write it to the disk now, and the sync at the end has little left to do.
            os.posix_fadvise(self._fd, offset, written, os.POSIX_FADV_DONTNEED)

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Return the bytes `[start, end)` in small pieces."""
        return _read(self._fd, start, end)

    def finish(self, modified_at: datetime | None) -> None:
        """Set the source's time and have all of it on the disk."""
        if modified_at:
            seconds = modified_at.timestamp()
            os.utime(self._fd, (seconds, seconds))
        os.fsync(self._fd)

    def remove(self) -> None:
        """Delete it: what it holds is of no use."""
        os.unlink(self.name, dir_fd=self._folder)


@contextmanager
def open_target(root: str, segments: Sequence[str], *, create: bool) -> Iterator[Target]:
    """Open the folder of a destination; below `root` no link is followed.

    Parameters:
        root: a folder that the user named.
        segments: the folders below it and at last the file's name; none may be a path of its own.
        create: make missing folders, `root` too.

    Raises:
        TargetError: the folder is not there, is no folder, or may not be used.
    """
    if not segments or not all(is_plain_name(segment) for segment in segments):
        raise TargetError(f"{os.path.join(root, *segments)!r} is no name for a file")
    shown = os.path.join(root, *segments)
    try:
        if create:
            os.makedirs(root, FOLDER_MODE, exist_ok=True)
        folder = os.open(root, _FOLDER_FLAGS)
        try:
            for segment in segments[:-1]:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(segment, FOLDER_MODE, dir_fd=folder)
                below = os.open(segment, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = below
            yield Target(folder, segments[-1], shown)
        finally:
            os.close(folder)
    except OSError as error:
        raise TargetError(f"{shown} cannot be written: {error.strerror}") from error


def is_plain_name(segment: str) -> bool:
    """Return whether a name is one of a file or folder, and no way out of the folder it stands in."""
    return segment not in ("", ".", "..") and "/" not in segment and "\0" not in segment


def _matching(fd: int, chunks: Sequence[Chunk]) -> set[int]:
    """Return which chunks a file has at their places; a hole has none."""
    matching = set()
    offset = 0
    for chunk in chunks:
        if not _is_hole(fd, offset, offset + chunk.size):
            found = hashlib.sha256()
            for piece in _read(fd, offset, offset + chunk.size):
                found.update(piece)
            if agrees(chunk, found.hexdigest()):
                matching.add(chunk.index)
        offset += chunk.size
    return matching


def _is_hole(fd: int, start: int, end: int) -> bool:
    try:
        return os.lseek(fd, start, os.SEEK_DATA) >= end
    except OSError as error:
        return error.errno == errno.ENXIO  # no data behind `start`; EINVAL: this file system cannot tell


def _read(fd: int, start: int, end: int) -> Iterator[bytes]:
    while start < end and (piece := os.pread(fd, min(READ_BYTES, end - start), start)):
        start += len(piece)
        yield piece
