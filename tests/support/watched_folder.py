"""A folder under a real observer, stepped by the test, for the tests of watching and scanning."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import metrics
from folder.scan import ScanRequests
from folder.watch import FolderWatch
from scheduling.schedule import Schedule
from settings.folder import FolderSettings
from tests.support.harness import Clock
from tests.support.pacing import wait_until

if TYPE_CHECKING:
    from recording.stream import Signature

INTERVAL = 60.0
"""Seconds between two full scans."""

PATTERNS = ("*.mp4",)


class Watched:
    """A folder that is watched, and what was told of it. `step` is called as the watcher's thread would."""

    def __init__(self, root: Path, mode: str = "native", patterns: tuple[str, ...] = PATTERNS) -> None:
        self.root = root
        self.clock = Clock()
        self.noticed: set[str] = set()  # by the observer's thread
        self.found: dict[str, Signature] = {}
        self.scans = 0
        listener = _Listener(self)
        settings = FolderSettings().model_copy(
            update={
                "watch_dir": root,
                "file_patterns": patterns,
                "watch_mode": mode,
                "scan_interval_seconds": INTERVAL,
            }
        )
        self.watch = FolderWatch(
            settings,
            requests=ScanRequests(),
            schedule=_Schedule(self),
            listener=listener,
            clock=self.clock,
        )

    def step(self, seconds: float = 1.0) -> None:
        self.clock.now += seconds
        self.watch.step()

    def forget(self) -> None:
        self.noticed.clear()
        self.found.clear()
        self.scans = 0

    def write(self, path: str, content: bytes = b"x") -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return target

    def sees(self, path: str) -> None:
        """Wait until an event told of a path."""
        wait_until(lambda: path in self.noticed, message=f"no event told of {path!r}, only {self.noticed}")

    def settled(self) -> None:
        """Wait until every event up to now was handled: the last of all is about a file of ours."""
        name = f"marker{random.random()}.mp4"
        (self.root / name).touch()
        self.sees(name)
        (self.root / name).unlink()
        wait_until(lambda: self.watch._observer is None or self.watch._observer.event_queue.empty())


class _Schedule(Schedule):
    """Only takes note of the paths whose sources may have changed."""

    def __init__(self, watched: Watched) -> None:
        super().__init__(max_finishing=1)
        self._watched = watched

    def touched(self, path: str) -> None:
        self._watched.noticed.add(path)


class _Listener:
    """Takes note of what scans see."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def folder_appeared(self) -> None:
        pass

    def found(self, path: str, signature: "Signature") -> None:
        self._watched.found[path] = signature

    def scanned(self) -> None:
        self._watched.scans += 1


@contextmanager
def watching(root: Path, **options: Any) -> Iterator[Watched]:
    """Watch a folder until the end of the block."""
    watched = Watched(root, **options)
    try:
        yield watched
    finally:
        watched.watch.stop()


def events_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The events that were logged up to now, without their values."""
    return [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]


def value(name: str, **labels: str) -> float:
    """One of our series as it is now."""
    return metrics.REGISTRY.get_sample_value(f"video_uploader_{name}", labels) or 0.0
