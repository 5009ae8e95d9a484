"""What the overview tells of streams, from their records on a real Valkey and files on a disk."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from checkpoint import Checkpoints
from recording.layout import RecordingId
from recording.stream import NO_ERROR, Chunk, RecordedError, Signature, State, Stream
from recording.timestamps import iso
from redis_store.client import connect_url
from redis_store.reader import LOOKUP_BATCH
from status.overview import DAY_SECONDS, Overview, StreamStatus, status_of, take_overview
from tests.support.servers import ValkeyServer

SIZE = 1000
"""Of a full chunk."""


@pytest.fixture
def checkpoints(valkey: ValkeyServer, redis_namespace: str) -> Iterator[Checkpoints]:
    with connect_url(valkey.url) as client:
        yield Checkpoints(client, namespace=redis_namespace, owner="a daemon")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


class Recorder:
    """Writes sources and their records, with the times that a test wants."""

    def __init__(self, checkpoints: Checkpoints, folder: Path) -> None:
        self.checkpoints, self.folder = checkpoints, folder
        self.now = time.time()

    def grow(self, path: str, size: int, *, ago: float) -> Signature:
        """Let a source be of a size since so many seconds."""
        target = self.folder / path
        with target.open("ab") as file:
            file.truncate(size)
        os.utime(target, (self.now - ago, self.now - ago))
        return Signature.of(target.stat())

    def found(self, path: str, size: int, *, ago: float, started_ago: float | None = None) -> Stream:
        """Begin a stream that was found so many seconds ago, and give its lease back."""
        signature = self.grow(path, size, ago=ago)
        created = self.checkpoints.create(
            path, RecordingId(path, 1, "7f3a91c2"), signature, replaces="", chunk_size=SIZE
        )
        assert created
        lease, stream = created
        self.checkpoints.release(lease)
        began = self.now - (ago if started_ago is None else started_ago)
        self.set(stream, "started_at", int(began * 1000))
        return stream

    def store(self, stream: Stream, indexes: range, *, ago: float, every: float = 1.0) -> None:
        """Record chunks, the last of them so many seconds ago."""
        signature = Signature.of((self.folder / stream.path).stat())
        with self.checkpoints.leased(stream.stream_id) as (lease, _):
            for index in indexes:
                at = self.now - ago - every * (indexes[-1] - index)
                chunk = Chunk(index, SIZE, f"{index:064x}", "", f"key {index}", _iso(at))
                self.checkpoints.checkpoint(lease, chunk, signature)

    def end(self, stream: Stream, *states: State, error: RecordedError = NO_ERROR) -> None:
        """Move a stream on."""
        with self.checkpoints.leased(stream.stream_id) as (lease, fresh):
            old = fresh.state
            for new in states:
                self.checkpoints.set_state(lease, old, new, fresh.signature, revision=1, error=error)
                old = new

    def set(self, stream: Stream, field: str, value: object) -> None:
        """Change a record behind the daemon's back."""
        client: Any = self.checkpoints._redis
        client.hset(self.checkpoints._stream_key(stream.stream_id), field, value)

    def overview(self, **options: int) -> Overview:
        return take_overview(self.checkpoints, str(self.folder), **options)

    def one(self, stream: Stream, root: str | None = None) -> StreamStatus:
        (found,) = status_of(self.checkpoints, root or str(self.folder), [stream.stream_id])
        return found


def _iso(at: float) -> str:
    return iso(datetime.fromtimestamp(at, UTC))


@pytest.fixture
def recorder(checkpoints: Checkpoints, folder: Path) -> Recorder:
    return Recorder(checkpoints, folder)


def about(seconds: float | None) -> Any:
    """Some seconds, and those that the test itself took."""
    return pytest.approx(seconds, abs=5)


# ---------------------------------------------------------------------- what is told of one stream


def test_a_record_is_shown_as_it_is(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 2500, ago=60)
    recorder.store(stream, range(2), ago=10, every=4)
    shown = recorder.one(stream)
    assert (shown.stream_id, shown.path, shown.state) == ("a.mp4@1", "a.mp4", State.ACTIVE)
    assert (shown.generation, shown.revision, shown.repaired) == (1, 0, 0)
    assert (shown.size, shown.offset, shown.unsafe_bytes) == (2500, 2000, 500)
    assert (shown.chunk_size, shown.chunks) == (SIZE, 2)
    assert shown.last_chunk_at == _iso(recorder.now - 10)
    assert (shown.error, shown.owner, shown.cancelled) == (NO_ERROR, "", False)
    assert shown.started_at_ms == int((recorder.now - 60) * 1000)


def test_the_size_is_that_of_the_file_if_it_is_here(recorder: Recorder, tmp_path: Path) -> None:
    stream = recorder.found("a.mp4", 2500, ago=60)
    recorder.grow("a.mp4", 7000, ago=1)
    assert recorder.one(stream).size == 7000
    assert recorder.one(stream, root=str(tmp_path / "nowhere")).size == 2500


def test_another_file_at_the_path_tells_nothing_of_the_stream(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 2500, ago=60)
    (recorder.folder / "a.mp4").rename(recorder.folder / "b.mp4")
    recorder.grow("a.mp4", 9000, ago=0)
    assert recorder.one(stream).size == 2500


def test_a_link_at_the_path_is_not_followed(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 2500, ago=60)
    (recorder.folder / "a.mp4").rename(recorder.folder / "b.mp4")
    (recorder.folder / "a.mp4").symlink_to("b.mp4")
    recorder.grow("b.mp4", 9000, ago=0)
    assert recorder.one(stream).size == 2500


def test_nothing_lags_when_every_byte_is_stored(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 2000, ago=60)
    recorder.store(stream, range(2), ago=10)
    shown = recorder.one(stream)
    assert (shown.unsafe_bytes, shown.lag_seconds, shown.seconds_left) == (0, None, None)


def test_a_file_that_was_there_before_lags_since_its_last_change(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 5000, ago=3600, started_ago=20)
    assert recorder.one(stream).lag_seconds == about(3600)


def test_a_recording_lags_since_about_when_its_oldest_unsafe_byte_was_written(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 0, ago=100)
    recorder.grow("a.mp4", 4000, ago=20)
    recorder.store(stream, range(2), ago=15)
    # 4000 bytes in 80 s: the one at 2000 was written halfway between.
    assert recorder.one(stream).lag_seconds == about(60)


def test_a_byte_written_after_the_last_checkpoint_is_not_older_than_that(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 0, ago=500)
    recorder.grow("a.mp4", 2000, ago=300)
    recorder.store(stream, range(2), ago=300)
    recorder.grow("a.mp4", 2600, ago=0)
    assert recorder.one(stream).lag_seconds == about(300)


def test_the_rate_is_that_of_the_last_chunks(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 20_000, ago=60)
    recorder.store(stream, range(10), ago=1, every=2)
    assert recorder.one(stream).rate == pytest.approx(SIZE / 2)


def test_one_chunk_tells_no_rate(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 20_000, ago=60)
    recorder.store(stream, range(1), ago=1)
    shown = recorder.one(stream)
    assert (shown.rate, shown.seconds_left) == (None, None)


def test_the_rate_falls_when_no_chunk_comes_any_more(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 20_000, ago=60)
    recorder.store(stream, range(6), ago=990, every=2)
    assert recorder.one(stream).rate == pytest.approx(5 * SIZE / 1000, rel=0.02)


def test_the_time_left_is_what_the_backlog_takes_at_that_rate(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 20_000, ago=60)
    recorder.store(stream, range(10), ago=0, every=2)
    assert recorder.one(stream).seconds_left == pytest.approx(10_000 / 500)


def test_what_the_source_grows_meanwhile_takes_time_too(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 20_000, ago=40)
    recorder.store(stream, range(10), ago=0, every=2)
    recorder.grow("a.mp4", 30_000, ago=0)  # 250 bytes a second
    assert recorder.one(stream).seconds_left == pytest.approx(20_000 / 250, rel=0.02)
    recorder.grow("a.mp4", 60_000, ago=0)  # faster than it is stored
    assert recorder.one(stream).seconds_left is None


def test_a_recording_at_its_head_has_no_time_left_to_tell(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 2999, ago=60)
    recorder.store(stream, range(2), ago=0)
    shown = recorder.one(stream)
    assert shown.rate
    assert (shown.unsafe_bytes, shown.seconds_left) == (999, None)


def test_the_owner_is_who_holds_the_lease_now(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 2500, ago=60)
    with recorder.checkpoints.leased(stream.stream_id):
        assert recorder.one(stream).owner == "a daemon"
    assert recorder.one(stream).owner == ""


def test_a_lease_that_ended_has_no_owner(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 2500, ago=60)
    recorder.set(stream, "owner", "a dead daemon")
    recorder.set(stream, "lease_until", int((recorder.now - 1) * 1e6))
    assert recorder.one(stream).owner == ""


def test_a_failed_stream_says_why_and_that_its_bytes_are_not_safe(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 2500, ago=60)
    recorder.store(stream, range(1), ago=10)
    recorder.end(stream, State.FAILED, error=RecordedError("unreadable", "no right to read it"))
    shown = recorder.one(stream)
    assert (shown.state, shown.error) == (State.FAILED, ("unreadable", "no right to read it"))
    assert shown.unsafe_bytes == 1500
    assert shown.lag_seconds


def test_a_finished_stream_owes_nothing(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 2500, ago=60)
    recorder.end(stream, State.FINALIZING, State.INCOMPLETE)
    shown = recorder.one(stream)
    assert (shown.unsafe_bytes, shown.lag_seconds, shown.cancelled) == (0, None, False)


def test_a_cancelled_stream_is_told_from_one_that_ended_early(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 2500, ago=60)
    recorder.end(stream, State.FINALIZING, State.INCOMPLETE, error=RecordedError("cancelled", "by anna"))
    assert recorder.one(stream).cancelled


def test_evicted_chunk_records_are_done_without(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 9000, ago=60)
    recorder.store(stream, range(4), ago=10)
    recorder.checkpoints._redis.delete(recorder.checkpoints._chunks_key(stream.stream_id))
    shown = recorder.one(stream)
    assert (shown.rate, shown.last_chunk_at, shown.offset) == (None, None, 4000)


def test_a_name_that_is_not_utf_8_is_told_as_the_disk_has_it(recorder: Recorder) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    created = recorder.checkpoints.create(
        name,
        RecordingId("caf_.mp4", 1, "7f3a91c2"),
        recorder.grow(name, 10, ago=0),
        replaces="",
        chunk_size=9,
    )
    assert created
    assert recorder.one(created[1]).path == name


# ---------------------------------------------------------------------- all of them


def test_unfinished_streams_come_first_the_failed_ones_and_then_by_lag(recorder: Recorder) -> None:
    recorder.found("new.mp4", 500, ago=10)
    recorder.found("old.mp4", 500, ago=1000)
    failed = recorder.found("failed.mp4", 500, ago=1)
    recorder.end(failed, State.FAILED, error=RecordedError("corrupt", "good"))
    done = recorder.found("done.mp4", 500, ago=9000)
    recorder.end(done, State.FINALIZING, State.COMPLETE)
    gone = recorder.found("gone.mp4", 500, ago=9000)
    recorder.end(gone, State.FINALIZING, State.INCOMPLETE)
    taken = recorder.overview()
    names = [each.path for each in taken.streams]
    assert names[:3] == ["failed.mp4", "old.mp4", "new.mp4"]
    assert set(names[3:]) == {"done.mp4", "gone.mp4"}
    assert taken.counts == {State.ACTIVE: 2, State.COMPLETE: 1, State.INCOMPLETE: 1, State.FAILED: 1}
    assert taken.taken_at == about(recorder.now)


def test_of_the_finished_ones_the_last_are_shown(recorder: Recorder) -> None:
    for number in range(6):
        stream = recorder.found(f"{number}.mp4", 10, ago=0)
        end = State.COMPLETE if number % 2 else State.INCOMPLETE
        recorder.end(stream, State.FINALIZING, end)
        at = int((recorder.now + number) * 1000)
        recorder.set(stream, "updated_at", at)
        recorder.checkpoints._redis.zadd(f"{recorder.checkpoints._base}{end}", {stream.stream_id: at})
    taken = recorder.overview(recent=3)
    assert [each.path for each in taken.streams] == ["5.mp4", "4.mp4", "3.mp4"]
    assert taken.counts[State.COMPLETE] == 3


def test_finished_ones_are_in_the_order_in_which_they_were_recorded(recorder: Recorder) -> None:
    for path, ago in (("monday.mp4", 3 * DAY_SECONDS), ("today.mp4", 10), ("tuesday.mp4", 2 * DAY_SECONDS)):
        stream = recorder.found(path, 10, ago=ago)
        recorder.end(stream, State.FINALIZING, State.COMPLETE)
    taken = recorder.overview(recent=2)
    assert [each.path for each in taken.streams] == ["today.mp4", "tuesday.mp4"]
    assert taken.streams[1].modified_at_ms == pytest.approx((recorder.now - 2 * DAY_SECONDS) * 1000, abs=1000)


def test_what_was_cut_short_or_cannot_be_played_is_told_for_a_day(recorder: Recorder) -> None:
    cut = recorder.found("cut.mp4", 3500, ago=60)
    recorder.store(cut, range(3), ago=50)
    recorder.end(cut, State.FINALIZING, State.INCOMPLETE, error=RecordedError("cut_short", "it vanished"))
    cancelled = recorder.found("cancelled.mp4", 10, ago=60)
    recorder.end(cancelled, State.FINALIZING, State.INCOMPLETE, error=RecordedError("cancelled", "by anna"))
    dark = recorder.found("dark.mp4", 10, ago=60)
    recorder.end(dark, State.FINALIZING, State.COMPLETE)
    recorder.set(dark, "playback", '{"unplayable": "no moov box"}')
    taken = recorder.overview()
    assert [(each.path, each.lost_bytes) for each in taken.cut_short] == [("cut.mp4", 500)]
    assert [each.path for each in taken.unplayable] == ["dark.mp4"]
    for stream in (cut, dark):
        recorder.set(stream, "updated_at", int((recorder.now - DAY_SECONDS - 1) * 1000))
    taken = recorder.overview()
    assert (taken.cut_short, taken.unplayable) == ([], [])


def test_an_overview_of_no_finished_ones_reads_none(recorder: Recorder) -> None:
    recorder.end(recorder.found("a.mp4", 10, ago=1), State.FINALIZING, State.COMPLETE)
    assert recorder.checkpoints.ids(unfinished=5, finished=0) == []


def test_an_overview_of_nothing_is_empty(recorder: Recorder) -> None:
    assert recorder.overview().streams == []


def test_it_asks_in_few_round_trips_however_many_streams_there_are(
    recorder: Recorder, valkey: ValkeyServer
) -> None:
    """1,000 active and 10,000 finished ones, written as the daemon writes them."""
    model = recorder.found("model.mp4", 5000, ago=10)
    recorder.store(model, range(3), ago=1)
    client: Any = recorder.checkpoints._redis
    base = recorder.checkpoints._base
    record = client.hgetall(f"{base}stream:model.mp4@1")
    chunks = client.hgetall(f"{base}chunks:model.mp4@1")
    pipe = client.pipeline(transaction=False)
    for number in range(1000):
        pipe.hset(f"{base}stream:{number}@1", mapping=record)
        pipe.hset(f"{base}chunks:{number}@1", mapping=chunks)
    pipe.zadd(f"{base}active", {f"{number}@1": number for number in range(1000)})
    pipe.zadd(f"{base}complete", {f"done {number}@1": number for number in range(10_000)})
    for number in range(9_900, 10_000):
        pipe.hset(f"{base}stream:done {number}@1", mapping=record | {"state": "complete"})
    pipe.execute()
    before = valkey.client.info("commandstats")
    taken = recorder.overview(recent=50)
    after = valkey.client.info("commandstats")
    assert len(taken.streams) == 1001 + 50
    assert all(each.rate for each in taken.streams[:1001])
    assert taken.counts[State.COMPLETE] == 10_000

    def ran(command: str) -> int:
        counts = [told.get(f"cmdstat_{command}", {"calls": 0})["calls"] for told in (before, after)]
        return int(counts[1] - counts[0])

    assert ran("hmget") == 1001 + 50 + 1001
    assert ran("zrange") == 4
    assert ran("time") <= 2 + 1101 // LOOKUP_BATCH
    assert ran("keys") + ran("scan") == 0


def test_a_stream_whose_record_is_gone_is_left_out(recorder: Recorder) -> None:
    stream = recorder.found("a.mp4", 10, ago=0)
    recorder.checkpoints._redis.delete(recorder.checkpoints._stream_key(stream.stream_id))
    assert recorder.overview().streams == []
