"""Starting a program and reading what it costs the machine: wall and CPU seconds, peak memory."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

_SAMPLE_SECONDS = 0.01


class Cost(NamedTuple):
    """What a process cost from its start to its end; `peak_mb` is its largest resident set (VmHWM), in MB."""

    wall_seconds: float
    cpu_seconds: float
    peak_mb: float


class Program:
    """A running program.

    Parameters:
        command: program and arguments.
        cwd: where it runs.
        env: its whole environment.
        stdout: where its output goes.
        stderr: the same for errors; `subprocess.PIPE` lets the caller read them.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
    ) -> None:
        self.started_at = time.time()
        self._clock_start = time.monotonic()
        self._process = subprocess.Popen(
            list(command), cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
        self._ended = threading.Event()
        self._peak_mb = 0.0
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def lines(self) -> Iterator[bytes]:
        """Yield its lines on stderr, until it ends; only with `stderr=subprocess.PIPE`."""
        yield from self._process.stderr or ()

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it, if it still runs."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait(check=False)

    def wait(self, *, check: bool = True) -> Cost:
        """Wait for its end.

        Parameters:
            check: whether an exit code other than 0 is an error.

        Raises:
            RuntimeError: it failed.
        """
        _, status, usage = os.wait4(self.pid, 0)
        wall = time.monotonic() - self._clock_start
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()
        self._sampler.join()
        if check and self._process.returncode != 0:
            raise RuntimeError(f"exit code {self._process.returncode} of {self._process.args!r}")
        return Cost(wall, usage.ru_utime + usage.ru_stime, self._peak_mb)

    def _sample(self) -> None:
        # `ru_maxrss` will not do: it counts what the child shared with us between fork and exec.
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._peak_mb = max(self._peak_mb, peak_mb(self.pid))


def peak_mb(pid: int) -> float:
    """Return the largest resident set that a process has had, in MB (10^6 bytes); 0 when it has ended."""
    return _status_mb(pid, "VmHWM:")


def resident_mb(pid: int) -> float:
    """Return the resident set of a process now, in MB (10^6 bytes); 0 when it has ended."""
    return _status_mb(pid, "VmRSS:")


def _status_mb(pid: int, name: str) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that the living threads of a process have used, to the nanosecond."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(OSError):
            total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text(encoding="ascii").split()[0])
    return total / 1e9


def child_environment(**more: str) -> dict[str, str]:
    """Return the few variables that every program gets: nothing of this machine's AWS or proxy settings."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    return inherited | {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull} | more
