"""What becomes of a source, step by step: stored while it grows, finalized, reopened, replaced, renamed."""

import os
from pathlib import Path

import pytest

from recording.stream import State
from tests.support.harness import CHUNK, TIMEOUT, Harness
from tests.support.watched_folder import value


def noise(size: int) -> bytes:
    return os.urandom(size)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 1])
def test_a_finished_file_is_stored_byte_for_byte(harness: Harness, size: int) -> None:
    harness.write("a.mp4", noise(size))
    harness.fall_idle()
    assert harness.holds("a.mp4")
    assert harness.manifest("a.mp4")["chunk_count"] == -(-size // CHUNK)


def test_full_chunks_go_up_while_the_file_grows_and_the_tail_does_not(harness: Harness) -> None:
    target = harness.write("a.mp4", noise(2 * CHUNK + 7))
    harness.scan()
    assert len(harness.keys(harness.generation("a.mp4", 1) + "chunks/")) == 2
    assert harness.stream("a.mp4").offset == 2 * CHUNK
    with target.open("ab") as file:
        file.write(noise(CHUNK))
    harness.tick()
    assert len(harness.keys(harness.generation("a.mp4", 1) + "chunks/")) == 3
    assert harness.state("a.mp4") is State.ACTIVE


def test_a_patched_head_is_repaired_at_the_end(harness: Harness) -> None:
    target = harness.write("a.mp4", noise(2 * CHUNK + 7))
    harness.scan()
    with target.open("r+b") as file:
        file.seek(40)
        file.write(b"\1\2\3\4")
    harness.fall_idle()
    assert harness.holds("a.mp4")
    assert harness.manifest("a.mp4")["repaired_chunks"] == 1


def test_a_file_that_grows_after_it_was_complete_gets_the_next_revision(harness: Harness) -> None:
    target = harness.write("a.mp4", noise(CHUNK + 9))
    harness.fall_idle()
    with target.open("ab") as file:
        file.write(noise(2 * CHUNK))
    harness.fall_idle()
    assert harness.holds("a.mp4")
    assert harness.manifest("a.mp4")["revision"] == 2


def test_a_touched_file_costs_no_upload_and_no_revision(harness: Harness) -> None:
    target = harness.write("a.mp4", noise(CHUNK + 9))
    harness.fall_idle()
    before = harness.read(harness.generation("a.mp4") + "metadata.json")
    os.utime(target)
    harness.fall_idle()
    assert harness.state("a.mp4") is State.COMPLETE
    assert harness.read(harness.generation("a.mp4") + "metadata.json") == before


def test_a_truncated_file_begins_the_next_generation(harness: Harness) -> None:
    first = noise(2 * CHUNK)
    target = harness.write("a.mp4", first)
    harness.scan()
    target.write_bytes(noise(CHUNK + 1))
    harness.fall_idle()
    assert harness.holds("a.mp4", 2)
    assert harness.manifest("a.mp4", 1)["status"] == "incomplete"
    assert harness.recorded("a.mp4", 1) == first


@pytest.mark.parametrize("size", [2 * CHUNK, 3 * CHUNK + 1])
def test_another_file_in_a_growing_ones_place_begins_the_next_generation(
    harness: Harness, tmp_path: Path, size: int
) -> None:
    first = noise(2 * CHUNK)
    harness.write("a.mp4", first)
    harness.scan()
    other = tmp_path / "other"
    other.write_bytes(noise(size))
    other.rename(harness.folder / "a.mp4")
    harness.fall_idle()
    assert harness.holds("a.mp4", 2)
    assert harness.manifest("a.mp4", 1)["status"] == "incomplete"
    assert harness.recorded("a.mp4", 1) == first


def test_a_replaced_complete_file_leaves_its_generation_alone(harness: Harness, tmp_path: Path) -> None:
    first = noise(CHUNK + 5)
    harness.write("a.mp4", first)
    harness.fall_idle()
    other = tmp_path / "other"
    other.write_bytes(noise(2 * CHUNK))
    other.rename(harness.folder / "a.mp4")
    harness.fall_idle()
    assert harness.holds("a.mp4", 2)
    assert harness.recorded("a.mp4", 1) == first


def test_a_renamed_growing_file_keeps_its_keys(harness: Harness) -> None:
    target = harness.write("a.mp4", noise(CHUNK + 5))
    harness.scan()
    moved = target.rename(harness.folder / "b.mp4")
    with moved.open("ab") as file:
        file.write(noise(CHUNK))
    harness.fall_idle()
    assert harness.recorded("a.mp4") == moved.read_bytes()
    assert harness.stream("b.mp4").stream_id == "a.mp4@1"
    assert not harness.keys("b.mp4")


def test_a_file_that_is_renamed_before_its_first_chunk_keeps_its_keys(harness: Harness) -> None:
    target = harness.write("a.mp4", noise(1000))
    harness.scan()
    moved = target.rename(harness.folder / "b.mp4")
    harness.fall_idle()
    assert harness.recorded("a.mp4") == moved.read_bytes()
    assert harness.stream("b.mp4").stream_id == "a.mp4@1"


@pytest.mark.parametrize("ended", [False, True])
def test_a_file_with_the_inode_of_a_deleted_one_of_which_nothing_is_stored_is_another_recording(
    harness: Harness, *, ended: bool
) -> None:
    target = harness.write("a.mp4", b"" if ended else noise(1000))
    harness.scan()
    if ended:
        harness.fall_idle()
    # As a file system does that gives the number of a deleted file to the next one.
    successor = target.rename(harness.folder / "b.mp4")
    successor.write_bytes(noise(2 * CHUNK))
    harness.fall_idle()
    assert harness.holds("b.mp4")
    assert harness.stream("b.mp4").stream_id == "b.mp4@1"


def test_a_growing_file_made_anew_under_its_inode_number_begins_the_next_generation(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = noise(CHUNK + 5), noise(2 * CHUNK)
    harness.write("a.mp4", old)
    harness.scan()
    harness.write("a.mp4", new)  # which keeps the number
    monkeypatch.setattr("folder.birth_time.born_ns", lambda _: 77)
    harness.fall_idle()
    assert harness.recorded("a.mp4", 1) == old[:CHUNK]
    assert harness.manifest("a.mp4", 1)["media_error"] == "another file took the source's place"
    assert harness.holds("a.mp4", 2)


def test_a_vanished_file_leaves_an_incomplete_manifest(harness: Harness) -> None:
    content = noise(2 * CHUNK + 5)
    harness.write("a.mp4", content)
    harness.scan()
    (harness.folder / "a.mp4").unlink()
    harness.tick()
    harness.tick(TIMEOUT)
    assert harness.state("a.mp4") is State.INCOMPLETE
    assert harness.recorded("a.mp4") == content[: 2 * CHUNK]


def test_a_restart_sends_nothing_again(harness: Harness) -> None:
    harness.write("a.mp4", noise(3 * CHUNK + 5))
    harness.scan()
    again = harness.restarted()
    again.fall_idle()
    assert again.holds("a.mp4")


def test_a_lost_redis_gives_the_same_result(harness: Harness) -> None:
    harness.write("a.mp4", noise(3 * CHUNK + 5))
    harness.write("b.mp4", noise(CHUNK))
    harness.fall_idle()
    harness.write("c.mp4", noise(2 * CHUNK + 3))
    harness.scan()
    before = {key: harness.read(key) for key in list(harness.keys())}
    copied = value("chunks_copied_total")
    harness.parts.checkpoints._redis.flushall()
    again = harness.restarted()
    again.fall_idle()
    assert all(again.holds(path) for path in ("a.mp4", "b.mp4"))
    assert again.stream("a.mp4").adopted
    assert again.stream("b.mp4").adopted
    assert again.holds("c.mp4", 2), "its first generation is nobody's: nothing is put there any more"
    assert value("chunks_copied_total") == copied + 2, "and nothing that S3 has is sent again"
    assert {key: again.read(key) for key in before} == before


def test_a_lost_redis_and_a_patched_head_keep_the_generation(harness: Harness) -> None:
    target = harness.write("a.mp4", noise(CHUNK + 5))
    harness.scan()
    with target.open("r+b") as file:
        file.write(noise(64))
    harness.parts.checkpoints._redis.flushall()
    harness.parts.watch.scan()
    with target.open("ab") as file:
        file.write(noise(CHUNK))
    harness.fall_idle()
    assert harness.holds("a.mp4")
    assert not harness.keys("a.mp4/g0002-")


def test_chunks_of_another_recording_that_nobody_knows_stay_as_they_are(harness: Harness) -> None:
    first = noise(2 * CHUNK)
    target = harness.write("a.mp4", first)
    harness.scan()
    harness.parts.checkpoints._redis.flushall()
    target.unlink()
    harness.write("a.mp4", noise(3 * CHUNK))
    again = harness.restarted()
    again.fall_idle()
    assert again.holds("a.mp4", 2)
    stored = again.keys(again.generation("a.mp4", 1))
    assert b"".join(map(again.read, stored)) == first


def test_what_is_remembered_of_a_lost_record_is_forgotten_when_there_is_a_record(harness: Harness) -> None:
    harness.write("a.mp4", noise(CHUNK + 5))
    harness.scan()
    uploader = harness.parts.processor._uploader
    uploader._resolver.remember("a.mp4", harness.stream("a.mp4"), (1, 2))
    uploader.forget("a.mp4")
    harness.fall_idle()
    assert harness.holds("a.mp4")
    assert not uploader._resolver._lost
