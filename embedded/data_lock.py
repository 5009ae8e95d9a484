"""The lock of the data folder: one daemon at a time, also while the servers of a killed one still leave."""

import fcntl
import os
import threading
import time
from pathlib import Path

from errors import ConfigError

LOCK_SECONDS = 5.0
"""After kill -9 of the daemon its servers flush and leave on their own; this is time enough for that."""

_POLL_SECONDS = 0.02


class StopRequested(Exception):
    """The `stop` event was set while we waited."""


class DataLock:
    """One daemon at a time in a data folder, also when an earlier one left its servers behind.

    The servers inherit the locked file, so the lock is free only when daemon and servers are all gone.
    The file names their process ids; it is empty after a clean stop.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def fileno(self) -> int:
        """Return the descriptor, for child processes that hold the lock, too."""
        return self._fd

    def acquire(self, timeout_seconds: float, stop: threading.Event) -> bool:
        """Take the lock; true if the last holder stopped cleanly."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            wait_for_lock(fd, self._path, timeout_seconds, stop)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        was_clean = os.fstat(fd).st_size == 0
        self.note([os.getpid()])
        return was_clean

    def note(self, pids: list[int]) -> None:
        """Write down whose data it is now, for whoever finds the folder in use."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, " ".join(map(str, pids)).encode(), 0)

    def release(self, *, clean: bool) -> None:
        """Let others have the folder; `clean` says that the servers ended as they should."""
        if self._fd < 0:
            return
        if clean:
            os.ftruncate(self._fd, 0)
        os.close(self._fd)
        self._fd = -1


def wait_for_lock(fd: int, path: Path, timeout_seconds: float, stop: threading.Event) -> None:
    """Lock an open file.

    Raises:
        ConfigError: somebody else has it for longer than that.
        StopRequested: meanwhile.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConfigError([_describe_holders(fd, path)]) from None
        else:
            return
        if stop.wait(_POLL_SECONDS):
            raise StopRequested


def _describe_holders(fd: int, path: Path) -> str:
    living = [pid for pid in os.pread(fd, 1000, 0).decode().split() if pid.isdigit() and _lives(int(pid))]
    return (
        f"{path.parent} is in use (process ids: {' '.join(living) or 'unknown'}; see {path}): either a daemon"
        " runs there, and one is enough; or one was killed and its servers are left: end them, or use another"
        " folder"
    )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
