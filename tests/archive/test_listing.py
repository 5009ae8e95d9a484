"""Recordings found by name and listed, from S3 alone, on two real servers."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from archive.generation import _newest_by_index, open_recording
from archive.listing import Archive
from archive.names import UnknownRecording
from recording.layout import MAX_CHUNKS, BucketLayout, RecordingId
from recording.manifest import Facts, ManifestError
from recording.playback import Playback
from recording.stream import State, StoredObject
from tests.support.archive_parts import CHUNK, OWNER, STARTED, Shelf, noise, requests_of
from tests.support.servers import RcloneS3


@pytest.fixture
def shelf(rclone: RcloneS3, bucket: str) -> Shelf:
    return Shelf(rclone, bucket)


@pytest.fixture(params=["rclone", "moto"])
def either(request: pytest.FixtureRequest) -> Shelf:
    """For what may depend on the server."""
    return Shelf.of(request)


ODD = "cam 1/we:ird\n<b>.mp4"


def test_a_path_is_found_as_people_type_it(shelf: Shelf) -> None:
    shelf.store_complete("cam1/a.mp4", noise(10))
    shelf.store_complete("cam1/a.mp4", noise(20), generation=2)
    absolute = os.path.abspath("input/cam1/a.mp4")
    for typed in ("cam1/a.mp4", "./cam1/a.mp4", "cam1//a.mp4", "input/cam1/a.mp4", absolute):
        found = shelf.archive().find(typed)
        assert (found.name, found.size) == ("cam1/a.mp4@2", 20), typed


def test_a_generation_is_found_by_its_number(either: Shelf) -> None:
    for generation in (1, 2, 11):
        either.store_complete("a.mp4", noise(generation), generation=generation)
    archive = either.archive()
    assert archive.find("a.mp4").id.generation == 11
    assert archive.find("a.mp4@2").id.generation == 2
    assert archive.find("input/a.mp4@1").id.generation == 1
    assert archive.find("a.mp4", 1).id.generation == 1
    with pytest.raises(UnknownRecording):
        archive.find("a.mp4@3")


def test_an_odd_name_is_found_as_it_is_and_as_its_key(either: Shelf) -> None:
    either.store_complete(ODD, noise(10))
    archive = either.archive()
    found = archive.find(ODD)
    assert found.facts.path == ODD
    assert (
        archive.find(found.name) == archive.find(found.id.key_path) == archive.find(f"input/{ODD}@1") == found
    )


def test_a_file_that_ends_like_a_generation_is_found(shelf: Shelf) -> None:
    shelf.store_complete("take@2", noise(10))
    shelf.store_complete("take", noise(20))
    archive = shelf.archive()
    assert archive.find("take@2").id.key_path == "take@2"
    assert archive.find("take@1").id.key_path == "take"


def test_what_cannot_be_a_name_is_unknown(shelf: Shelf) -> None:
    shelf.store_complete("a.mp4", noise(10))
    for typed in (
        "",
        ".",
        "..",
        "../a.mp4",
        "/etc/passwd",
        "a\udcff.mp4",
        "x/" * 600,
        "g0001",
        "a.mp4/g0001",
    ):
        with pytest.raises(UnknownRecording):
            shelf.archive().find(typed)


def test_an_unknown_name_suggests_the_nearest(shelf: Shelf) -> None:
    for path in ("camera1/front.mp4", "studio/left/corner/garden.mp4", "kitchen.mp4"):
        shelf.store_complete(path, noise(10))
    with pytest.raises(UnknownRecording) as unknown:
        shelf.archive().find("gardn.mp4")
    unknown.value.look_for_suggestions()
    assert unknown.value.suggestions == ["studio/left/corner/garden.mp4"]
    for typed in ("camera1/frnt.mp4", "front.mp4", "input/camera1/front.mpg", "FRONT", "mera1/"):
        with pytest.raises(UnknownRecording) as unknown:
            shelf.archive().find(typed)
        unknown.value.look_for_suggestions()
        assert unknown.value.suggestions[:1] == ["camera1/front.mp4"], typed


def test_a_bucket_of_others_has_no_recordings(either: Shelf) -> None:
    for key in (
        "readme.txt",
        f"g0001-{OWNER}/metadata.json",
        f"a.mp4/g0001-{OWNER}/notes.txt",
        f"a.mp4/g0001-{OWNER}/chunks/x.part",
    ):
        either.put(key, b"{}")
    assert either.archive().entries() == []


def names(archive: Archive, start: str = "") -> list[str]:
    return [each.name for each in archive.summaries(start)]


def test_all_recordings_are_listed_in_order_and_no_chunk_folder_is(either: Shelf) -> None:
    paths = [
        "a.mp4",
        f"cam/g0001-{OWNER}/b.mp4",
        f"cam/g0001-{OWNER}/chunks/c.mp4",
        "cam/deep/er/d.mp4",
        "metadata.json",
        ODD,
    ]
    for path in paths:
        either.store_complete(path, noise(2 * CHUNK))
    either.store_complete("a.mp4", b"", generation=2)
    growing = either.record("live.mp4", noise(3 * CHUNK))
    archive = either.archive()
    with requests_of(archive, "ListObjectsV2") as lists:
        listed = names(archive)
    odd = archive.find(ODD).name
    expected = ["a.mp4@1", "a.mp4@2", odd, "cam/deep/er/d.mp4@1", f"cam/g0001-{OWNER}/b.mp4@1"]
    assert listed == sorted([*expected, f"cam/g0001-{OWNER}/chunks/c.mp4@1", "live.mp4@1", "metadata.json@1"])
    own = {chunk.key.rpartition("/")[0] + "/" for chunk in growing} | {f"a.mp4/g0001-{OWNER}/chunks/"}
    assert own.isdisjoint(each["Prefix"] for each in lists)


def test_a_list_can_be_of_a_folder_or_of_what_begins_so(either: Shelf) -> None:
    for path in ("cam1/a.mp4", "cam1/b.mp4", "cam10/c.mp4", "od:d/d.mp4"):
        either.store_complete(path, noise(10))
    archive = either.archive()
    assert names(archive, "cam1/") == ["cam1/a.mp4@1", "cam1/b.mp4@1"]
    assert names(archive, "cam1") == ["cam1/a.mp4@1", "cam1/b.mp4@1", "cam10/c.mp4@1"]
    assert names(archive, "input/cam1/b") == ["cam1/b.mp4@1"]
    assert names(archive, "od:d/") == names(archive, "od_d") == [archive.find("od:d/d.mp4").name]
    assert len(names(archive, "input")) == len(names(archive, "input/")) == 4
    assert names(archive, "cam2") == []


def test_a_prefix_keeps_others_out(shelf: Shelf) -> None:
    shelf.store_complete("not-ours.mp4", noise(10))
    inside = Shelf(shelf.server, shelf.bucket, prefix="studio/b/")
    inside.store_complete("a.mp4", noise(10))
    assert names(inside.archive()) == ["a.mp4@1"]
    assert inside.archive().find("a.mp4").size == 10
    with pytest.raises(UnknownRecording):
        inside.archive().find("not-ours.mp4")


def test_a_summary_tells_size_chunks_duration_and_time(shelf: Shelf) -> None:
    shelf.store_complete("a.mp4", noise(2 * CHUNK + 1))
    (found,) = shelf.archive().summaries()
    assert (found.status, found.size, found.chunk_count) == ("complete", 2 * CHUNK + 1, 3)
    assert found.facts.playback.duration_seconds == 1000
    assert found.facts.started_at
    assert found.facts.started_at.timestamp() == STARTED


def test_a_growing_recording_is_counted_without_a_full_list(either: Shelf) -> None:
    for count in (1, 2, 3, 4, 7, 8, 9):
        size = (count - 1) * CHUNK + 5
        chunks = either.record(f"{count}.mp4", noise(size))
        (found,) = either.archive().summaries(f"{count}.mp4")
        assert (found.status, found.size, found.chunk_count) == ("growing", size, count)
        assert found.facts.ended_at
        assert found.facts.ended_at.isoformat()[:16] == chunks[-1].uploaded_at[:16]


def test_a_growing_recording_is_opened_as_far_as_it_has_no_gap(shelf: Shelf) -> None:
    chunks = shelf.record("live.mp4", noise(5 * CHUNK))
    shelf.delete(chunks[3].key)
    shelf.put(chunks[0].key.rpartition("/")[0] + "/stranger.txt", b"x")
    found = shelf.archive().find("live.mp4")
    assert (found.status, found.size, found.sha256) == ("growing", 3 * CHUNK, None)
    assert [chunk.key for chunk in found.chunks] == [chunk.key for chunk in chunks[:3]]


def test_nothing_comes_behind_a_tail_or_a_chunk_of_another_size(shelf: Shelf) -> None:
    tail = shelf.record("tail.mp4", noise(2 * CHUNK + 5))
    shelf.put(tail[2].key.replace("000002-", "000003-"), noise(5))
    other = shelf.record("other.mp4", noise(2 * CHUNK))
    shelf.put(other[1].key.replace("000001-", "000002-"), noise(CHUNK + 1))
    empty = shelf.record("empty.mp4", noise(2 * CHUNK))
    shelf.put(empty[1].key, b"")
    archive = shelf.archive()
    sizes = [archive.find(f"{name}.mp4").size for name in ("tail", "other", "empty")]
    assert sizes == [2 * CHUNK + 5, 2 * CHUNK, CHUNK]


def test_of_two_objects_for_one_index_the_newest_counts() -> None:
    layout, recording = BucketLayout(""), RecordingId("a.mp4", 1, OWNER)
    under = layout.chunks(recording)
    old = StoredObject(f"{under}000000-ffffffffffff.part", 5, "", "2026-01-01T00:00:00.000Z")
    new = StoredObject(f"{under}000000-000000000000.part", 5, "", "2026-01-01T00:00:01.000Z")
    for objects in ([old, new], [new, old]):
        assert _newest_by_index(objects, layout, recording)[0].key == new.key


def test_an_incomplete_recording_says_so(shelf: Shelf) -> None:
    chunks = shelf.record("a.mp4", noise(CHUNK))
    shelf.commit("a.mp4", chunks, None, status=State.INCOMPLETE)
    found = shelf.archive().find("a.mp4")
    assert (found.status, found.sha256) == ("incomplete", None)


Spoil = Callable[[dict[str, Any]], object]
HOSTILE: dict[str, Spoil] = {
    "keys of another stream": lambda m: m["chunks"][0].update(
        key=m["chunks"][0]["key"].replace("a.mp4/", "b.mp4/")
    ),
    "a way out in a key": lambda m: m["chunks"][0].update(
        key=m["chunks"][0]["key"].replace("chunks/", "chunks/../chunks/")
    ),
    "a hash that is none": lambda m: m["chunks"][0].update(sha256=""),
    "another chunk's hash": lambda m: m["chunks"][0].update(sha256=m["chunks"][1]["sha256"]),
    "a whole hash that is none": lambda m: m.update(sha256="0"),
    "millions of chunks": lambda m: m.update(chunks=[{}] * (4 * MAX_CHUNKS)),
    "chunks that are none": lambda m: m.update(chunks={"0": 1}),
    "a chunk that is none": lambda m: m["chunks"].__setitem__(0, None),
    "sizes as text": lambda m: m["chunks"][0].update(size_bytes="1000"),
    "sizes below zero": lambda m: m["chunks"][0].update(size_bytes=-1),
    "a size that is no number": lambda m: m["chunks"][0].update(size_bytes=float("nan")),
    "sizes that do not add up": lambda m: m.update(total_size_bytes=1),
    "chunks out of order": lambda m: m["chunks"].reverse(),
    "a status of its own": lambda m: m.update(status="active"),
    "a layout of the future": lambda m: m.update(schema_version=99),
    "nothing": lambda m: m.clear(),
}


def test_a_hostile_manifest_is_refused(shelf: Shelf) -> None:
    content = noise(2 * CHUNK + 5)
    chunks = shelf.record("a.mp4", content)
    archive = shelf.archive()
    for name, spoil in HOSTILE.items():
        shelf.commit("a.mp4", chunks, content, spoil=spoil)
        with pytest.raises(ManifestError) as refused:
            archive.find("a.mp4")
        assert len(str(refused.value)) > 10, name
        (listed,) = archive.summaries()
        assert (listed.status, listed.problem) == ("damaged", str(refused.value))


def test_facts_that_make_no_sense_are_left_out(shelf: Shelf) -> None:
    def spoil(manifest: dict[str, Any]) -> None:
        manifest.update(source=[], started_at=5, completed_at="yesterday", duration_seconds=float("inf"))

    content = noise(CHUNK)
    shelf.commit("a.mp4", shelf.record("a.mp4", content), content, spoil=spoil)
    assert shelf.archive().find("a.mp4").facts == Facts(playback=Playback(unplayable=""), finished=True)


def test_a_generation_that_is_not_there_is_none(either: Shelf) -> None:
    assert open_recording(either.store(), BucketLayout(""), RecordingId("a.mp4", 1, OWNER)) is None
