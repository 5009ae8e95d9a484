"""Waiting in tests, and when a writer of `writers.py` may go on: at once, at a rate, or step by step."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

_WAIT_SECONDS = 30.0
_POLL_SECONDS = 0.01

Result = TypeVar("Result")


def wait_until(predicate: Callable[[], Result], timeout_seconds: float = 10.0, message: str = "") -> Result:
    """Ask until the answer is true, and return it: the only way in which a test waits.

    Raises:
        AssertionError: it was never true within the time.
    """
    deadline = time.monotonic() + timeout_seconds
    pause = threading.Event()
    while not (result := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(message or f"not within {timeout_seconds:g} s: {predicate}")
        pause.wait(_POLL_SECONDS)
    return result


def _go_on(_written: int = 0) -> None:
    """Never wait."""


@dataclass(frozen=True)
class Pace:
    """Both calls may block, or raise to end the writer where it stands.

    Parameters:
        step: called after each piece with the bytes written so far in this act; ffmpeg may still
            hold some of them in memory.
        pause: called between the two acts of a writer that has two.
    """

    step: Callable[[int], None] = _go_on
    pause: Callable[[], None] = _go_on


AT_ONCE = Pace()


def at_rate(bytes_per_second: float, pause_seconds: float, stop: threading.Event) -> Pace:
    """A live recorder's pace; once `stop` is set the rest is written at once."""
    act_began = time.monotonic()

    def step(written: int) -> None:
        stop.wait(max(0.0, act_began + written / bytes_per_second - time.monotonic()))

    def pause() -> None:
        nonlocal act_began
        stop.wait(pause_seconds)
        act_began = time.monotonic()

    return Pace(step, pause)


class Stepper(Generic[Result]):
    """A writer on its own thread that goes only as far as it is told; at first to its first piece.

    Leaving the `with` block lets it run to its end. What the writer raises, the next call raises.
    """

    def __init__(self, writer: Callable[[Path, int, Pace], Result], path: Path, total_bytes: int) -> None:
        self._changed = threading.Condition()  # guards all that follows but the thread
        self._limit: float = 0
        self._passes_pauses = False
        self._orders = 0
        self._stands = self._ended = False
        self._error: Exception | None = None
        self._results: list[Result] = []
        self._thread = threading.Thread(target=self._run, args=(writer, path, total_bytes), name="writer")

    def __enter__(self) -> Self:
        self._thread.start()
        self.write_to(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._order(math.inf, passes_pauses=True)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def write_to(self, written_bytes: float) -> None:
        """Let it write until it has at least so many bytes; less if it comes to its pause or end before."""
        self._order(written_bytes, passes_pauses=False)
        self._await()

    def write_to_pause(self) -> None:
        """Let it write until it pauses between its two acts."""
        self.write_to(math.inf)

    def finish(self) -> Result:
        """Let it write to its end, through its pauses; what the writer returned."""
        self._order(math.inf, passes_pauses=True)
        self._await()
        return self._results[0]

    def _order(self, limit: float, *, passes_pauses: bool) -> None:
        with self._changed:
            self._limit, self._passes_pauses, self._stands = limit, passes_pauses, False
            self._orders += 1
            self._changed.notify_all()

    def _await(self) -> None:
        with self._changed:
            stands = self._changed.wait_for(lambda: self._stands or self._ended, _WAIT_SECONDS)
        assert stands, "the writer is stuck"
        if self._error is not None:
            raise self._error

    def _run(self, writer: Callable[[Path, int, Pace], Result], path: Path, total_bytes: int) -> None:
        try:
            self._results.append(writer(path, total_bytes, Pace(self._step, self._pause)))
        except Exception as error:  # noqa: BLE001 - it is raised again where the writer is waited for
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _step(self, written: int) -> None:
        with self._changed:
            while written >= self._limit:
                self._stand()

    def _pause(self) -> None:
        with self._changed:
            if not self._passes_pauses:
                self._stand()

    def _stand(self) -> None:
        """Announce that it stands, and wait for the next order."""
        orders, self._stands = self._orders, True
        self._changed.notify_all()
        self._changed.wait_for(lambda: self._orders != orders)
