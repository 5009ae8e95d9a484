"""Too few descriptors: said with the limit to raise, nothing is lost, and it goes on when there are some."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from errors import StoreUnavailable
from tests.support.daemon_process import DaemonProcess, Site, prelude_of
from tests.support.harness import CHUNK, Harness
from tests.support.servers import RcloneS3, ValkeyServer

NONE_FREE = 3
"""Fewer than any process has open: what is open stays so, and nothing else can be opened."""


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, redis_namespace: str) -> Iterator[Site]:
    site = Site(tmp_path, valkey, rclone, redis_namespace)
    yield site
    site.close()


@contextmanager
def no_descriptor_free(pid: int = 0) -> Iterator[None]:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (NONE_FREE, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def append(path: Path, size: int) -> None:
    with path.open("ab") as file:
        file.write(os.urandom(size))


def nobody_can_connect(daemon: DaemonProcess) -> bool:
    try:
        daemon.get("/healthz", timeout_seconds=1)
    except TimeoutError:
        return True
    return False


def test_a_daemon_without_a_free_descriptor_says_so_and_goes_on_when_it_has_some(site: Site) -> None:
    daemon = site.daemon(
        STREAM_TIMEOUT_SECONDS="3", prelude=prelude_of({"scheduling.outages.BACKOFF_CAP_SECONDS": 2.0})
    )
    daemon.wait_for_ready()
    growing, new = site.folder / "growing.mp4", site.folder / "folder" / "new.mp4"
    append(growing, CHUNK + 1)
    daemon.wait_for("chunk stored")
    with no_descriptor_free(daemon.pid):
        append(growing, CHUNK)
        new.parent.mkdir()
        append(new, CHUNK + 1)
        said = daemon.wait_for("watched folder not looked at")["reason"]
        assert said.startswith("Too many open files")
        assert "LimitNOFILE" in said
        assert "LimitNOFILE" in daemon.wait_for("trying again", path="growing.mp4")["reason"]
        assert nobody_can_connect(daemon)
        daemon.wait_for("trying again", path="growing.mp4", count=5)
    site.wait_until_stored("growing.mp4", "folder/new.mp4", timeout_seconds=60)
    daemon.wait_for_ready()
    assert len(daemon.events("watched folder not looked at")) == 1, "not at every look"
    assert len(daemon.events("watching")) == 1, "its observer has its descriptors"
    assert "accept()" not in daemon.output(), "who asks for a page makes it spin"
    for event in ("failed", "vanished", "replaced", "closed incomplete", "observer started anew"):
        assert not daemon.events(event)
    assert daemon.terminate() == 0
    assert site.view.holds("growing.mp4")
    assert site.view.holds("folder/new.mp4")


def test_a_service_that_no_descriptor_is_free_for_is_said_to_be_away_for_that_reason(
    harness: Harness,
) -> None:
    store = harness.parts.store
    store._clients.get()  # else its making needs files, too
    with no_descriptor_free(), pytest.raises(StoreUnavailable, match="LimitNOFILE"):
        store.find("a", b"")
    with no_descriptor_free(), pytest.raises(StoreUnavailable, match="LimitNOFILE"):
        harness.parts.checkpoints.counts()
