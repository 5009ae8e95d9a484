"""Promise 15: a real daemon's memory, however long a recording is and however many files there are."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_process import DaemonProcess, Site
from tests.harness import CHUNK
from tests.servers import RcloneS3, ValkeyServer

WORKERS = 4
SLACK_BYTES = 16 * 1024**2
"""What Python and the libraries take for connections and replies. Of 58 MB in all, 22 were measured."""


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, redis_namespace: str) -> Iterator[Site]:
    site = Site(tmp_path, valkey, rclone, redis_namespace)
    yield site
    site.close()


def resident(daemon: DaemonProcess, field: str) -> int:
    """Give bytes of resident memory: `VmRSS`, now, or `VmHWM`, the most there was since `forget_peak`."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{daemon.pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def forget_peak(daemon: DaemonProcess) -> None:
    Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")


def test_a_long_recording_takes_no_more_memory_than_two_chunks_a_worker(site: Site) -> None:
    daemon = site.daemon(UPLOAD_WORKERS=str(WORKERS))
    daemon.wait_for_ready()
    before = resident(daemon, "VmRSS")
    forget_peak(daemon)
    for number, chunks in enumerate((30, *[2] * (WORKERS - 1))):
        with (site.folder / f"{number}.mp4").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, chunks * CHUNK)
    site.wait_until_stored(*(f"{number}.mp4" for number in range(WORKERS)), timeout_seconds=60)
    peak = resident(daemon, "VmHWM")
    assert daemon.terminate() == 0
    assert peak <= before + WORKERS * 2 * CHUNK + SLACK_BYTES
