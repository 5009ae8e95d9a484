"""What S3 holds of a recording stays whole when its source is patched, lost or replaced at a bad moment."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from errors import TransientError
from recording import manifest
from recording.stream import RecordedError, State
from tests.support.harness import CHUNK, TIMEOUT, Harness
from tests.support.servers import RcloneS3, ValkeyServer
from upload.crash_points import CrashPoint

Hook = Callable[[CrashPoint], None]


def let_it_vanish(harness: Harness) -> None:
    for seconds in (1.0, 1.0, TIMEOUT, 1.0):
        harness.tick(seconds)


def test_a_recording_that_vanishes_while_its_patch_is_repaired_keeps_every_object_of_its_manifest(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> None:
    source = tmp_path / "input" / "cam.mp4"

    def lose(point: CrashPoint) -> None:
        if point is CrashPoint.SETTLING_RECORDED and patched:
            source.unlink(missing_ok=True)

    patched = False
    harness = Harness(tmp_path / "input", valkey, rclone, bucket, redis_namespace, at=lose)
    first = os.urandom(2 * CHUNK + 1000)
    harness.write("cam.mp4", first)
    harness.fall_idle()
    assert harness.holds("cam.mp4")

    patched = True
    harness.write("cam.mp4", b"patched" + first[7:])
    harness.fall_idle()
    let_it_vanish(harness)

    assert not source.exists()
    assert harness.state("cam.mp4") is State.COMPLETE
    assert harness.recorded("cam.mp4", leftovers=1) == first


def test_another_file_in_the_place_of_a_failed_one_leaves_what_is_stored_of_it_alone(
    harness: Harness, tmp_path: Path
) -> None:
    first, second = os.urandom(2 * CHUNK), os.urandom(3 * CHUNK)
    harness.write("cam.mp4", first)
    harness.scan()
    checkpoints = harness.parts.checkpoints
    failed = harness.stream("cam.mp4")
    with checkpoints.leased(failed.stream_id) as (lease, _):
        checkpoints.set_state(
            lease,
            State.ACTIVE,
            State.FAILED,
            failed.signature,
            revision=0,
            error=RecordedError("unreadable", "no right"),
        )

    (tmp_path / "second").write_bytes(second)
    (tmp_path / "second").rename(harness.folder / "cam.mp4")
    again = harness.restarted()
    again.fall_idle()

    assert again.recorded("cam.mp4", 1) == first
    assert again.holds("cam.mp4", 2)


def test_a_stream_that_cannot_be_closed_under_a_link_fails_and_the_daemon_goes_on(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = harness.write("cam.mp4", os.urandom(2 * CHUNK))
    harness.scan()
    monkeypatch.setattr(manifest, "MAX_MANIFEST_BYTES", 10)
    harness.s3.put_object(
        Bucket=harness.bucket, Key=harness.generation("cam.mp4") + "metadata.json", Body=b"x" * 100
    )

    source.rename(harness.folder / "elsewhere")
    source.symlink_to(harness.folder / "elsewhere")
    let_it_vanish(harness)

    assert harness.state("cam.mp4") is State.FAILED
    assert harness.stream("cam.mp4").error.kind == "manifest"


def test_another_namespace_and_another_chunk_size_mix_no_bytes(
    harness: Harness, tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str
) -> None:
    content = os.urandom(2 * CHUNK + 1000)
    source = harness.write("cam.mp4", content)
    harness.scan()
    again = Harness(
        harness.folder, valkey, rclone, bucket, f"{tmp_path.name}-lost", CHUNK_SIZE=str(2 * CHUNK)
    )
    again.scan()
    source.unlink()
    let_it_vanish(again)
    let_it_vanish(harness)

    assert again.recorded("cam.mp4", 2) == harness.recorded("cam.mp4", 1) == content[: 2 * CHUNK]


def test_an_object_that_is_too_large_for_a_chunk_does_not_keep_a_stream_open(harness: Harness) -> None:
    source = harness.write("cam.mp4", content := os.urandom(CHUNK))
    harness.scan()
    stray = harness.generation("cam.mp4") + "chunks/000001-0123456789ab.part"
    harness.s3.put_object(Bucket=harness.bucket, Key=stray, Body=bytes(CHUNK + 1))
    source.unlink()
    let_it_vanish(harness)

    assert harness.state("cam.mp4") is State.INCOMPLETE
    harness.s3.delete_object(Bucket=harness.bucket, Key=stray)
    assert harness.recorded("cam.mp4") == content


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_chunk_that_is_deleted_in_s3_before_the_commit_is_sent_again(harness: Harness, lost: int) -> None:
    harness.write("cam.mp4", os.urandom(3 * CHUNK))
    harness.scan()
    harness.s3.delete_object(Bucket=harness.bucket, Key=harness.keys("cam.mp4/")[lost])
    harness.fall_idle()
    assert harness.holds("cam.mp4")


def test_a_chunk_that_is_deleted_while_the_commit_fails_is_sent_again(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> None:
    failures = 0

    def fail_once(point: CrashPoint) -> None:
        nonlocal failures
        if point is CrashPoint.REREAD and not failures:
            failures += 1
            harness.s3.delete_object(Bucket=bucket, Key=harness.keys("cam.mp4/")[0])
            raise TransientError("the commit failed", kind="corrupt")

    harness = Harness(tmp_path / "input", valkey, rclone, bucket, redis_namespace, at=fail_once)
    harness.write("cam.mp4", os.urandom(CHUNK + 5))
    harness.fall_idle()
    harness.tick(31)
    assert failures == 1
    assert harness.holds("cam.mp4")


def test_a_source_that_is_patched_while_a_lost_chunk_is_sent_again_is_read_anew(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> None:
    patched = False

    def patch(point: CrashPoint) -> None:
        nonlocal patched
        if point is CrashPoint.SETTLING_RECORDED and not patched:
            patched = True
            with source.open("r+b") as file:
                file.write(b"patched")

    harness = Harness(tmp_path / "input", valkey, rclone, bucket, redis_namespace, at=patch)
    source = harness.write("cam.mp4", os.urandom(2 * CHUNK))
    harness.scan()
    harness.s3.delete_object(Bucket=bucket, Key=harness.keys("cam.mp4/")[1])
    harness.fall_idle()
    harness.fall_idle()
    assert patched
    assert harness.holds("cam.mp4")


def test_chunks_that_are_deleted_in_s3_end_the_manifest_of_a_recording_that_vanished(
    harness: Harness,
) -> None:
    content = os.urandom(3 * CHUNK)
    source = harness.write("cam.mp4", content)
    harness.scan()
    harness.s3.delete_object(Bucket=harness.bucket, Key=harness.keys("cam.mp4/")[1])
    source.unlink()
    let_it_vanish(harness)
    found = harness.manifest("cam.mp4")
    assert (found["status"], found["chunk_count"]) == ("incomplete", 1)
    assert harness.read(found["chunks"][0]["key"]) == content[:CHUNK]


@pytest.mark.parametrize("listed", [0, 1])
def test_a_list_that_is_behind_takes_no_recorded_chunk_from_a_recording_that_vanished(
    harness: Harness, listed: int
) -> None:
    def behind(parsed: dict[str, Any], **_: Any) -> None:
        if "/chunks/" in parsed.get("Prefix", ""):
            parsed["Contents"] = parsed.get("Contents", [])[:listed]

    content = os.urandom(2 * CHUNK)
    source = harness.write("cam.mp4", content)
    harness.scan()
    harness.parts.store._connected().meta.events.register("after-call.s3.ListObjectsV2", behind)
    source.unlink()
    let_it_vanish(harness)
    assert harness.state("cam.mp4") is State.INCOMPLETE
    assert harness.recorded("cam.mp4") == content
