"""A recording that no player can open is told everywhere: in the log, in the record, in the metrics."""

import json
from typing import Any

import pytest

from recording.stream import State
from tests.support.harness import Harness
from tests.support.mp4_boxes import box, mdat, mvhd, video_trak
from tests.support.servers import ValkeyServer
from tests.support.watched_folder import value
from upload.upkeep import COUNT_SECONDS

FTYP = box(b"ftyp", b"isom", bytes(4))
KILLED = FTYP + mdat(1000)  # as ffmpeg leaves it after kill -9
CLOSED = KILLED + box(b"moov", mvhd(1000, 15_000), video_trak())
REASON = "no moov box: the recorder did not close the file"


def completed(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    lines = [(record.levelname, record.msg) for record in caplog.records if isinstance(record.msg, dict)]
    return [(level, line) for level, line in lines if line["event"] == "complete"]


def test_a_recorder_that_was_killed_is_told_in_log_record_manifest_and_metrics(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.write("cam/killed.mp4", KILLED)
    harness.fall_idle()
    harness.tick(COUNT_SECONDS)
    ((level, line),) = completed(caplog)
    assert (level, line["playable"], line["reason"]) == ("WARNING", "no", REASON)
    playback = harness.stream("cam/killed.mp4").playback
    assert (playback.playable, playback.unplayable, playback.duration_source) == (False, REASON, "wall_clock")
    assert harness.manifest("cam/killed.mp4")["playable"] is False
    assert value("unplayable_recordings") == 1


def test_one_that_plays_and_one_of_which_nobody_knows_are_no_warning(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.write("closed.mp4", CLOSED)
    harness.write("other.mp4", b"RIFF" + bytes(1000))
    harness.fall_idle()
    harness.tick(COUNT_SECONDS)
    assert {level for level, _ in completed(caplog)} <= {"INFO"}
    playback = harness.stream("closed.mp4").playback
    assert (playback.playable, playback.duration_seconds, playback.duration_source) == (True, 15.0, "media")
    assert harness.stream("other.mp4").playback.playable is None
    assert harness.manifest("other.mp4")["playable"] is None
    assert value("unplayable_recordings") == 0


def test_one_that_its_recorder_closes_after_all_is_forgotten(harness: Harness) -> None:
    path = harness.write("a.mp4", KILLED)
    harness.fall_idle()
    harness.tick(COUNT_SECONDS)
    assert value("unplayable_recordings") == 1
    path.write_bytes(CLOSED)
    harness.fall_idle()
    harness.tick(COUNT_SECONDS)
    assert harness.stream("a.mp4").playback.playable
    assert value("unplayable_recordings") == 0


def test_what_is_found_again_in_s3_after_redis_was_lost_is_still_known_to_be_unplayable(
    harness: Harness, valkey: ValkeyServer
) -> None:
    harness.write("a.mp4", KILLED)
    harness.fall_idle()
    before = harness.stream("a.mp4").playback
    for key in valkey.client.keys(f"{{{harness.settings.redis.namespace}}}:*"):
        valkey.client.delete(key)
    later = harness.restarted()
    later.fall_idle()
    found = later.stream("a.mp4")
    assert (found.state, found.generation, found.playback) == (State.COMPLETE, 1, before)


def test_what_was_cut_short_says_why_and_how_much_of_it_is_known_to_be_lost(harness: Harness) -> None:
    path = harness.write("a.mp4", FTYP + bytes(6_000_000))
    harness.scan()
    path.unlink()
    harness.fall_idle()
    cut = harness.stream("a.mp4")
    assert (cut.state, cut.error) == (State.INCOMPLETE, ("cut_short", "the source vanished before its end"))
    assert cut.signature.size - cut.offset == 6_000_000 + len(FTYP) - 5 * 1024 * 1024
    assert cut.playback.playable is None


@pytest.mark.parametrize("end", ["vanished", "replaced"])
def test_what_it_grew_by_since_its_last_chunk_is_lost_too(harness: Harness, end: str) -> None:
    path = harness.write("a.mp4", bytes(5 * 1024 * 1024 + 100))
    harness.scan()
    with path.open("ab") as file:
        file.write(bytes(2_000_000))
    harness.parts.schedule.touched("a.mp4")  # as an event would
    harness.clock.now += 1
    harness.work()
    if end == "vanished":
        path.unlink()
    else:
        harness.write("b.mp4", b"another").replace(path)
    harness.fall_idle()
    (cut,) = [
        record.stream
        for record in harness.parts.checkpoints.records(["a.mp4@1"])
        if record.stream.state is State.INCOMPLETE
    ]
    assert cut.signature.size - cut.offset == 2_000_100
    assert harness.manifest("a.mp4")["source"]["size_bytes"] == 5 * 1024 * 1024 + 2_000_100


@pytest.mark.parametrize(
    "damage",
    [
        "no JSON",
        "[]",
        "5",
        '"x"',
        json.dumps({"duration_seconds": "long", "unplayable": 7, "estimated": 1}),
        json.dumps({"duration_seconds": -1}),
        '{"duration_seconds": 1e999}',
    ],
)
def test_a_record_that_lies_about_it_is_not_believed_and_does_no_harm(
    harness: Harness, valkey: ValkeyServer, damage: str
) -> None:
    harness.write("a.mp4", KILLED)
    harness.fall_idle()
    valkey.client.hset(harness.parts.checkpoints._stream_key("a.mp4@1"), "playback", damage)
    assert not any(harness.stream("a.mp4").playback)
    assert harness.state("a.mp4") is State.COMPLETE
