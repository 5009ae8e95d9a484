"""Verification names exactly what is wrong, and nothing that is right, on two real servers."""

from dataclasses import replace
from itertools import product

import pytest

from archive import verify as archive_verify
from archive.verify import Report, verify, verify_entry
from recording.layout import RecordingId
from tests.support.archive_parts import CHUNK, OWNER, Shelf, noise, requests_of
from tests.support.servers import RcloneS3


@pytest.fixture
def shelf(rclone: RcloneS3, bucket: str) -> Shelf:
    return Shelf(rclone, bucket)


@pytest.fixture(params=["rclone", "moto"])
def either(request: pytest.FixtureRequest) -> Shelf:
    """For what may depend on the server."""
    return Shelf.of(request)


def found_at(shelf: Shelf, *, deep: bool, path: str = "a.mp4") -> Report:
    archive = shelf.archive()
    return verify(archive, archive.find(path), deep=deep)


def problems(report: Report) -> set[tuple[str, str]]:
    return {(problem.kind, problem.key) for problem in report.problems}


def test_a_good_recording_has_no_problems(shelf: Shelf) -> None:
    for size, deep in product([0, 1, CHUNK, 3 * CHUNK + 1], [False, True]):
        shelf.store_complete(f"{size}-{deep}.mp4", noise(size))
        report = found_at(shelf, deep=deep, path=f"{size}-{deep}.mp4")
        assert (report.status, report.size, report.problems, report.notes) == ("complete", size, (), ())


def test_exactly_what_was_changed_deleted_and_added_is_named(either: Shelf) -> None:
    content = noise(6 * CHUNK + 5)
    chunks = either.store_complete("a.mp4", content)
    either.store_complete("b.mp4", noise(CHUNK))
    changed = bytearray(content[2 * CHUNK : 3 * CHUNK])
    changed[500] ^= 1
    either.put(chunks[2].key, bytes(changed))
    either.delete(chunks[4].key)
    either.put(chunks[5].key, b"cut")
    added = chunks[0].key.replace("000000-", "000003-")
    either.put(added, noise(CHUNK))
    beside = f"a.mp4/g0001-{OWNER}/chunks/notes.txt"
    either.put(beside, b"x")
    above = f"a.mp4/g0001-{OWNER}/thumbnail.jpg"
    either.put(above, b"x")
    wrong = {
        ("corrupt", chunks[2].key),
        ("missing", chunks[4].key),
        ("corrupt", chunks[5].key),
    }
    for deep in (False, True):
        report = found_at(either, deep=deep)
        assert problems(report) == wrong
        assert len(report.problems) == len(wrong)
        assert set(report.surplus) == {added, beside, above}
        assert found_at(either, deep=deep, path="b.mp4").problems == ()


def test_a_deep_look_reads_every_byte(either: Shelf) -> None:
    either.store_complete("a.mp4", noise(3 * CHUNK + 1))
    archive = either.archive()
    recording = archive.find("a.mp4")
    read: list[int] = []
    with requests_of(archive, "GetObject") as gets:
        verify(archive, recording, deep=False, advance=read.append)
        assert (gets, read) == ([], [])
        verify(archive, recording, deep=True, advance=read.append)
    assert len(gets) == 4
    assert sum(read) == 3 * CHUNK + 1


def test_bytes_that_agree_with_the_etag_but_not_with_the_manifest_need_a_deep_look(shelf: Shelf) -> None:
    """Whoever changes an object can change the manifest's ETag too, but not what the hash stands for."""
    content = noise(2 * CHUNK)
    chunks = shelf.record("a.mp4", content)
    etag = shelf.put(chunks[1].key, noise(CHUNK))
    shelf.commit("a.mp4", [chunks[0], replace(chunks[1], etag=etag)], content)
    assert found_at(shelf, deep=False).problems == ()
    assert problems(found_at(shelf, deep=True)) == {("corrupt", chunks[1].key)}


def test_another_etag_for_the_same_bytes_is_no_problem(shelf: Shelf) -> None:
    """A bucket that was copied into one with encryption has others."""
    content = noise(2 * CHUNK)
    chunks = [replace(chunk, etag="0" * 32) for chunk in shelf.record("a.mp4", content)]
    shelf.commit("a.mp4", chunks, content)
    assert found_at(shelf, deep=False).problems == ()


def test_a_whole_hash_that_its_chunks_do_not_have_is_a_problem_of_the_manifest(shelf: Shelf) -> None:
    content = noise(2 * CHUNK)
    key = shelf.commit("a.mp4", shelf.record("a.mp4", content), content + b"more")
    assert found_at(shelf, deep=False).problems == ()
    assert problems(found_at(shelf, deep=True)) == {("manifest", key)}


def test_a_damaged_manifest_is_a_problem(shelf: Shelf) -> None:
    key = shelf.commit("a.mp4", shelf.record("a.mp4", noise(CHUNK)), None, spoil=lambda m: m.clear())
    report = verify_entry(shelf.archive(), RecordingId("a.mp4", 1, OWNER), "a.mp4@1", deep=False)
    assert report
    assert (report.status, problems(report)) == ("damaged", {("manifest", key)})


def test_a_growing_recording_is_fine_as_far_as_it_goes(shelf: Shelf) -> None:
    chunks = shelf.record("a.mp4", noise(3 * CHUNK))
    shelf.put(chunks[1].key.replace("000001-", "000002-"), noise(CHUNK))  # a repair on its way
    shelf.delete(chunks[2].key)
    assert found_at(shelf, deep=False).problems == ()
    assert found_at(shelf, deep=False).notes


def test_a_gap_in_a_growing_recording_is_missing(shelf: Shelf) -> None:
    chunks = shelf.record("a.mp4", noise(5 * CHUNK))
    shelf.delete(chunks[2].key)
    report = found_at(shelf, deep=False)
    assert problems(report) == {("missing", f"a.mp4/g0001-{OWNER}/chunks/000002-")}


def test_a_changed_chunk_of_a_growing_recording_is_found_by_its_name(shelf: Shelf) -> None:
    chunks = shelf.record("a.mp4", noise(3 * CHUNK))
    shelf.put(chunks[1].key, noise(CHUNK))
    assert problems(found_at(shelf, deep=True)) == {("corrupt", chunks[1].key)}


def test_a_recording_that_grows_again_has_no_problem(shelf: Shelf) -> None:
    content = noise(4 * CHUNK + 5)
    for size in (0, 2 * CHUNK, 2 * CHUNK + 5):
        shelf.store_complete(f"{size}.mp4", content[:size])
        shelf.record(f"{size}.mp4", content[: 4 * CHUNK])
        report = found_at(shelf, deep=False, path=f"{size}.mp4")
        assert report.problems == ()
        assert "grows again" in report.notes[0]


def test_a_strangers_chunk_behind_the_end_is_surplus(shelf: Shelf) -> None:
    chunks = shelf.store_complete("a.mp4", noise(2 * CHUNK))
    stranger = chunks[0].key.replace("000000-", "000002-")
    shelf.put(stranger, noise(CHUNK))
    report = found_at(shelf, deep=False)
    assert (report.problems, report.surplus) == ((), (stranger,))


def test_problems_of_the_moment_of_a_commit_are_looked_at_again(shelf: Shelf) -> None:
    """The chunk was repaired and the manifest committed between our look at one and at the other."""
    old, new = noise(2 * CHUNK), noise(2 * CHUNK)
    shelf.store_complete("a.mp4", old)
    archive = shelf.archive()
    seen_before = archive.find("a.mp4")
    for key in shelf.all_keys():
        shelf.delete(key)
    shelf.store_complete("a.mp4", new)
    assert verify(archive, seen_before, deep=True).problems == ()


def test_a_long_recording_is_listed_a_hundred_chunks_at_a_time(
    either: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_verify, "AT_ONCE_BYTES", 0)
    chunks = either.store_complete("a.mp4", noise(3 * CHUNK))
    either.delete(chunks[1].key)
    archive = either.archive()
    recording = archive.find("a.mp4")
    with requests_of(archive, "ListObjectsV2") as lists:
        report = verify(archive, recording, deep=False)
    assert problems(report) == {("missing", chunks[1].key)}
    assert f"a.mp4/g0001-{OWNER}/chunks/" not in [each["Prefix"] for each in lists]


def test_a_generation_that_went_away_is_no_report(shelf: Shelf) -> None:
    assert verify_entry(shelf.archive(), RecordingId("a.mp4", 1, OWNER), "a.mp4@1", deep=False) is None
