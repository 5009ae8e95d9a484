"""Each writer changes its file in the way it stands for."""

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]
import pytest

from tests.support import writers
from tests.support.pacing import Pace, Stepper, at_rate, wait_until
from tests.support.servers import BUSY_MACHINE_SECONDS
from tests.support.writers import WRITERS, Writer, sha256_of

TOTAL_BYTES = 3_000_000
HALF_BYTES = TOTAL_BYTES // 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file to write; its folder is empty, and so is the folder above but for it."""
    folder = tmp_path / "outer" / "input"
    folder.mkdir(parents=True)
    return folder / "rec.mp4"


def observed(
    writer: Writer, path: Path, look: Callable[[], object], total_bytes: int = TOTAL_BYTES
) -> list[object]:
    """Write, and look after every piece; what was seen."""
    seen: list[object] = []

    def step(_written: int) -> None:
        seen.append(look())

    writer(path, total_bytes, Pace(step))
    return seen


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def changed_ranges(writer: Writer, path: Path) -> tuple[int, int, int]:
    """The first and last offset that changed after half of the file was on disk, and how much that was."""
    with Stepper(writer, path, TOTAL_BYTES) as stepper:
        stepper.write_to(TOTAL_BYTES - 1 if "ffmpeg" in writer.__name__ else HALF_BYTES)
        wait_until(lambda: path.stat().st_size >= HALF_BYTES)  # ffmpeg encodes and holds some back
        before = path.read_bytes()
        stepper.finish()
    after = path.read_bytes()
    differ = [offset for offset in range(len(before)) if before[offset] != after[offset]]
    return (differ[0], differ[-1], len(before)) if differ else (-1, -1, len(before))


def boxes(path: Path) -> list[tuple[str, int]]:
    """The type and the size field of each box of the top level."""
    body, found, offset = path.read_bytes(), [], 0
    while offset + 8 <= len(body):
        size = int.from_bytes(body[offset : offset + 4], "big")
        found.append((body[offset + 4 : offset + 8].decode("latin-1"), size))
        if size == 0:
            break
        offset += size if size > 1 else int.from_bytes(body[offset + 8 : offset + 16], "big")
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_leaves_just_the_files_it_names_with_the_bytes_it_meant(name: str, path: Path) -> None:
    written = WRITERS[name](path, TOTAL_BYTES, Pace())
    assert {file: sha256_of(file) for file in path.parent.iterdir()} == written
    assert names(path.parent.parent) == ["input"]
    assert name == "empty" or sum(file.stat().st_size for file in written) > 0.3 * TOTAL_BYTES


@pytest.mark.parametrize("name", sorted(WRITERS.keys() - {"empty"}))
def test_two_recordings_of_a_writer_are_different(name: str, path: Path) -> None:
    first = WRITERS[name](path, 300_000, Pace())
    assert WRITERS[name](path, 300_000, Pace()) != first


def test_ffmpeg_patches_four_bytes_at_offset_40_and_appends_the_moov(path: Path) -> None:
    first, last, looked_at = changed_ranges(writers.ffmpeg_default, path)
    assert (first >= 40, last <= 43, looked_at >= HALF_BYTES) == (True, True, True)
    assert [kind for kind, _ in boxes(path)] == ["ftyp", "free", "mdat", "moov"]


def test_ffmpeg_faststart_moves_everything_behind_its_new_head(path: Path) -> None:
    first, last, looked_at = changed_ranges(writers.ffmpeg_faststart, path)
    assert 24 <= first <= 36
    assert last > looked_at - 1000
    assert [kind for kind, _ in boxes(path)][:2] == ["ftyp", "moov"]


def test_ffmpeg_fragmented_leaves_what_is_on_disk(path: Path) -> None:
    first, _, looked_at = changed_ranges(writers.ffmpeg_fragmented, path)
    assert first == -1 or first > looked_at - 1000
    assert [kind for kind, _ in boxes(path)].count("moof") > 2


def test_ffmpeg_hybrid_fragmented_patches_only_its_head(path: Path) -> None:
    first, last, _ = changed_ranges(writers.ffmpeg_hybrid_fragmented, path)
    assert (first >= 24, last < 64) == (True, True)


def test_ffmpeg_with_a_reserved_moov_fills_the_hole_at_its_head(path: Path) -> None:
    first, last, _ = changed_ranges(writers.ffmpeg_reserved_moov, path)
    assert (first >= 24, 1000 < last < 200_100) == (True, True)


def test_ffmpeg_writes_segments_one_after_the_other(path: Path) -> None:
    with Stepper(writers.ffmpeg_segments, path, TOTAL_BYTES) as stepper:
        stepper.write_to(TOTAL_BYTES)
        wait_until(lambda: "rec_001.mp4" in names(path.parent))
        assert boxes(path.with_name("rec_000.mp4"))[-1][0] == "moov"
        written = stepper.finish()
    assert [file.name for file in written] == ["rec_000.mp4", "rec_001.mp4", "rec_002.mp4"]
    assert {kind for file in written for kind, _ in boxes(file)} == {"ftyp", "free", "mdat", "moov"}


def test_a_killed_ffmpeg_leaves_no_moov_and_an_mdat_without_size(path: Path) -> None:
    writers.ffmpeg_killed(path, TOTAL_BYTES)
    assert boxes(path)[-1] == ("mdat", 0)


def test_ffmpeg_over_a_file_truncates_the_same_inode(path: Path) -> None:
    with Stepper(writers.ffmpeg_over_existing, path, TOTAL_BYTES) as stepper:
        stepper.write_to_pause()
        assert boxes(path)[-1][0] == "moov"
        with path.open("rb") as finished:  # an open file keeps its inode from being used again
            stepper.write_to(HALF_BYTES)
            wait_until(lambda: path.stat().st_size < TOTAL_BYTES)
            assert path.stat().st_ino == os.fstat(finished.fileno()).st_ino


def test_a_recording_of_ffmpeg_can_be_decoded_whole(path: Path) -> None:
    writers.ffmpeg_default(path, TOTAL_BYTES)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-xerror", "-i", str(path), "-f", "null", "-"]
    result = subprocess.run(command, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize("name", ["copied", "appended_and_closed", "paused_and_continued"])
def test_a_plain_writer_only_appends(name: str, path: Path) -> None:
    first, _, looked_at = changed_ranges(WRITERS[name], path)
    assert (first, HALF_BYTES <= looked_at < TOTAL_BYTES) == (-1, True)


@pytest.mark.parametrize("total_bytes", [0, 1, 5 * 1024 * 1024, 5 * 1024 * 1024 + 1])
def test_a_copy_has_exactly_the_bytes_it_was_asked_for(total_bytes: int, path: Path) -> None:
    writers.copied(path, total_bytes)
    assert path.stat().st_size == total_bytes


def test_an_empty_file_stays_empty(path: Path) -> None:
    writers.empty(path, TOTAL_BYTES)
    assert path.stat().st_size == 0


def test_a_file_can_be_appended_to_by_many_short_opens(path: Path) -> None:
    def open_files() -> list[str]:
        return [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]

    seen = observed(writers.appended_and_closed, path, lambda: str(path) in open_files())
    assert (len(seen), any(seen)) == (12, False)


def test_a_file_moved_within_its_folder_is_whole_under_its_first_name_and_keeps_its_inode(path: Path) -> None:
    with Stepper(writers.moved_within, path, TOTAL_BYTES) as stepper:
        stepper.write_to_pause()
        before = path.with_name("before-rec.mp4").stat()
        assert (names(path.parent), before.st_size) == (["before-rec.mp4"], TOTAL_BYTES)
        stepper.finish()
    assert path.stat().st_ino == before.st_ino


def test_a_file_moved_from_outside_is_unseen_until_it_is_whole_and_old(path: Path) -> None:
    assert observed(writers.moved_from_outside, path, lambda: names(path.parent)) == [[]] * 12
    assert path.stat().st_mtime < time.time() - 3000


@pytest.mark.parametrize(
    ("name", "temporary"), [("rsynced", ".rec.mp4.Ab12Cd"), ("downloaded", "rec.mp4.tmp")]
)
def test_a_temporary_name_becomes_the_real_one_when_the_file_is_whole(
    name: str, temporary: str, path: Path
) -> None:
    assert observed(WRITERS[name], path, lambda: names(path.parent)) == [[temporary]] * 12


@pytest.mark.parametrize("name", ["rsynced", "rsynced_in_place"])
def test_rsync_sets_the_time_back(name: str, path: Path) -> None:
    WRITERS[name](path, TOTAL_BYTES, Pace())
    assert path.stat().st_mtime < time.time() - 3000


def test_a_pause_comes_in_the_middle_with_the_file_still_open(path: Path) -> None:
    with Stepper(writers.paused_and_continued, path, TOTAL_BYTES) as stepper:
        stepper.write_to_pause()
        assert path.stat().st_size == HALF_BYTES


@pytest.mark.parametrize("name", ["allocated_and_filled", "filled_in_parallel", "filled_by_mmap"])
def test_a_filler_keeps_its_size_and_turns_zeros_into_bytes(name: str, path: Path) -> None:
    sizes = observed(WRITERS[name], path, lambda: path.stat().st_size)
    assert (len(sizes) >= 3, set(sizes)) == (True, {TOTAL_BYTES})
    first, last, _ = changed_ranges(WRITERS[name], path)
    assert 0 < first < last
    assert last > TOTAL_BYTES - 100


def test_an_allocated_file_has_no_hole_and_is_zero_behind_the_front(path: Path) -> None:
    with Stepper(writers.allocated_and_filled, path, TOTAL_BYTES) as stepper:
        stepper.write_to(HALF_BYTES)
        written = -(-HALF_BYTES // writers.PIECE_BYTES) * writers.PIECE_BYTES
        assert path.read_bytes()[written:] == bytes(TOTAL_BYTES - written)
        assert path.stat().st_blocks * 512 >= TOTAL_BYTES


def test_a_parallel_fill_leaves_holes_in_its_middle_until_the_end(path: Path) -> None:
    def first_hole() -> int:
        with path.open("rb") as file:
            return os.lseek(file.fileno(), 0, os.SEEK_HOLE)

    holes = observed(writers.filled_in_parallel, path, first_hole, total_bytes=16 * writers.PIECE_BYTES)
    assert holes == [piece * writers.PIECE_BYTES for piece in (1, 2, 3, 16)]


def test_an_overallocating_writer_is_cut_to_its_bytes_at_the_end(path: Path) -> None:
    sizes = observed(writers.overallocated_and_cut, path, lambda: path.stat().st_size)
    assert (set(sizes), path.stat().st_size) == ({TOTAL_BYTES * 3 // 2}, TOTAL_BYTES)


def test_a_rewrite_in_place_truncates_the_same_inode_and_brings_other_bytes(path: Path) -> None:
    with Stepper(writers.rewritten_in_place, path, TOTAL_BYTES) as stepper:
        stepper.write_to_pause()
        first = sha256_of(path)
        with path.open("rb") as finished:  # an open file keeps its inode from being used again
            stepper.write_to(HALF_BYTES)
            begun = path.stat()
            assert begun.st_ino == os.fstat(finished.fileno()).st_ino
        assert HALF_BYTES <= begun.st_size < TOTAL_BYTES
        assert stepper.finish()[path] != first


def test_a_file_replaced_by_rename_is_whole_at_any_time_and_gets_another_inode(path: Path) -> None:
    with Stepper(writers.replaced_by_rename, path, TOTAL_BYTES) as stepper:
        stepper.write_to_pause()
        finished, first = path.stat(), sha256_of(path)
        stepper.write_to(HALF_BYTES)
        assert sha256_of(path) == first
        assert stepper.finish()[path] != first
    assert path.stat().st_ino != finished.st_ino


def test_a_file_renamed_while_open_grows_on_under_its_new_name(path: Path) -> None:
    with Stepper(writers.renamed_while_open, path, TOTAL_BYTES) as stepper:
        stepper.write_to_pause()
        assert names(path.parent) == ["before-rec.mp4"]
        stepper.write_to(TOTAL_BYTES - 1)
        assert (names(path.parent), path.stat().st_size) == (["rec.mp4"], TOTAL_BYTES)


def test_a_head_patched_at_close_is_all_that_changes(path: Path) -> None:
    first, last, _ = changed_ranges(writers.head_patched, path)
    assert 40 <= first <= last < 56


def test_a_head_patched_often_changes_after_every_piece(path: Path) -> None:
    heads = observed(writers.head_patched_often, path, lambda: path.read_bytes()[:1440])
    assert len(set(heads)) == 12
    first, last, _ = changed_ranges(writers.head_patched_often, path)
    assert 0 <= first <= last < 1440


def test_a_shift_at_close_changes_everything(path: Path) -> None:
    with Stepper(writers.shifted_at_close, path, TOTAL_BYTES) as stepper:
        stepper.write_to(TOTAL_BYTES)
        before = path.read_bytes()
        stepper.finish()
    assert path.read_bytes()[32 * 1024 :] == before


def test_a_paced_writer_takes_its_time_and_the_pause(path: Path) -> None:
    began = time.monotonic()
    pace = at_rate(bytes_per_second=TOTAL_BYTES * 20, pause_seconds=0.1, stop=threading.Event())
    writers.rewritten_in_place(path, TOTAL_BYTES, pace)
    assert 0.2 <= time.monotonic() - began < BUSY_MACHINE_SECONDS


def test_a_paced_writer_hurries_when_it_is_stopped(path: Path) -> None:
    stop = threading.Event()
    stop.set()
    writers.rewritten_in_place(path, TOTAL_BYTES, at_rate(1.0, 1000.0, stop))
    assert path.stat().st_size == TOTAL_BYTES


def test_a_stepped_writer_stands_where_it_was_told(path: Path) -> None:
    with Stepper(writers.copied, path, TOTAL_BYTES) as stepper:
        assert path.stat().st_size == writers.PIECE_BYTES
        stepper.write_to(2 * writers.PIECE_BYTES)
        assert path.stat().st_size == 2 * writers.PIECE_BYTES
        stepper.write_to(2 * writers.PIECE_BYTES + 1)
        assert path.stat().st_size == 3 * writers.PIECE_BYTES
    assert path.stat().st_size == TOTAL_BYTES


def test_a_stepped_writer_hands_on_its_error(path: Path) -> None:
    path.mkdir()
    with pytest.raises(IsADirectoryError), Stepper(writers.copied, path, TOTAL_BYTES):
        pass


def test_a_stepped_writer_hands_on_an_error_of_its_last_piece(path: Path) -> None:
    def failing(_path: Path, _total_bytes: int, pace: Pace) -> None:
        pace.step(1)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"), Stepper(failing, path, 1):
        assert not path.exists()
