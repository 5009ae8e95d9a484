"""The bytes of a recording as they arrive, until the manifest is there."""

import subprocess
import threading
from collections.abc import Callable

import imageio_ffmpeg  # type: ignore[import-untyped]
import pytest

from archive import follow as archive_follow
from archive.follow import Followed, follow
from archive.listing import Archive
from archive.retrying_bucket import ArchiveStore, Stopped
from errors import PermanentError, StoreUnavailable
from recording.stream import State
from tests.support.archive_parts import CHUNK, Shelf, noise
from tests.support.fault_proxy import FaultProxy
from tests.support.harness import Harness
from tests.support.pacing import Stepper
from tests.support.servers import RcloneS3
from tests.support.writers import ffmpeg_fragmented


@pytest.fixture
def shelf(rclone: RcloneS3, bucket: str) -> Shelf:
    return Shelf(rclone, bucket)


class Viewer:
    """Follows a recording; each time that there is nothing new, the next of some acts is done."""

    def __init__(self, archive: Archive, *acts: Callable[[], object]) -> None:
        self.seen = bytearray()
        self._archive = archive
        self._acts = iter(acts)

    def follow(self, name: str = "a.mp4") -> Followed:
        return follow(self._archive, self._archive.find(name), write=self.seen.extend, wait=self._wait)

    def _wait(self, _seconds: float) -> None:
        act = next(self._acts, None)
        assert act, "the recording was not finished by the acts of this test"
        act()


def test_a_complete_recording_is_written_out(shelf: Shelf) -> None:
    for content in (b"", noise(7 * CHUNK + 5)):
        shelf.store_complete("a.mp4", content)
        viewer = Viewer(shelf.archive())
        done = viewer.follow()
        assert viewer.seen == content
        assert (done.written_bytes, done.changed) == (len(content), 0)


def test_a_growing_recording_is_followed_until_its_manifest(shelf: Shelf) -> None:
    content = noise(5 * CHUNK + 5)
    shelf.record("a.mp4", content[: 2 * CHUNK])
    sizes: list[int] = []

    def grow() -> None:
        sizes.append(len(viewer.seen))
        shelf.record("a.mp4", content[: 4 * CHUNK])

    viewer = Viewer(
        shelf.archive(),
        grow,
        lambda: sizes.append(len(viewer.seen)),
        lambda: shelf.store_complete("a.mp4", content),
    )
    done = viewer.follow()
    assert viewer.seen == content
    assert sizes == [2 * CHUNK, 4 * CHUNK]
    assert (done.recording.status, done.written_bytes, done.changed) == ("complete", len(content), 0)


def test_a_recording_that_ends_between_the_look_for_a_chunk_and_for_its_manifest(shelf: Shelf) -> None:
    content = noise(5 * CHUNK + 5)
    shelf.record("a.mp4", content[: 2 * CHUNK])
    archive = shelf.archive()
    recording = archive.find("a.mp4")
    seen = bytearray()

    def finish(params: dict[str, str], **_: object) -> None:
        if params["Key"].endswith("metadata.json"):
            shelf.store_complete("a.mp4", content)

    events = archive.store._store._connected().meta.events
    events.register("provide-client-params.s3.GetObject", finish)
    waits: list[float] = []
    follow(archive, recording, write=seen.extend, wait=waits.append)
    assert (bytes(seen), waits) == (content, [])


def test_chunks_that_were_patched_at_the_end_are_counted(shelf: Shelf) -> None:
    content = noise(3 * CHUNK)
    patched = b"patched" + content[7:]
    first, *_ = shelf.record("a.mp4", content)

    def finish() -> None:
        shelf.store_complete("a.mp4", patched)
        shelf.delete(first.key)

    viewer = Viewer(shelf.archive(), finish)
    done = viewer.follow()
    assert viewer.seen == content
    assert done.changed == 1


def test_a_chunk_that_is_repaired_between_the_list_and_the_read_is_taken_as_it_is_now(shelf: Shelf) -> None:
    content = noise(3 * CHUNK)
    patched = content[: 2 * CHUNK] + noise(CHUNK)
    *_, last = shelf.record("a.mp4", content)
    archive = shelf.archive()
    recording = archive.find("a.mp4")
    shelf.delete(last.key)
    shelf.record("a.mp4", patched)
    seen = bytearray()

    def commit(_: float) -> None:
        shelf.store_complete("a.mp4", patched)

    done = follow(archive, recording, write=seen.extend, wait=commit)
    assert seen == patched
    assert done.changed == 0


def test_a_source_that_vanished_ends_the_following(shelf: Shelf) -> None:
    content = noise(2 * CHUNK)
    chunks = shelf.record("a.mp4", content)
    viewer = Viewer(shelf.archive(), lambda: shelf.commit("a.mp4", chunks, None, status=State.INCOMPLETE))
    assert viewer.follow().recording.status == "incomplete"
    assert viewer.seen == content


def test_a_recording_that_is_purged_ends_the_following(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_follow, "POLLS_BETWEEN_CHECKS", 2)
    content = noise(2 * CHUNK)
    chunks = shelf.record("a.mp4", content)

    def purge() -> None:
        for chunk in chunks:
            shelf.delete(chunk.key)

    viewer = Viewer(shelf.archive(), lambda: None, lambda: None, purge, lambda: None)
    with pytest.raises(PermanentError, match="deleted from the bucket while it was followed: 2000 bytes"):
        viewer.follow()
    assert viewer.seen == content


def test_a_damaged_chunk_ends_the_following_before_its_bytes_are_seen(shelf: Shelf) -> None:
    content = noise(3 * CHUNK)
    chunks = shelf.store_complete("a.mp4", content)
    shelf.put(chunks[1].key, noise(CHUNK))
    viewer = Viewer(shelf.archive())
    with pytest.raises(PermanentError, match="damaged"):
        viewer.follow()
    assert viewer.seen == content[:CHUNK]


def test_a_chunk_that_a_complete_recording_lacks_ends_the_following(shelf: Shelf) -> None:
    chunks = shelf.store_complete("a.mp4", noise(3 * CHUNK))
    shelf.delete(chunks[1].key)
    with pytest.raises(PermanentError, match="not in the bucket"):
        Viewer(shelf.archive()).follow()


class Pauses(threading.Event):
    """A stop event whose waits take no time; `acts` are done in them, one at a time."""

    def __init__(self, *acts: Callable[[], None]) -> None:
        super().__init__()
        self._acts = iter(acts)
        self.waited: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout)
        next(self._acts, lambda: None)()
        return self.is_set()


def test_an_outage_is_waited_out_with_growing_pauses(shelf: Shelf) -> None:
    content = noise(2 * CHUNK)
    shelf.store_complete("a.mp4", content)
    with FaultProxy(shelf.server.port) as proxy:
        pauses = Pauses(*[lambda: None] * 7, proxy.heal)
        archive = Archive(
            shelf.store(port=proxy.port, stop=pauses, attempts=None), prefix="", watch_dir="input"
        )
        proxy.refuse()
        viewer = Viewer(archive)
        viewer.follow()
    assert viewer.seen == content
    assert pauses.waited == [0.5, 1, 2, 4, 8, 8, 8, 8]


def test_so_many_attempts_in_a_row_are_enough(shelf: Shelf) -> None:
    with FaultProxy(shelf.server.port) as proxy:
        proxy.refuse()
        pauses = Pauses()
        with pytest.raises(StoreUnavailable):
            shelf.store(port=proxy.port, stop=pauses, attempts=3).level("")
    assert pauses.waited == [0.5, 1]


def test_following_ends_when_it_is_asked_to_even_if_no_signal_comes_through(shelf: Shelf) -> None:
    shelf.record("cam.mp4", b"x" * CHUNK)
    stop = threading.Event()
    archive = shelf.archive(stop=stop)
    growing = archive.find("cam.mp4", None)
    with pytest.raises(Stopped):
        follow(archive, growing, write=lambda _: None, wait=lambda _: stop.set())


def test_a_wait_ends_when_it_is_asked_to(shelf: Shelf) -> None:
    with FaultProxy(shelf.server.port) as proxy:
        proxy.refuse()
        pauses = Pauses()
        pauses.set()
        with pytest.raises(Stopped):
            shelf.store(port=proxy.port, stop=pauses, attempts=None).level("")


def test_a_refusal_is_not_waited_out(shelf: Shelf) -> None:
    pauses = Pauses()
    store: ArchiveStore = Shelf(shelf.server, "no-such-bucket").store(stop=pauses, attempts=None)
    with pytest.raises(StoreUnavailable) as refused:
        store.prepare()
    assert refused.value.refused
    assert pauses.waited == []


def frames_in(video: bytes) -> int:
    """How many frames ffmpeg decodes out of the beginning of a recording."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "quiet", "-i", "-", "-f", "framemd5", "-an", "-"]
    decoded = subprocess.run(command, input=video, capture_output=True, check=False).stdout
    return sum(not line.startswith(b"#") for line in decoded.splitlines())


def test_a_fragmented_recording_plays_while_the_recorder_still_writes(harness: Harness) -> None:
    """Recorder, daemon and viewer are real; the recorder goes only as far as this test lets it."""
    source = harness.folder / "live.mp4"
    total, played = 18_000_000, list[int]()
    archive = Shelf(harness._servers[1], harness.bucket).archive()
    with Stepper(ffmpeg_fragmented, source, total) as recorder:
        recorder.write_to(9_000_000)
        harness.scan()

        def go_on() -> None:
            played.append(frames_in(bytes(viewer.seen)))
            recorder.write_to(15_000_000)
            harness.tick()

        def finish() -> None:
            played.append(frames_in(bytes(viewer.seen)))
            assert recorder._thread.is_alive()
            recorder.finish()
            harness.fall_idle()

        viewer = Viewer(archive, go_on, finish)
        done = viewer.follow("live.mp4")
    assert 10 < played[0] < played[1] < frames_in(source.read_bytes())
    assert viewer.seen == source.read_bytes()
    assert done.changed == 0
