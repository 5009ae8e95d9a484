"""What a daemon shows of itself when a thread hangs."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon_process import Site
from tests.support.servers import RcloneS3, ValkeyServer, wait_until


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, redis_namespace: str) -> Iterator[Site]:
    site = Site(tmp_path, valkey, rclone, redis_namespace)
    yield site
    site.close()


def test_sigusr1_prints_what_every_thread_is_doing_and_ends_nothing(site: Site) -> None:
    daemon = site.daemon()
    daemon.wait_for_ready()
    daemon.send(signal.SIGUSR1)
    wait_until(lambda: "in _wait\n" in daemon.output(), message="the main thread's stack was not printed")
    stacks = daemon.output()
    for place in ("video_processor.py", "folder/scan.py", "in loop\n"):
        assert place in stacks
    assert daemon.running()
    assert daemon.terminate() == 0
