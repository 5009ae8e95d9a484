"""Cameras that went silent: which interval is usual in a folder is learned from what lies there."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import logs
import metrics
from recording.stream import Signature

log = logs.get_logger(__name__)

SLOT_SECONDS = 900
"""What is remembered is in which quarters of an hour something was recorded: at most 1,344 of a folder."""

LEARNED_SECONDS = 14 * 86_400.0
"""So long it is remembered: nights and weekends are among the intervals that are usual then."""

MIN_SLOTS = 5
"""Recordings in fewer of them teach nothing: a folder into which some files were copied is no camera."""

MIN_SILENCE_SECONDS = 1_800.0
"""A shorter silence is none, however steady the camera."""

FACTOR = 2
"""Times as long as the longest interval so far is a silence."""

MAX_SILENCE_SECONDS = 7 * 86_400.0
"""After a longer one the camera is taken for retired."""

COPIED_SECONDS = 3_600.0
"""A file whose inode changed so much later than its content was copied or moved here, not recorded."""

MAX_CAMERAS = 1_000
"""That are learned; further folders are left out."""


class Silence(NamedTuple):
    """A camera that went silent.

    `last_at` is when something was last recorded in its folder, in seconds since the epoch, `usual_seconds`
    the longest interval between two recordings before.
    """

    folder: str
    last_at: float
    usual_seconds: float


@dataclass(slots=True)
class _Camera:
    slots: set[int] = field(default_factory=set)
    last_at: float = 0.0


def camera_of(path: str) -> str:
    """Return the folder that stands for a camera, without those in it that only say when (`2026-11-21/14`).

    Parameters:
        path: of a source, relative to the watched folder.
    """
    parts = [part for part in path.split("/")[:-1] if any(char.isalpha() for char in part)]
    return "/".join(parts)


def look_for_silence(
    sources: Iterable[tuple[str, Signature]], *, at_most_seconds: float
) -> tuple[Silence, ...]:
    """Return who is silent, as far as the files tell that lie there now; nobody if they are too many.

    Parameters:
        sources: with their signatures.
        at_most_seconds: for the look.
    """
    silences, ends_at = SilentFolders(), time.monotonic() + at_most_seconds
    for path, signature in sources:
        if time.monotonic() > ends_at:
            return ()
        silences.note(path, signature)
    return silences.find(time.time())


class SilentFolders:
    """Learns from each full scan, and tells who went silent. Owned by the scanner's thread.

    Parameters:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._cameras: dict[str, _Camera] = {}
        self._logged: set[str] = set()
        self.silent: tuple[Silence, ...] = ()
        """Those that were silent at the last full scan, the longest first. For any thread."""

    def note(self, path: str, signature: Signature) -> None:
        """Take note of a source."""
        at = signature.mtime_ns / 1e9
        now = self._clock()
        copied = signature.ctime_ns / 1e9 - at > COPIED_SECONDS
        if copied or not now - LEARNED_SECONDS < at < now + SLOT_SECONDS:
            return
        name = camera_of(path)
        camera = self._cameras.get(name)
        if camera is None:
            if len(self._cameras) >= MAX_CAMERAS:
                return
            camera = self._cameras[name] = _Camera()
        camera.slots.add(int(at // SLOT_SECONDS))
        camera.last_at = max(camera.last_at, at)

    def end(self) -> None:
        """End a full scan: see who is silent, and log who became so and who was heard again."""
        now = self._clock()
        self.silent = self.find(now)
        metrics.SILENT_FOLDERS.set(len(self.silent))
        self._log(now)

    def find(self, now: float) -> tuple[Silence, ...]:
        """Return who is silent now (seconds since the epoch), the longest first."""
        oldest = int((now - LEARNED_SECONDS) // SLOT_SECONDS)
        found = []
        for name, camera in list(self._cameras.items()):
            camera.slots = {slot for slot in camera.slots if slot >= oldest}
            if not camera.slots:
                del self._cameras[name]
            elif silence := _silence(name, camera, now):
                found.append(silence)
        return tuple(sorted(found, key=lambda each: each.last_at))

    def _log(self, now: float) -> None:
        silent = {each.folder: each for each in self.silent}
        for name in sorted(silent.keys() - self._logged):
            seconds = round(now - silent[name].last_at)
            usual = round(silent[name].usual_seconds)
            log.warning("camera silent", folder=name or ".", seconds=seconds, usual_seconds=usual)
        for name in sorted(self._logged - silent.keys()):
            log.info("camera heard again", folder=name or ".")
        self._logged = set(silent)


def _silence(name: str, camera: _Camera, now: float) -> Silence | None:
    slots = sorted(camera.slots)
    if len(slots) < MIN_SLOTS:
        return None
    longest = max(after - before for before, after in pairwise(slots)) * SLOT_SECONDS
    least = max(FACTOR * longest, MIN_SILENCE_SECONDS)
    silent = least < now - camera.last_at <= MAX_SILENCE_SECONDS
    return Silence(name, camera.last_at, longest) if silent else None
