"""The soak's judge must be able to fail: each kind of damage is seen, and what is right passes."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.drills import soak_recorders
from tests.drills.soak import act
from tests.drills.soak_faults import Actor
from tests.drills.soak_figures import MAX_GROWN_MB, Growth, Sample, growth_problems
from tests.drills.soak_judge import Judge, Recording, log_problems, metric_problems
from tests.drills.soak_recorders import Recorders
from tests.drills.soak_store import StoreFolder, lost_chunks, number_of
from tests.support.daemon_process import DaemonProcess, Site
from tests.support.harness import CHUNK
from tests.support.servers import RcloneS3, ValkeyServer, wait_until
from tests.support.writers import sha256_of

NAME = "00007-copied.mp4"
AN_HOUR = 3600.0


class Scene:
    """One recording that was stored by a real daemon, and the judge of it."""

    def __init__(self, site: Site, objects: Path) -> None:
        self.site, self.objects = site, objects
        self.store = StoreFolder(objects, chunk_sizes=[CHUNK])
        self.judge = Judge(site, self.store)
        self.source = site.view.write(NAME, os.urandom(2 * CHUNK + 9))
        self.recording = Recording(7, "copied", time.time(), files={self.source: sha256_of(self.source)})
        site.view.fall_idle()

    def problems(self, *losses: float) -> str:
        return "\n".join(self.judge.problems(self.recording, list(losses)))

    @property
    def chunk(self) -> Path:
        return sorted((self.generation / "chunks").iterdir())[1]

    @property
    def manifest(self) -> Path:
        return self.generation / "metadata.json"

    @property
    def generation(self) -> Path:
        (folder,) = (self.objects / NAME).glob("g0001-*")
        return folder

    def set_field(self, name: str, value: object) -> None:
        key = f"{{{self.site.namespace}}}:stream:{NAME}@1"
        self.site.valkey.client.hset(key, name, str(value))


@pytest.fixture
def scene(tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, redis_namespace: str) -> Iterator[Scene]:
    site = Site(tmp_path, valkey, rclone, redis_namespace)
    rclone.client.create_bucket(Bucket=site.bucket)
    yield Scene(site, rclone.data_dir / site.bucket)
    site.close()


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


def test_what_is_right_passes(scene: Scene) -> None:
    assert scene.problems() == ""
    assert not scene.judge.at_work(7)
    assert scene.judge.unclosed(7) == []
    assert scene.judge.record_problems() == []
    assert scene.judge.late_puts(7) == []
    assert len(scene.judge.keys(7)) == 4


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda scene: flip_a_byte(scene.chunk), "holds other bytes than its manifest says"),
        (lambda scene: scene.chunk.unlink(), "is named by a manifest and not there"),
        (lambda scene: scene.manifest.unlink(), "has no manifest"),
        (lambda scene: scene.set_field("state", "active"), f"{NAME} is active"),
        (lambda scene: scene.set_field("mtime_ns", 1), "changed after it was complete"),
        (lambda scene: scene.recording.files.update({scene.source: "0" * 64}), "the writer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damage_is_seen(scene: Scene, damage: Callable[[Scene], None], said: str) -> None:
    damage(scene)
    assert said in scene.problems()


def test_a_manifest_of_other_bytes_than_the_file_is_seen(scene: Scene) -> None:
    manifest = json.loads(scene.manifest.read_text())
    scene.manifest.write_text(json.dumps(manifest | {"sha256": "0" * 64}))
    assert "does not have the SHA-256 of its manifest" in scene.problems()
    assert "is not the file" in scene.problems()


def test_what_a_former_manifest_names_belongs_to_it_and_must_be_whole(scene: Scene) -> None:
    manifest = json.loads(scene.manifest.read_text())
    last = manifest["chunks"].pop()
    manifest["total_size_bytes"] -= last["size_bytes"]
    former = scene.generation / "metadata.r0001.json"
    former.write_bytes(scene.manifest.read_bytes())
    scene.manifest.write_text(json.dumps(manifest | {"sha256": None, "status": "incomplete"}))
    scene.recording.files.clear()
    assert scene.problems() == ""
    (scene.objects / last["key"]).unlink()
    assert f"{last['key']} is named by a manifest and not there" in scene.problems()


def test_a_chunk_of_another_generation_is_seen(scene: Scene) -> None:
    content = scene.manifest.read_text().replace(scene.generation.name + "/chunks", "g0002-00000000/chunks")
    scene.manifest.write_text(content)
    assert "is named by a manifest of" in scene.problems()


def test_what_is_closed_as_incomplete_is_not_the_file(scene: Scene) -> None:
    manifest = json.loads(scene.manifest.read_text())
    scene.manifest.write_text(json.dumps(manifest | {"sha256": None, "status": "incomplete"}))
    assert "is not the file" in scene.problems()


def test_a_missing_manifest_is_excused_only_where_records_were_lost_and_the_file_is_gone(
    scene: Scene,
) -> None:
    scene.manifest.unlink()
    scene.source.unlink()
    scene.recording.files.clear()
    assert "has no manifest" in scene.problems(scene.recording.began_at - 1)
    assert scene.problems(scene.recording.began_at + 1) == ""
    assert scene.judge.unclosed(7) == [f"{NAME}/{scene.generation.name}/"]


@pytest.mark.parametrize("late", [False, True])
def test_a_chunk_that_nobody_names_is_wrong_unless_it_came_after_the_commit(
    scene: Scene, *, late: bool
) -> None:
    orphan = scene.chunk.with_name("000001-0123456789ab.part")
    orphan.write_bytes(b"of another revision")
    if not late:
        manifest = json.loads(scene.manifest.read_text())
        scene.manifest.write_text(json.dumps(manifest | {"completed_at": "2999-01-01T00:00:00.000Z"}))
    assert (f"no manifest names {NAME}/{scene.generation.name}/chunks/{orphan.name}" in scene.problems()) == (
        not late
    )
    assert scene.judge.late_puts(7) == [f"{NAME}/{scene.generation.name}/chunks/{orphan.name}"] * late


def test_what_another_site_has_under_the_same_name_is_not_judged_nor_removed_with_it(scene: Scene) -> None:
    own = scene.generation.name
    other = scene.objects / NAME / "g0001-0123abcd" / "chunks"
    other.mkdir(parents=True)
    (other / "000000-0123456789ab.part").write_bytes(bytes(2 * CHUNK))
    scene.store._chunk_sizes = frozenset([CHUNK, 2 * CHUNK])
    scene.judge._elsewhere = lambda number: number == 7
    assert scene.problems() == ""
    assert [each.owner for each in scene.judge.removable(7)] == [own.removeprefix("g0001-")]
    (other / "000000-0123456789ab.part").write_bytes(b"a tail may be anybody's")
    assert "g0001-0123abcd/ has no manifest" in scene.problems()
    assert len(scene.judge.removable(7)) == 1
    scene.judge._elsewhere = lambda _: False
    assert len(scene.judge.removable(7)) == 2


def test_a_commit_that_was_cut_off_by_the_exchange_of_the_bucket_is_excused_unless_a_file_is_held_by_it(
    scene: Scene,
) -> None:
    scene.chunk.unlink()
    scene.judge = Judge(scene.site, scene.store, wipes=[time.time() - 5])
    assert "is named by a manifest and not there" in scene.problems()
    scene.source.unlink()
    scene.recording.files.clear()
    assert scene.problems() == ""
    scene.judge = Judge(scene.site, scene.store, wipes=[time.time() - AN_HOUR])
    assert "is named by a manifest and not there" in scene.problems()


def test_what_was_repaired_before_a_stream_was_closed_may_lie_beside_its_successor(scene: Scene) -> None:
    manifest = json.loads(scene.manifest.read_text()) | {"completed_at": "2999-01-01T00:00:00.000Z"}
    scene.chunk.with_name("000001-0123456789ab.part").write_bytes(b"repaired since")
    scene.recording.files.clear()
    scene.manifest.write_text(json.dumps(manifest))
    assert "no manifest names" in scene.problems()
    scene.manifest.write_text(json.dumps(manifest | {"sha256": None, "status": "incomplete"}))
    assert scene.problems() == ""
    scene.chunk.with_name("000009-0123456789ab.part").write_bytes(b"behind all that is named")
    assert "no manifest names" in scene.problems()


CHUNKS = [f"{digit}" * 12 for digit in range(4)]


@pytest.mark.parametrize(
    ("put", "kept", "lost"),
    [
        ("0@1 1@1 2@1", "0@1 1@1", ""),  # the last one may have been broken off
        ("0@1 1@1 2@1", "1@1", "0@1"),
        ("0@1 1@1 2@1 0@2 1@2 2@2", "0@2 1@2 2@2", "0@1 1@1"),
        ("0@1 0@2 1@2", "0@2 1@2", ""),
        ("1@1 2@1 0@1", "1@1", ""),  # a repair does not say that the chunks behind it were confirmed
        ("1@1 2@1 0@1", "1@1 2@1", ""),  # a repair that was broken off
        ("1@1 2@1 0@1 3@1", "1@1 2@1", "0@1"),
    ],
)
def test_a_chunk_that_was_stored_of_an_ended_recording_is_missed(put: str, kept: str, lost: str) -> None:
    def keys(short: str) -> list[str]:
        chunks = [
            (int(index), int(generation)) for index, generation in (one.split("@") for one in short.split())
        ]
        return [
            f"{NAME}/g{generation:04d}/chunks/{index:06d}-{CHUNKS[index]}.part"
            for index, generation in chunks
        ]

    others = [
        f"{NAME}/g0001-7f3a91c2/chunks/000000-0123456789ab.part",
        "00008-copied.mp4/g0001-7f3a91c2/chunks/000003-0123456789ab.part",
    ]
    assert lost_chunks({NAME: CHUNKS}, [*others, *keys(put)], keys(kept)) == keys(lost)
    assert lost_chunks({}, keys(put), []) == []


def test_a_lease_that_is_still_held_and_a_stream_that_is_still_active_are_seen(scene: Scene) -> None:
    lease, _ = scene.site.view.parts.checkpoints.acquire(f"{NAME}@1")
    (problem,) = scene.judge.record_problems()
    assert problem.startswith(f"{NAME}@1 is leased by ")
    scene.site.view.parts.checkpoints.release(lease)
    assert scene.judge.record_problems() == []
    scene.set_field("lease_until", 1)  # of a daemon that was killed: it has ended
    scene.set_field("state", "finalizing")
    scene.site.valkey.client.zadd(f"{{{scene.site.namespace}}}:active", {f"{NAME}@1": 0})
    assert scene.judge.at_work(7)
    assert not scene.judge.at_work(8)
    assert scene.judge.record_problems() == [f"{NAME}@1 is finalizing"]


def test_a_traceback_and_a_bug_in_a_log_are_seen(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, {}, prelude="raise RuntimeError('a bug')")
    daemon.may_fail = True
    assert daemon.exit_code() == 1
    assert any("Traceback" in problem for problem in log_problems(daemon))
    with daemon.log_path.open("a") as log:
        event = {"time": "now", "level": "CRITICAL", "event": "a thread died"}
        log.write(json.dumps(event) + "\n" + json.dumps(event | {"level": "INFO", "event": "stopped"}) + "\n")
    assert sum("a thread died" in problem for problem in log_problems(daemon)) == 1
    assert not any("stopped" in problem for problem in log_problems(daemon))


def test_a_daemon_that_still_has_work_is_seen_in_its_metrics() -> None:
    idle = {
        "video_uploader_queue_length": 0.0,
        "video_uploader_backlog_bytes": 0.0,
        "video_uploader_oldest_unsafe_byte_age_seconds": 0.0,
        "video_uploader_folder_watched": 1.0,
        "video_uploader_service_up[s3]": 1.0,
        "video_uploader_service_up[redis]": 1.0,
        "video_uploader_streams[complete]": 3.0,
    }
    assert metric_problems(idle, {"complete": 3}) == []
    for name, value in idle.items():
        assert len(metric_problems(idle | {name: value + 1}, {"complete": 3})) == 1
    assert metric_problems({}, {"complete": 3})


def test_growth_of_memory_threads_and_descriptors_is_seen() -> None:
    ready = Sample(0, 90, 90, threads=16, descriptors=15)
    end = Sample(1800, 120, 130, threads=16, descriptors=25)
    steady = Growth(ready, replace(end, at_seconds=300, peak_mb=121), end, end)
    assert growth_problems(steady, workers=4) == []
    cold = replace(steady, reference=replace(end, at_seconds=90, peak_mb=50))
    assert growth_problems(cold, workers=4) == []
    for worse in (
        {"resident_mb": 122 + MAX_GROWN_MB},
        {"peak_mb": 164.0},
        {"threads": 17},
        {"descriptors": 32},
    ):
        assert len(growth_problems(replace(steady, end=replace(end, **worse)), workers=4)) == 1
    assert growth_problems(replace(steady, last_a=replace(end, threads=17)), workers=4)


def test_files_and_key_paths_tell_their_recording() -> None:
    names = ["00012-copied.mp4", "before-00012-moved_within.mp4", "00012-renamed-00012.mp4"]
    assert {number_of(name) for name in names} == {12}
    assert number_of("another.mp4") is None


def test_actors_are_stepped_in_turn_and_ended_together() -> None:
    said: list[str] = []

    def actor(name: str, seconds: float) -> Actor:
        try:
            while True:
                said.append(name)
                yield seconds
        finally:
            said.append(f"{name} ended")

    act([actor("often", 0.005), actor("once", AN_HOUR)], 0.05)
    assert said.count("often") > 2
    assert said.count("once") == 1
    assert said[-2:] == ["often ended", "once ended"]


def test_recorders_know_what_they_leave_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_PAUSE_SECONDS", "MAX_DEED_SECONDS"):
        monkeypatch.setattr(soak_recorders, name, 0.01)
    folder = tmp_path / "input"
    folder.mkdir()
    recorders = Recorders(folder, seed=1, threads=3, bytes_per_second=1e9)
    recorders.start()
    done: list[Recording] = []

    def enough() -> bool:
        done.extend(recorders.finished())
        return len(done) >= 6

    wait_until(enough, 60)
    recorders.stop()
    done += recorders.finished()
    left = {path: sha256 for recording in done for path, sha256 in recording.files.items()}
    assert {path for path in folder.iterdir() if not path.name.startswith(".")} == set(left)
    assert all(sha256_of(path) == sha256 for path, sha256 in left.items())
    assert len({recording.number for recording in done}) == len(done)
    for recording in done:
        assert len(recording.ended) == (recording.action in ("deleted", "cut", "replaced"))
        assert all(map(recording.ended.get, recording.ended))
