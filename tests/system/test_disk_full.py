"""The disk of Redis or of S3 is full: a pause for all, tries, and no loss when there is room again."""

import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import served
from tests.support.servers import RcloneS3, Server, ValkeyServer, wait_until
from tests.support.small_harness import SMALL_CHUNK, SmallHarness, noise
from tests.support.stepped_page import Page

_IN_A_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
_ON_A_SMALL_DISK = 'mount -t tmpfs -o size=4m none "$0" && cd "$0" && exec "$@"'


def on_a_small_disk(server: Server, command: list[str]) -> list[str]:
    """Run a server in a mount namespace where its data folder is 4 MB large; nobody else sees it."""
    unshare, *more = _IN_A_NAMESPACE
    return [
        shutil.which(unshare) or unshare,
        *more,
        "sh",
        "-c",
        _ON_A_SMALL_DISK,
        str(server.data_dir),
        *command,
    ]


def disk_of(server: Server) -> Path:
    return Path(f"/proc/{server.pid}/root{server.data_dir}")


def fill(server: Server) -> None:
    with (disk_of(server) / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - any other one is a failure


def make_room(server: Server) -> None:
    (disk_of(server) / "filler").unlink()


class SmallValkey(ValkeyServer):
    def _command(self) -> list[str]:
        return on_a_small_disk(self, super()._command())


class SmallRclone(RcloneS3):
    def _command(self) -> list[str]:
        return on_a_small_disk(self, super()._command())


@pytest.fixture(scope="module")
def _namespaces() -> None:
    try:
        subprocess.run([*_IN_A_NAMESPACE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespaces here: {error}")


@pytest.fixture
def small_valkey(tmp_path: Path, _namespaces: None) -> Iterator[SmallValkey]:
    yield from served(SmallValkey(tmp_path / "small-valkey"))


@pytest.fixture
def small_rclone(tmp_path: Path, _namespaces: None) -> Iterator[SmallRclone]:
    yield from served(SmallRclone(tmp_path / "small-rclone"))


def test_a_full_disk_of_s3_is_a_pause(
    tmp_path: Path, valkey: ValkeyServer, small_rclone: SmallRclone, redis_namespace: str
) -> None:
    harness = SmallHarness(tmp_path / "input", valkey, small_rclone, "videos", redis_namespace)
    harness.write("a.mp4", noise(2 * SMALL_CHUNK + 9))
    harness.scan()
    fill(small_rclone)
    harness.write("b.mp4", noise(SMALL_CHUNK + 9))
    must_pause(harness, "s3")
    assert harness.parts.checkpoints.find("b.mp4"), "it is not forgotten"
    s3 = Page(harness, data_dir=disk_of(small_rclone)).report()["services"][0]
    assert s3["problem"].startswith("the disk of the embedded store is full: "), "whatever the store calls it"
    make_room(small_rclone)
    harness.until_finished("a.mp4", "b.mp4")
    assert harness.holds("a.mp4")
    assert harness.holds("b.mp4")
    assert not harness.refusal


def test_a_full_disk_of_redis_is_a_pause(
    tmp_path: Path, small_valkey: SmallValkey, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> None:
    harness = SmallHarness(tmp_path / "input", small_valkey, rclone, bucket, redis_namespace)
    harness.write("a.mp4", noise(2 * SMALL_CHUNK + 9))
    harness.scan()
    fill(small_valkey)
    info = small_valkey.client.info
    small_valkey.client.set("padding", bytes(8192))  # no room is left for it in a page that is begun
    wait_until(lambda: info("persistence")["aof_last_write_status"] == "err", 30)
    harness.write("b.mp4", noise(SMALL_CHUNK + 9))
    must_pause(harness, "redis")
    assert "make room" in harness.parts.breakers.failures()["redis"]
    make_room(small_valkey)
    wait_until(lambda: info("persistence")["aof_last_write_status"] == "ok", 30)
    harness.until_finished("a.mp4", "b.mp4")
    assert harness.holds("a.mp4")
    assert harness.holds("b.mp4")
    assert not harness.refusal


def must_pause(harness: SmallHarness, service: str) -> None:
    harness.fall_idle()
    for _ in range(3):
        harness.tick(100)
        assert list(harness.parts.breakers.failures()) == [service]
