"""Several daemons on one folder and one Redis: they share the work, and outlive each other."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.drills import several as several_drill
from tests.support.daemon_process import SHORT_LEASES, CountingRclone, DaemonProcess, Site
from tests.support.harness import CHUNK, Harness
from tests.support.servers import ValkeyServer, wait_until
from upload.crash_points import CrashPoint
from video_processor import BUSY_SECONDS

FILES = 8
BYTES_PER_SECOND = 4_000_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountingRclone]:
    rclone = CountingRclone(tmp_path_factory.mktemp("several") / "rclone")
    rclone.start()
    yield rclone
    rclone.close()


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyServer, store: CountingRclone, redis_namespace: str) -> Iterator[Site]:
    site = Site(tmp_path, valkey, store, redis_namespace)
    yield site
    site.close()


def put_twice(site: Site, store: CountingRclone) -> dict[str, int]:
    return {key: count for key, count in store.chunk_puts(site.bucket).items() if count > 1}


def stopping_at(point: CrashPoint) -> str:
    """The prelude of a daemon that stands still (SIGSTOP) when it first comes to a crash point.

    The signal goes to the thread itself: one to the process may let it run on for a moment.
    """
    return f"""{SHORT_LEASES}
import signal, threading
from upload import crash_points
left = [crash_points.CrashPoint.{point.name}]
def stop(point):
    if point in left:
        left.remove(point)
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
crash_points.no_op = stop
"""


def stands_still(daemon: DaemonProcess) -> bool:
    return os.waitid(os.P_PID, daemon.pid, os.WSTOPPED | os.WNOHANG) is not None


def has_no_backlog(daemon: DaemonProcess) -> bool:
    return daemon.metric("video_uploader_backlog_bytes") == 0


def test_three_daemons_share_the_work_put_each_chunk_once_and_all_learn_what_is_finished(
    site: Site, store: CountingRclone
) -> None:
    daemons = [site.daemon(UPLOAD_WORKERS="1") for _ in range(3)]
    for daemon in daemons:
        daemon.wait_for_ready()
    names = [f"{number}.mp4" for number in range(9)]
    for name in names:
        (site.folder / name).write_bytes(os.urandom(2 * CHUNK + 9))
    site.wait_until_stored(*names)
    # Each asks for the lease of a stream that another holds at most 5 s later.
    for daemon in daemons:
        wait_until(partial(has_no_backlog, daemon), 30)
        assert daemon.terminate() == 0
    assert put_twice(site, store) == {}
    assert sum(several_drill.shares(daemons)) == 3 * len(names)
    assert min(several_drill.shares(daemons)) > 0
    assert all(site.view.holds(name) for name in names)
    assert {site.view.manifest(name)["revision"] for name in names} == {1}


def test_one_killed_and_one_stopped_among_three_lose_nothing_and_repeat_at_most_a_chunk_a_worker(
    site: Site, store: CountingRclone
) -> None:
    report = several_drill.drill(
        site, store, files=FILES, bytes_per_second=BYTES_PER_SECOND, prelude=SHORT_LEASES
    )
    assert report.chunk_puts > report.files


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(CrashPoint.CHUNK_READ, marks=pytest.mark.drill),
        CrashPoint.CHUNK_PUT,
        CrashPoint.MANIFEST_PUT,
        pytest.param(CrashPoint.CLEANED_UP, marks=pytest.mark.drill),
    ],
)
def test_a_woken_holder_changes_nothing(point: CrashPoint, site: Site, store: CountingRclone) -> None:
    source = site.folder / "a.mp4"
    holder = site.daemon(prelude=stopping_at(point))
    holder.wait_for_ready()
    source.write_bytes(os.urandom(2 * CHUNK + 9))
    wait_until(lambda: stands_still(holder), 30, f"it never came to {point.name}")
    other = site.daemon(prelude=SHORT_LEASES)
    site.wait_until_stored("a.mp4")
    # One chunk more, so that the next manifest names more than the one that the holder was about to commit.
    with source.open("r+b") as patched:
        patched.write(b"another head")
        patched.seek(0, os.SEEK_END)
        patched.write(os.urandom(CHUNK))
    other.wait_for("complete", size_bytes=3 * CHUNK + 9)
    site.wait_until_stored("a.mp4")
    before = several_drill.snapshot(site)
    holder.send(signal.SIGCONT)
    lost = holder.wait_for("loading the record again", stream="a.mp4@1")
    assert lost["reason"] in {"expired", "fenced"}
    wait_until(partial(has_no_backlog, holder), 30)
    assert holder.terminate() == 0
    assert several_drill.changes(before, several_drill.snapshot(site)) == {}
    assert other.terminate() == 0
    assert site.view.holds("a.mp4")


def test_what_another_machine_finished_under_another_device_number_goes_on_when_it_grows(
    harness: Harness, valkey: ValkeyServer
) -> None:
    content = os.urandom(CHUNK + 9)
    source = harness.write("a.mp4", content)
    harness.fall_idle()
    valkey.client.hset(f"{{{harness.settings.redis.namespace}}}:stream:a.mp4@1", "dev", "987654")
    with source.open("ab") as grows:
        grows.write(content)
    harness.restarted().fall_idle()
    assert harness.holds("a.mp4")
    assert harness.manifest("a.mp4")["revision"] == 2


def test_a_daemon_that_waits_for_another_ones_lease_asks_s3_once(harness: Harness) -> None:
    harness.write("cam.mp4", os.urandom(2 * CHUNK))
    harness.scan()
    other = harness.restarted()
    other.work()
    lease, _ = harness.parts.checkpoints.acquire(harness.stream("cam.mp4").stream_id)
    other.fall_idle()
    answered_at = other.parts.store.answered_at
    for _ in range(3):
        other.tick(BUSY_SECONDS)
    assert other.state("cam.mp4") == "active"
    assert other.parts.store.answered_at == answered_at
    harness.parts.checkpoints.release(lease)
    other.tick(BUSY_SECONDS)
    assert other.holds("cam.mp4")
