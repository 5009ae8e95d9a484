"""Scans: what is a source, what is skipped and said, what is deleted meanwhile, and when scans come."""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from folder.scan import LATE_SECONDS, MAX_SKIPPED_NAMES, FolderScan, ScanRequests, is_source_name
from recording.stream import Signature
from tests.support.watched_folder import INTERVAL, PATTERNS, Watched, events_of, value, watching


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def watched(root: Path) -> Iterator[Watched]:
    """The folder, watched by events, after its first scan."""
    with watching(root) as watched:
        watched.step()
        watched.forget()
        yield watched


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The events that were logged up to now."""
    caplog.set_level("INFO")
    return lambda: events_of(caplog)


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["a.mp4", "A.MP4", "a.b.Mp4", "a\nb.mp4", " .mp4", os.fsdecode(b"\xff.mp4")])
def test_a_name_that_matches_is_that_of_a_source(name: str) -> None:
    assert is_source_name(name, PATTERNS)


@pytest.mark.parametrize("name", ["a.mp4.tmp", "a.mp4~", ".a.mp4", ".mp4", "a.mkv", "mp4", "a.mp4\n", ""])
def test_a_name_that_does_not_match_is_not(name: str) -> None:
    assert not is_source_name(name, PATTERNS)


def test_patterns_may_ask_for_other_and_for_hidden_names() -> None:
    assert is_source_name("A.mkv", ("*.mp4", "*.MKV"))
    assert is_source_name(".a.mp4", (".*.mp4",))


# ---------------------------------------------------------------------- scans


def test_a_scan_finds_every_source_and_nothing_else(watched: Watched) -> None:
    expected = {"a.mp4", "B.MP4", "sub/c.mp4", "deep/" * 40 + "d.mp4"}
    for path in [*expected, "e.txt", ".f.mp4", ".hidden/g.mp4", "sub/.hidden/h.mp4", "i.mp4.tmp"]:
        watched.write(path)
    (watched.root / "folder.mp4").mkdir()
    watched.watch.scan()
    assert watched.found.keys() == expected
    assert watched.found["a.mp4"] == Signature.of(os.stat(watched.root / "a.mp4"))
    assert watched.scans == 1


def test_links_and_devices_are_skipped_counted_and_said_once(
    watched: Watched, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.mp4").touch()
    (watched.root / "link.mp4").symlink_to(tmp_path / "outside" / "a.mp4")
    (watched.root / "folder").symlink_to(tmp_path / "outside")
    os.mkfifo(watched.root / "fifo.mp4")
    listener = socket.socket(socket.AF_UNIX)
    with listener, monkey_cwd(watched.root):
        listener.bind("socket.mp4")
    for _ in range(3):
        watched.watch.scan()
    assert not watched.found
    assert said().count("skipped") == 3
    assert value("entries_skipped") == 3
    (watched.root / "fifo.mp4").unlink()
    watched.watch.scan()
    assert value("entries_skipped") == 2
    os.mkfifo(watched.root / "fifo.mp4")
    watched.watch.scan()
    assert said().count("skipped") == 4


@contextmanager
def monkey_cwd(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def test_what_is_skipped_is_remembered_only_so_far(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    scan = FolderScan(str(root), PATTERNS)
    with caplog.at_level("ERROR"):
        for number in range(MAX_SKIPPED_NAMES + 5):
            scan._skip(f"{number}.mp4", "a link")
    assert len(scan._logged) == len(scan._skipped) == MAX_SKIPPED_NAMES
    assert scan._count == MAX_SKIPPED_NAMES + 5


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO])
def test_one_bad_entry_does_not_hide_the_rest_of_its_folder(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for name in ("a", "b", "c", "d"):
        watched.write(f"{name}.mp4")
    bad: list[str] = []
    real = FolderScan._signature

    def look(self: FolderScan, entry: "os.DirEntry[str]", path: str) -> Signature | None:
        if not bad:
            bad.append(path)
            raise OSError(number, os.strerror(number))
        return real(self, entry, path)

    monkeypatch.setattr(FolderScan, "_signature", look)
    watched.watch.scan()
    assert watched.found.keys() == {"a.mp4", "b.mp4", "c.mp4", "d.mp4"} - set(bad)


def test_a_file_deleted_during_a_scan_does_not_hide_the_rest(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        watched.write(f"{number}.mp4")

    def delete_others(path: str, signature: Signature) -> None:
        watched.found[path] = signature
        for number in range(40):
            if f"{number}.mp4" not in watched.found:
                (watched.root / f"{number}.mp4").unlink(missing_ok=True)

    monkeypatch.setattr(watched.watch._listener, "found", delete_others)
    watched.watch.scan()
    assert watched.found.keys() >= {f"{number}.mp4" for number in range(40, 50)}


def test_a_folder_that_cannot_be_read_is_skipped_and_said(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    watched.write("closed/a.mp4")
    watched.write("open/b.mp4")
    real = os.scandir

    def scandir(path: str) -> Any:
        if os.fsdecode(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for _ in range(2):
        watched.watch.scan()
    assert list(watched.found) == ["open/b.mp4"]
    assert said().count("skipped") == 1


def test_full_scans_come_at_the_start_and_after_each_interval(watched: Watched) -> None:
    watched.step(INTERVAL - 5)
    assert watched.scans == 0
    watched.step(6)
    assert watched.scans == 1
    watched.step(INTERVAL - 5)
    assert watched.scans == 1


def test_a_scan_that_was_asked_for_puts_the_next_off(watched: Watched) -> None:
    watched.step(INTERVAL - 5)
    watched.watch.requests.add()
    watched.step(1)
    assert watched.scans == 1
    watched.step(10)
    assert watched.scans == 1


def test_a_scan_finds_what_no_event_told(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched.watch._schedule, "touched", lambda _: None)
    watched.write("a.mp4")
    watched.step(INTERVAL)
    assert "a.mp4" in watched.found


def test_scans_are_counted_and_timed(watched: Watched) -> None:
    before = value("scans_total"), value("scan_seconds_count")
    watched.watch.scan()
    assert (value("scans_total"), value("scan_seconds_count")) == (before[0] + 1, before[1] + 1)


# ---------------------------------------------------------------------- what no event told


def written_past_the_events(watched: Watched, path: str) -> None:
    """Write a source by a name outside the folder, as another machine writes to a share: no event tells."""
    outside = watched.root.parent / "outside"
    os.link(watched.root / path, outside)
    with outside.open("ab") as file:
        file.write(b"more")
    long_enough_ago = time.time() - 2 * LATE_SECONDS
    os.utime(outside, (long_enough_ago, long_enough_ago))
    outside.unlink()


def heard_for_long(watched: Watched) -> None:
    """Let a full scan have been long ago."""
    watched.watch.scan()
    watched.watch._missed._since = time.time() - 100


def test_a_change_of_which_no_event_told_is_counted_and_said_once_with_the_hint(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    before = value("watcher_missed_total")
    watched.write("a.mp4")
    watched.settled()
    for _ in range(2):
        heard_for_long(watched)
        written_past_the_events(watched, "a.mp4")
        watched.watch.scan()
    assert value("watcher_missed_total") == before + 2
    lines = [record.msg for record in caplog.records if "WATCH_MODE=polling" in str(record.msg)]
    assert len(lines) == 1
    assert "a.mp4" in str(lines[0])


def test_what_events_told_is_not_missed(watched: Watched) -> None:
    before = value("watcher_missed_total")
    heard_for_long(watched)
    target = watched.write("a.mp4")
    os.utime(target, (time.time() - 2 * LATE_SECONDS,) * 2)
    watched.settled()
    watched.watch.scan()
    assert value("watcher_missed_total") == before


@pytest.mark.parametrize("age", [LATE_SECONDS / 2, 1000.0])
def test_changes_just_now_and_of_old_are_not_missed(watched: Watched, age: float) -> None:
    before = value("watcher_missed_total")
    target = watched.write("a.mp4")
    watched.settled()
    heard_for_long(watched)
    written_past_the_events(watched, "a.mp4")
    os.utime(target, (time.time() - age,) * 2)
    watched.watch.scan()
    assert value("watcher_missed_total") == before


def test_events_that_were_lost_for_a_known_reason_are_not_missed(watched: Watched) -> None:
    before = value("watcher_missed_total")
    watched.write("a.mp4")
    watched.settled()
    heard_for_long(watched)
    written_past_the_events(watched, "a.mp4")
    watched.watch.lost_events()
    watched.watch.scan()
    assert value("watcher_missed_total") == before


def test_what_the_scan_of_a_new_folder_found_is_not_missed(watched: Watched) -> None:
    before = value("watcher_missed_total")
    heard_for_long(watched)
    target = watched.write("new/a.mp4")
    os.utime(target, (time.time() - 2 * LATE_SECONDS,) * 2)
    watched.settled()
    watched.watch._missed._reported.clear()  # as if the folder had been filled before it was watched
    watched.watch.requests.take()
    watched.watch.requests.add("new")
    watched.step()
    watched.watch.scan()
    assert value("watcher_missed_total") == before


def test_polling_does_not_recommend_polling(root: Path) -> None:
    before = value("watcher_missed_total")
    with watching(root, mode="polling") as watched:
        watched.step()
        watched.write("a.mp4")
        heard_for_long(watched)
        written_past_the_events(watched, "a.mp4")
        watched.watch.scan()
    assert value("watcher_missed_total") == before


# ---------------------------------------------------------------------- requests


def test_requests_for_parts_of_one_tree_become_one(root: Path) -> None:
    requests = ScanRequests()
    for folder in ("a", "a/b", "a/b/c", "ab", "c/d"):
        requests.add(folder)
    assert requests.take() == {"a", "ab", "c/d"}
    assert requests.take() == set()
    requests.add("a")
    requests.add()
    assert requests.take() == {""}


def test_a_request_wakes_who_waits_for_one() -> None:
    requests = ScanRequests()
    waiter = threading.Thread(target=requests.wait, args=(30,))
    waiter.start()
    requests.add("a")
    waiter.join(10)
    assert not waiter.is_alive()


def test_a_request_wakes_only_once_also_when_nobody_takes_it() -> None:
    requests = ScanRequests()
    requests.add("a")
    requests.wait(30)
    before = time.monotonic()
    requests.wait(0.05)
    assert time.monotonic() - before >= 0.05
    assert requests.take() == {"a"}


def test_requests_from_many_threads_are_all_taken() -> None:
    requests = ScanRequests()
    taken: set[str] = set()

    def ask(number: int) -> None:
        for request in range(200):
            requests.add(f"{number}-{request}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken |= requests.take()
    assert len(taken | requests.take()) == 800
