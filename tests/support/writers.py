"""The ways in which recorders and tools write files, for tests, benchmarks and the soak.

Every writer takes the path, about how many bytes to write, and a `Pace`; it returns the files that are
there in the end with the SHA-256 of what it meant to write. `WRITERS` names them all; `pacing.py` has
the paces.
"""

import hashlib
import mmap
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import imageio_ffmpeg  # type: ignore[import-untyped]

from tests.support.pacing import AT_ONCE, Pace, wait_until

Written = dict[Path, str]
Writer = Callable[[Path, int, Pace], Written]

PIECE_BYTES = 256 * 1024
# Lossless H.264 of noise: measured, a frame takes 1.6 times its raw size, so few frames make many bytes.
_WIDTH, _HEIGHT, _FRAMES_PER_SECOND = 320, 240, 25
_RAW_FRAME_BYTES = _WIDTH * _HEIGHT * 3 // 2
FRAME_BYTES = 184_000
_FFMPEG_SECONDS = 30.0
_HELD_BACK_BYTES = 1_500_000  # what ffmpeg holds in memory at most (measured: 1.1 MB)
# An hour ago: what cp -p, rsync -t and mv from another file system leave behind.
_PAST_SECONDS = 3600.0
_PATCH_OFFSET = 40  # where ffmpeg's mdat size stands
_THREADS = 4


def ffmpeg_default(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Patches 4 bytes at offset 40 at the end and appends the moov."""
    return _ffmpeg(path, total_bytes, pace)


def ffmpeg_faststart(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Moves the whole file to put the moov in front of it at the end."""
    return _ffmpeg(path, total_bytes, pace, "-movflags", "+faststart")


def ffmpeg_fragmented(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Patches only size fields just below its end; playable while it grows."""
    return _ffmpeg(path, total_bytes, pace, "-movflags", "+frag_keyframe+empty_moov")


def ffmpeg_hybrid_fragmented(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Fragmented while it grows, turned into a plain file by a patch of its head at the end."""
    return _ffmpeg(path, total_bytes, pace, "-movflags", "+hybrid_fragmented")


def ffmpeg_reserved_moov(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Leaves a hole at the head and writes the moov into it at the end."""
    return _ffmpeg(path, total_bytes, pace, "-moov_size", "200000")


def ffmpeg_segments(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Three files, `<stem>_000.mp4` and on, each finished when the next one begins."""
    seconds = _frames(total_bytes) / _FRAMES_PER_SECOND / 3
    pattern = path.with_name(f"{path.stem}_%03d{path.suffix}")
    options = ("-f", "segment", "-segment_time", f"{seconds:.2f}", "-reset_timestamps", "1")
    _record(pattern, total_bytes, pace, *options)
    return _read_back(*sorted(path.parent.glob(f"{path.stem}_[0-9][0-9][0-9]{path.suffix}")))


def ffmpeg_killed(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Ends by SIGKILL with at least half of it on disk: no moov, and the size of its mdat stays 0."""
    with _running_ffmpeg(path, total_bytes + _HELD_BACK_BYTES) as process:
        _feed(process, total_bytes + _HELD_BACK_BYTES, pace)
        wait_until(lambda: path.stat().st_size >= total_bytes // 2)
    return _read_back(path)


def ffmpeg_over_existing(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Records, pauses, and records again into the same file: truncated, the same inode."""
    ffmpeg_default(path, total_bytes, pace)
    pace.pause()
    return ffmpeg_default(path, total_bytes, pace)


def copied(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """As cp does: from the first byte to the last, once."""
    body = os.urandom(total_bytes)
    with path.open("wb", buffering=0) as file:
        _write(file, body, pace)
    return {path: _sha256(body)}


def empty(path: Path, _total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """A file that is created and never filled."""
    return copied(path, 0, pace)


def moved_within(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Written under another name of the same folder, pauses, then renamed: the same inode."""
    before = path.with_name(f"before-{path.name}")
    body = copied(before, total_bytes, pace)[before]
    pace.pause()
    before.rename(path)
    return {path: body}


def moved_from_outside(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Appears complete and with an old time, by one rename from beside the folder of `path`."""
    with tempfile.TemporaryDirectory(dir=path.parent.parent, prefix=".outside-") as outside:
        before = Path(outside, path.name)
        body = copied(before, total_bytes, pace)[before]
        _set_past(before)
        before.rename(path)
    return {path: body}


def rsynced(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """As rsync -t does: a hidden temporary name, the time set back, renamed into place."""
    return _renamed_into_place(path.with_name(f".{path.name}.Ab12Cd"), path, total_bytes, pace)


def downloaded(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """A temporary ending that comes off by a rename."""
    return _renamed_into_place(path.with_name(f"{path.name}.tmp"), path, total_bytes, pace)


def rsynced_in_place(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """As rsync --inplace and mv from another file system do: the time goes back at the end."""
    written = copied(path, total_bytes, pace)
    _set_past(path)
    return written


def appended_and_closed(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Opened, appended to and closed for every piece."""
    body = os.urandom(total_bytes)
    for start in range(0, total_bytes, PIECE_BYTES):
        with path.open("ab") as file:
            file.write(body[start : start + PIECE_BYTES])
        pace.step(min(start + PIECE_BYTES, total_bytes))
    return {path: _sha256(body)}


def paused_and_continued(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Stays open and silent in the middle, then goes on."""
    body = os.urandom(total_bytes)
    with path.open("wb", buffering=0) as file:
        _write(file, body[: total_bytes // 2], pace)
        pace.pause()
        _write(file, body[total_bytes // 2 :], pace, written=total_bytes // 2)
    return {path: _sha256(body)}


def allocated_and_filled(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Takes its final size at once (fallocate), then fills it from the front."""
    body = os.urandom(total_bytes)
    with path.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, total_bytes)
        _write(file, body, pace)
    return {path: _sha256(body)}


def filled_in_parallel(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """A sparse file of the final size that four threads fill side by side, each its own quarter."""
    body = os.urandom(total_bytes)
    quarter = max(1, -(-total_bytes // _THREADS))
    with path.open("wb", buffering=0) as file, ThreadPoolExecutor(_THREADS) as pool:
        file.truncate(total_bytes)

        def fill(start: int, end: int) -> None:
            os.pwrite(file.fileno(), body[start:end], start)

        for done in range(0, quarter, PIECE_BYTES):
            piece = min(PIECE_BYTES, quarter - done)
            starts = [first + done for first in range(0, total_bytes, quarter)]
            list(pool.map(fill, starts, [start + piece for start in starts]))
            pace.step(min((done + piece) * _THREADS, total_bytes))
    return {path: _sha256(body)}


def filled_by_mmap(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """A sparse file of the final size that is filled through memory: no write, no event."""
    body = os.urandom(total_bytes)
    with path.open("w+b") as file:
        file.truncate(total_bytes)
        with mmap.mmap(file.fileno(), total_bytes) as memory:
            for start in range(0, total_bytes, PIECE_BYTES):
                memory[start : start + PIECE_BYTES] = body[start : start + PIECE_BYTES]
                pace.step(min(start + PIECE_BYTES, total_bytes))
    return {path: _sha256(body)}


def overallocated_and_cut(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Takes half as much again as it needs, and cuts the rest off when it closes."""
    body = os.urandom(total_bytes)
    with path.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, total_bytes + total_bytes // 2)
        _write(file, body, pace)
        file.truncate(total_bytes)
    return {path: _sha256(body)}


def rewritten_in_place(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Written, and after a pause truncated to nothing and written anew: the same inode."""
    copied(path, total_bytes, pace)
    pace.pause()
    return copied(path, total_bytes, pace)


def replaced_by_rename(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Written, and after a pause another file is renamed over it: another inode."""
    copied(path, total_bytes, pace)
    pace.pause()
    return downloaded(path, total_bytes, pace)


def renamed_while_open(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Renamed after its first half, by somebody else, while the writer goes on."""
    body = os.urandom(total_bytes)
    before = path.with_name(f"before-{path.name}")
    with before.open("wb", buffering=0) as file:
        _write(file, body[: total_bytes // 2], pace)
        pace.pause()
        before.rename(path)
        _write(file, body[total_bytes // 2 :], pace, written=total_bytes // 2)
    return {path: _sha256(body)}


def head_patched(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Patches 16 bytes of its head when it closes, as GStreamer, OBS and MediaMTX do."""
    body = bytearray(os.urandom(total_bytes))
    with path.open("wb", buffering=0) as file:
        _write(file, bytes(body), pace)
        patch = os.urandom(16)
        body[_PATCH_OFFSET : _PATCH_OFFSET + 16] = patch
        os.pwrite(file.fileno(), patch, _PATCH_OFFSET)
    return {path: _sha256(body)}


def head_patched_often(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Rewrites a piece of its head after every piece, as GStreamer's robust muxing does."""
    body = bytearray(os.urandom(total_bytes))
    with path.open("wb", buffering=0) as file:
        for start in range(0, total_bytes, PIECE_BYTES):
            os.pwrite(file.fileno(), body[start : start + PIECE_BYTES], start)
            patch = os.urandom(min(1440, total_bytes))
            body[: len(patch)] = patch
            os.pwrite(file.fileno(), patch, 0)
            pace.step(min(start + PIECE_BYTES, total_bytes))
    return {path: _sha256(body)}


def shifted_at_close(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """Moves everything back by 32 KiB from the end to the front when it closes, as VLC does."""
    body, shift = os.urandom(total_bytes), 32 * 1024
    with path.open("wb", buffering=0) as file:
        _write(file, body, pace)
        for start in reversed(range(0, total_bytes, shift)):
            os.pwrite(file.fileno(), body[start : start + shift], start + shift)
        os.pwrite(file.fileno(), head := os.urandom(shift), 0)
    return {path: _sha256(head + body)}


WRITERS: dict[str, Writer] = {
    writer.__name__: writer
    for writer in (
        ffmpeg_default,
        ffmpeg_faststart,
        ffmpeg_fragmented,
        ffmpeg_hybrid_fragmented,
        ffmpeg_reserved_moov,
        ffmpeg_segments,
        ffmpeg_killed,
        ffmpeg_over_existing,
        copied,
        empty,
        moved_within,
        moved_from_outside,
        rsynced,
        downloaded,
        rsynced_in_place,
        appended_and_closed,
        paused_and_continued,
        allocated_and_filled,
        filled_in_parallel,
        filled_by_mmap,
        overallocated_and_cut,
        rewritten_in_place,
        replaced_by_rename,
        renamed_while_open,
        head_patched,
        head_patched_often,
        shifted_at_close,
    )
}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ffmpeg(path: Path, total_bytes: int, pace: Pace, *options: str) -> Written:
    _record(path, total_bytes, pace, *options)
    return _read_back(path)


def _record(path: Path, total_bytes: int, pace: Pace, *options: str) -> None:
    with _running_ffmpeg(path, total_bytes, *options) as process:
        _feed(process, total_bytes, pace)
        _stdin(process).close()
        if process.wait(_FFMPEG_SECONDS):
            raise RuntimeError(f"ffmpeg ended with exit code {process.returncode}")


@contextmanager
def _running_ffmpeg(path: Path, total_bytes: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A recorder that encodes the raw frames of its stdin, and a tone; it does not outlive the block."""
    raw = ["-f", "rawvideo", "-pixel_format", "yuv420p", "-video_size", f"{_WIDTH}x{_HEIGHT}"]
    video = [*raw, "-framerate", str(_FRAMES_PER_SECOND), "-i", "pipe:0"]
    audio = [
        "-f",
        "lavfi",
        "-i",
        f"sine=sample_rate=48000:duration={_frames(total_bytes) / _FRAMES_PER_SECOND}",
    ]
    speed = ["-preset", "ultrafast", "-tune", "zerolatency", "-threads", "1"]
    codecs = ["-c:v", "libx264", "-qp", "0", "-g", "5", *speed, "-c:a", "aac"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y"]
    with subprocess.Popen(
        [*command, *video, *audio, *codecs, *options, str(path)], stdin=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _feed(process: subprocess.Popen[bytes], total_bytes: int, pace: Pace) -> None:
    for frame in range(1, _frames(total_bytes) + 1):
        _stdin(process).write(os.urandom(_RAW_FRAME_BYTES))
        _stdin(process).flush()
        pace.step(frame * FRAME_BYTES)


def _stdin(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin


def _frames(total_bytes: int) -> int:
    return max(1, -(-total_bytes // FRAME_BYTES))


def _renamed_into_place(temporary: Path, path: Path, total_bytes: int, pace: Pace) -> Written:
    body = copied(temporary, total_bytes, pace)[temporary]
    _set_past(temporary)
    temporary.rename(path)
    return {path: body}


def _write(file: IO[bytes], body: bytes, pace: Pace, written: int = 0) -> None:
    for start in range(0, len(body), PIECE_BYTES):
        file.write(body[start : start + PIECE_BYTES])
        pace.step(written + min(start + PIECE_BYTES, len(body)))


def _set_past(path: Path) -> None:
    past = path.stat().st_mtime - _PAST_SECONDS
    os.utime(path, (past, past))


def _read_back(*paths: Path) -> Written:
    return {path: sha256_of(path) for path in paths}


def _sha256(body: bytes | bytearray) -> str:
    return hashlib.sha256(body).hexdigest()
