"""When a source is idle, gone, back or in danger; leases and gauges; with real files and a real Redis."""

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stream_monitor
from checkpoint import Checkpoints
from errors import StoreUnavailable
from folder.scan import ScanRequests
from folder.volumes import Volumes
from recording.layout import RecordingId
from recording.stream import RecordedError, Signature, State, Stream
from redis_store.client import connect_url
from redis_store.requests import PendingRequests
from scheduling.backlog import MAX_SAMPLES, Backlog
from scheduling.outages import CircuitBreakers
from scheduling.schedule import Schedule
from stream_monitor import FIRST_TURN_SECONDS, LATE_SECONDS, StreamMonitor
from tests.support.harness import Clock
from tests.support.servers import ValkeyServer, free_port
from tests.support.watched_folder import value
from upload.left_behind import LeftBehind
from upload.site import Site
from upload.upkeep import COUNT_SECONDS, RENEWAL_SECONDS, RecordUpkeep

TIMEOUT = 30.0
AWAY = StoreUnavailable("gone", service="redis", kind="unreachable")
CHUNK = 100


class Given(Schedule):
    """Takes note of what the monitor orders."""

    def __init__(self) -> None:
        super().__init__(max_finishing=1)
        self.orders: list[tuple[str, object]] = []

    def grown(self, path: str) -> None:
        self.orders.append(("grown", path))

    def idle(self, path: str, signature: Signature) -> None:
        self.orders.append(("idle", (path, signature)))

    def gone(self, path: str) -> None:
        self.orders.append(("gone", path))


class Scans(ScanRequests):
    """Takes note of scans among the orders."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        self._given = given

    def add(self, folder: str = "") -> None:
        self._given.orders.append(("scan", folder or None))


def monitor_of(
    root: str, checkpoints: Checkpoints, given: Given, breakers: CircuitBreakers, clock: Clock
) -> StreamMonitor:
    nobody: Any = None
    upkeep = RecordUpkeep(
        Site(root, CHUNK, checkpoints, nobody, nobody, nobody),
        schedule=given,
        breakers=breakers,
        pending=PendingRequests(),
        left_behind=LeftBehind(checkpoints, Volumes(root)),
        clock=clock,
    )
    return StreamMonitor(
        root, timeout_seconds=TIMEOUT, schedule=given, scans=Scans(given), upkeep=upkeep, clock=clock
    )


class Watched:
    """A monitor, the orders that it gave, and the files that it looks at."""

    def __init__(self, root: Path, checkpoints: Checkpoints, *, redis_open: bool = False) -> None:
        self.root = root
        self.clock = Clock()
        self._given = Given()
        self.breakers = CircuitBreakers(self._given, clock=self.clock)
        if redis_open:
            self.breakers.succeed("redis")
        self.monitor = monitor_of(str(root), checkpoints, self._given, self.breakers, self.clock)
        self.volumes = self.monitor._volumes

    def write(self, path: str = "a.mp4", size: int = 10) -> Signature:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab") as file:
            file.write(b"x" * size)
        return self.signature(path)

    def signature(self, path: str = "a.mp4") -> Signature:
        return Signature.of(os.lstat(self.root / path))

    def watch(self, path: str = "a.mp4", offset: int = 0) -> Signature:
        """Have a turn see a file."""
        signature = self.signature(path)
        self.monitor.watch(path, signature, self.stream(signature, offset=offset))
        return signature

    def stream(self, signature: Signature, offset: int = 0) -> Stream:
        """Return the record of a source on the volume of the watched folder."""
        return stream(signature, offset, volume=self.volumes.of("a.mp4"))

    def tick(self, seconds: float = 1.0) -> list[tuple[str, object]]:
        """Let time pass, and give the orders that follow."""
        self.clock.now += seconds
        self._given.orders.clear()
        self.monitor.tick()
        return list(self._given.orders)

    def gauges(self) -> tuple[object, object]:
        """The backlog in bytes, and the age in seconds of its oldest byte."""
        self.monitor.tick()
        return value("backlog_bytes"), value("oldest_unsafe_byte_age_seconds")


def stream(signature: Signature, offset: int = 0, *, volume: str = "") -> Stream:
    return Stream(
        stream_id="a.mp4@1",
        path="a.mp4",
        generation=1,
        owner="7f3a91c2",
        revision=0,
        state=State.ACTIVE,
        signature=signature,
        chunk_size=CHUNK,
        next_index=offset // CHUNK,
        offset=offset,
        started_at_ms=0,
        updated_at_ms=0,
        volume=volume,
    )


@pytest.fixture
def checkpoints(valkey: ValkeyServer, redis_namespace: str) -> Iterator[Checkpoints]:
    client = connect_url(valkey.url)
    yield Checkpoints(client, namespace=redis_namespace, owner="test")
    client.close()


@pytest.fixture
def watched(tmp_path: Path, checkpoints: Checkpoints) -> Watched:
    """A monitor that watches nothing yet, without Redis."""
    (tmp_path / "root").mkdir()
    return Watched(tmp_path / "root", checkpoints)


def aged(path: Path, seconds: float) -> None:
    """Set a file's modification time; the time of its inode stays now."""
    os.utime(path, (time.time() - seconds,) * 2)


# ---------------------------------------------------------------------- idle


def test_a_source_that_does_not_change_for_the_timeout_is_idle_once(watched: Watched) -> None:
    watched.write()
    signature = watched.watch()
    assert watched.tick(TIMEOUT - 1) == []
    assert watched.tick(1.5) == [("idle", ("a.mp4", signature))]
    assert watched.tick() == []
    assert watched.tick(10 * TIMEOUT) == []


def test_a_source_that_was_written_long_ago_is_idle_at_first_sight(watched: Watched) -> None:
    watched.write()
    aged(watched.root / "a.mp4", 3600)
    signature = watched.watch()
    assert watched._given.orders == [("idle", ("a.mp4", signature))]
    assert watched.tick(TIMEOUT) == []


def test_at_first_sight_the_clock_starts_as_long_ago_as_the_last_write(watched: Watched) -> None:
    watched.write()
    aged(watched.root / "a.mp4", 20)
    watched.watch()
    assert watched.tick(TIMEOUT - 21) == []
    assert [order for order, _ in watched.tick(2)] == ["idle"]


def test_a_time_in_the_future_is_no_age(watched: Watched) -> None:
    watched.write()
    aged(watched.root / "a.mp4", -3600)
    watched.watch()
    assert watched.tick(TIMEOUT - 1) == []
    assert [order for order, _ in watched.tick(2)] == ["idle"]


def change_mode(path: Path) -> None:
    path.chmod(0o600)


def write_in_place(path: Path) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"y")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # only the inode's time tells


def replace_it(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy2(path, other)
    other.rename(path)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"y")


@pytest.mark.parametrize("change", [append, change_mode, write_in_place, replace_it])
def test_any_change_starts_the_clock_again(watched: Watched, change: Callable[[Path], None]) -> None:
    watched.write()
    watched.watch()
    watched.tick(TIMEOUT - 1)
    change(watched.root / "a.mp4")
    assert "idle" not in [order for order, _ in watched.tick()]
    assert watched.tick(TIMEOUT - 2) == []
    assert watched.tick(2.5) == [("idle", ("a.mp4", watched.signature()))]


def test_a_source_that_changes_after_its_order_is_ordered_again(watched: Watched) -> None:
    watched.write()
    watched.watch()
    watched.tick(TIMEOUT)
    watched.write()
    assert watched.tick() == []
    assert watched.tick(TIMEOUT) == [("idle", ("a.mp4", watched.signature()))]


def test_an_order_whose_turn_ended_without_finalizing_is_given_again(watched: Watched) -> None:
    watched.write()
    signature = watched.watch()
    watched.tick(TIMEOUT)
    watched.watch()
    assert watched.tick() == [("idle", ("a.mp4", signature))]


def test_a_finished_source_is_not_looked_at(watched: Watched) -> None:
    watched.write()
    watched.watch()
    assert watched.monitor.watches("a.mp4")
    watched.monitor.forget("a.mp4")
    assert not watched.monitor.watches("a.mp4")
    (watched.root / "a.mp4").unlink()
    assert watched.tick(10 * TIMEOUT) == []
    watched.monitor.forget("a.mp4")


# ---------------------------------------------------------------------- growth


@pytest.mark.parametrize(
    ("offset", "size", "ordered"),
    [
        (0, 90, False),
        (0, CHUNK, True),
        (0, 5 * CHUNK, True),
        (CHUNK, CHUNK + 90, False),
        (CHUNK, 2 * CHUNK, True),
    ],
)
def test_a_source_gets_a_turn_when_its_next_chunk_is_there(
    watched: Watched, offset: int, size: int, *, ordered: bool
) -> None:
    watched.write(size=offset + 1)
    watched.watch(offset=offset)
    watched.write(size=size - offset - 1)
    assert watched.tick() == ([("grown", "a.mp4")] if ordered else [])
    assert watched.tick() == []


def test_a_source_that_no_record_is_known_of_gets_a_turn_for_any_change(watched: Watched) -> None:
    signature = watched.write()
    watched.monitor.watch("a.mp4", signature, None)
    watched.write(size=1)
    assert watched.tick() == [("grown", "a.mp4")]


def test_a_source_cut_below_what_is_stored_gets_a_turn(watched: Watched) -> None:
    watched.write(size=2 * CHUNK + 50)
    watched.watch(offset=2 * CHUNK)
    os.truncate(watched.root / "a.mp4", 2 * CHUNK + 1)
    assert watched.tick() == []
    os.truncate(watched.root / "a.mp4", 2 * CHUNK - 1)
    assert watched.tick() == [("grown", "a.mp4")]


def test_a_source_that_another_file_replaced_gets_a_turn(watched: Watched) -> None:
    watched.write(size=CHUNK + 50)
    watched.watch(offset=CHUNK)
    replace_it(watched.root / "a.mp4")
    assert watched.tick() == [("grown", "a.mp4")]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ELOOP, errno.ENOTCONN])
def test_a_turn_finds_out_what_is_wrong_with_a_source_that_cannot_be_looked_at(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    watched.write()
    watched.watch()

    def broken(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "stat", broken)
    assert watched.tick() == [("grown", "a.mp4")]
    assert watched.tick(10 * TIMEOUT) == [("grown", "a.mp4")]


def test_what_a_turn_saw_meanwhile_is_not_set_back(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.write(size=CHUNK)
    watched.watch(offset=CHUNK)
    watched.write(size=CHUNK)
    real = os.stat

    def look(*arguments: Any, **options: Any) -> os.stat_result:
        found = real(*arguments, **options)
        monkeypatch.undo()
        watched.write(size=CHUNK)
        watched.watch(offset=3 * CHUNK)
        return found

    monkeypatch.setattr(os, "stat", look)
    assert watched.tick() == []
    assert watched.gauges() == (0, 0)
    assert watched.tick() == []


# ---------------------------------------------------------------------- missing and gone


def test_a_source_that_is_missing_for_the_timeout_is_gone_once(watched: Watched) -> None:
    watched.write()
    watched.watch()
    (watched.root / "a.mp4").unlink()
    assert watched.tick() == [("scan", None)]
    assert watched.tick(TIMEOUT - 1) == []
    assert watched.tick(1.5) == [("gone", "a.mp4")]
    assert watched.tick(10 * TIMEOUT) == []


def test_a_source_that_a_turn_did_not_find_is_gone_in_the_end(watched: Watched) -> None:
    signature = watched.write()
    (watched.root / "a.mp4").unlink()
    watched.monitor.missing("a.mp4", watched.stream(signature))
    assert watched.tick() == []
    watched.monitor.missing("a.mp4", watched.stream(signature))
    assert watched.tick(TIMEOUT) == [("gone", "a.mp4")]


def test_a_close_that_a_turn_could_not_do_is_ordered_again(watched: Watched) -> None:
    signature = watched.write()
    (watched.root / "a.mp4").unlink()
    watched.breakers.succeed("redis")
    watched.monitor.missing("a.mp4", watched.stream(signature))
    watched.tick()
    assert watched.tick(TIMEOUT) == [("gone", "a.mp4")]
    watched.monitor.missing("a.mp4", watched.stream(signature))
    assert watched.tick() == [("gone", "a.mp4")]


def test_a_source_that_comes_back_is_tried_and_then_watched_as_before(watched: Watched) -> None:
    watched.write()
    watched.watch()
    (watched.root / "a.mp4").rename(watched.root / "away")
    watched.tick()
    (watched.root / "away").rename(watched.root / "a.mp4")
    assert watched.tick() == [("grown", "a.mp4")]
    signature = watched.watch()
    assert watched.tick(TIMEOUT - 1) == []
    assert watched.tick(2) == [("idle", ("a.mp4", signature))]


@pytest.mark.parametrize("take_its_place", [lambda at: at.symlink_to("b.mp4"), os.mkdir, os.mkfifo])
def test_what_is_no_regular_file_is_missing(watched: Watched, take_its_place: Callable[[Path], None]) -> None:
    watched.write()
    watched.write("b.mp4")
    watched.watch()
    (watched.root / "a.mp4").unlink()
    take_its_place(watched.root / "a.mp4")
    assert watched.tick() == [("scan", None)]
    assert watched.tick(TIMEOUT) == [("gone", "a.mp4")]


def test_a_source_whose_folder_became_a_link_is_gone_in_the_end(watched: Watched) -> None:
    signature = watched.write("cam/a.mp4")
    watched.watch("cam/a.mp4")
    (watched.root / "cam").rename(watched.root.parent / "moved")
    (watched.root / "cam").symlink_to(watched.root.parent / "moved")
    watched.monitor.missing("cam/a.mp4", watched.stream(signature))  # a turn follows no link
    assert watched.tick() == [("grown", "cam/a.mp4")]
    watched.monitor.missing("cam/a.mp4", watched.stream(signature))
    assert ("gone", "cam/a.mp4") in watched.tick(TIMEOUT)


@pytest.mark.parametrize("left", ["the folder", "nothing of the folder", "a file in the folder's place"])
def test_a_source_is_gone_whatever_is_left_of_its_folders(watched: Watched, left: str) -> None:
    watched.write("cam/day/a.mp4")
    watched.watch("cam/day/a.mp4")
    (watched.root / "cam/day/a.mp4").unlink()
    if left != "the folder":
        shutil.rmtree(watched.root / "cam")
    if left == "a file in the folder's place":
        (watched.root / "cam").touch()
    watched.tick()
    assert watched.tick(TIMEOUT) == [("gone", "cam/day/a.mp4")]


def test_without_the_watched_folder_nothing_is_ever_gone(watched: Watched) -> None:
    watched.write()
    watched.watch()
    watched.root.rename(watched.root.with_name("away"))
    assert ("gone", "a.mp4") not in watched.tick() + watched.tick(100 * TIMEOUT)
    watched.root.with_name("away").rename(watched.root)
    assert watched.tick() == [("grown", "a.mp4")]


def test_with_its_volume_away_a_source_is_never_gone(watched: Watched) -> None:
    signature = watched.write()
    (watched.root / "a.mp4").unlink()
    watched.monitor.missing("a.mp4", stream(signature, volume="77:123456789"))
    assert watched.tick() + watched.tick(100 * TIMEOUT) == []
    assert watched.monitor.backlog == Backlog(1, 10, watched.monitor.backlog.oldest_seconds, 1, 1, "a.mp4")
    assert value("sources_away") == 1
    watched.write()
    watched.tick()
    assert watched.monitor.backlog.away == 0
    assert value("sources_away") == 0


def test_where_redis_lost_the_volume_of_a_source_it_is_never_gone(watched: Watched) -> None:
    signature = watched.write()
    (watched.root / "a.mp4").unlink()
    watched.monitor.missing("a.mp4", stream(signature))
    assert watched.tick() + watched.tick(100 * TIMEOUT) == []
    assert watched.monitor.backlog.away == 1


@pytest.mark.parametrize("device_is_here", [True, False])
def test_where_no_system_tells_the_volume_the_device_decides(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, *, device_is_here: bool
) -> None:
    monkeypatch.setattr("folder.volumes._MOUNTS", "/nowhere")
    signature = watched.write()
    (watched.root / "a.mp4").unlink()
    elsewhere = signature._replace(dev=signature.dev + 1)  # the empty folder below the mount has another
    watched.monitor.missing("a.mp4", stream(signature if device_is_here else elsewhere))
    assert watched.tick() + watched.tick(TIMEOUT) == ([("gone", "a.mp4")] if device_is_here else [])


def test_a_source_deleted_while_its_volume_got_another_device_number_is_gone(watched: Watched) -> None:
    signature = watched.write()
    (watched.root / "a.mp4").unlink()
    watched.monitor.missing("a.mp4", watched.stream(signature._replace(dev=signature.dev + 1)))
    assert watched.tick() + watched.tick(TIMEOUT) == [("gone", "a.mp4")]


@pytest.mark.parametrize("path", ["a\0.mp4", "x\0/a.mp4"])
def test_a_path_that_can_be_none_does_not_end_the_monitor(watched: Watched, path: str) -> None:
    watched.monitor.missing(path, watched.stream(watched.write()))
    watched.tick()
    watched.tick(TIMEOUT)


# ---------------------------------------------------------------------- what is not in S3


def test_bytes_age_while_the_machine_is_suspended_and_no_source_falls_idle(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.write()
    watched.watch()
    watched.tick()
    awake = time.clock_gettime
    asleep = {time.CLOCK_BOOTTIME: 3600.0}
    monkeypatch.setattr(time, "clock_gettime", lambda clock: awake(clock) + asleep.get(clock, 0.0))
    assert watched.tick() == []
    assert 3600 < watched.monitor.backlog.oldest_seconds < 3700
    assert watched.tick() == []
    assert 3600 < watched.monitor.backlog.oldest_seconds < 3700


def test_nothing_watched_is_nothing_in_danger(watched: Watched) -> None:
    assert watched.gauges() == (0, 0)


def test_the_gauges_tell_how_much_is_not_stored_and_since_when(watched: Watched) -> None:
    watched.write(size=CHUNK)
    watched.watch()
    watched.tick(10)
    watched.write(size=CHUNK)
    watched.tick(0)
    watched.tick(5)
    assert watched.gauges() == (2 * CHUNK, pytest.approx(15, abs=1))
    watched.watch(offset=CHUNK)
    assert watched.gauges() == (CHUNK, 5)
    watched.watch(offset=2 * CHUNK)
    assert watched.gauges() == (0, 0)


def behind(watched: Watched) -> int:
    watched.monitor.tick()
    return watched.monitor.backlog.behind


def test_what_is_unsafe_is_known_without_redis_and_s3(watched: Watched) -> None:
    assert watched.monitor.backlog == Backlog()
    watched.write("a.mp4", size=CHUNK + 7)
    watched.watch("a.mp4", offset=CHUNK)
    watched.write("b.mp4", size=CHUNK)
    watched.watch("b.mp4", offset=CHUNK)
    watched.tick(3)
    unsafe = watched.monitor.backlog
    assert unsafe._replace(oldest_seconds=0) == Backlog(sources=2, bytes=7)
    assert unsafe.oldest_seconds == pytest.approx(3, abs=1)


def test_a_source_with_two_chunks_waiting_is_behind(watched: Watched) -> None:
    watched.write(size=2 * CHUNK - 1)
    watched.watch()
    assert behind(watched) == 0
    watched.write(size=1)
    watched.watch()
    assert behind(watched) == 1
    watched.watch(offset=CHUNK)
    assert behind(watched) == 0


def test_a_source_whose_end_is_long_overdue_is_behind(watched: Watched) -> None:
    watched.write(size=10)
    watched.watch()
    watched.clock.now += TIMEOUT + LATE_SECONDS - 1
    assert behind(watched) == 0
    watched.clock.now += 2
    assert behind(watched) == 1


def test_a_source_that_waits_for_its_first_turn_is_behind(watched: Watched) -> None:
    watched.write(size=10)
    watched.monitor.watch("a.mp4", watched.signature(), None)
    assert behind(watched) == 0
    watched.clock.now += FIRST_TURN_SECONDS + 1
    assert behind(watched) == 1
    watched.watch()
    assert behind(watched) == 0


def test_the_oldest_byte_of_all_sources_counts(watched: Watched) -> None:
    watched.write("a.mp4", size=10)
    watched.watch("a.mp4")
    watched.tick(100)
    watched.write("b.mp4", size=5)
    watched.watch("b.mp4")
    assert watched.gauges() == (15, pytest.approx(100, abs=1))
    watched.monitor.forget("a.mp4")
    assert watched.gauges() == (5, pytest.approx(0, abs=1))


def test_a_file_that_came_with_an_old_time_is_not_old_here(watched: Watched) -> None:
    watched.write()
    aged(watched.root / "a.mp4", 10 * 365 * 86400)
    watched.watch()
    assert watched.gauges() == (10, pytest.approx(0, abs=1))


def test_what_grew_while_no_daemon_ran_is_as_old_as_the_last_look(watched: Watched) -> None:
    found = watched.write(size=CHUNK + 7)
    recorded = found._replace(ctime_ns=found.ctime_ns - 600 * 10**9, size=CHUNK)
    watched.monitor.watch("a.mp4", found, stream(recorded, offset=CHUNK))
    assert watched.gauges() == (7, pytest.approx(600, abs=1))
    watched.monitor.forget("a.mp4")
    for other in (
        replace(stream(recorded, offset=CHUNK), state=State.COMPLETE),
        stream(recorded._replace(ino=recorded.ino + 1)),
    ):
        watched.monitor.watch("a.mp4", found, other)
        assert watched.gauges()[1] == pytest.approx(0, abs=1)
        watched.monitor.forget("a.mp4")


def test_a_stored_file_that_only_changes_in_place_is_safe_as_far_as_its_size_tells(watched: Watched) -> None:
    watched.write(size=CHUNK)
    watched.watch(offset=CHUNK)
    change_mode(watched.root / "a.mp4")
    watched.tick(100)
    assert watched.gauges() == (0, 0)


def test_what_is_left_of_a_cut_file_is_as_old_as_before_and_what_follows_is_not(watched: Watched) -> None:
    watched.write(size=3 * CHUNK)
    watched.watch()
    watched.tick(50)
    os.truncate(watched.root / "a.mp4", CHUNK)
    watched.tick(0)
    assert watched.gauges() == (CHUNK, pytest.approx(50, abs=1))
    watched.write(size=CHUNK)
    watched.tick(10)
    watched.monitor.watch("a.mp4", watched.signature(), stream(watched.signature(), offset=CHUNK))
    watched.tick(5)
    assert watched.gauges() == (CHUNK, 5)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), max_size=300))
def test_an_age_is_never_told_too_low(steps: list[tuple[int, int]]) -> None:
    clock = Clock()
    nobody: Any = None
    given = Given()
    monitor = monitor_of("/nowhere", nobody, given, CircuitBreakers(given, clock=clock), clock)
    now_ns = int(time.time() * 1e9)
    source = Signature(0, now_ns, now_ns, 1, 1)
    record = stream(source)
    seen: list[tuple[float, int]] = []
    for grows, stored in steps:
        clock.now += 1
        source = source._replace(size=source.size + grows)
        seen.append((clock.now, source.size))
        record = replace(record, offset=min(record.offset + stored * 20, source.size))
        monitor.watch("a.mp4", source, record)
        monitor._set_gauges()
        exact = max((clock.now - when for when, size in seen if size > record.offset), default=0)
        told = value("oldest_unsafe_byte_age_seconds")
        assert told >= exact - 0.01
        assert (told > 0) <= (source.size > record.offset)
        if len(seen) < MAX_SAMPLES:
            assert told == pytest.approx(exact, abs=0.5)
    for known in monitor._watched.values():
        assert len(known.growth) <= MAX_SAMPLES


# ---------------------------------------------------------------------- many, and threads


def test_more_sources_than_one_tick_looks_at_take_turns(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_monitor, "STATS_PER_TICK", 10)
    paths = {f"{number}.mp4" for number in range(25)}
    for path in paths:
        watched.write(path)
        watched.watch(path)
        watched.write(path, size=CHUNK)
    turns = [[path for _, path in watched.tick()] for _ in range(3)]
    assert [len(turn) for turn in turns] == [10, 10, 5]
    assert {path for turn in turns for path in turn} == paths


def test_what_is_finished_before_its_look_is_left_alone(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_monitor, "STATS_PER_TICK", 1)
    for path in ("a.mp4", "b.mp4"):
        watched.write(path)
        watched.watch(path)
    watched.tick()
    for path in ("a.mp4", "b.mp4"):
        watched.monitor.forget(path)
        (watched.root / path).unlink()
    assert watched.tick(TIMEOUT) == []


def test_turns_and_ticks_at_the_same_time_do_not_disturb_each_other(watched: Watched) -> None:
    paths = [f"{number}.mp4" for number in range(20)]
    for path in paths:
        watched.write(path)
    stop = threading.Event()

    def turns(mine: list[str]) -> None:
        while not stop.is_set():
            for path in mine:
                watched.watch(path)
                watched.monitor.watches(path)
                watched.monitor.missing(path, watched.stream(watched.signature(path)))
                watched.monitor.forget(path)

    workers = [threading.Thread(target=turns, args=(paths[start::3],)) for start in range(3)]
    for worker in workers:
        worker.start()
    for _ in range(50):
        watched.tick()
    stop.set()
    for worker in workers:
        worker.join(10)
    assert watched.monitor._watched == {}


# ---------------------------------------------------------------------- Redis


@pytest.fixture
def connected(tmp_path: Path, checkpoints: Checkpoints) -> Watched:
    """A monitor with Redis."""
    checkpoints.prepare("s3://videos/")
    checkpoints.mend_index()
    (tmp_path / "root").mkdir()
    return Watched(tmp_path / "root", checkpoints, redis_open=True)


def create(checkpoints: Checkpoints, path: str) -> Any:
    created = checkpoints.create(
        path, RecordingId(path, 1, "7f3a91c2"), Signature(1, 2, 3, 4, 5), replaces="", chunk_size=CHUNK
    )
    assert created
    return created[0]


def test_leases_are_renewed_every_ten_seconds(connected: Watched, checkpoints: Checkpoints) -> None:
    connected.tick()
    lease = create(checkpoints, "a.mp4")
    first = lease.renewed_at
    connected.tick(RENEWAL_SECONDS - 1)
    assert lease.renewed_at == first
    connected.tick(2)
    second = lease.renewed_at
    assert second > first
    connected.tick(RENEWAL_SECONDS - 1)
    assert lease.renewed_at == second
    connected.tick(2)
    assert lease.renewed_at > second
    checkpoints.release(lease)


def test_streams_are_counted_by_state(connected: Watched, checkpoints: Checkpoints) -> None:
    lease = create(checkpoints, "a.mp4")
    connected.tick()
    assert value("streams", state="active") == 1
    assert value("streams", state="failed") == 0
    checkpoints.set_state(
        lease,
        State.ACTIVE,
        State.FAILED,
        Signature(1, 2, 3, 4, 5),
        revision=0,
        error=RecordedError("corrupt", "y"),
    )
    connected.tick(COUNT_SECONDS - 1)
    assert value("streams", state="failed") == 0
    connected.tick(2)
    assert value("streams", state="failed") == 1
    assert value("streams", state="active") == 0
    checkpoints.release(lease)


def test_without_redis_the_sources_are_still_looked_at(tmp_path: Path) -> None:
    client = connect_url(f"redis://127.0.0.1:{free_port()}/0")
    (tmp_path / "root").mkdir()
    watched = Watched(tmp_path / "root", Checkpoints(client, namespace="n", owner="o"), redis_open=True)
    watched.write()
    signature = watched.watch()
    assert watched.tick(TIMEOUT) == [("idle", ("a.mp4", signature))]
    assert [outage.service for outage in watched.breakers.outages()] == ["redis"]
    watched.write(size=CHUNK)
    assert watched.tick() == [("grown", "a.mp4")]
    client.close()


def test_a_closed_gate_keeps_redis_from_being_asked(connected: Watched, checkpoints: Checkpoints) -> None:
    lease = create(checkpoints, "a.mp4")
    before = lease.renewed_at
    connected.breakers.fail(AWAY)
    connected.tick(10 * RENEWAL_SECONDS)
    assert lease.renewed_at == before
    connected.breakers.succeed("redis")
    connected.tick()
    assert lease.renewed_at > before
    checkpoints.release(lease)


def test_a_renewal_that_failed_is_made_up_for_at_once(
    connected: Watched, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = create(checkpoints, "a.mp4")
    before = lease.renewed_at

    def fail() -> None:
        raise AWAY

    with monkeypatch.context() as broken:
        broken.setattr(checkpoints, "renew_held", fail)
        connected.tick()
    assert len(connected.breakers.outages()) == 1
    connected.breakers.succeed("redis")
    connected.tick()
    assert lease.renewed_at > before
    checkpoints.release(lease)
