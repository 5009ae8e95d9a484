"""Files that look like recordings and match no pattern: logged once, and counted by every full scan."""

from pathlib import Path
from typing import Any

import pytest

from folder.other_videos import OtherVideos, is_video_name
from folder.scan import FolderScan


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    event = "videos that match no pattern are not uploaded"
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    return [line for line in lines if line["event"] == event]


def test_they_are_counted_by_every_full_scan_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scan = FolderScan(str(tmp_path), ("*.mp4",))
    (tmp_path / "cam").mkdir()
    for name in ("cam/b.mkv", "cam/a.TS", "notes.txt", "good.mp4", "cam/.hidden.mkv"):
        (tmp_path / name).write_bytes(b"x")
    assert [path for path, _ in scan.everything()] == ["good.mp4"]
    assert scan.other_videos.last == OtherVideos(2, "cam/a.TS")
    (line,) = told(caplog)
    assert (line["files"], line["path"], line["patterns"]) == (2, "cam/a.TS", "*.mp4")
    assert "FILE_PATTERNS" in line["hint"]
    (tmp_path / "cam/a.TS").unlink()
    list(scan.everything())
    assert scan.other_videos.last == OtherVideos(1, "cam/b.mkv")
    assert len(told(caplog)) == 1


def test_what_a_scan_of_one_folder_sees_does_not_count_twice(tmp_path: Path) -> None:
    scan = FolderScan(str(tmp_path), ("*.mp4",))
    (tmp_path / "a.mkv").write_bytes(b"x")
    list(scan.everything())
    list(scan.below(""))
    assert scan.other_videos.last == OtherVideos(1, "a.mkv")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("a.mkv", True), ("A.MOV", True), ("a.mp4", True), ("a.jpg", False), (".a.mkv", False), ("mkv", False)],
)
def test_a_video_is_known_by_its_ending(name: str, wanted: bool) -> None:  # noqa: FBT001
    assert is_video_name(name) is wanted
