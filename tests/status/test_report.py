"""The answer to "are my recordings safe?", for everything that can be the case."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import hint_of
from folder.disk_space import DiskSpace
from folder.other_videos import OtherVideos
from folder.silence import Silence
from recording.playback import Playback
from recording.stream import NO_ERROR, RecordedError, State
from scheduling.backlog import Backlog
from scheduling.outages import NOT_REACHED, Outage, ServiceHealth
from status.overview import Overview, StreamStatus
from status.report import OLD_SECONDS, SCHEMA_VERSION, START_SECONDS, DaemonSnapshot, Level, describe, report
from status.setup import Setup
from status.wiring import FOLDER

WELL = DaemonSnapshot(
    now=2_000_000.0,
    started_at=1_000_000.0,
    health=[ServiceHealth("s3"), ServiceHealth("redis")],
    outages=[],
    unsafe=Backlog(),
    undone=0,
    overlooked="",
    folder="",
    unreadable="",
    unhealthy={},
    stopping=False,
    findings=[],
    setup=Setup("/srv/rec", ("*.mp4", "*.m4v"), "videos", "nvr/", "SHA-256"),
)
STREAM = StreamStatus(
    stream_id="cam/a.mp4@2",
    recording="cam/a.mp4@2-7f3a91c2",
    path="cam/a.mp4",
    state=State.ACTIVE,
    generation=2,
    revision=0,
    size=30,
    offset=20,
    chunk_size=10,
    chunks=2,
    unsafe_bytes=10,
    lag_seconds=1.23456,
    rate=100.0,
    seconds_left=None,
    started_at_ms=1_700_000_000_123,
    updated_at_ms=1_700_000_001_000,
    last_chunk_at="2023-11-14T22:13:21.000Z",
    repaired=3,
    error=NO_ERROR,
    owner="host:1:x",
    cancelled=False,
)
NOTHING = Overview([], {}, 1_999_999.5)
S3_AWAY = ServiceHealth("s3", "putting x: connection refused", "unreachable", 1_999_000.0, "mend it")


def overview(*streams: StreamStatus, **counts: int) -> Overview:
    return Overview(list(streams), {State(name): number for name, number in counts.items()}, 1_999_999.5)


def answer(snapshot: DaemonSnapshot, table: Overview | None = NOTHING) -> Any:
    return document(snapshot, table)["answer"]


def document(snapshot: DaemonSnapshot, table: Overview | None = None) -> Any:
    return report(snapshot, table, version="1", host="h", max_streams=10)


# ---------------------------------------------------------------------- the answer


def test_nothing_to_do_is_safe() -> None:
    for table in (overview(complete=7), overview(complete=1, incomplete=1)):
        found = answer(WELL, table)
        assert (found["level"], found["title"]) == ("safe", "Everything is in S3")
        assert (found["unsafe_bytes"], found["oldest_unsafe_seconds"]) == (0, None)
    assert answer(WELL, overview(complete=7, incomplete=2))["detail"].endswith(
        "Complete, byte for byte: 7."
        " Deleted, replaced or cancelled before the end: 2; what was stored is kept."
    )


def test_before_anything_was_recorded_it_says_no_yes_but_what_is_watched_and_where_it_goes() -> None:
    found = answer(WELL, NOTHING)
    assert (found["level"], found["title"]) == ("empty", "Nothing recorded yet")
    assert found["detail"] == "Watching /srv/rec for *.mp4, *.m4v → s3://videos/nvr/."
    assert document(WELL)["setup"]["watching"] == found["detail"].removesuffix(".")
    assert answer(replace(WELL, undone=1), NOTHING)["level"] == "recording"


def test_videos_that_match_no_pattern_are_told() -> None:
    for videos, said in (
        (OtherVideos(1, "cam/a.mkv"), "1 file looks like a video but matches"),
        (OtherVideos(9, "cam/a.mkv"), "9 files look like videos but match"),
    ):
        setup = WELL.setup._replace(other_videos=videos)
        note = document(replace(WELL, setup=setup))["setup"]["note"]
        assert note.startswith(f"{said} no pattern, such as cam/a.mkv: not uploaded.")
        assert note in answer(replace(WELL, setup=setup), NOTHING)["detail"]


def test_a_full_disk_of_the_embedded_store_is_called_full() -> None:
    broken = replace(WELL, health=[S3_AWAY, ServiceHealth("redis")])
    setup = WELL.setup._replace(embedded=True, store_disk=DiskSpace(3_100_000, 10**12))
    service = document(replace(broken, setup=setup))["services"][0]
    assert service["problem"] == "the disk of the embedded store is full: 3.1 MB are left"
    assert service["hint"] == hint_of("full")
    roomy = setup._replace(store_disk=DiskSpace(10**10, 10**12))
    assert document(replace(broken, setup=roomy))["services"][0]["problem"] == "putting x: connection refused"


def test_a_running_recording_is_recording_and_says_what_is_only_here() -> None:
    found = answer(replace(WELL, unsafe=Backlog(2, 3_100_000, 12.34)), overview(active=2))
    assert (found["level"], found["title"]) == ("recording", "2 recordings are going on")
    assert found["detail"] == (
        "All but the newest bytes are in S3."
        " 3.1 MB of 2 recordings are only on this disk, the oldest for 12 s."
    )
    assert (found["unsafe_bytes"], found["oldest_unsafe_seconds"]) == (3_100_000, 12.3)


def test_recordings_of_other_daemons_count_as_running() -> None:
    assert answer(WELL, overview(active=1))["level"] == "recording"
    assert answer(WELL, overview(finalizing=1))["level"] == "recording"


def test_files_that_nobody_has_looked_at_are_not_called_safe() -> None:
    assert answer(replace(WELL, undone=1))["level"] == "recording"
    found = answer(replace(WELL, overlooked="Not every file was looked at."))
    assert (found["level"], found["title"]) == ("behind", "Looking through the folder")


def test_without_a_list_nobody_knows_whether_a_recording_failed() -> None:
    old = overview(complete=7)
    for snapshot, table in ((WELL, None), (replace(WELL, now=old.taken_at + OLD_SECONDS + 0.1), old)):
        found = answer(snapshot, table)
        assert (found["level"], found["title"]) == ("behind", "Reading the records")
    assert answer(replace(WELL, now=old.taken_at + OLD_SECONDS), old)["level"] == "safe"


def test_a_backlog_is_behind() -> None:
    found = answer(replace(WELL, unsafe=Backlog(3, 5_200_000_000, 240.0, behind=1)))
    assert (found["level"], found["title"]) == ("behind", "Catching up")
    assert "5.2 GB of 3 recordings are only on this disk, the oldest for 4 min." in found["detail"]


@pytest.mark.parametrize(
    ("change", "title"),
    [
        ({"health": [S3_AWAY, ServiceHealth("redis")]}, "S3 has been failing for 17 min"),
        (
            {"health": [S3_AWAY, ServiceHealth("redis", "x", "loading", 5.0)]},
            "S3 has been failing for 17 min and Redis has been failing for 23 days",
        ),
        ({"folder": "/in is not there"}, "Folder does not work"),
        ({"unhealthy": {"monitor": "dead"}}, "Daemon does not work"),
        ({"stopping": True}, "Daemon does not work"),
    ],
)
def test_whatever_does_not_work_puts_recordings_at_risk(change: dict[str, Any], title: str) -> None:
    for unsafe in (Backlog(), Backlog(1, 10, 5.0), Backlog(1, 10, 5.0, behind=1)):
        found = answer(replace(WELL, unsafe=unsafe, **change), overview(complete=1))
        assert found["level"] == "at_risk"
        assert found["title"].startswith(title)
        assert ("only on this disk" in found["detail"]) or not unsafe.bytes


def test_a_failed_recording_is_at_risk() -> None:
    assert answer(WELL, overview(failed=1))["title"] == "One recording cannot be stored"
    found = answer(WELL, overview(failed=2, complete=9))
    assert (found["level"], found["title"]) == ("at_risk", "2 recordings cannot be stored")


def test_a_folder_that_cannot_be_read_puts_what_is_in_there_at_risk() -> None:
    found = answer(replace(WELL, unreadable="cam3: Permission denied"))
    assert (found["level"], found["title"]) == ("at_risk", "A part of the folder cannot be read")
    assert found["detail"].startswith(
        "cam3: Permission denied. Nothing in there is stored: let the daemon read"
    )


def test_a_start_is_no_outage_unless_it_lasts() -> None:
    start = replace(WELL, health=[ServiceHealth("s3", NOT_REACHED), ServiceHealth("redis", NOT_REACHED)])
    assert answer(replace(start, started_at=start.now - START_SECONDS + 1))["title"] == "Starting"
    assert answer(replace(start, started_at=start.now - START_SECONDS))["level"] == "at_risk"


# ---------------------------------------------------------------------- what is mentioned for a day

CUT = replace(
    STREAM,
    state=State.INCOMPLETE,
    error=RecordedError("cut_short", "the source vanished before its end"),
    lost_bytes=2_900_000,
)
UNPLAYABLE = replace(
    STREAM,
    state=State.COMPLETE,
    playback=Playback(248.0, estimated=True, unplayable="no moov box: the recorder did not close the file"),
)


def test_the_headline_mentions_what_was_cut_short_and_how_much_is_lost() -> None:
    found = answer(WELL, replace(overview(incomplete=1), cut_short=[CUT]))
    assert (found["level"], found["title"]) == (
        "attention",
        "Not quite: a recording of the last day was cut short",
    )
    assert found["all_in_s3"], "what is left is stored, whatever was lost"
    assert found["detail"].startswith(
        "cam/a.mp4: the source vanished before its end. At least 2.9 MB are lost. Everything is in S3."
    )
    found = answer(
        replace(WELL, unsafe=Backlog(1, 7, 1.0)), replace(overview(active=1), cut_short=[CUT, CUT])
    )
    assert found["title"] == "Not quite: 2 recordings of the last day were cut short"
    assert "cam/a.mp4, and 1 more: " in found["detail"]
    assert "7 bytes of one recording are only on this disk" in found["detail"]
    assert not found["all_in_s3"]


def test_the_headline_mentions_what_no_player_can_open_and_why() -> None:
    found = answer(WELL, replace(overview(complete=1), unplayable=[UNPLAYABLE]))
    assert (found["level"], found["title"]) == (
        "attention",
        "Yes, but one recording of the last day cannot be played",
    )
    assert found["detail"].startswith(
        "No player can open cam/a.mp4: no moov box: the recorder did not close the file. Everything is in S3."
    )


def test_what_is_at_risk_or_behind_comes_before_what_was_cut_short() -> None:
    table = replace(overview(incomplete=1), cut_short=[CUT])
    assert answer(replace(WELL, unsafe=Backlog(3, 5, 240.0, behind=1)), table)["level"] == "behind"
    assert answer(replace(WELL, folder="/in is not there"), table)["level"] == "at_risk"


def test_the_headline_says_that_a_camera_went_silent() -> None:
    silent = [Silence("cam07", WELL.now - 10_800, 600.0), Silence("cam\udcff", WELL.now - 3_700, 60.0)]
    found = answer(replace(WELL, silent=silent), overview(complete=1))
    assert (found["level"], found["title"]) == (
        "attention",
        "Yes, but cam07 has been silent for 3 h, and 1 more",
    )
    assert document(replace(WELL, silent=silent))["silent"][0] == {
        "folder": "cam07",
        "since": "1970-01-24T00:33:20.000Z",
        "usual_seconds": 600.0,
        "title": "cam07 has been silent for 3 h",
    }


def test_a_recording_that_no_player_opens_says_why_and_what_to_do_and_how_sure_its_length_is() -> None:
    found = describe(UNPLAYABLE)
    assert (found["playable"], found["duration_seconds"], found["duration_source"]) == (
        False,
        248.0,
        "wall_clock",
    )
    assert found["unplayable_reason"] == "no moov box: the recorder did not close the file"
    assert found["hint"].startswith("Repair a copy")


def test_in_an_outage_rows_wait_and_promise_no_rate_and_no_end() -> None:
    growing = replace(STREAM, rate=1.0, seconds_left=3_456_000.0)
    for snapshot, waits in ((WELL, False), (replace(WELL, health=[S3_AWAY, ServiceHealth("redis")]), True)):
        (found,) = document(snapshot, overview(growing, active=1))["streams"]
        told = (found["waiting"], found["rate_bytes_per_second"], found["seconds_left"])
        assert told == ((True, None, None) if waits else (False, 1.0, 3_456_000.0))
    (ended,) = document(
        replace(WELL, health=[S3_AWAY, ServiceHealth("redis")]),
        overview(replace(STREAM, state=State.COMPLETE), complete=1),
    )["streams"]
    assert not ended["waiting"]


# ---------------------------------------------------------------------- the rest of the document


def test_services_say_since_when_and_what_to_do() -> None:
    services = document(replace(WELL, health=[S3_AWAY, ServiceHealth("redis")]))["services"]
    assert [service["name"] for service in services] == ["S3", "Redis", "Folder", "Daemon"]
    assert services[0] == {
        "name": "S3",
        "ok": False,
        "problem": "putting x: connection refused",
        "since": "1970-01-24T03:16:40.000Z",
        "hint": "mend it",
    }
    assert services[1] == {"name": "Redis", "ok": True, "problem": "", "since": None, "hint": ""}


def test_outages_are_told_as_they_are_given() -> None:
    outages = [Outage("redis", 2.0, None, "why"), Outage("s3", 1.0, 1.5, "because")]
    assert document(replace(WELL, outages=outages))["outages"] == [
        {"service": "Redis", "began_at": "1970-01-01T00:00:02.000Z", "ended_at": None, "reason": "why"},
        {
            "service": "S3",
            "began_at": "1970-01-01T00:00:01.000Z",
            "ended_at": "1970-01-01T00:00:01.500Z",
            "reason": "because",
        },
    ]


def test_a_stream_is_described_with_its_hint_and_its_address() -> None:
    found = describe(
        replace(STREAM, state=State.FAILED, error=RecordedError("unreadable", "permission denied"))
    )
    assert found == {
        "id": "cam/a.mp4@2",
        "recording": "cam/a.mp4@2-7f3a91c2",
        "path": "cam/a.mp4",
        "state": "failed",
        "waiting": False,
        "generation": 2,
        "revision": 0,
        "size_bytes": 30,
        "offset_bytes": 20,
        "unsafe_bytes": 10,
        "lag_seconds": 1.2,
        "rate_bytes_per_second": 100.0,
        "seconds_left": None,
        "started_at": "2023-11-14T22:13:20.123Z",
        "updated_at": "2023-11-14T22:13:21.000Z",
        "modified_at": "1970-01-01T00:00:00.000Z",
        "last_chunk_at": "2023-11-14T22:13:21.000Z",
        "repaired_chunks": 3,
        "error_kind": "unreadable",
        "error": "permission denied",
        "hint": hint_of("unreadable"),
        "owner": "host:1:x",
        "cancelled": False,
        "duration_seconds": None,
        "duration_source": None,
        "playable": None,
        "unplayable_reason": None,
        "lost_bytes": 0,
        "play_url": "/play/cam/a.mp4%402-7f3a91c2",
    }


def test_what_has_nothing_in_s3_cannot_be_played() -> None:
    assert describe(replace(STREAM, offset=0))["play_url"] is None


def test_a_long_list_is_cut_and_says_so() -> None:
    found = document(WELL, overview(*[STREAM] * 12, active=12, complete=30))
    assert (len(found["streams"]), found["streams_left_off"]) == (10, 32)
    assert found["counts"] == {"active": 12, "complete": 30, "incomplete": 0, "failed": 0}


def test_without_a_table_the_list_is_empty_and_has_no_time() -> None:
    found = document(WELL)
    assert (found["taken_at"], found["streams"], found["streams_left_off"]) == (None, [], 0)


@given(text=st.text(st.characters(), max_size=40))
def test_every_name_becomes_valid_json(text: str) -> None:
    stream = replace(STREAM, path=text, error=RecordedError("busy", text), owner=text)
    snapshot = replace(
        WELL, folder=text, health=[ServiceHealth("s3", text, "busy", 1.0)], unhealthy={text: text}
    )
    found = document(snapshot, overview(stream, active=1))
    encoded = json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    assert json.loads(encoded) == found


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert describe(replace(STREAM, path="a\udcff.mp4"))["path"] == "a\ufffd.mp4"


def test_every_failure_that_closes_a_gate_has_a_hint() -> None:
    kinds = "unreachable throttled full clock credentials bucket read_only memory loading schema refused"
    assert [kind for kind in kinds.split() if not hint_of(kind)] == []
    assert hint_of("redis full", "full") != hint_of("s3 full", "full") == hint_of("full")
    assert hint_of("") == hint_of("something else") == ""


def test_the_page_reads_the_layout_that_is_written_and_has_a_mark_and_an_icon_for_each_level() -> None:
    web = Path(FOLDER)
    script, page = (web / "page.js").read_text(), (web / "index.html").read_text()
    assert f"const SCHEMA_VERSION = {SCHEMA_VERSION};" in script
    levels = ", ".join(f'"{level}"' for level in get_args(Level))
    assert f"const LEVELS = [{levels}];" in script
    for level in (*get_args(Level), "unknown"):
        assert f'id="mark-{level}"' in page
        assert (web / f"icon-{level}.svg").exists()
