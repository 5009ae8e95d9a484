"""Recorders of a soak: recording after recording, by every writer, and what people do to files afterwards."""

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.drills.soak_judge import Recording
from tests.support.harness import CHUNK
from tests.support.pacing import Pace, at_rate
from tests.support.writers import WRITERS, Written, sha256_of

SIZES = (CHUNK + 1, 2 * CHUNK + 1_000_000, 3 * CHUNK, 4 * CHUNK - 1)
MAX_THREADS = 5
"""Of one site."""

MAX_PAUSE_SECONDS = 6.0
MAX_DEED_SECONDS = 8.0
"""Between the end of a recording and what is done to its file: before or after it is complete."""

_UNLINKED = "deleted while it was written"
# Writers that do not care whether their file still has a name.
_MAY_LOSE_THEIR_FILE = ("copied", "head_patched", "head_patched_often", "allocated_and_filled")
_CHANCE_OF_LOSS = 0.3


class Recorders:
    """Threads that record until `stop`. Seed and chunk size decide what each of them does.

    Parameters:
        folder: the watched one.
        seed: of writers, sizes and actions.
        threads: how many record at the same time.
        bytes_per_second: of each.
        chunk_bytes: of the daemons that watch the folder.
        key_folder: of the key paths of what is recorded, empty or ending in `/`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        threads: int,
        bytes_per_second: float,
        chunk_bytes: int = CHUNK,
        key_folder: str = "",
    ) -> None:
        self._folder, self._rate = folder, bytes_per_second
        self._chunk_bytes, self._key_folder = chunk_bytes, key_folder
        self._stop, self._room, self._go = threading.Event(), threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._pauses = 0  # guarded by _lock
        self._finished: list[Recording] = []  # guarded by _lock
        self._errors: list[Exception] = []  # likewise
        self._threads = [
            threading.Thread(target=self._run, args=(number, seed), name=f"recorder-{number}")
            for number in range(threads)
        ]
        self.set_room(there_is=True)
        self._go.set()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let everybody write the rest of what was begun, at once, and end.

        Raises:
            Exception: what a writer raised.
        """
        for event in (self._stop, self._room, self._go):
            event.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def pause(self) -> None:
        """Let everybody stand still after the present piece, until each `pause` had its `resume`."""
        with self._lock:
            self._pauses += 1
            self._go.clear()

    def resume(self) -> None:
        with self._lock:
            self._pauses -= 1
            if not self._pauses:
                self._go.set()

    def set_room(self, *, there_is: bool) -> None:
        """Set whether there is room for new recordings; what was begun goes on."""
        if there_is or self._stop.is_set():
            self._room.set()
        else:
            self._room.clear()

    def finished(self) -> list[Recording]:
        """Take the recordings that ended since the last call.

        Raises:
            Exception: what a writer raised.
        """
        with self._lock:
            if self._errors:
                raise self._errors[0]
            ended, self._finished = self._finished, []
        return ended

    # ------------------------------------------------------------------ one thread

    def _run(self, thread: int, seed: int) -> None:
        # All have the same deck and begin at different cards, so that every writer comes soon. So have
        # all sites: the names of their files are the same.
        deck = sorted(WRITERS)
        random.Random(seed).shuffle(deck)
        rng, first = random.Random(f"{seed} {self._chunk_bytes} {thread}"), thread * len(deck) // MAX_THREADS
        count = 0
        while not self._stop.is_set():
            self._room.wait()
            name = deck[(first + count) % len(deck)]
            try:
                recording = self._record(thread * 10_000 + count, name, rng)
            except Exception as error:  # noqa: BLE001 - raised again by `finished` and `stop`
                with self._lock:
                    self._errors.append(error)
                return
            recording.ended_at = time.time()
            with self._lock:
                self._finished.append(recording)
            count += 1

    def _record(self, number: int, name: str, rng: random.Random) -> Recording:
        path = self._folder / f"{number:05d}-{name}.mp4"
        size, action = rng.choice(SIZES), rng.choice(_DEEDS)
        recording = Recording(number, name, time.time())
        loses = name in _MAY_LOSE_THEIR_FILE and rng.random() < _CHANCE_OF_LOSS
        pace = self._pace(path, rng.uniform(0.5, MAX_PAUSE_SECONDS), size // 2 if loses else None)
        written = WRITERS[name](path, size, pace)
        recording.written_bytes = sum(path.stat().st_size for path in written) if not loses else size
        if loses:
            recording.action = _UNLINKED
            return recording
        recording.files = written
        delay = rng.uniform(0, MAX_DEED_SECONDS)
        if action:
            self._stop.wait(delay)
            recording.action = action.__name__.strip("_")
            chosen = rng.choice(sorted(written))
            if action in _ENDINGS:
                key_path = self._key_folder + chosen.name
                recording.ended[key_path] = _chunks_of(chosen, self._chunk_bytes)
            action(written, chosen, rng)
        return recording

    def _pace(self, path: Path, pause_seconds: float, unlinked_after: int | None) -> Pace:
        rate = at_rate(self._rate, pause_seconds, self._stop)

        def step(written: int) -> None:
            if unlinked_after is not None and written > unlinked_after:
                path.unlink(missing_ok=True)
            self._go.wait()
            rate.step(written)

        return Pace(step, rate.pause)


# ---------------------------------------------------------------------- actions


def _renamed(files: Written, path: Path, rng: random.Random) -> None:
    number, _, name = path.name.partition("-")
    target = path.with_name(f"{number}-renamed-{name}")
    path.rename(target)
    files[target] = files.pop(path)


def _deleted(files: Written, path: Path, rng: random.Random) -> None:
    path.unlink()
    del files[path]


def _cut(files: Written, path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randint(0, path.stat().st_size // 2))
    files[path] = sha256_of(path)


def _grown(files: Written, path: Path, rng: random.Random) -> None:
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.randint(1, CHUNK)))
    files[path] = sha256_of(path)


def _patched(files: Written, path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.seek(rng.randint(0, path.stat().st_size))
        file.write(rng.randbytes(16))
    files[path] = sha256_of(path)


def _touched(files: Written, path: Path, rng: random.Random) -> None:
    path.touch()


def _replaced(files: Written, path: Path, rng: random.Random) -> None:
    other = path.with_name(f".{path.name}.new")
    other.write_bytes(rng.randbytes(rng.randint(0, 2 * CHUNK)))
    other.replace(path)
    files[path] = sha256_of(path)


Action = Callable[[Written, Path, random.Random], None]
_DEEDS: tuple[Action | None, ...] = (
    *[None] * 8,
    _renamed,
    _renamed,
    _deleted,
    _deleted,
    _cut,
    _grown,
    _patched,
    _touched,
    _replaced,
)
_ENDINGS = (_deleted, _cut, _replaced)


def _chunks_of(path: Path, chunk_bytes: int) -> list[str]:
    """Spell the chunks of a file as keys do."""
    with path.open("rb") as file:
        bodies = iter(lambda: file.read(chunk_bytes), b"")
        return [hashlib.sha256(body).hexdigest()[:12] for body in bodies]
