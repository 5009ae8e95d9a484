"""Every way of writing a file, all at once in front of one running daemon: in S3 is what is on disk."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.archive_parts import Shelf
from tests.support.daemon_process import MAIN, TIMEOUT_SECONDS, CountingRclone, DaemonProcess, Site
from tests.support.harness import CHUNK
from tests.support.pacing import AT_ONCE, Pace
from tests.support.servers import ValkeyServer, wait_until
from tests.support.writers import FRAME_BYTES, WRITERS, Writer, Written, copied, sha256_of

IDLE_SECONDS = 2.0
SIZE = 2 * CHUNK + 2_000_000
# What ffmpeg may have been fed and not yet written: a few frames and a buffer of 256 KiB.
UNWRITTEN = 1_000_000
WRITERS_AT_ONCE = 8
FRAMES_PER_SECOND = 25


def really_copied(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """By cp itself, which sends its first event at the end."""
    return _by_program("cp", path, total_bytes, pace)


def really_moved(path: Path, total_bytes: int, pace: Pace = AT_ONCE) -> Written:
    """By mv itself, from a folder that nobody watches."""
    return _by_program("mv", path, total_bytes, pace)


def _by_program(program: str, path: Path, total_bytes: int, pace: Pace) -> Written:
    outside = path.parent.with_name(f"{program}-source.mp4")
    sha256 = copied(outside, total_bytes, pace)[outside]
    subprocess.run([shutil.which(program) or program, outside, path], check=True)
    return {path: sha256}


@dataclass(frozen=True)
class Case:
    """One writer and what must become of its recording.

    `live`: it goes on only when each chunk that it wrote is in S3. `pause` says what a writer with two
    acts waits for between them: `stored` for its first act to be complete, `chunk` for a chunk of it.
    `before` is the name under which it begins. `repaired` is None where it is a matter of chance.
    """

    writer: Writer
    size: int = SIZE
    live: bool = True
    pause: str = ""
    before: str = ""
    files: int = 1
    generation: int = 1
    revision: int = 1
    repaired: int | None = 0


CASES = {
    # First those that take longest: they wait until their first act is complete.
    "ffmpeg_over_existing": Case(WRITERS["ffmpeg_over_existing"], pause="stored", generation=2, repaired=1),
    "moved_within": Case(WRITERS["moved_within"], pause="stored", before="before-moved_within.mp4"),
    # The same recording, completed a second time.
    "paused_and_continued": Case(WRITERS["paused_and_continued"], pause="stored", revision=2),
    "rewritten_in_place": Case(WRITERS["rewritten_in_place"], pause="stored", generation=2),
    "replaced_by_rename": Case(WRITERS["replaced_by_rename"], live=False, pause="stored", generation=2),
    # 4 bytes of the first chunk are patched at the end.
    "ffmpeg_default": Case(WRITERS["ffmpeg_default"], repaired=1),
    # Everything moves at the end.
    "ffmpeg_faststart": Case(WRITERS["ffmpeg_faststart"], repaired=2),
    # Size fields are patched less than a millisecond after the bytes around them were written: a chunk
    # that ends just there is repaired, any other is not.
    "ffmpeg_fragmented": Case(WRITERS["ffmpeg_fragmented"], repaired=None),
    "ffmpeg_hybrid_fragmented": Case(WRITERS["ffmpeg_hybrid_fragmented"], repaired=None),
    # Until it ends there is a hole in its first chunk.
    "ffmpeg_reserved_moov": Case(WRITERS["ffmpeg_reserved_moov"], live=False),
    # The head of a part may be patched before or after its first chunk was stored.
    "ffmpeg_segments": Case(
        WRITERS["ffmpeg_segments"], size=3 * SIZE // 2, live=False, files=3, repaired=None
    ),
    "ffmpeg_killed": Case(WRITERS["ffmpeg_killed"]),
    "cp": Case(really_copied, live=False),
    "mv": Case(really_moved, live=False),
    "copied": Case(WRITERS["copied"]),
    "empty": Case(WRITERS["empty"], size=0),
    "one_byte": Case(copied, size=1),
    "one_chunk": Case(copied, size=CHUNK),
    "one_chunk_and_a_byte": Case(copied, size=CHUNK + 1),
    "three_chunks": Case(copied, size=3 * CHUNK),
    "three_chunks_and_a_byte": Case(copied, size=3 * CHUNK + 1),
    "three_chunks_less_a_byte": Case(copied, size=3 * CHUNK - 1),
    "moved_from_outside": Case(WRITERS["moved_from_outside"], live=False),
    "rsynced": Case(WRITERS["rsynced"], live=False),
    "downloaded": Case(WRITERS["downloaded"], live=False),
    "rsynced_in_place": Case(WRITERS["rsynced_in_place"]),
    "appended_and_closed": Case(WRITERS["appended_and_closed"]),
    "allocated_and_filled": Case(WRITERS["allocated_and_filled"]),
    # Four threads write at once: a chunk may be read while the last piece of it is half written.
    "filled_in_parallel": Case(WRITERS["filled_in_parallel"], live=False, repaired=None),
    # A page is no hole from its first byte on, so the last page of a chunk may be read half filled.
    "filled_by_mmap": Case(WRITERS["filled_by_mmap"], repaired=None),
    "overallocated_and_cut": Case(WRITERS["overallocated_and_cut"]),
    "renamed_while_open": Case(
        WRITERS["renamed_while_open"], pause="chunk", before="before-renamed_while_open.mp4"
    ),
    "head_patched": Case(WRITERS["head_patched"], repaired=1),
    "head_patched_often": Case(WRITERS["head_patched_often"], repaired=1),
    # Everything moves by 32 KiB at the end.
    "shifted_at_close": Case(WRITERS["shifted_at_close"], repaired=2),
}

WITH_MEDIA = [name for name in CASES if name.startswith("ffmpeg") and name != "ffmpeg_killed"]


@dataclass
class Recording:
    """A writer's work: what it left in its first act, and for how long it stood still by itself."""

    case: Case
    path: Path
    site: Site
    first_act: str = ""
    longest_silence: float = 0.0
    chunks_seen: int = 0
    _acts: int = 1
    _stepped_at: float = field(default_factory=time.monotonic)

    def write(self) -> Written:
        """Run the writer to its end."""
        self._stepped_at = time.monotonic()
        written = self.case.writer(self.path, self.case.size, Pace(self._step, self._pause))
        self._note()
        return written

    def _step(self, written: int) -> None:
        self._note()
        chunks = (written - UNWRITTEN) // CHUNK
        if self.case.live and chunks > 0:
            wait_until(lambda: self._stored_chunks() >= chunks, TIMEOUT_SECONDS)
            self.chunks_seen = max(self.chunks_seen, chunks)
            self._stepped_at = time.monotonic()

    def _note(self) -> None:
        now = time.monotonic()
        self.longest_silence = max(self.longest_silence, now - self._stepped_at)
        self._stepped_at = now

    def _pause(self) -> None:
        self._note()
        here = self._here()
        if self.case.pause == "stored":
            self.site.wait_until_stored(here.name)
        else:
            wait_until(lambda: self._stored_chunks() >= 1, TIMEOUT_SECONDS)
        self.first_act = sha256_of(here)
        self._acts = 2
        self._stepped_at = time.monotonic()

    def _here(self) -> Path:
        """Where the file is now."""
        before = self.path.with_name(self.case.before or self.path.name)
        return before if before.exists() else self.path

    def _stored_chunks(self) -> int:
        """How many chunks of what it writes now are in S3; a touch keeps it from looking finished."""
        here = self._here()
        os.utime(here)
        found = self.site.view.parts.checkpoints.find(here.name)
        generation = min(self._acts, self.case.generation)
        return found.next_index if found and found.generation == generation else 0


class Recordings:
    """All cases, written at the same time; `of` gives one when the daemon is done with it."""

    def __init__(self, site: Site, daemon: DaemonProcess) -> None:
        self.site, self.daemon = site, daemon
        self._recordings = {
            name: Recording(case, site.folder / f"{name}.mp4", site) for name, case in CASES.items()
        }
        self._written: dict[str, Future[Written]] = {}

    def write(self) -> None:
        """Run all writers to their ends."""
        with ThreadPoolExecutor(WRITERS_AT_ONCE) as pool:
            for name, recording in self._recordings.items():
                self._written[name] = pool.submit(recording.write)

    def of(self, name: str) -> tuple[Recording, Written]:
        """Return what a writer did once all of it is stored."""
        written = self._written[name].result()
        self.site.wait_until_stored(*(path.name for path in written))
        return self._recordings[name], written

    def manifest(self, path: Path) -> dict[str, Any]:
        """Return the manifest of the newest stream at a path."""
        record = self.site.view.stream(path.name)
        return self.site.view.manifest(record.key_path, record.generation)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer) -> Iterator[Recordings]:
    base = tmp_path_factory.mktemp("byte-exact")
    rclone = CountingRclone(base / "rclone")
    rclone.start()
    site = Site(base, valkey, rclone, "byte-exact", STREAM_TIMEOUT_SECONDS=str(IDLE_SECONDS))
    try:
        daemon = site.daemon()
        daemon.wait_for_ready()
        all_of_them = Recordings(site, daemon)
        all_of_them.write()
        yield all_of_them
        assert daemon.terminate() == 0
    finally:
        site.close()
        rclone.close()


def test_the_cases_are_all_writers() -> None:
    assert set(WRITERS) <= set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_chunks_put_together_are_the_file(recordings: Recordings, name: str) -> None:
    recording, written = recordings.of(name)
    view = recordings.site.view
    assert len(written) == recording.case.files
    for path, meant in written.items():
        assert sha256_of(path) == meant, "the writer itself went wrong"
        manifest = recordings.manifest(path)
        assert manifest["status"] == "complete"
        assert manifest["sha256"] == meant
        assert view.recorded(manifest["key_path"], manifest["generation"]) == path.read_bytes()
        assert manifest["chunk_count"] == math.ceil(path.stat().st_size / CHUNK)
        # A rename alone is no reason for a new manifest, so the old name may stand in it.
        assert manifest["source"]["path"] in (path.name, recording.case.before)


@pytest.mark.parametrize("name", CASES)
def test_generations_and_revisions_are_what_the_writer_did(recordings: Recordings, name: str) -> None:
    recording, written = recordings.of(name)
    case = recording.case
    for path in written:
        manifest = recordings.manifest(path)
        assert manifest["key_path"] == (case.before or path.name)
        # A writer that this machine held up for longer than the timeout is rightly completed once more,
        # and what it cuts off then is another recording.
        if recording.longest_silence < IDLE_SECONDS:
            assert manifest["generation"] == case.generation
            assert manifest["revision"] == case.revision
            if case.repaired is not None:
                assert manifest["repaired_chunks"] == case.repaired


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.generation == 2])
def test_what_was_replaced_stays_as_it_was(recordings: Recordings, name: str) -> None:
    recording, _ = recordings.of(name)
    earlier = recordings.site.view.manifest(recording.path.name, 1)
    assert (earlier["status"], earlier["sha256"]) == ("complete", recording.first_act)
    recordings.site.view.recorded(recording.path.name, 1)


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.live and case.size > 2 * CHUNK]
)
def test_chunks_are_in_s3_while_the_writer_still_writes(recordings: Recordings, name: str) -> None:
    recording, _ = recordings.of(name)
    assert recording.chunks_seen == 2


@pytest.mark.parametrize("name", WITH_MEDIA)
def test_a_real_recordings_media_facts_are_in_the_manifest(recordings: Recordings, name: str) -> None:
    recording, written = recordings.of(name)
    frames = math.ceil(recording.case.size / FRAME_BYTES)
    total = 0.0
    for path in written:
        manifest = recordings.manifest(path)
        media = manifest["media"]
        assert (media["width"], media["height"], media["complete"]) == (320, 240, True)
        assert media["fragmented"] == (name == "ffmpeg_fragmented")
        assert manifest["duration_source"] == "media"
        total += manifest["duration_seconds"]
    assert total == pytest.approx(frames / FRAMES_PER_SECOND, abs=0.2)


def test_a_recorder_that_was_killed_leaves_a_reason_instead_of_media_facts(recordings: Recordings) -> None:
    recording, _ = recordings.of("ffmpeg_killed")
    manifest = recordings.manifest(recording.path)
    assert manifest["media"] is None
    assert manifest["media_error"]
    assert manifest["duration_source"] == "wall_clock"


def test_in_the_end_every_object_is_named_by_a_manifest_and_nothing_failed(recordings: Recordings) -> None:
    for name in CASES:
        recordings.of(name)
    assert recordings.site.unnamed_objects() == set()
    troubles = [event for event in recordings.daemon.events() if event["level"] in ("ERROR", "CRITICAL")]
    assert troubles == []


def test_every_recording_comes_back_and_is_what_it_should_be_without_redis(
    recordings: Recordings, tmp_path: Path
) -> None:
    sources: Written = {}
    for name in CASES:
        sources |= recordings.of(name)[1]
    # A rename alone makes no new manifest: it comes back under the name that it had.
    wanted = {recordings.manifest(path)["source"]["path"]: sha256 for path, sha256 in sources.items()}
    # The commands do not even know where Redis is.
    settings = Shelf(recordings.site.s3, recordings.site.bucket).settings()
    restored = _command(tmp_path, settings, "restore", "--all", "--to", "back", "--json")
    assert all(each["ok"] for each in restored)
    assert {path.name: sha256_of(path) for path in (tmp_path / "back").iterdir()} == wanted
    verified = _command(tmp_path, settings, "verify", "--all", "--deep", "--json")
    assert len(verified) > len(sources)  # earlier generations as well
    assert all(each["ok"] for each in verified)


def _command(folder: Path, settings: dict[str, str], *arguments: str) -> list[dict[str, Any]]:
    """Run one command of main.py in a folder without settings; gives its lines of JSON."""
    environment = settings | {"PATH": os.environ["PATH"]}
    program = [sys.executable, str(MAIN), *arguments]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_no_chunk_was_put_twice(recordings: Recordings) -> None:
    for name in CASES:
        recordings.of(name)
    store = recordings.site.s3
    assert isinstance(store, CountingRclone)
    twice = {key: count for key, count in store.chunk_puts(recordings.site.bucket).items() if count > 1}
    assert twice == {}
