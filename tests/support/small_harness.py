"""The daemon without its threads, with chunks so small that a test of many faults is quick."""

import os

from config import Settings
from recording.stream import UNFINISHED, State
from tests.support.harness import Harness

SMALL_CHUNK = 256 * 1024
"""Smaller than a setting may be; nothing in the daemon depends on it."""

MAX_SECONDS = 31
"""Until a service is tried again and a failed turn repeated: `outages.BACKOFF_CAP_SECONDS` and a tick."""


def noise(size: int) -> bytes:
    return os.urandom(size)


class SmallHarness(Harness):
    """A daemon with chunks of `SMALL_CHUNK`."""

    def _load(self) -> Settings:
        return super()._load().replaced(upload={"chunk_size": SMALL_CHUNK})

    def finished(self, path: str) -> bool:
        """Return whether nothing is left to do at a path."""
        found = self.parts.checkpoints.find(path)
        return found is not None and found.state not in UNFINISHED | {State.FAILED}

    def until_open(self) -> int:
        """Let time pass until both services work; gives the seconds.

        Raises:
            AssertionError: it did not recover alone in the longest time between two tries.
        """
        for second in range(MAX_SECONDS + 1):
            self.work()
            if self.parts.breakers.works():
                return second
            self.clock.now += 1
        raise AssertionError(f"still an outage: {self.parts.breakers.failures()}")

    def until_finished(self, *paths: str, rounds: int = 10) -> None:
        """Let sources fall idle, also when turns fail a few times on the way."""
        for _ in range(rounds):
            self.until_open()
            self.fall_idle()
            if all(map(self.finished, paths)):
                return
        states = {path: self.parts.checkpoints.find(path) for path in paths}
        raise AssertionError(f"not finished: {states}")

    def chunk_names(self, key_path: str, generation: int = 1) -> list[str]:
        """List a generation's chunks without their folder."""
        under = self.generation(key_path, generation) + "chunks/"
        return [key.removeprefix(under) for key in self.keys(under)]
