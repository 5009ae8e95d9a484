"""Two folders in one namespace: the second one is refused before it can begin anything."""

from pathlib import Path

import pytest

from folder.volumes import FolderIdentity
from tests.support.daemon_process import Site
from tests.support.harness import Harness
from tests.support.servers import RcloneS3, ValkeyServer

CONTENT = b"one recording, and its name is in the other folder too"


def other_daemon(harness: Harness, valkey: ValkeyServer, rclone: RcloneS3, folder: Path) -> Harness:
    return Harness(folder, valkey, rclone, harness.bucket, harness.settings.redis.namespace)


def test_a_second_folder_begins_nothing_and_ends_the_start(
    harness: Harness, valkey: ValkeyServer, rclone: RcloneS3, tmp_path: Path
) -> None:
    harness.write("a.mp4", CONTENT)
    harness.fall_idle()
    other = other_daemon(harness, valkey, rclone, tmp_path / "other")
    other.write("a.mp4", b"of another camera")
    before = harness.keys()
    other.scan()
    refused = other.refusal
    assert refused
    assert (refused.kind, refused.refused) == ("folder", True)
    assert str(tmp_path / "other") in str(refused)
    assert not other.parts.breakers.works()
    assert harness.keys() == before


def test_a_second_folder_that_appears_later_begins_nothing_and_readiness_says_why(
    harness: Harness, valkey: ValkeyServer, rclone: RcloneS3, tmp_path: Path
) -> None:
    harness.write("a.mp4", CONTENT)
    harness.fall_idle()
    other = other_daemon(harness, valkey, rclone, tmp_path / "other")
    other.folder.rmdir()
    other.work()
    other.work()
    assert other.parts.breakers.works()
    before = harness.keys()
    other.write("a.mp4", b"of another camera")
    try:
        other.parts.watch.step()
        other.tick()
    finally:
        other.parts.watch.stop()
    assert "REDIS_NAMESPACE" in other.parts.breakers.failures()["redis"]
    assert not other.refusal, "it works once the folder is the right one"
    assert harness.keys() == before


@pytest.mark.parametrize("restarted", [False, True])
def test_a_root_that_is_made_anew_goes_on(harness: Harness, *, restarted: bool) -> None:
    harness.write("a.mp4", CONTENT)
    harness.fall_idle()
    harness.folder.rename(harness.folder.with_name("old"))
    harness.write("b.mp4", CONTENT)
    if restarted:
        harness.parts.checkpoints.claim_folder(*_identity(harness), str(harness.folder))
        harness = harness.restarted()
    harness.fall_idle()
    assert harness.holds("b.mp4")


def _identity(harness: Harness) -> tuple[int, int]:
    return FolderIdentity.of(str(harness.folder))


def test_the_process_ends_with_the_code_of_a_refusal(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str
) -> None:
    site = Site(tmp_path, valkey, rclone, bucket)
    try:
        site.daemon().wait_for("serving")
        (tmp_path / "other").mkdir()
        refused = site.daemon(WATCH_DIR=str(tmp_path / "other"))
        assert refused.exit_code() == 3
        assert "REDIS_NAMESPACE" in refused.output()
    finally:
        site.close()
