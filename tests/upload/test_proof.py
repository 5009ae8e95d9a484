"""Promises 17 to 20: a wrong guess costs storage, never footage. Nothing is inferred that can be proven."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chunk_uploader
from archive.listing import Archive
from archive.names import AmbiguousRecording
from errors import PermanentError
from recording.layout import RecordingId
from recording.manifest import Manifest
from recording.stream import RecordedError, State
from redis_store.audits import Finding
from tests.support.archive_parts import Shelf
from tests.support.harness import TIMEOUT
from tests.support.servers import RcloneS3, ValkeyServer
from tests.support.small_harness import SMALL_CHUNK, SmallHarness, noise
from tests.support.watched_folder import value
from upload import comparison, content_match
from upload.audit import REFRESH_SECONDS
from upload.crash_points import CrashPoint, Hook, no_op
from upload.manifests import ManifestStore

Sites = Callable[..., SmallHarness]


class Site(SmallHarness):
    """A daemon whose chunk size may differ from that of another one."""

    chunk_size = SMALL_CHUNK

    def _load(self) -> Any:
        return super()._load().replaced(upload={"chunk_size": self.chunk_size})


class OtherSize(Site):
    chunk_size = 2 * SMALL_CHUNK


@pytest.fixture
def sites(tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str) -> Sites:
    """Daemons with one bucket, each with a namespace of its own; without a folder each has its own, too."""

    def begun(name: str, kind: type[SmallHarness] = Site, folder: str = "", at: Hook = no_op) -> SmallHarness:
        return kind(tmp_path / (folder or name), valkey, rclone, bucket, f"{redis_namespace}-{name}", at=at)

    return begun


@pytest.fixture
def harness(sites: Sites) -> SmallHarness:
    return sites("one")


def archive_of(harness: SmallHarness, rclone: RcloneS3) -> Archive:
    return Shelf(rclone, harness.bucket).archive()


def recordings_in(harness: SmallHarness) -> list[str]:
    return harness.keys("cam.mp4/")


def append(harness: SmallHarness, path: str, content: bytes) -> None:
    with (harness.folder / path).open("ab") as file:
        file.write(content)


def rewrite(harness: SmallHarness, path: str, content: bytes, at: int = 0) -> None:
    """Write into a file in place, as whoever opens it without truncating it."""
    with (harness.folder / path).open("r+b") as file:
        file.seek(at)
        file.write(content)


def forge(harness: SmallHarness, stream_id: str, **fields: object) -> None:
    redis: Any = harness.parts.checkpoints._redis
    key = harness.parts.checkpoints._stream_key(stream_id)
    for name, forged in fields.items():
        if forged is None:
            redis.hdel(key, name)
        else:
            redis.hset(key, name, str(forged))


# ---------------------------------------------------------------------- a generation has an owner


def test_two_sites_that_begin_one_name_at_one_moment_get_two_recordings(
    sites: Sites, rclone: RcloneS3
) -> None:
    both = sites("north"), sites("south")
    contents = [noise(3 * SMALL_CHUNK + 5), noise(2 * SMALL_CHUNK + 7)]
    for site, content in zip(both, contents, strict=True):
        site.write("cam.mp4", content[:10])
        site.scan()  # S3 has nothing of either yet
    for site, content in zip(both, contents, strict=True):
        append(site, "cam.mp4", content[10:])
        site.until_finished("cam.mp4")
    archive = archive_of(both[0], rclone)
    with pytest.raises(AmbiguousRecording) as several:
        archive.find("cam.mp4")
    names = [f"cam.mp4@1-{site.stream('cam.mp4').owner}" for site in both]
    assert sorted(several.value.names) == sorted(names)
    assert sorted(each.name for each in archive.summaries()) == sorted(names)
    for name, content in zip(names, contents, strict=True):
        assert archive.find(name).size == len(content)
        assert b"".join(both[0].read(chunk.key) for chunk in archive.find(name).chunks) == content


@pytest.mark.parametrize("kind", [Site, OtherSize])
def test_two_namespaces_on_one_folder_leave_each_other_alone(sites: Sites, kind: type[SmallHarness]) -> None:
    first = sites("first", folder="shared")
    second = sites("second", kind, folder="shared")
    first.write("patched.mp4", noise(3 * SMALL_CHUNK + 5))
    first.write("grows.mp4", noise(SMALL_CHUNK + 5))
    for site in (first, second):
        site.scan()
    rewrite(first, "patched.mp4", b"patched", at=40)
    append(first, "grows.mp4", noise(2 * SMALL_CHUNK))
    for site in (first, second, first, second):
        site.fall_idle()
    for path in ("patched.mp4", "grows.mp4"):
        owners = {site.stream(path).owner for site in (first, second)}
        assert len(owners) == 2
        for site in (first, second):
            assert site.holds(path, site.stream(path).generation)
    assert len(first.keys("grows.mp4/")) == len(set(first.keys("grows.mp4/")))
    generations = {key.split("/")[1] for key in first.keys("grows.mp4/")}
    assert len(generations) == 2, "and nobody begins anew because of the other"


def test_a_recording_that_another_site_has_complete_is_not_stored_twice(sites: Sites) -> None:
    first = sites("first", folder="shared")
    first.write("cam.mp4", noise(2 * SMALL_CHUNK + 5))
    first.until_finished("cam.mp4")
    stored = recordings_in(first)
    second = sites("second", folder="shared")
    second.until_finished("cam.mp4")
    assert second.stream("cam.mp4").adopted
    assert recordings_in(second) == stored
    append(second, "cam.mp4", noise(SMALL_CHUNK))
    copied = value("chunks_copied_total")
    second.until_finished("cam.mp4")
    assert second.stream("cam.mp4").generation == 2, "nothing is put into a folder that another one owns"
    assert second.holds("cam.mp4", 2)
    assert value("chunks_copied_total") == copied + 2


def test_a_recording_is_found_again_behind_others_of_its_size(sites: Sites, harness: SmallHarness) -> None:
    """Two chunks each, and the last of one byte, which says nothing: all of them must be compared."""
    end = noise(1)
    harness.write("cam.mp4", noise(2 * SMALL_CHUNK) + end)
    harness.until_finished("cam.mp4")
    for name in ("second", "third"):
        other = sites(name)
        other.write("cam.mp4", noise(2 * SMALL_CHUNK) + end)
        other.until_finished("cam.mp4")
    found = harness.stream("cam.mp4").recording
    stored = recordings_in(harness)
    harness.parts.checkpoints._redis.flushdb()
    harness.until_finished("cam.mp4")
    assert harness.stream("cam.mp4").recording == found
    assert recordings_in(harness) == stored


def audited(harness: SmallHarness) -> list[Finding]:
    """Let the auditor look at every recording now."""
    redis: Any = harness.parts.checkpoints._redis
    queue = f"{{{harness._namespace}}}:audits"
    harness.parts.auditor.step()
    for stream_id in redis.zrange(queue, 0, -1):
        redis.zadd(queue, {stream_id: 0})
    for _ in range(3):
        harness.clock.now += REFRESH_SECONDS
        harness.parts.auditor.step()
    return harness.parts.auditor.findings or []


@pytest.fixture
def adopter(sites: Sites) -> tuple[SmallHarness, SmallHarness]:
    """A site, and one that found its recording in S3, because it has the same file."""
    first, second, content = sites("first"), sites("second"), noise(3 * SMALL_CHUNK + 5)
    for site in (first, second):
        site.write("cam.mp4", content)
        site.until_finished("cam.mp4")
    assert second.stream("cam.mp4").adopted
    return first, second


def lose_its_manifest(harness: SmallHarness) -> None:
    harness.s3.delete_object(Bucket=harness.bucket, Key=harness.generation("cam.mp4") + "metadata.json")


def lose_a_chunk(harness: SmallHarness) -> None:
    harness.s3.delete_object(Bucket=harness.bucket, Key=harness.manifest("cam.mp4")["chunks"][1]["key"])


@pytest.mark.parametrize("lose", [lose_its_manifest, lose_a_chunk])
def test_what_s3_lost_of_anothers_recording_is_never_put_there(
    adopter: tuple[SmallHarness, SmallHarness], lose: Callable[[SmallHarness], None]
) -> None:
    """The file begins a recording of its own, and the loss stays told."""
    _, second = adopter
    lose(second)
    before = second.keys("cam.mp4/g0001")
    assert len(audited(second)) == 1
    second.until_finished("cam.mp4")
    assert second.stream("cam.mp4").generation == 2
    assert second.holds("cam.mp4", 2)
    assert second.keys("cam.mp4/g0001") == before


def test_a_recording_whose_chunks_are_gone_is_not_taken_for_a_source(
    sites: Sites, adopter: tuple[SmallHarness, SmallHarness]
) -> None:
    first, _ = adopter
    lose_a_chunk(first)
    third = sites("third", folder="first")
    third.until_finished("cam.mp4")
    assert not third.stream("cam.mp4").adopted
    assert third.holds("cam.mp4", 2)


def test_a_recording_that_was_found_in_s3_and_is_changed_there_is_stored_by_itself(
    adopter: tuple[SmallHarness, SmallHarness],
) -> None:
    first, second = adopter
    rewrite(first, "cam.mp4", b"patched", at=40)
    first.until_finished("cam.mp4")
    assert first.stream("cam.mp4").revision == 2
    (finding,) = audited(second)
    assert "revision 2 by now" in finding.problems[0]
    second.until_finished("cam.mp4")
    assert second.stream("cam.mp4").generation == 2
    assert second.holds("cam.mp4", 2)
    assert audited(second) == []


@pytest.mark.parametrize("redis_lost", [False, True])
def test_a_comparison_asks_s3_at_its_beginning_and_its_end_alone(
    harness: SmallHarness, monkeypatch: pytest.MonkeyPatch, *, redis_lost: bool
) -> None:
    source = harness.write("cam.mp4", noise(20 * SMALL_CHUNK))
    harness.until_finished("cam.mp4")
    os.utime(source)
    if redis_lost:
        harness.parts.checkpoints._redis.flushall()
    asked, read = [], ManifestStore.read

    def counted(store: ManifestStore, wanted: RecordingId) -> Manifest | None:
        asked.append(wanted)
        return read(store, wanted)

    monkeypatch.setattr(ManifestStore, "read", counted)
    harness.until_finished("cam.mp4")
    assert len(asked) <= 4
    assert harness.stream("cam.mp4").generation == 1
    assert under_comparison(harness) == {}


def test_what_vanishes_while_it_is_compared_is_forgotten(harness: SmallHarness) -> None:
    source = harness.write("cam.mp4", noise(20 * SMALL_CHUNK))
    harness.until_finished("cam.mp4")
    os.utime(source)
    harness.parts.watch.scan()
    harness.clock.now += TIMEOUT
    harness.parts.monitor.tick()
    for _ in range(3):
        harness.parts.processor.work_once(0)
    assert under_comparison(harness).keys() == {"cam.mp4"}
    source.unlink()
    harness.fall_idle()
    assert under_comparison(harness) == {}


def under_comparison(harness: SmallHarness) -> dict[str, Any]:
    return harness.parts.processor._uploader._resolver._comparisons._of


# ---------------------------------------------------------------------- nothing that was named is deleted


@pytest.mark.parametrize("damage", [b"", b"{}"])
def test_a_former_manifest_keeps_its_chunks_when_the_newest_one_is_lost(
    harness: SmallHarness, damage: bytes
) -> None:
    first = noise(2 * SMALL_CHUNK + 5)
    harness.write("cam.mp4", first)
    harness.until_finished("cam.mp4")
    rewrite(harness, "cam.mp4", b"patched", at=40)
    harness.until_finished("cam.mp4")
    lose_its_manifest(harness)
    if damage:
        key = harness.generation("cam.mp4") + "metadata.json"
        harness.s3.put_object(Bucket=harness.bucket, Key=key, Body=damage)
    assert audited(harness)
    harness.until_finished("cam.mp4")
    assert harness.manifest("cam.mp4")["revision"] == 3
    assert harness.recorded("cam.mp4", revision=1) == first


def test_a_manifest_that_is_away_for_a_moment_is_not_put_over(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    away: list[bool] = []

    def hook(point: CrashPoint) -> None:
        if point is CrashPoint.FINALIZING:
            away.append(True)

    harness = sites("one", at=hook)
    harness.write("cam.mp4", first := noise(2 * SMALL_CHUNK + 5))
    harness.until_finished("cam.mp4")
    rewrite(harness, "cam.mp4", b"patched", at=40)
    read = ManifestStore.read
    monkeypatch.setattr(
        ManifestStore, "read", lambda store, wanted: None if away and away.pop() else read(store, wanted)
    )
    away.clear()
    harness.until_finished("cam.mp4")
    assert harness.manifest("cam.mp4")["revision"] == 2
    assert harness.recorded("cam.mp4", revision=1) == first


@pytest.mark.parametrize("chunks", [4, 2])
def test_a_ring_behind_the_head_is_another_recording_also_when_it_vanishes(
    harness: SmallHarness, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    """It is rewritten in its middle, grows, and is gone before anybody could compare all of it."""
    monkeypatch.setattr(content_match, "HEAD_BYTES", 2 * SMALL_CHUNK)
    first = noise(6 * SMALL_CHUNK)
    source = harness.write("cam.mp4", first)
    harness.until_finished("cam.mp4")
    rewrite(harness, "cam.mp4", noise(chunks * SMALL_CHUNK), at=2 * SMALL_CHUNK)
    append(harness, "cam.mp4", noise(2 * SMALL_CHUNK))
    harness.scan()
    source.unlink()
    harness.fall_idle()
    harness.tick(TIMEOUT)
    assert harness.manifest("cam.mp4")["status"] == "complete"
    assert harness.recorded("cam.mp4") == first
    assert harness.manifest("cam.mp4", 2)["status"] == "incomplete"


def test_a_revision_leaves_the_former_manifest_and_all_that_it_names(
    harness: SmallHarness, rclone: RcloneS3
) -> None:
    first = noise(3 * SMALL_CHUNK + 5)
    harness.write("cam.mp4", first)
    harness.until_finished("cam.mp4")
    rewrite(harness, "cam.mp4", b"patched", at=40)
    append(harness, "cam.mp4", noise(SMALL_CHUNK))
    harness.until_finished("cam.mp4")
    assert harness.holds("cam.mp4")
    newest = harness.manifest("cam.mp4")
    assert newest["revision"] == 2
    assert newest["former"]["revision"] == 1
    assert harness.recorded("cam.mp4", revision=1) == first
    assert archive_of(harness, rclone).find("cam.mp4", revision=1).size == len(first)


def test_a_recording_that_only_grows_is_not_stored_twice(harness: SmallHarness) -> None:
    harness.write("cam.mp4", noise(SMALL_CHUNK + 5))
    for _ in range(5):
        harness.until_finished("cam.mp4")
        append(harness, "cam.mp4", noise(SMALL_CHUNK // 2))
    harness.until_finished("cam.mp4")
    assert harness.manifest("cam.mp4")["revision"] == 6
    assert harness.former("cam.mp4") == []
    size = (harness.folder / "cam.mp4").stat().st_size
    stored = sum(len(harness.read(key)) for key in harness.keys(harness.generation("cam.mp4") + "chunks/"))
    assert (harness.holds("cam.mp4"), stored) == (True, size)


def test_a_chunk_that_s3_loses_twice_after_confirming_it_is_there_at_the_commit(sites: Sites) -> None:
    losses: list[str] = []

    def lose(point: CrashPoint) -> None:
        if point is CrashPoint.SETTLING_PUT and len(losses) < 2:
            losses.extend(key for key in site.keys("cam.mp4/") if "/chunks/000000-" in key)
            site.s3.delete_object(Bucket=site.bucket, Key=losses[-1])

    site = sites("one", at=lose)
    site.write("cam.mp4", noise(2 * SMALL_CHUNK + 5))
    site.until_finished("cam.mp4")
    assert len(losses) == 2
    assert site.holds("cam.mp4")


# ---------------------------------------------------------------------- sameness is proven


def cut_and_begin_anew(harness: SmallHarness, content: bytes) -> None:
    """O_TRUNC and a new recording under the same name and inode."""
    rewrite(harness, "cam.mp4", b"")
    os.truncate(harness.folder / "cam.mp4", 0)
    rewrite(harness, "cam.mp4", content)


RESERVED = bytes(SMALL_CHUNK)


@pytest.mark.parametrize("how", ["cut", "renamed", "redis lost"])
def test_reserved_space_makes_no_two_recordings_one(harness: SmallHarness, how: str) -> None:
    first = RESERVED + noise(SMALL_CHUNK)
    second = RESERVED + noise(2 * SMALL_CHUNK)
    harness.write("cam.mp4", first)
    harness.until_finished("cam.mp4")
    path = "cam.mp4"
    if how == "redis lost":
        harness.parts.checkpoints._redis.flushall()
        harness = harness.restarted()
    if how == "renamed":  # the inode number of a deleted file, at another name
        path = "other.mp4"
        (harness.folder / "cam.mp4").rename(harness.folder / path)
        rewrite(harness, path, second)
        redis: Any = harness.parts.checkpoints._redis
        redis.hset(harness.parts.checkpoints._stream_key("cam.mp4@1"), "born_ns", "1")
    else:
        cut_and_begin_anew(harness, second)
    harness.until_finished(path)
    assert harness.recorded("cam.mp4", 1) == first
    assert harness.manifest("cam.mp4", 1)["status"] == "complete"
    stream = harness.stream(path)
    assert stream.stream_id == ("other.mp4@1" if how == "renamed" else "cam.mp4@2")
    assert harness.holds(path, stream.generation)


def test_a_ring_that_is_rewritten_in_place_begins_the_next_generation(
    harness: SmallHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "HEAD_BYTES", 2 * SMALL_CHUNK)
    first = noise(8 * SMALL_CHUNK)
    harness.write("ring.mp4", first)
    harness.until_finished("ring.mp4")
    rewrite(harness, "ring.mp4", noise(SMALL_CHUNK))
    harness.scan()  # so far it may be a head that was patched
    rewrite(harness, "ring.mp4", noise(4 * SMALL_CHUNK))
    harness.until_finished("ring.mp4")
    assert harness.recorded("ring.mp4", 1, leftovers=None) == first
    assert harness.manifest("ring.mp4", 1)["revision"] == 1
    assert harness.stream("ring.mp4").generation == 2
    assert harness.holds("ring.mp4", 2)


def test_a_ring_that_grows_while_it_is_rewritten_is_given_back_and_begun_anew(
    harness: SmallHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "HEAD_BYTES", 2 * SMALL_CHUNK)
    first = noise(8 * SMALL_CHUNK + 5)
    harness.write("ring.mp4", first)
    harness.until_finished("ring.mp4")
    append(harness, "ring.mp4", noise(SMALL_CHUNK))
    harness.scan()
    assert harness.state("ring.mp4") is State.ACTIVE, "it is the same recording so far"
    rewrite(harness, "ring.mp4", noise(5 * SMALL_CHUNK))
    copied = value("chunks_copied_total")
    harness.until_finished("ring.mp4")
    assert harness.recorded("ring.mp4", 1, leftovers=None) == first
    assert harness.stream("ring.mp4").generation == 2
    assert harness.holds("ring.mp4", 2)
    assert value("chunks_copied_total") > copied, "what is the same is not sent again"


def test_the_same_bytes_in_another_file_are_the_same_recording(harness: SmallHarness) -> None:
    content = noise(2 * SMALL_CHUNK + 5)
    harness.write("cam.mp4", content)
    harness.until_finished("cam.mp4")
    stored = recordings_in(harness)
    (harness.folder / "cam.mp4").rename(harness.folder.parent / "aside")
    harness.write("cam.mp4", content)
    harness.until_finished("cam.mp4")
    assert harness.stream("cam.mp4").stream_id == "cam.mp4@1"
    assert harness.stream("cam.mp4").settled(signature_of(harness, "cam.mp4"))
    assert recordings_in(harness) == stored


def signature_of(harness: SmallHarness, path: str) -> Any:
    return type(harness.stream(path).signature).of((harness.folder / path).stat())


def test_a_new_file_under_the_name_and_inode_of_an_unfinished_one_begins_anew(harness: SmallHarness) -> None:
    harness.write("cam.mp4", first := noise(2 * SMALL_CHUNK))
    harness.scan()
    forge(harness, "cam.mp4@1", born_ns=1)
    again = harness.restarted()
    append(again, "cam.mp4", noise(SMALL_CHUNK))
    again.until_finished("cam.mp4")
    assert again.recorded("cam.mp4", 1) == first
    assert again.holds("cam.mp4", 2)


# ---------------------------------------------------------------------- records are claims

DAMAGES: dict[str, dict[str, object]] = {
    "no number": {"size": "abc"},
    "a number of 30 digits": {"offset": "9" * 30},
    "chunks without bytes": {"next_index": 7},
    "a state that nobody knows": {"state": "perfect"},
    "a path that is none": {"path_base64": "!"},
    "another generation": {"generation": 7},
    "an owner that leads elsewhere": {"generation_owner": "../../x"},
    "no path": {"path_base64": None},
    "a time after the last year": {"updated_at": 10**15 - 1},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("when", ["growing", "complete"])
def test_a_record_that_cannot_be_true_is_none_and_s3_decides(
    harness: SmallHarness, damage: dict[str, object], when: str
) -> None:
    harness.write("cam.mp4", content := noise(2 * SMALL_CHUNK + 5))
    harness.scan()
    if when == "complete":
        harness.until_finished("cam.mp4")
    discarded = value("damaged_records_total")
    forge(harness, "cam.mp4@1", **damage)
    again = harness.restarted()
    again.until_finished("cam.mp4")
    assert value("damaged_records_total") > discarded
    newest = again.stream("cam.mp4").generation
    assert again.recorded("cam.mp4", newest) == content
    assert newest == (1 if when == "complete" else 2)


@pytest.mark.parametrize(
    "claimed", ["junk", "", "-1", "1.5", "nan", "inf", "1e15", "999999999", "99999999999"]
)
def test_a_damaged_count_of_generations_stops_nothing(harness: SmallHarness, claimed: str) -> None:
    harness.parts.checkpoints._redis.hset(harness.parts.checkpoints._generations, "cam.mp4", claimed)
    harness.write("cam.mp4", noise(SMALL_CHUNK + 5))
    harness.until_finished("cam.mp4")
    assert harness.holds("cam.mp4")


def test_a_stranger_in_the_bucket_cannot_use_up_the_numbers(harness: SmallHarness, rclone: RcloneS3) -> None:
    harness.s3.put_object(Bucket=harness.bucket, Key="cam.mp4/g999999999-deadbeef/x.txt", Body=b"?")
    for _ in range(2):
        harness.write("cam.mp4", content := noise(SMALL_CHUNK + 5))
        harness.until_finished("cam.mp4")
        found = archive_of(harness, rclone).find(harness.stream("cam.mp4").recording.full_name)
        assert b"".join(harness.read(chunk.key) for chunk in found.chunks) == content


@pytest.mark.parametrize("when", ["growing", "complete"])
def test_a_record_without_an_epoch_gets_one(harness: SmallHarness, when: str) -> None:
    harness.write("cam.mp4", noise(2 * SMALL_CHUNK + 5))
    harness.scan()
    if when == "complete":
        harness.until_finished("cam.mp4")
    forge(harness, "cam.mp4@1", epoch=None)
    append(harness, "cam.mp4", noise(SMALL_CHUNK))
    harness.until_finished("cam.mp4")
    assert harness.holds("cam.mp4")


def test_a_forged_chunk_record_leads_to_no_object_of_others(harness: SmallHarness) -> None:
    harness.write("victim.mp4", victim := noise(SMALL_CHUNK + 5))
    harness.until_finished("victim.mp4")
    key = harness.generation("victim.mp4") + "metadata.json"
    harness.write("cam.mp4", noise(2 * SMALL_CHUNK + 5))
    harness.scan()
    redis: Any = harness.parts.checkpoints._redis
    chunks = harness.parts.checkpoints._chunks_key("cam.mp4@1")
    forged = json.loads(redis.hget(chunks, "1")) | {"key": key, "sha256": "0" * 64}
    redis.hset(chunks, "1", json.dumps(forged))
    redis.hset(chunks, "0", "{")
    harness.restarted().until_finished("cam.mp4")
    assert harness.holds("cam.mp4")
    assert harness.recorded("victim.mp4") == victim


def test_a_forged_record_does_not_replace_a_complete_recording(harness: SmallHarness) -> None:
    harness.write("cam.mp4", first := noise(2 * SMALL_CHUNK + 5))
    harness.until_finished("cam.mp4")
    harness.write("other.tmp", noise(3 * SMALL_CHUNK)).rename(harness.folder / "cam.mp4")
    now = signature_of(harness, "cam.mp4")
    redis: Any = harness.parts.checkpoints._redis
    base = harness.parts.checkpoints._base
    forge(
        harness,
        "cam.mp4@1",
        revision=99,
        state="active",
        next_index=0,
        offset=0,
        born_ns=0,
        **now._asdict(),
    )
    redis.zrem(f"{base}complete", "cam.mp4@1")
    redis.zadd(f"{base}active", {"cam.mp4@1": 1})
    again = harness.restarted()
    again.until_finished("cam.mp4")
    assert again.recorded("cam.mp4", 1) == first
    assert again.manifest("cam.mp4", 1)["status"] == "complete"
    assert again.holds("cam.mp4", 2)


@pytest.mark.parametrize("revision", ["0", "1"])
def test_a_recording_is_not_complete_because_its_record_says_so(harness: SmallHarness, revision: str) -> None:
    """Found by the soak: the page said safe until the audit looked."""
    harness.write("cam.mp4", noise(2 * SMALL_CHUNK + 5))
    harness.scan()
    redis: Any = harness.parts.checkpoints._redis
    redis.hset(
        harness.parts.checkpoints._stream_key("cam.mp4@1"),
        mapping={"state": "complete", "revision": revision},
    )
    again = harness.restarted()
    again.scan()
    assert again.parts.monitor.watches("cam.mp4")
    again.until_finished("cam.mp4")
    assert again.holds("cam.mp4", again.stream("cam.mp4").generation)


def test_a_complete_recording_whose_count_was_damaged_is_compared_once(harness: SmallHarness) -> None:
    harness.write("cam.mp4", noise(2 * SMALL_CHUNK + 5))
    harness.until_finished("cam.mp4")
    redis: Any = harness.parts.checkpoints._redis
    key = harness.parts.checkpoints._stream_key("cam.mp4@1")
    redis.hset(key, mapping={"next_index": 1, "offset": SMALL_CHUNK})
    harness.fall_idle()
    assert harness.stream("cam.mp4").offset == 2 * SMALL_CHUNK + 5
    assert harness.stream("cam.mp4").generation == 1
    assert not harness.parts.monitor.watches("cam.mp4")


def test_a_cancel_is_not_forgotten_with_redis(harness: SmallHarness) -> None:
    harness.write("cam.mp4", noise(2 * SMALL_CHUNK + 5))
    harness.scan()
    stream = harness.stream("cam.mp4")
    closer = harness.parts.processor._uploader._closer
    closer.close(
        stream, "cancelled by anna", error=RecordedError("cancelled", "by anna"), signature=stream.signature
    )
    harness.parts.checkpoints._redis.flushall()
    again = harness.restarted()
    again.fall_idle()
    assert again.stream("cam.mp4").cancelled
    assert len([key for key in again.keys("cam.mp4/") if key.endswith("metadata.json")]) == 1


def test_what_another_site_cancelled_is_not_cancelled_here(sites: Sites) -> None:
    first, second = sites("first"), sites("second")
    first.write("cam.mp4", content := noise(2 * SMALL_CHUNK + 5))
    first.scan()
    stream = first.stream("cam.mp4")
    closer = first.parts.processor._uploader._closer
    closer.close(
        stream, "cancelled by anna", error=RecordedError("cancelled", "by anna"), signature=stream.signature
    )
    second.write("cam.mp4", content + noise(SMALL_CHUNK))
    second.until_finished("cam.mp4")
    assert not second.stream("cam.mp4").cancelled
    assert second.holds("cam.mp4", 2)


def test_a_record_that_claims_a_recording_of_nothing_is_found_out(harness: SmallHarness) -> None:
    harness.write("cam.mp4", noise(2 * SMALL_CHUNK + 5))
    harness.until_finished("cam.mp4")
    for key in recordings_in(harness):
        harness.s3.delete_object(Bucket=harness.bucket, Key=key)
    forge(harness, "cam.mp4@1", offset=0, next_index=0, revision=0)
    assert audited(harness)
    harness.until_finished("cam.mp4")
    assert harness.holds("cam.mp4")


# ---------------------------------------------------------------------- what is not stored is told


def test_a_source_that_cannot_be_read_fails_also_where_an_older_one_is_complete(
    harness: SmallHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.write("cam.mp4", first := noise(SMALL_CHUNK + 5))
    harness.until_finished("cam.mp4")
    append(harness, "cam.mp4", noise(SMALL_CHUNK))

    def refused(_root: str, _path: str) -> None:
        raise PermanentError("the daemon may not read it", kind="unreadable")

    with monkeypatch.context() as patched:
        patched.setattr(chunk_uploader, "open_source", refused)
        harness.scan()
        assert harness.state("cam.mp4") is State.FAILED
        assert harness.stream("cam.mp4").error.kind == "unreadable"
    assert harness.recorded("cam.mp4", 1) == first
    harness.until_finished("cam.mp4")
    assert harness.holds("cam.mp4", harness.stream("cam.mp4").generation)


def test_a_file_that_needs_too_many_chunks_fails_before_any_is_sent(
    harness: SmallHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_uploader, "MAX_CHUNKS", 2)
    harness.write("cam.mp4", noise(2 * SMALL_CHUNK + 1))
    harness.scan()
    assert harness.state("cam.mp4") is State.FAILED
    assert "raise CHUNK_SIZE" in harness.stream("cam.mp4").error.hint
    assert harness.keys("cam.mp4/") == []


def test_a_file_that_is_only_reserved_waits_for_its_first_byte(harness: SmallHarness) -> None:
    with (harness.folder / "cam.mp4").open("wb") as file:
        file.truncate(3 * SMALL_CHUNK)
    harness.fall_idle()
    harness.tick(TIMEOUT)
    assert harness.keys("cam.mp4/") == []
    assert harness.state("cam.mp4") is State.ACTIVE
    rewrite(harness, "cam.mp4", noise(2 * SMALL_CHUNK))
    harness.until_finished("cam.mp4")
    assert harness.holds("cam.mp4")
