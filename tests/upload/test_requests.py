"""Requests of operators: what is cancelled stays cancelled, what is tried again goes on, whatever happens."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import metrics
from archive.names import Names
from cli.requests import Steering
from errors import TransientError
from recording.layout import BucketLayout, RecordingId
from recording.stream import RecordedError, State
from recording.timestamps import utc_now
from redis_store.requests import Action, OperatorRequest, Outcome, outcome_of, request_of
from status.overview import StreamStatus, take_overview
from tests.support.harness import CHUNK, TIMEOUT, Harness
from tests.support.servers import RcloneS3, ValkeyServer
from upload.crash_points import CrashPoint
from upload.upkeep import COUNT_SECONDS

FULL = os.urandom(CHUNK)


class Killed(BaseException):
    """The process ended here."""


def request(daemon: Harness, stream_id: str, action: Action) -> OperatorRequest:
    """Leave a request as the command does."""
    placed = OperatorRequest(action, os.urandom(8).hex(), "anna@desk", utc_now())
    assert daemon.parts.checkpoints.place_request(stream_id, placed) == "OK"
    return placed


def outcome(daemon: Harness, placed: OperatorRequest, stream_id: str = "a.mp4@1") -> Outcome:
    """Return what came of a request that does not stand any more."""
    stands, came = daemon.parts.checkpoints.request(stream_id)
    assert stands is None
    assert came
    assert came.token == placed.token
    return came


def carry_out(daemon: Harness, action: Action, stream_id: str = "a.mp4@1") -> Outcome:
    """Place a request and let the daemon see it."""
    placed = request(daemon, stream_id, action)
    daemon.tick(COUNT_SECONDS)
    return outcome(daemon, placed, stream_id)


def recording(daemon: Harness, content: bytes = FULL + b"tail") -> None:
    """Let a recording be under way, with one chunk in S3."""
    daemon.write("a.mp4", content)
    daemon.scan()
    assert daemon.state("a.mp4") is State.ACTIVE


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def status(daemon: Harness, path: str = "a.mp4") -> StreamStatus:
    taken = take_overview(daemon.parts.checkpoints, str(daemon.folder))
    (found,) = [each for each in taken.streams if each.path == path]
    return found


# ---------------------------------------------------------------------- cancelling


def test_a_cancelled_stream_ends_with_a_manifest_of_what_is_stored(harness: Harness) -> None:
    recording(harness)
    came = carry_out(harness, Action.CANCEL)
    assert (came.done, came.said) == (True, "cancelled")
    manifest = harness.manifest("a.mp4")
    assert manifest["status"] == "incomplete"
    assert manifest["media_error"] == "cancelled by an operator (anna@desk)"
    assert harness.recorded("a.mp4") == FULL
    shown = status(harness)
    assert (shown.state, shown.cancelled) == (State.INCOMPLETE, True)
    assert shown.error == ("cancelled", "by an operator (anna@desk)")


def test_a_cancelled_stream_stops_at_the_next_chunk_without_a_look_for_requests(harness: Harness) -> None:
    harness.write("a.mp4", FULL * 5)
    harness.work()
    harness.parts.watch.scan()
    for _ in range(2):
        harness.parts.processor.work_once(0)
    stored = harness.stream("a.mp4").next_index
    assert stored < 5
    placed = request(harness, "a.mp4@1", Action.CANCEL)
    harness.work()
    harness.clock.now += 1
    harness.work()
    assert outcome(harness, placed).done
    assert len(harness.keys(harness.generation("a.mp4", 1) + "chunks/")) == stored


def test_a_stream_with_nothing_stored_can_be_cancelled(harness: Harness) -> None:
    recording(harness, b"short")
    assert carry_out(harness, Action.CANCEL).done
    assert harness.recorded("a.mp4") == b""
    append(harness.folder / "a.mp4", FULL)
    harness.fall_idle()
    assert harness.stream("a.mp4").cancelled


def test_a_finalization_that_is_under_way_is_cancelled(harness: Harness) -> None:
    harness.write("a.mp4", FULL * 4)
    harness.scan()
    harness.tick()
    harness.clock.now += TIMEOUT
    harness.parts.monitor.tick()
    harness.parts.processor.work_once(0)
    assert harness.state("a.mp4") is State.FINALIZING
    placed = request(harness, "a.mp4@1", Action.CANCEL)
    harness.clock.now += COUNT_SECONDS
    harness.parts.monitor.tick()
    harness.work()
    assert outcome(harness, placed).done
    assert harness.manifest("a.mp4")["status"] == "incomplete"
    assert harness.recorded("a.mp4") == FULL * 4


def test_a_failed_stream_can_be_cancelled(harness: Harness) -> None:
    recording(harness)
    fail(harness)
    assert carry_out(harness, Action.CANCEL).done
    assert harness.stream("a.mp4").cancelled
    assert harness.recorded("a.mp4") == FULL


def test_a_complete_recording_cannot_be_cancelled(harness: Harness) -> None:
    recording(harness)
    harness.fall_idle()
    came = carry_out(harness, Action.CANCEL)
    assert (came.done, came.said) == (False, "it is complete: nothing to cancel")
    assert harness.holds("a.mp4")


def test_a_reopened_recording_is_cancelled_and_keeps_its_complete_manifest(harness: Harness) -> None:
    recording(harness)
    harness.fall_idle()
    append(harness.folder / "a.mp4", b"more")
    harness.scan()
    assert harness.state("a.mp4") is State.ACTIVE
    assert carry_out(harness, Action.CANCEL).done
    assert harness.stream("a.mp4").cancelled
    assert harness.manifest("a.mp4")["status"] == "complete"
    harness.fall_idle()
    assert harness.stream("a.mp4").cancelled


def test_cancelling_twice_is_the_same_as_once(harness: Harness) -> None:
    recording(harness)
    carry_out(harness, Action.CANCEL)
    assert carry_out(harness, Action.CANCEL).done
    assert harness.manifest("a.mp4")["revision"] == 1


def test_a_failed_stream_whose_path_has_another_one_is_let_be(harness: Harness) -> None:
    recording(harness)
    fail(harness)
    checkpoints = harness.parts.checkpoints
    signature = harness.stream("a.mp4").signature
    begun = checkpoints.create(
        "a.mp4",
        RecordingId("b.mp4", 1, "7f3a91c2"),
        signature,
        replaces="a.mp4@1",
        chunk_size=CHUNK,
    )
    assert begun
    checkpoints.release(begun[0])
    came = carry_out(harness, Action.CANCEL)
    assert (came.done, came.said) == (False, "a newer recording is at its path")


# ---------------------------------------------------------------------- staying cancelled


def grow(daemon: Harness) -> None:
    append(daemon.folder / "a.mp4", FULL * 2)
    daemon.parts.schedule.touched("a.mp4")
    daemon.tick()


def patch(daemon: Harness) -> None:
    with (daemon.folder / "a.mp4").open("r+b") as file:
        file.write(b"patched head")


def restart(daemon: Harness) -> Harness:
    return daemon.restarted()


def rename(daemon: Harness) -> None:
    (daemon.folder / "a.mp4").rename(daemon.folder / "b.mp4")
    daemon.scan()


HAPPENS: dict[str, list[Callable[[Harness], Harness | None]]] = {
    "nothing": [],
    "growth": [grow],
    "a patched head": [patch],
    "a restart": [restart],
    "growth and a restart": [grow, restart],
    "a restart and growth": [restart, grow],
    "growth, a restart and growth": [grow, restart, grow],
}


@pytest.mark.parametrize("what", HAPPENS)
def test_nothing_that_its_own_file_does_reopens_a_cancelled_stream(harness: Harness, what: str) -> None:
    recording(harness, FULL * 2 + b"tail")
    carry_out(harness, Action.CANCEL)
    before = harness.keys()
    daemon = harness
    for happens in HAPPENS[what]:
        daemon = happens(daemon) or daemon
    daemon.fall_idle()
    daemon.fall_idle()
    assert daemon.stream("a.mp4").cancelled
    assert daemon.keys() == before


def test_a_cancelled_source_that_is_renamed_stays_cancelled(harness: Harness) -> None:
    recording(harness)
    carry_out(harness, Action.CANCEL)
    rename(harness)
    harness.fall_idle()
    assert harness.stream("b.mp4").stream_id == "a.mp4@1"
    assert harness.stream("b.mp4").cancelled
    assert harness.keys("b.mp4") == []


def test_another_file_at_the_path_of_a_cancelled_one_is_a_new_recording(harness: Harness) -> None:
    recording(harness)
    carry_out(harness, Action.CANCEL)
    harness.write("new", FULL + b"another").rename(harness.folder / "a.mp4")
    harness.fall_idle()
    assert harness.holds("a.mp4", 2)
    assert harness.manifest("a.mp4", 1)["status"] == "incomplete"


def test_a_cancelled_file_that_is_cut_is_a_new_recording(harness: Harness) -> None:
    recording(harness)
    carry_out(harness, Action.CANCEL)
    harness.write("a.mp4", b"anew")
    harness.fall_idle()
    assert harness.holds("a.mp4", 2)


def test_a_cut_is_seen_after_growth_that_was_not_uploaded(harness: Harness) -> None:
    recording(harness)
    carry_out(harness, Action.CANCEL)
    grow(harness)
    os.truncate(harness.folder / "a.mp4", 2 * CHUNK)
    harness.fall_idle()
    assert harness.holds("a.mp4", 2)


def test_a_cut_below_what_it_was_when_it_was_cancelled_is_seen_after_a_restart(harness: Harness) -> None:
    recording(harness)
    append(harness.folder / "a.mp4", b"more" * 100)
    carry_out(harness, Action.CANCEL)
    daemon = harness.restarted()
    os.truncate(daemon.folder / "a.mp4", CHUNK + 100)
    daemon.fall_idle()
    assert daemon.holds("a.mp4", 2)


def test_a_cancelled_file_that_did_not_change_is_settled_for_every_scan(harness: Harness) -> None:
    recording(harness)
    append(harness.folder / "a.mp4", b"more" * 100)
    carry_out(harness, Action.CANCEL)
    daemon = harness.restarted()
    daemon.work()
    turns = daemon.parts.schedule.turns
    daemon.scan()
    assert daemon.parts.schedule.turns == turns


def test_other_bytes_in_the_same_inode_are_a_new_recording_after_a_restart(harness: Harness) -> None:
    recording(harness, FULL * 2)
    carry_out(harness, Action.CANCEL)
    daemon = harness.restarted()
    with (daemon.folder / "a.mp4").open("r+b") as file:
        file.write(os.urandom(3 * CHUNK))
    daemon.fall_idle()
    assert daemon.holds("a.mp4", 2)


def test_another_daemon_lets_a_cancelled_stream_be(
    harness: Harness, tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3
) -> None:
    recording(harness, FULL)
    other = Harness(harness.folder, valkey, rclone, harness.bucket, harness._namespace)
    other.scan()
    append(harness.folder / "a.mp4", b"tail")
    other.tick()
    carry_out(harness, Action.CANCEL)
    before = harness.keys()
    grow(other)
    other.fall_idle()
    assert other.stream("a.mp4").cancelled
    assert other.keys() == before


# ---------------------------------------------------------------------- trying again


def fail(daemon: Harness, path: str = "a.mp4") -> None:
    """Have a stream fail as an unreadable one does, for a reason that no scan mends."""
    stream = daemon.stream(path)
    with daemon.parts.checkpoints.leased(stream.stream_id) as (lease, fresh):
        daemon.parts.checkpoints.set_state(
            lease,
            fresh.state,
            State.FAILED,
            fresh.signature,
            revision=0,
            error=RecordedError("corrupt", "on the way"),
        )


def test_a_failed_stream_is_tried_again(harness: Harness) -> None:
    recording(harness)
    fail(harness)
    again = harness.restarted()
    again.fall_idle()
    assert again.state("a.mp4") is State.FAILED
    came = carry_out(again, Action.RETRY)
    assert (came.done, came.said) == (True, "it goes on")
    again.fall_idle()
    assert again.holds("a.mp4")


def test_a_failed_stream_is_tried_again_although_nothing_of_it_is_stored(harness: Harness) -> None:
    recording(harness, b"short")
    fail(harness)
    assert carry_out(harness, Action.RETRY).done
    harness.fall_idle()
    assert harness.holds("a.mp4")


def test_a_cancelled_stream_goes_on_where_it_stopped(harness: Harness) -> None:
    recording(harness)
    carry_out(harness, Action.CANCEL)
    grow(harness)
    first = harness.keys(harness.generation("a.mp4", 1) + "chunks/")
    came = carry_out(harness, Action.RETRY)
    assert (came.done, came.said) == (True, "it goes on")
    harness.fall_idle()
    assert harness.holds("a.mp4")
    assert set(first) <= set(harness.keys(harness.generation("a.mp4", 1) + "chunks/"))
    assert harness.manifest("a.mp4")["revision"] == 2
    assert not harness.stream("a.mp4").cancelled


def test_a_cancelled_stream_goes_on_after_a_restart(harness: Harness) -> None:
    recording(harness)
    carry_out(harness, Action.CANCEL)
    daemon = harness.restarted()
    daemon.fall_idle()
    assert carry_out(daemon, Action.RETRY).done
    daemon.fall_idle()
    assert daemon.holds("a.mp4")


def test_a_stream_that_was_tried_again_can_be_cancelled_again(harness: Harness) -> None:
    recording(harness)
    carry_out(harness, Action.CANCEL)
    carry_out(harness, Action.RETRY)
    grow(harness)
    assert carry_out(harness, Action.CANCEL).done
    harness.fall_idle()
    assert harness.stream("a.mp4").cancelled
    assert harness.recorded("a.mp4")


def test_a_cancelled_stream_whose_objects_are_gone_begins_anew(harness: Harness) -> None:
    recording(harness)
    carry_out(harness, Action.CANCEL)
    for key in harness.keys("a.mp4/"):
        harness.s3.delete_object(Bucket=harness.bucket, Key=key)
    harness.restarted().fall_idle()
    assert harness.keys("a.mp4/") == []
    came = carry_out(harness, Action.RETRY)
    assert (came.done, came.said) == (True, "begun anew as a.mp4@2")
    harness.fall_idle()
    assert harness.holds("a.mp4", 2)


def test_a_stream_without_its_file_cannot_be_tried_again(harness: Harness) -> None:
    recording(harness)
    carry_out(harness, Action.CANCEL)
    (harness.folder / "a.mp4").unlink()
    came = carry_out(harness, Action.RETRY)
    assert (came.done, came.said) == (False, "its file is not there any more")
    assert harness.stream("a.mp4").cancelled


def test_a_complete_recording_is_not_tried_again(harness: Harness) -> None:
    recording(harness)
    harness.fall_idle()
    came = carry_out(harness, Action.RETRY)
    assert (came.done, came.said) == (False, "it is complete: nothing to retry")
    assert harness.manifest("a.mp4")["revision"] == 1


def test_an_older_recording_is_not_tried_again_over_a_newer_one(harness: Harness) -> None:
    recording(harness)
    carry_out(harness, Action.CANCEL)
    harness.write("a.mp4", b"anew")
    harness.fall_idle()
    came = carry_out(harness, Action.RETRY)
    assert (came.done, came.said) == (False, "a newer recording is at its path")


# ---------------------------------------------------------------------- requests that stand


def test_an_request_that_was_given_while_no_daemon_ran_comes_before_any_other_turn(harness: Harness) -> None:
    recording(harness)
    placed = request(harness, "a.mp4@1", Action.CANCEL)
    append(harness.folder / "a.mp4", FULL)
    daemon = harness.restarted()
    daemon.fall_idle()
    assert outcome(daemon, placed).done
    assert daemon.recorded("a.mp4") == FULL


def test_the_later_request_counts(harness: Harness) -> None:
    recording(harness)
    request(harness, "a.mp4@1", Action.RETRY)
    assert carry_out(harness, Action.CANCEL).done
    assert harness.stream("a.mp4").cancelled


def test_an_request_for_a_stream_of_another_daemon_waits_for_its_lease(
    harness: Harness, valkey: ValkeyServer, rclone: RcloneS3
) -> None:
    recording(harness)
    other = Harness(harness.folder, valkey, rclone, harness.bucket, harness._namespace)
    other.scan()
    lease, _ = other.parts.checkpoints.acquire("a.mp4@1")
    placed = request(harness, "a.mp4@1", Action.CANCEL)
    harness.tick(COUNT_SECONDS)
    assert harness.parts.checkpoints.request("a.mp4@1")[0] == placed
    assert harness.state("a.mp4") is State.ACTIVE
    other.parts.checkpoints.release(lease)
    other.tick(COUNT_SECONDS)
    assert outcome(other, placed).done
    harness.tick(COUNT_SECONDS)
    harness.fall_idle()
    assert harness.stream("a.mp4").cancelled
    assert harness.manifest("a.mp4")["revision"] == 1


def test_an_request_that_was_given_meanwhile_is_not_taken_away_with_an_earlier_one(harness: Harness) -> None:
    recording(harness)
    earlier = request(harness, "a.mp4@1", Action.RETRY)
    later = request(harness, "a.mp4@1", Action.CANCEL)
    checkpoints = harness.parts.checkpoints
    with checkpoints.leased("a.mp4@1") as (lease, _):
        assert lease.request == later
        assert not checkpoints.complete_request(lease, Outcome(earlier.token, done=True, said="it goes on"))
    assert checkpoints.request("a.mp4@1") == (later, None)


def test_an_request_that_two_daemons_met_is_ended_by_one(harness: Harness) -> None:
    recording(harness)
    placed = request(harness, "a.mp4@1", Action.CANCEL)
    checkpoints = harness.parts.checkpoints
    with checkpoints.leased("a.mp4@1") as (lease, _):
        outcome = Outcome(placed.token, done=True, said="cancelled")
        assert [checkpoints.complete_request(lease, outcome) for _ in range(2)] == [True, False]


@pytest.fixture
def closer(harness: Harness) -> Any:
    return harness.parts.processor._uploader._requests._closer


def test_an_request_follows_a_source_that_is_renamed_that_very_moment(
    harness: Harness, closer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording(harness)
    close = closer.close
    moved: list[Path] = []

    def renamed_first(*arguments: Any, **more: Any) -> None:
        if not moved:
            moved.append((harness.folder / "a.mp4").rename(harness.folder / "b.mp4"))
            with harness.parts.checkpoints.leased("a.mp4@1") as (lease, _):
                harness.parts.checkpoints.move(lease, "b.mp4", replaces="")
        close(*arguments, **more)

    monkeypatch.setattr(closer, "close", renamed_first)
    placed = request(harness, "a.mp4@1", Action.CANCEL)
    harness.tick(COUNT_SECONDS)
    assert harness.parts.checkpoints.request("a.mp4@1") == (placed, None)
    harness.tick(COUNT_SECONDS)
    assert outcome(harness, placed).done
    assert harness.stream("b.mp4").cancelled


def test_records_that_are_lost_in_the_middle_of_an_request_are_no_bug(
    harness: Harness, closer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording(harness)
    close = closer.close

    def lost_then(*arguments: Any, **more: Any) -> None:
        close(*arguments, **more)
        checkpoints = harness.parts.checkpoints
        checkpoints._redis.delete(checkpoints._stream_key("a.mp4@1"))

    monkeypatch.setattr(closer, "close", lost_then)
    request(harness, "a.mp4@1", Action.CANCEL)
    harness.tick(COUNT_SECONDS)
    harness.fall_idle()
    harness.fall_idle()
    assert harness.stream("a.mp4").cancelled, "the manifest says so"


def test_an_request_for_a_stream_that_redis_lost_is_refused(harness: Harness) -> None:
    placed = OperatorRequest(Action.CANCEL, "token", "anna", utc_now())
    assert harness.parts.checkpoints.place_request("unknown.mp4@1", placed) == "GONE"


def test_whoever_waits_for_an_request_is_told_what_became_of_it(harness: Harness) -> None:
    recording(harness)
    checkpoints = harness.parts.checkpoints
    stream = harness.stream("a.mp4")
    steering = Steering(checkpoints, Names(BucketLayout(""), watch_dir=str(harness.folder)), by="anna")

    def told(meanwhile: Callable[[], object]) -> str:
        placed = steering.request(Action.CANCEL, stream)
        meanwhile()
        came = steering.outcome(placed, stream, seconds=0, wait=time.sleep)
        assert came
        assert not came.done
        return came.said

    assert told(lambda: request(harness, "a.mp4@1", Action.RETRY)) == "another request took its place"
    assert told(lambda: checkpoints._redis.delete(checkpoints._requests)).startswith(
        "the request is gone: Redis lost"
    )


def test_no_more_requests_stand_than_the_daemons_can_read(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoint.MAX_REQUESTS", 1)
    harness.write("b.mp4", b"b")
    recording(harness)
    request(harness, "a.mp4@1", Action.CANCEL)
    placed = OperatorRequest(Action.CANCEL, "token", "anna", utc_now())
    assert harness.parts.checkpoints.place_request("b.mp4@1", placed) == "FULL"
    request(harness, "a.mp4@1", Action.RETRY)


def test_what_somebody_else_wrote_among_the_requests_is_passed_over(harness: Harness) -> None:
    recording(harness)
    harness.parts.checkpoints._redis.hset(harness.parts.checkpoints._requests, "a.mp4@1", "[not ours]")
    harness.tick(COUNT_SECONDS)
    harness.fall_idle()
    assert harness.holds("a.mp4")


def test_requests_are_counted(harness: Harness) -> None:
    recording(harness)
    before = metrics.OPERATOR_REQUESTS.labels("cancel")._value.get()
    carry_out(harness, Action.CANCEL)
    assert metrics.OPERATOR_REQUESTS.labels("cancel")._value.get() == before + 1


def killed_at(point: CrashPoint, like: Harness, valkey: ValkeyServer, rclone: RcloneS3) -> Harness:
    """Return a daemon that ends when it comes to a crash point."""

    def hook(reached: CrashPoint) -> None:
        if reached is point:
            raise Killed

    return Harness(like.folder, valkey, rclone, like.bucket, like._namespace, at=hook)


KILLED_AT = (CrashPoint.CLOSING, CrashPoint.MANIFEST_PUT, CrashPoint.CLOSING_MANIFEST_PUT, CrashPoint.CLOSED)


@pytest.mark.parametrize("point", KILLED_AT)
def test_a_cancel_that_is_cut_off_is_carried_out_after_the_restart(
    harness: Harness, valkey: ValkeyServer, rclone: RcloneS3, point: CrashPoint
) -> None:
    daemon = killed_at(point, harness, valkey, rclone)
    recording(daemon)
    placed = request(daemon, "a.mp4@1", Action.CANCEL)
    with pytest.raises(Killed):
        daemon.tick(COUNT_SECONDS)
    append(daemon.folder / "a.mp4", FULL)
    again = daemon.restarted()
    again.fall_idle()
    assert outcome(again, placed).done
    assert again.stream("a.mp4").cancelled
    assert again.recorded("a.mp4") == FULL
    assert again.manifest("a.mp4")["revision"] == 1


@pytest.mark.parametrize("point", [CrashPoint.RESTORED, CrashPoint.REOPENED])
def test_a_retry_that_is_cut_off_is_carried_out_after_the_restart(
    harness: Harness, valkey: ValkeyServer, rclone: RcloneS3, point: CrashPoint
) -> None:
    daemon = killed_at(point, harness, valkey, rclone)
    recording(daemon)
    carry_out(daemon, Action.CANCEL)
    placed = request(daemon, "a.mp4@1", Action.RETRY)
    with pytest.raises(Killed):
        daemon.tick(COUNT_SECONDS)
    again = daemon.restarted()
    again.fall_idle()
    assert outcome(again, placed).done
    assert again.holds("a.mp4")


# ---------------------------------------------------------------------- what a stream waits for


def test_what_a_stream_waits_for_is_seen_from_outside_until_it_goes_on(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording(harness)

    def broken(*_: object, **__: object) -> None:
        raise TransientError("the disk gave an input/output error", kind="source_io")

    with monkeypatch.context() as patched:
        patched.setattr(harness.parts.processor._uploader, "_session", broken)
        harness.parts.schedule.touched("a.mp4")
        harness.tick()
        assert status(harness).error.message == "the disk gave an input/output error"
        assert status(harness).state is State.ACTIVE
    harness.clock.now += 31
    harness.work()
    assert not status(harness).error
    assert status(harness).state is State.ACTIVE


def test_a_stored_chunk_ends_what_a_stream_waited_for_elsewhere(harness: Harness) -> None:
    recording(harness)
    harness.parts.checkpoints.set_last_error("a.mp4", RecordedError("busy", "a daemon that ended met this"))
    assert status(harness).error
    grow(harness)
    assert not status(harness).error


def test_an_error_that_passed_is_not_written_on_what_is_finished(harness: Harness) -> None:
    recording(harness)
    harness.fall_idle()
    harness.parts.checkpoints.set_last_error("a.mp4", RecordedError("busy", "too late"))
    assert not status(harness).error


def test_an_request_that_is_nested_too_deep_is_none() -> None:
    assert request_of("[" * 200_000) is None
    assert outcome_of("[" * 200_000) is None
