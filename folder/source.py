"""Reading a source: opened without following links or blocking, never written."""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from errors import PermanentError, SourceGone, TransientError, files_hint
from folder import birth_time
from recording.stream import Signature, Stream

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO named x.mp4 would block for ever; it changes nothing for regular files.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_LINK_OR_DEVICE = (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.ENODEV)


class _ChunkBuffer(threading.local):
    """One chunk for each worker, used again for every chunk.

    A new one of 10 MiB each time costs 2,560 page faults, and malloc keeps a second one for each thread.
    """

    held = bytearray()


_chunk_buffer = _ChunkBuffer()


class Source:
    """One open source. Made by `open_source`; every read is positional.

    Every method raises `TransientError` when the file system fails.
    """

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path

    def signature(self) -> Signature:
        """Ask the kernel for size, times and identity as they are now."""
        with translated(self._path):
            return Signature.of(os.fstat(self._fd))

    def read(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at `offset`; fewer only where the file ends."""
        with translated(self._path):
            piece = os.pread(self._fd, length, offset)
            if len(piece) == length or not piece:
                return piece
            pieces = [piece]
            total = len(piece)
            while total < length and (piece := os.pread(self._fd, length - total, offset + total)):
                pieces.append(piece)
                total += len(piece)
            return b"".join(pieces)

    def read_chunk(self, offset: int, length: int) -> bytearray | bytes:
        """Read up to `length` bytes at `offset`, as `read` does, into this thread's buffer.

        The next call in the same thread overwrites what this one gave.
        """
        if len(_chunk_buffer.held) != length:
            _chunk_buffer.held = bytearray()  # the old one goes before the new one comes
            _chunk_buffer.held = bytearray(length)
        total = 0
        with translated(self._path), memoryview(_chunk_buffer.held) as view:
            while total < length and (count := os.preadv(self._fd, [view[total:]], offset + total)):
                total += count
            return _chunk_buffer.held if total == length else bytes(view[:total])

    def hole_before(self, start: int, end: int) -> bool:
        """Return whether a hole begins in `[start, end)` (bytes).

        A hole in a growing file is a range that a preallocating writer has not filled yet. File
        systems without holes report the end of the file, so the answer is then false.
        """
        try:
            return os.lseek(self._fd, start, os.SEEK_HOLE) < end
        except OSError:  # ENXIO: the file ends before `start`; EINVAL: no SEEK_HOLE here
            return False

    def data_bytes(self, start: int = 0, end: int | None = None) -> int:
        """Return how many bytes in `[start, end)` are no hole; of the whole file without an `end`.

        A file that was reserved and never written has none. File systems without holes count every byte.
        """
        return sum(until - begin for begin, until in self.data_ranges(start, end))

    def data_ranges(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """Find the ranges in `[start, end)` that are no hole, as (first byte, byte after the last).

        In ascending order, one system call for each end of a range. The file may grow meanwhile: what
        lies behind its size at the call is not looked at.
        """
        size = self.signature().size
        end = size if end is None else min(end, size)
        while start < end:
            try:
                begin = os.lseek(self._fd, start, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.EINVAL:  # no SEEK_DATA here
                    yield start, end
                elif error.errno != errno.ENXIO:  # ENXIO: nothing but a hole follows
                    with translated(self._path):
                        raise
                return
            if begin >= end:
                return
            with translated(self._path):
                until = min(os.lseek(self._fd, begin, os.SEEK_HOLE), end)
            yield begin, until
            start = until

    def born_ns(self) -> int:
        """Return when the file was made (ns since the epoch); 0 where the file system keeps no such time.

        No program can set it, so a file that was deleted and made anew has another one, also when it
        got the old inode number.
        """
        with translated(self._path):
            return birth_time.born_ns(self._fd)


@contextmanager
def open_source(root: str, path: str) -> Iterator[Source]:
    """Open the source at a relative path, one folder at a time, following no link.

    Parameters:
        root: the watched folder; it alone may be a link.
        path: relative to it, `/`-separated.

    Raises:
        SourceGone: nothing is there, or a link took a folder's place.
        PermanentError: it may not be read, or it is no regular file.
        TransientError: the file system failed (I/O error, stale handle, too many open files).
    """
    with translated(path):
        fd = _open_beneath(root, path)
    try:
        with translated(path):
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise PermanentError("not a regular file; only regular files are uploaded", kind="not_a_file")
        yield Source(fd, path)
    finally:
        os.close(fd)


def _open_beneath(root: str, path: str) -> int:
    *folders, name = parts = path.split("/")
    if "\0" in path or not {"", ".", ".."}.isdisjoint(parts):  # no scan gives it: a damaged record
        raise SourceGone(path)
    folder = _open_root(root)
    try:
        for part in folders:
            below = os.open(part, _DIR_FLAGS, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.open(name, _FILE_FLAGS, dir_fd=folder)
    finally:
        os.close(folder)


def _open_root(root: str) -> int:
    try:
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:  # no fault of this source, so it must not fail for it
        raise _failed("the watched folder cannot be opened", error) from error


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn the `OSError` of working on a source into our own errors."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceGone(path) from error
    except PermissionError as error:
        raise PermanentError("the daemon may not read it", kind="unreadable") from error
    except OSError as error:
        if error.errno in _LINK_OR_DEVICE:
            raise PermanentError(
                "a link or a device; only regular files are uploaded", kind="not_a_file"
            ) from error
        raise _failed("reading it failed", error) from error


def _failed(what: str, error: OSError) -> TransientError:
    return TransientError(f"{what}: {error.strerror or error}", kind="source_io", hint=files_hint(error))


def signature_at(root: str, stream: Stream) -> Signature | None:
    """Return the signature of a stream's source now; None when it is gone or another file took its place.

    Parameters:
        root: the watched folder.
        stream: its record.
    """
    try:
        found = os.stat(os.path.join(root, stream.path), follow_symlinks=False)
    except (OSError, ValueError):  # ValueError: no path at all
        return None
    # By the inode alone: another machine may have another number for the same volume.
    same = stat.S_ISREG(found.st_mode) and found.st_ino == stream.signature.ino
    return Signature.of(found) if same else None
