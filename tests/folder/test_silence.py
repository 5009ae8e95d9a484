"""A camera that went silent is told; one that pauses as usual, a retired one and copies are not."""

import logging
from pathlib import Path

import pytest

from folder.scan import FolderScan
from folder.silence import (
    FACTOR,
    MAX_SILENCE_SECONDS,
    MIN_SILENCE_SECONDS,
    SLOT_SECONDS,
    SilentFolders,
    camera_of,
)
from recording.stream import Signature
from tests.support.watched_folder import value

HOUR = 3600.0
DAY = 24 * HOUR
NOW = 1_763_700_000.0


class Wall:
    """The time of day, moved by a test alone."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def recorded(at: float, *, copied_at: float | None = None) -> Signature:
    return Signature(1, int(at * 1e9), int((copied_at or at) * 1e9), 1, 1)


def scanned(silences: SilentFolders, *times: float, path: str = "cam07/a.mp4") -> list[str]:
    """Scan a folder that holds recordings of these times; returns who is silent."""
    for at in times:
        silences.note(path, recorded(at))
    silences.end()
    return [each.folder for each in silences.silent]


def every(seconds: float, until: float, *, count: int = 20) -> list[float]:
    return [until - seconds * number for number in range(count)]


def test_a_camera_is_silent_after_twice_its_longest_interval(caplog: pytest.LogCaptureFixture) -> None:
    wall = Wall()
    silences = SilentFolders(wall)
    usual = every(HOUR, NOW)
    assert scanned(silences, *usual) == []
    wall.now = NOW + FACTOR * HOUR
    assert scanned(silences, *usual) == []
    wall.now += 3 * HOUR
    assert scanned(silences, *usual) == ["cam07"]
    (silence,) = silences.silent
    assert (silence.last_at, silence.usual_seconds) == (NOW, HOUR)
    assert value("silent_folders") == 1
    scanned(silences, *usual)
    (line,) = [record.msg for record in caplog.records if record.levelno == logging.WARNING]
    assert isinstance(line, dict)
    assert (line["folder"], line["seconds"]) == ("cam07", 5 * HOUR)
    assert scanned(silences, wall.now) == []
    assert value("silent_folders") == 0


def test_the_nights_of_a_camera_that_records_by_day_are_no_silence() -> None:
    wall = Wall()
    silences = SilentFolders(wall)
    days = [NOW - day * DAY - hour * HOUR for day in range(5) for hour in range(10)]
    wall.now = NOW + 14 * HOUR
    assert scanned(silences, *days) == []
    wall.now = NOW + 3 * DAY
    assert scanned(silences, *days) == ["cam07"]


def test_a_steady_camera_may_pause_for_half_an_hour() -> None:
    wall = Wall()
    silences = SilentFolders(wall)
    steady = every(60, NOW, count=200)
    wall.now = NOW + MIN_SILENCE_SECONDS
    assert scanned(silences, *steady) == []
    wall.now += 1
    assert scanned(silences, *steady) == ["cam07"]


def test_what_is_learned_stays_when_the_files_are_deleted() -> None:
    wall = Wall()
    silences = SilentFolders(wall)
    scanned(silences, *every(HOUR, NOW))
    wall.now += 5 * HOUR
    assert scanned(silences) == ["cam07"]


def test_too_little_was_recorded_to_learn_from() -> None:
    wall = Wall()
    silences = SilentFolders(wall)
    wall.now += 10 * HOUR
    assert scanned(silences, *every(HOUR, NOW, count=4)) == []
    assert scanned(silences, *[NOW - number for number in range(100)]) == []


def test_copies_with_old_times_are_no_camera() -> None:
    wall = Wall()
    silences = SilentFolders(wall)
    for at in every(HOUR, NOW - 10 * HOUR):
        silences.note("old/a.mp4", recorded(at, copied_at=NOW))
    silences.end()
    assert silences.silent == ()


def test_a_camera_that_is_silent_for_very_long_is_retired_and_then_forgotten() -> None:
    wall = Wall()
    silences = SilentFolders(wall)
    usual = every(HOUR, NOW)
    wall.now = NOW + MAX_SILENCE_SECONDS
    assert scanned(silences, *usual) == ["cam07"]
    wall.now += SLOT_SECONDS
    assert scanned(silences, *usual) == []
    wall.now += 30 * DAY
    assert scanned(silences, *usual) == []
    assert not silences._cameras


@pytest.mark.parametrize(
    ("path", "camera"),
    [
        ("cam07/14-00.mp4", "cam07"),
        ("cam07/2026-11-21/14/00.12.mp4", "cam07"),
        ("2026-11-21/14/front door/00.12.mp4", "front door"),
        ("site 2/cam07/a.mp4", "site 2/cam07"),
        ("a.mp4", ""),
    ],
)
def test_folders_that_only_say_when_are_no_cameras(path: str, camera: str) -> None:
    assert camera_of(path) == camera


def test_a_full_scan_teaches_and_asks_and_without_the_setting_it_does_not(tmp_path: Path) -> None:
    (tmp_path / "cam07").mkdir()
    (tmp_path / "cam07/a.mp4").write_bytes(b"x")
    scan = FolderScan(str(tmp_path), ("*.mp4",))
    list(scan.everything())
    scan.silences = SilentFolders()
    assert [path for path, _ in scan.everything()] == ["cam07/a.mp4"]
    assert scan.silences._cameras.keys() == {"cam07"}
