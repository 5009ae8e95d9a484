"""How the daemon ends: as asked, at once when asked twice, and never with a dead thread inside."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.support.daemon_process import DaemonProcess, Site, prelude_of
from tests.support.harness import CHUNK
from tests.support.servers import BUSY_MACHINE_SECONDS, RcloneS3, ValkeyServer, wait_until

GRACE_SECONDS = 2.0
LEASE_SECONDS = 30.0


@pytest.fixture
def site(
    tmp_path: Path, private_valkey: ValkeyServer, private_rclone: RcloneS3, redis_namespace: str
) -> Iterator[Site]:
    grace = {"SHUTDOWN_GRACE_SECONDS": str(GRACE_SECONDS)}
    site = Site(tmp_path, private_valkey, private_rclone, redis_namespace, **grace)
    yield site
    site.close()


def stopped(daemon: DaemonProcess, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
    """Ask a daemon to stop; its exit code and the seconds that it took."""
    began = time.monotonic()
    daemon.send(number)
    return daemon.exit_code(), time.monotonic() - began


def begin_a_put_that_hangs(site: Site, daemon: DaemonProcess) -> None:
    """Freeze S3 while a worker is in the middle of a chunk."""
    source = site.folder / "a.mp4"
    source.write_bytes(os.urandom(CHUNK))
    daemon.wait_for("chunk stored")
    site.s3.freeze()
    with source.open("ab") as file:
        file.write(os.urandom(4 * CHUNK))
    wait_until(lambda: daemon.metric("video_uploader_backlog_bytes") == 4 * CHUNK)
    wait_until(lambda: any(leases(site)), message="no worker took the lease for its put")


def leases(site: Site) -> list[bool]:
    """Return for each stream whether somebody holds its lease."""
    client = site.valkey.client
    keys = client.keys(f"{{{site.namespace}}}:stream:*")
    assert isinstance(keys, list)
    return [client.hget(key, "lease_until") != b"0" for key in keys]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_an_idle_daemon_stops_at_once(site: Site, number: signal.Signals) -> None:
    daemon = site.daemon()
    daemon.wait_for_ready()
    code, seconds = stopped(daemon, number)
    assert code == 0
    assert seconds < GRACE_SECONDS + BUSY_MACHINE_SECONDS
    assert daemon.events("stopped", exit_code=0)
    assert not daemon.events("abandoned")


def test_a_daemon_that_uploads_ends_its_chunks_and_gives_its_leases_back(site: Site) -> None:
    names = [f"{number}.mp4" for number in range(6)]
    for name in names:
        (site.folder / name).write_bytes(os.urandom(8 * CHUNK))
    daemon = site.daemon()
    daemon.wait_for("chunk stored", count=3)
    code, seconds = stopped(daemon)
    assert code == 0
    assert seconds < GRACE_SECONDS + BUSY_MACHINE_SECONDS
    assert leases(site) == [False] * len(leases(site))
    assert leases(site)
    assert len(daemon.events("chunk stored")) < 8 * len(names), "it was to be stopped in the middle"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_put_that_hangs_is_abandoned_and_the_next_daemon_need_not_wait(
    site: Site, number: signal.Signals
) -> None:
    daemon = site.daemon(STREAM_TIMEOUT_SECONDS="60")
    begin_a_put_that_hangs(site, daemon)
    code, seconds = stopped(daemon, number)
    assert code == 0
    assert GRACE_SECONDS <= seconds < GRACE_SECONDS + BUSY_MACHINE_SECONDS
    assert daemon.events("abandoned")
    site.s3.thaw()
    assert leases(site) == [False]
    again = site.daemon()
    site.wait_until_stored("a.mp4", timeout_seconds=LEASE_SECONDS / 2)
    assert again.terminate() == 0
    assert site.view.holds("a.mp4")


def test_a_finalization_that_hangs_is_abandoned_and_the_next_daemon_need_not_wait(site: Site) -> None:
    daemon = site.daemon(STREAM_TIMEOUT_SECONDS="3")
    daemon.wait_for_ready()
    (site.folder / "a.mp4").write_bytes(os.urandom(CHUNK + 1))
    daemon.wait_for("chunk stored")
    site.s3.freeze()
    daemon.wait_for("finalizing")
    assert not daemon.events("complete"), "it was to hang"
    code, seconds = stopped(daemon)
    assert code == 0
    assert seconds < GRACE_SECONDS + BUSY_MACHINE_SECONDS
    site.s3.thaw()
    assert leases(site) == [False]
    again = site.daemon()
    site.wait_until_stored("a.mp4", timeout_seconds=LEASE_SECONDS / 2)
    assert again.terminate() == 0
    assert site.view.holds("a.mp4")


def test_a_frozen_redis_does_not_hold_the_stop_up(site: Site) -> None:
    (site.folder / "a.mp4").write_bytes(os.urandom(3 * CHUNK))
    daemon = site.daemon()
    daemon.wait_for("finalizing")
    site.valkey.freeze()
    code, seconds = stopped(daemon)
    assert code == 0
    assert seconds < GRACE_SECONDS + BUSY_MACHINE_SECONDS


@pytest.mark.parametrize("how", ["frozen", "refused"])
def test_a_daemon_that_never_reached_anything_stops_within_its_grace(site: Site, how: str) -> None:
    for server in (site.valkey, site.s3):
        if how == "frozen":
            server.freeze()
        else:
            server.stop()
    daemon = site.daemon()
    daemon.wait_for("watching")
    if how == "refused":
        daemon.wait_for("outage begins")
    code, seconds = stopped(daemon)
    assert code == 0
    assert seconds < GRACE_SECONDS + BUSY_MACHINE_SECONDS
    for server in (site.valkey, site.s3):
        if how == "refused":
            server.start()


def test_a_second_signal_ends_it_at_once(site: Site) -> None:
    daemon = site.daemon(STREAM_TIMEOUT_SECONDS="60", SHUTDOWN_GRACE_SECONDS="60")
    begin_a_put_that_hangs(site, daemon)
    daemon.send(signal.SIGTERM)
    daemon.wait_for("stopping")
    code, seconds = stopped(daemon)
    assert code == 1
    assert seconds < BUSY_MACHINE_SECONDS


@pytest.mark.parametrize("server", ["valkey-server", "rclone"])
def test_an_embedded_server_that_dies_ends_the_daemon_with_its_last_lines(
    tmp_path: Path, server: str
) -> None:
    (tmp_path / "input").mkdir()
    daemon = DaemonProcess(tmp_path, {}, "--embedded")
    try:
        daemon.wait_for_ready()
        children = psutil.Process(daemon.pid).children()
        [victim] = [child for child in children if server in child.name()]
        victim.kill()
        assert daemon.exit_code() == 1
        reason = daemon.events("an embedded server died")[0]["reason"]
        assert "SIGKILL" in reason
        assert "its last lines:" in reason
        assert daemon.events("stopped", exit_code=1)
        gone = [child for child in children if not child.is_running()]
        assert len(gone) == len(children) == 2
    finally:
        daemon.close()


BUGS = {
    "watcher": "import folder.watch; folder.watch.FolderWatch.step = lambda watch: 1 / 0",
    "monitor": "import stream_monitor; stream_monitor.StreamMonitor.tick = lambda monitor: 1 / 0",
    "worker": "import chunk_uploader; chunk_uploader.ChunkUploader.advance = lambda *a, **k: 1 / 0",
}


@pytest.mark.parametrize("thread", BUGS)
def test_a_bug_in_a_thread_ends_the_process(site: Site, thread: str) -> None:
    (site.folder / "a.mp4").write_bytes(os.urandom(CHUNK))
    daemon = site.daemon(prelude=BUGS[thread])
    daemon.may_fail = True
    assert daemon.exit_code() == 1
    death = daemon.events("a thread died of a bug")[0]
    assert death["thread_name"].startswith(thread)
    assert "ZeroDivisionError" in death["exception"]
    assert daemon.events("stopped", exit_code=1)


HANGS = "import threading; StreamMonitor.tick = lambda monitor: threading.Event().wait()"


def test_a_thread_that_hangs_is_told_by_the_health_page_and_the_metrics(site: Site) -> None:
    stalled = prelude_of({"daemon.STALLED_SECONDS": 1.0})
    daemon = site.daemon(prelude=f"{stalled}\nfrom stream_monitor import StreamMonitor\n{HANGS}")
    daemon.wait_for("serving")
    wait_until(lambda: "monitor: no step for " in daemon.get("/healthz")[1], 30)
    assert daemon.get("/healthz")[0] == 503
    assert daemon.metric("video_uploader_healthy") == 0


def test_a_daemon_that_is_well_says_so(site: Site) -> None:
    daemon = site.daemon()
    daemon.wait_for_ready()
    assert daemon.get("/healthz") == (200, "ok\n")
    assert daemon.metric("video_uploader_healthy") == 1
