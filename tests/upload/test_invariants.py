"""What holds at every moment, not only in the end: looked at between any two writes of a whole life."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import metrics
from recording.layout import BucketLayout, RecordingId
from recording.stream import State
from tests.support.fault_proxy import FaultProxy
from tests.support.rights import bound_by_file_modes
from tests.support.servers import RcloneS3, ValkeyServer
from tests.support.small_harness import SMALL_CHUNK, SmallHarness, noise
from tests.system.test_hostile_input import said
from upload.crash_points import CrashPoint

Sources = dict[str, tuple[bytes, os.stat_result]]


class Watcher:
    """Looks at the folder, at S3 and at Redis whenever the daemon is between two writes.

    Parameters:
        valkey: keeps the records.
        rclone: keeps the objects; its files are looked at directly.
    """

    def __init__(self, valkey: ValkeyServer, rclone: RcloneS3) -> None:
        self.passed: set[CrashPoint] = set()
        self.harness: SmallHarness
        self._valkey, self._rclone = valkey, rclone
        self._sources: Sources = {}
        self._records: dict[str, dict[str, str]] = {}
        self._contents: dict[Path, bytes] = {}

    def let(self, act: Callable[[], object], *steps: Callable[[], object]) -> None:
        """Do something to the sources, and then let the daemon work."""
        act()
        self._sources = self._read_sources()
        for step in steps:
            step()

    def __call__(self, point: CrashPoint) -> None:
        self.passed.add(point)
        objects = self._objects()
        self._every_object_is_whole(objects)
        self._every_manifest_names_what_is_there(objects)
        self._every_record_tells_of_what_is_there(objects)
        self._nothing_went_back()
        self._the_sources_are_as_they_were()

    # ------------------------------------------------------------------ S3

    def _objects(self) -> dict[str, bytes]:
        bucket = self._rclone.data_dir / self.harness.bucket
        found = [path for path in bucket.rglob("*") if path.is_file() and ".vcu" not in path.parts]
        return {str(path.relative_to(bucket)): path.read_bytes() for path in found}

    @staticmethod
    def _every_object_is_whole(objects: dict[str, bytes]) -> None:
        for key, content in objects.items():
            if key.endswith(".json"):
                assert json.loads(content)["chunks"] is not None
            else:
                assert key[-17:-5] == hashlib.sha256(content).hexdigest()[:12], f"{key} has other bytes"

    @staticmethod
    def _every_manifest_names_what_is_there(objects: dict[str, bytes]) -> None:
        for key, content in objects.items():
            for chunk in json.loads(content)["chunks"] if key.endswith(".json") else ():
                stored = objects.get(chunk["key"])
                assert stored is not None, f"{key} names {chunk['key']}, which is not there"
                facts = (len(stored), hashlib.sha256(stored).hexdigest())
                assert facts == (chunk["size_bytes"], chunk["sha256"])

    # ------------------------------------------------------------------ Redis

    def _hashes(self, kind: str) -> dict[str, dict[str, str]]:
        client: Any = self._valkey.client
        base = f"{{{self.harness.settings.redis.namespace}}}:{kind}:"
        keys = [key.decode() for key in client.keys(f"{base}*")]
        return {
            key.removeprefix(base): {
                name.decode(): found.decode() for name, found in client.hgetall(key).items()
            }
            for key in keys
        }

    def _every_record_tells_of_what_is_there(self, objects: dict[str, bytes]) -> None:
        streams, layout = self._hashes("stream"), BucketLayout("")
        for stream_id, chunks in self._hashes("chunks").items():
            key_path, _, generation = stream_id.rpartition("@")
            recording = RecordingId(key_path, int(generation), streams[stream_id]["generation_owner"])
            for index, text in chunks.items():
                record = json.loads(text)
                key = layout.chunk(recording, int(index), record["sha256"])
                stored = objects.get(key)
                assert stored is not None, f"{stream_id} has a record of {key}, which is not there"
                assert (len(stored), hashlib.sha256(stored).hexdigest()) == (record["size"], record["sha256"])

    def _nothing_went_back(self) -> None:
        """A reopened stream drops its tail, and nothing else ever becomes less."""
        records = self._hashes("stream")
        for stream_id, now in records.items():
            before = self._records.get(stream_id, {"next_index": "0", "offset": "0", "epoch": "0"})
            full = int(before["offset"]) // SMALL_CHUNK
            assert int(now["epoch"]) >= int(before["epoch"])
            assert int(now["next_index"]) >= full
            assert int(now["offset"]) >= full * SMALL_CHUNK
        self._records = records

    # ------------------------------------------------------------------ the folder

    def _read_sources(self) -> Sources:
        found = [path for path in self.harness.folder.rglob("*") if path.is_file()]
        return {str(path): (path.read_bytes(), path.stat()) for path in found}

    def _the_sources_are_as_they_were(self) -> None:
        now = self._read_sources()
        assert now.keys() == self._sources.keys()
        for path, (content, status) in self._sources.items():
            assert now[path][0] == content
            for time in ("st_mtime_ns", "st_ctime_ns", "st_ino", "st_mode"):
                assert getattr(now[path][1], time) == getattr(status, time)


@pytest.fixture
def watcher(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> Watcher:
    watcher = Watcher(valkey, rclone)
    watcher.harness = SmallHarness(tmp_path / "input", valkey, rclone, bucket, redis_namespace, at=watcher)
    return watcher


def patch(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(noise(8))


def append(path: Path, size: int) -> None:
    with path.open("ab") as file:
        file.write(noise(size))


NEVER_HERE = {CrashPoint.ADOPTED, CrashPoint.ABANDONED, CrashPoint.DISOWNED}
"""They need a Redis that lost its records, a writer at that very moment, or another recording in the place of
one that is complete: tested elsewhere."""


def test_at_every_moment_what_is_recorded_is_in_s3_whole_and_the_sources_are_untouched(
    watcher: Watcher,
) -> None:
    harness = watcher.harness
    work, idle = harness.scan, harness.fall_idle
    path = harness.folder / "a.mp4"
    watcher.let(lambda: harness.write("a.mp4", noise(2 * SMALL_CHUNK + 5)), work)
    watcher.let(lambda: append(path, SMALL_CHUNK), work)
    watcher.let(lambda: patch(path, 40), idle)
    assert harness.holds("a.mp4")
    watcher.let(lambda: append(path, SMALL_CHUNK), work)
    watcher.let(lambda: patch(path, 40), idle)
    assert harness.holds("a.mp4")
    assert harness.manifest("a.mp4")["revision"] == 2
    renamed = harness.folder / "b.mp4"
    watcher.let(lambda: append(path, SMALL_CHUNK), work)
    watcher.let(lambda: path.rename(renamed), idle)
    watcher.let(lambda: append(renamed, SMALL_CHUNK), work)
    watcher.let(lambda: renamed.write_bytes(noise(SMALL_CHUNK + 1)), idle)
    watcher.let(lambda: harness.write("gone.mp4", noise(SMALL_CHUNK + 1)), work)
    watcher.let((harness.folder / "gone.mp4").unlink, idle, idle)
    assert harness.state("gone.mp4") is State.INCOMPLETE
    watcher.let(lambda: harness.write("/".join(["x" * 100] * 10) + "/deep.mp4", b"x"), idle)
    assert watcher.passed == set(CrashPoint) - NEVER_HERE


MOMENTS = 15
"""In the life of such a recording; that many at the least, or nothing was killed."""


class Killed(BaseException):
    """No error of ours: nothing handles it, as nothing handles kill -9."""


@pytest.mark.drill
def test_a_daemon_that_is_killed_at_any_moment_is_gone_on_with_and_loses_nothing(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> None:
    """Every moment of one recording; `make drill` kills processes, in every life that one can have."""
    left = number = 0

    def hook(_point: CrashPoint) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    def daemon() -> SmallHarness:
        return SmallHarness(tmp_path / "input", valkey, rclone, bucket, redis_namespace, at=hook)

    while left <= 0:
        number += 1
        left, name, harness = number, f"{number}.mp4", daemon()
        target = harness.write(name, content := noise(2 * SMALL_CHUNK + 5))
        try:
            harness.scan()
            target.write_bytes(content := b"patched" + content[7:])
            harness.fall_idle()
        except Killed:
            harness = harness.restarted()
            target.write_bytes(content := b"patched" + content[7:])
        harness.until_finished(name)
        assert harness.holds(name)
        assert harness.recorded(name) == content
    assert number > MOMENTS


def test_a_byte_that_changes_on_its_way_up_is_in_no_object_at_any_moment(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> None:
    """On a store that checks Content-MD5; on another the object is there until it is sent again."""
    watcher = Watcher(valkey, rclone)
    with FaultProxy(rclone.port) as proxy:

        def hook(point: CrashPoint) -> None:
            watcher(point)
            if point is CrashPoint.CHUNK_READ and not proxy.struck:
                proxy.flip_byte(SMALL_CHUNK // 2)

        endpoint = f"http://127.0.0.1:{proxy.port}"
        watcher.harness = harness = SmallHarness(
            tmp_path / "input", valkey, rclone, bucket, redis_namespace, at=hook, S3_ENDPOINT_URL=endpoint
        )
        watcher.let(lambda: harness.write("a.mp4", noise(2 * SMALL_CHUNK + 5)), harness.scan)
        assert proxy.struck == 1
        harness.until_finished("a.mp4")
        assert harness.holds("a.mp4")


def test_a_folder_in_which_the_daemon_may_only_read_is_enough(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> None:
    folder = tmp_path / "read-only"
    harness = SmallHarness(folder, valkey, rclone, bucket, redis_namespace)
    harness.write("a.mp4", noise(2 * SMALL_CHUNK + 5)).chmod(0o444)
    folder.chmod(0o555)
    try:
        with bound_by_file_modes():
            harness.fall_idle()
            assert harness.holds("a.mp4")
    finally:
        folder.chmod(0o755)  # so that pytest can delete it


def test_a_failure_is_in_the_state_in_the_metrics_and_in_the_log(
    watcher: Watcher, caplog: pytest.LogCaptureFixture
) -> None:
    harness = watcher.harness
    too_deep = "/".join(["x" * 100] * 10) + "/a.mp4"

    def errors() -> float:
        labels = {"kind": "key_too_long"}
        return metrics.REGISTRY.get_sample_value("video_uploader_errors_total", labels) or 0.0

    before = errors()
    watcher.let(lambda: harness.write(too_deep, b"x"), harness.fall_idle)
    harness.tick(60)
    failed = harness.stream(too_deep)
    assert failed.state is State.FAILED
    assert failed.error.kind == "key_too_long"
    assert errors() == before + 1
    assert [line["reason"] for line in said(caplog, "failed")] == [failed.error.message]
    assert metrics.REGISTRY.get_sample_value("video_uploader_streams", {"state": "failed"}) == 1
