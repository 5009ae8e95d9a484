"""Promise 15: a real daemon's memory, however long a recording is and however many files there are."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drills.crowd import drill, paths, resident_bytes
from tests.support.daemon_process import ROOT, DaemonProcess, Site
from tests.support.harness import CHUNK
from tests.support.servers import RcloneS3, ValkeyServer

WORKERS = 4
SLACK_BYTES = 16 * 1024**2
"""What Python and the libraries take for connections and replies. Of 58 MB in all, 22 were measured."""

A_CROWD_MB = 12
"""For any number of known files and 200 that grow; 3 were measured with 20,000 and 300."""
WAITING_MB = 0.003
"""For each new file that waits; 0.0013 were measured."""


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, redis_namespace: str) -> Iterator[Site]:
    site = Site(tmp_path, valkey, rclone, redis_namespace)
    yield site
    site.close()


def forget_peak(daemon: DaemonProcess) -> None:
    Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")


def test_a_long_recording_takes_no_more_memory_than_two_chunks_a_worker(site: Site) -> None:
    daemon = site.daemon(UPLOAD_WORKERS=str(WORKERS))
    daemon.wait_for_ready()
    before = resident_bytes(daemon.pid, "VmRSS")
    forget_peak(daemon)
    for number, chunks in enumerate((30, *[2] * (WORKERS - 1))):
        with (site.folder / f"{number}.mp4").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, chunks * CHUNK)
            file.write(b"recorded")  # else it would only be reserved, and wait
    site.wait_until_stored(*(f"{number}.mp4" for number in range(WORKERS)), timeout_seconds=60)
    peak = resident_bytes(daemon.pid, "VmHWM")
    assert daemon.terminate() == 0
    assert peak <= before + WORKERS * 2 * CHUNK + SLACK_BYTES


def test_very_many_files_take_little_memory_and_none_is_lost(
    tmp_path: Path, valkey: ValkeyServer, private_rclone: RcloneS3, redis_namespace: str
) -> None:
    """`python -m tests.drills crowd` does the same with 100,000 known and waiting files, 1,000 that grow."""
    site = Site(tmp_path, valkey, private_rclone, redis_namespace)
    try:
        crowd = drill(site, private_rclone, known=1000, growing=40, waiting=1000, timeout_seconds=60)
        assert crowd.mb_with_growing_files < crowd.mb_with_an_empty_folder + A_CROWD_MB
        assert crowd.mb_with_waiting_files < crowd.mb_with_growing_files + 1000 * WAITING_MB + A_CROWD_MB
        site.wait_until_stored(*paths("waiting", 20), timeout_seconds=60)
    finally:
        site.close()


def test_memory_of_chunks_goes_back_to_the_system() -> None:
    """In a process of its own: what the C library was told once holds for all that follow."""
    program = """
import daemon, os
from pathlib import Path

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

daemon.give_large_blocks_back()
bytearray(8 * 2**20)  # untold, glibc would keep blocks of up to this size from here on
chunks = [bytearray(b"x" * (5 * 2**20)) for _ in range(8)]
before = resident()
del chunks[:-1]  # the last one would keep those before it from being given back
print(before - resident())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)
    assert int(done.stdout) >= 35 * 2**20
