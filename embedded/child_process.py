"""One server program as a child process that ends with the daemon, and its last lines of output."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from errors import ChildDied

_LAST_LINES = 20
_READER_SECONDS = 1.0
# Valkey ends with 0, rclone as a shell would say it, the launcher by the signal itself.
_LEFT_AS_ASKED = (0, 128 + signal.SIGTERM, -signal.SIGTERM)
# Nothing else: a user's AWS_*, RCLONE_* and proxy variables must not change what the servers do.
_INHERITED_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ")

# Runs in the new process and becomes the server. PR_SET_PDEATHSIG (1) survives the exec, so the kernel
# ends the server when the daemon is killed -9. A `preexec_fn` would run Python between fork and exec in a
# process that may have threads, and `setpriv --pdeathsig` is not on every machine; this needs neither.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that started this server is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class ChildProcess:
    """One server process, with its last lines of output.

    On Linux the kernel ends it together with the thread that creates this.

    Parameters:
        name: for people.
        command: the program's absolute path and its arguments; secrets belong into `stdin` or `env`.
        cwd: where it runs.
        stdin: all that it can read there.
        env: added to the few variables that it inherits.
        lock_fd: inherited by the server, so that the lock stays taken for as long as it lives.
    """

    def __init__(
        self, name: str, command: list[str], *, cwd: Path, stdin: str, env: Mapping[str, str], lock_fd: int
    ) -> None:
        self.name = name
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._lines_lock = threading.Lock()  # guards _lines
        inherited = {key: os.environ[key] for key in _INHERITED_ENVIRONMENT if key in os.environ}
        self._process = subprocess.Popen(  # noqa: S603 - both programs come from our own packages
            launched(command),
            cwd=cwd,
            env={**inherited, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=[lock_fd],
            umask=0o077,  # what they store is nobody else's
            start_new_session=True,  # the terminal's Ctrl-C is for the daemon, which ends its servers last
        )
        self._reader = threading.Thread(target=self._read, name=f"embedded-{name}", daemon=True)
        self._reader.start()
        with suppress(BrokenPipeError), cast("IO[str]", self._process.stdin) as pipe:
            pipe.write(stdin)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def last_lines(self) -> list[str]:
        """The last 20 lines it printed; safe from any thread."""
        with self._lines_lock:
            return list(self._lines)

    def described_lines(self) -> str:
        """The same for an error message."""
        lines = self.last_lines()
        return "its last lines:\n  " + "\n  ".join(lines) if lines else "it printed nothing"

    def check(self) -> None:
        """See that it still runs.

        Raises:
            ChildDied: it does not; with its exit code or signal and its last lines.
        """
        code = self._process.poll()
        if code is None:
            return
        self._reader.join(_READER_SECONDS)
        ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise ChildDied(f"{self.name} {ended}; {self.described_lines()}")

    def stop(self, deadline: float) -> bool:
        """End it; what ignores SIGTERM is killed at the deadline.

        Parameters:
            deadline: by `time.monotonic`.

        Returns:
            True if it still ran and left at the SIGTERM.
        """
        still_ran = self._process.poll() is None
        self._process.terminate()
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_READER_SECONDS)
        return still_ran and self._process.returncode in _LEFT_AS_ASKED

    def _read(self) -> None:
        """Empty the pipe, so that a full one never blocks the server."""
        with cast("IO[str]", self._process.stdout) as pipe:
            for line in pipe:
                with self._lines_lock:
                    self._lines.append(line.rstrip())


def launched(command: list[str]) -> list[str]:
    """The command that runs `command` so that it gets SIGTERM when the calling thread ends (on Linux)."""
    if sys.platform != "linux":
        return command  # there is no PR_SET_PDEATHSIG; the lock still tells the next daemon
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
