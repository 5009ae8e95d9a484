"""The whole table of bad input: what each gets, seen in S3, in the records, in the metrics and in the log."""

import base64
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import logs
import metrics
from recording.stream import State
from tests.support.harness import TIMEOUT
from tests.support.mp4_boxes import box, mdat, mvhd, video_trak
from tests.support.rights import bound_by_file_modes
from tests.support.servers import RcloneS3, ValkeyServer
from tests.support.small_harness import SMALL_CHUNK, SmallHarness, noise
from upload.crash_points import CrashPoint, no_op

MakeHarness = Callable[..., SmallHarness]


@pytest.fixture
def make(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> MakeHarness:
    def made(folder: Path = tmp_path / "input", **more: Any) -> SmallHarness:
        return SmallHarness(folder, valkey, rclone, bucket, redis_namespace, **more)

    return made


@pytest.fixture
def harness(make: MakeHarness) -> SmallHarness:
    return make()


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"video_uploader_{name}", labels) or 0.0


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    return [line for line in lines if line["event"] == event]


def is_stored(harness: SmallHarness, path: str) -> bool:
    """Return whether the file at a path is complete in S3, byte for byte, and its manifest names it."""
    stream = harness.stream(path)
    manifest = harness.manifest(stream.key_path, stream.generation)
    source = manifest["source"]
    return (
        (stream.state, manifest["status"]) == (State.COMPLETE, "complete")
        and harness.recorded(stream.key_path, stream.generation) == (harness.folder / path).read_bytes()
        and os.fsdecode(base64.b64decode(source["path_base64"])) == path
        and source["path"] == os.fsencode(path).decode(errors="replace")
    )


# ---------------------------------------------------------------------- names

NAMES = [
    "Zürich Bahnhof Süd.mp4",
    "камера 1/ビデオ.mp4",
    "\U0001f3a5.mp4",
    "u\u0308mlaut decomposed.mp4",
    "a b  c.mp4",
    'it\'s "quoted".mp4',
    "line\nbreak.mp4",
    "tab\tbell\x07escape\x1b[31m.mp4",
    "<script>alert(1)</script>.mp4",
    "a%2Fb?c=d&e#f.mp4",
    "back\\slash:colon|pipe*star.mp4",
    "{tag}$(id)`id`;rm -rf.mp4",
    "-rf.mp4",
    "CAPITALS.MP4",
    "a..mp4",
    "not utf-8 \udcff\udc80.mp4",
    "folder \udce4/half \udcc3.mp4",
    "n" * 251 + ".mp4",
    "/".join(["deep"] * 40) + "/a.mp4",
    "CON.mp4",
]


def test_a_file_of_any_name_is_uploaded(harness: SmallHarness) -> None:
    for name in NAMES:
        harness.write(name, os.fsencode(name))
    harness.fall_idle()
    assert [name for name in NAMES if not is_stored(harness, name)] == []
    streams = {harness.stream(name).stream_id for name in NAMES}
    assert len(streams) == len(NAMES)
    for key in sorted(harness.keys()):
        assert key.isprintable()
        assert all(len(part.encode()) <= 100 + 12 for part in key.split("/"))


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.mark.usefixtures("logging_as_it_was")
def test_a_name_cannot_break_a_log_line(harness: SmallHarness, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("INFO", "text")
    for name in NAMES[:17]:
        harness.write(name, b"x")
    harness.fall_idle()
    written = capsys.readouterr().err
    assert "complete" in written
    for line in written.splitlines():
        assert line.isprintable(), line
        assert line[:4].isdigit(), f"a line of its own that no log call made: {line!r}"


NAME = st.binary(min_size=1, max_size=251).map(lambda raw: raw.replace(b"\0", b"0").replace(b"/", b"_"))


@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(raw=st.lists(NAME, min_size=25, max_size=25, unique=True))
def test_any_bytes_that_a_name_can_hold_are_uploaded(make: MakeHarness, raw: list[bytes]) -> None:
    """Many names in one daemon, because each daemon takes a third of a second to make."""
    harness = make()
    names = [os.fsdecode(b"n" + name[:250] + b".mp4") for name in raw]
    for name in names:
        (harness.folder / name).write_bytes(os.fsencode(name) * 3)
    harness.fall_idle()
    assert [name for name in names if not is_stored(harness, name)] == []


def test_files_that_are_no_sources_become_sources_when_they_are_renamed_into_place(
    harness: SmallHarness,
) -> None:
    others = [".a.mp4", "b.mp4.part", "c.mp4.tmp", "d.mp4~", ".hidden/e.mp4", "f.mov"]
    for number, name in enumerate(others):
        harness.write(name, noise(SMALL_CHUNK + number))
    harness.fall_idle()
    assert harness.keys() == []
    targets = [f"{number}.mp4" for number in range(len(others))]
    for name, target in zip(others, targets, strict=True):
        (harness.folder / name).rename(harness.folder / target)
    harness.fall_idle()
    assert all(map(harness.holds, targets))


def test_patterns_may_ask_for_other_names(make: MakeHarness) -> None:
    harness = make(FILE_PATTERNS=".*.mp4,*.mp4.part")
    for name in (".a.mp4", "b.mp4.part", "c.mp4"):
        harness.write(name, b"x")
    harness.fall_idle()
    assert is_stored(harness, ".a.mp4")
    assert is_stored(harness, "b.mp4.part")
    assert harness.parts.checkpoints.find("c.mp4") is None


# ---------------------------------------------------------------------- what is no regular file


def test_links_and_devices_are_skipped_counted_and_said_once(
    harness: SmallHarness, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"outside of the watched folder")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.mp4").write_bytes(b"outside, too")
    folder = harness.folder
    harness.write("real.mp4", b"real")
    (folder / "link.mp4").symlink_to(secret)
    (folder / "inside.mp4").symlink_to("real.mp4")
    (folder / "dangling.mp4").symlink_to("nowhere")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "linked").symlink_to(tmp_path / "outside")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    for _ in range(3):
        harness.fall_idle()
    assert {key.partition("/")[0] for key in sorted(harness.keys())} == {"real.mp4"}
    links = ["dangling.mp4", "inside.mp4", "link.mp4", "loop.mp4", "pipe.mp4"]
    assert sorted(line["path"] for line in said(caplog, "skipped")) == links
    assert value("entries_skipped") == len(links)


@pytest.mark.parametrize("what", ["link", "folder", "pipe"])
def test_what_takes_a_growing_sources_place_is_not_followed(
    harness: SmallHarness, tmp_path: Path, what: str
) -> None:
    (tmp_path / "secret.mp4").write_bytes(noise(5 * SMALL_CHUNK))
    content = noise(2 * SMALL_CHUNK + 5)
    target = harness.write("a.mp4", content)
    harness.scan()
    target.unlink()
    if what == "link":
        target.symlink_to(tmp_path / "secret.mp4")
    elif what == "folder":
        target.mkdir()
    else:
        os.mkfifo(target)
    for _ in range(3):
        harness.fall_idle()
    assert harness.manifest("a.mp4")["status"] == "incomplete"
    assert harness.recorded("a.mp4") == content[: 2 * SMALL_CHUNK]
    assert len(harness.keys()) == 3


# ---------------------------------------------------------------------- rights


def test_what_cannot_be_looked_at_is_named_until_it_can(make: MakeHarness, tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    watch = make(folder).parts.watch
    for name in ("cam3", "lost+found", "open"):
        (folder / name).mkdir()
    for name in ("cam3", "lost+found"):
        (folder / name).chmod(0)
    with bound_by_file_modes():
        watch.scan()
    assert watch.scanner.unreadable == "cam3: Permission denied"
    (folder / "open").chmod(0)
    with bound_by_file_modes():
        watch.scan()
    assert watch.scanner.unreadable.endswith(": Permission denied (and 1 more)")
    for name in ("cam3", "open"):
        (folder / name).chmod(0o755)
    with bound_by_file_modes():
        watch.scan()
    assert not watch.scanner.unreadable
    (folder / "lost+found").chmod(0o755)  # so that pytest can delete it


def test_an_unreadable_file_fails_with_its_reason_and_recovers_when_it_is_readable(
    make: MakeHarness, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    harness = make(folder)
    for name in ("closed.mp4", "open.mp4"):
        harness.write(name, noise(SMALL_CHUNK + 1))
    (folder / "closed.mp4").chmod(0)
    with bound_by_file_modes():
        harness.fall_idle()
        assert harness.holds("open.mp4")
        failed = harness.stream("closed.mp4")
        assert failed.state is State.FAILED
        assert failed.error.kind == "unreadable"
        assert "read permission" in failed.error.hint
        for _ in range(3):
            harness.fall_idle()
        assert harness.state("closed.mp4") is State.FAILED
        assert len(said(caplog, "failed")) == 1
    (folder / "closed.mp4").chmod(0o644)
    with bound_by_file_modes():
        harness.fall_idle()
        harness.fall_idle()
        assert harness.holds("closed.mp4")


# ---------------------------------------------------------------------- contents


@pytest.mark.parametrize("steps", range(4))
def test_an_empty_file_is_nothing_until_it_grows_or_the_timeout_comes(
    harness: SmallHarness, steps: int
) -> None:
    target = harness.write("a.mp4", b"")
    harness.scan()
    for _ in range(steps):
        harness.tick()
    assert harness.keys() == []
    if steps % 2:
        target.write_bytes(b"grown")
    harness.fall_idle()
    assert harness.holds("a.mp4")
    assert harness.manifest("a.mp4")["chunk_count"] == steps % 2


HEAD = box(b"ftyp", b"isom" + bytes(4))
FILM = HEAD + mdat(5000) + box(b"moov", mvhd(1000, 5000), video_trak(1, 1000, 5000))
CONTENTS = {
    "garbage": bytes(range(256)) * 2000,
    "text": b"this is no film",
    "zeros": bytes(SMALL_CHUNK + 10),
    "truncated": FILM[:-100],
    "cut before its moov": FILM[:5000],
    "endless box": HEAD + b"\xff\xff\xff\xffmoov" + bytes(100),
    "box of size 1": HEAD + b"\0\0\0\1mdat\xff\xff\xff\xff\xff\xff\xff\xff",
}


def test_garbage_is_uploaded_byte_for_byte_and_says_why_it_has_no_media_facts(harness: SmallHarness) -> None:
    for name, content in CONTENTS.items():
        harness.write(f"{name}.mp4", content)
    harness.write("good.mp4", FILM)
    harness.fall_idle()
    for name in CONTENTS:
        assert harness.holds(f"{name}.mp4")
        manifest = harness.manifest(f"{name}.mp4")
        assert manifest["media"] is None, name
        assert manifest["media_error"], name
    assert harness.manifest("good.mp4")["media"]["complete"]


# ---------------------------------------------------------------------- sources that go and change


class _Vanishing:
    """Does something to the source the moment that a crash point is passed for the `number`th time."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.passed: list[CrashPoint] = []
        self.act: Callable[[], object] = no_op  # type: ignore[assignment]

    def __call__(self, point: CrashPoint) -> None:
        self.passed.append(point)
        if len(self.passed) == self.number:
            self.act()


@pytest.mark.parametrize("number", range(1, 15))
def test_a_file_that_vanishes_at_any_moment_leaves_what_is_stored(make: MakeHarness, number: int) -> None:
    vanishing = _Vanishing(number)
    harness = make(at=vanishing)
    content = noise(2 * SMALL_CHUNK + 5)
    target = harness.write("a.mp4", content)
    vanishing.act = target.unlink
    harness.fall_idle()
    for _ in range(2):
        harness.tick(TIMEOUT)
    harness.tick()
    assert len(vanishing.passed) >= number, "nothing happens so late: take one moment less"
    stream = harness.stream("a.mp4")
    manifest = harness.manifest("a.mp4")
    assert (stream.state, manifest["status"]) in [
        (State.INCOMPLETE, "incomplete"),
        (State.COMPLETE, "complete"),
    ]
    assert content.startswith(harness.recorded("a.mp4"))
    assert not harness.parts.checkpoints.held()
    harness.write("b.mp4", b"other")
    harness.fall_idle()
    assert harness.holds("b.mp4")


@pytest.mark.parametrize("how", ["shorter", "another inode"])
@pytest.mark.parametrize("number", [1, 2, 3, 5, 7, 9])
def test_a_file_that_is_cut_or_exchanged_at_any_moment_begins_the_next_generation(
    make: MakeHarness, number: int, how: str
) -> None:
    vanishing = _Vanishing(number)
    harness = make(at=vanishing)
    content, later = noise(3 * SMALL_CHUNK), noise(SMALL_CHUNK // 2)
    target = harness.write("a.mp4", content)
    other = harness.write("other.tmp", later)
    vanishing.act = (lambda: target.write_bytes(later)) if how == "shorter" else lambda: other.rename(target)
    harness.fall_idle()
    harness.until_finished("a.mp4")
    newest = harness.stream("a.mp4")
    assert harness.recorded("a.mp4", newest.generation) == later
    assert harness.manifest("a.mp4", newest.generation)["status"] == "complete"
    if newest.generation == 2:
        assert content.startswith(harness.recorded("a.mp4", 1))
    else:
        assert number <= 2, "something was stored already, and now lies in one generation with other bytes"


def test_a_key_that_is_too_long_fails_that_stream_only_with_a_clear_reason(
    harness: SmallHarness, caplog: pytest.LogCaptureFixture
) -> None:
    too_deep = "/".join(["x" * 100] * 10) + "/a.mp4"
    harness.write(too_deep, b"x")
    harness.write("good.mp4", b"y")
    for _ in range(3):
        harness.fall_idle()
    failed = harness.stream(too_deep)
    assert failed.state is State.FAILED
    assert "1024" in failed.error.message.replace(",", "")
    assert len(said(caplog, "failed")) == 1
    assert harness.holds("good.mp4")


# ---------------------------------------------------------------------- many


MANY = 1000


@pytest.mark.drill
def test_a_thousand_growing_files_are_all_stored_and_none_is_lost(make: MakeHarness) -> None:
    harness = make()
    names = [f"camera{number // 100}/{number}.mp4" for number in range(MANY)]
    for name in names:
        harness.write(name, b"begin ")
    harness.scan()
    for name in names:
        with (harness.folder / name).open("ab") as file:
            file.write(name.encode())
    harness.tick()
    assert harness.keys() == [], "they grow"
    harness.fall_idle()
    assert harness.parts.checkpoints.counts()[State.COMPLETE] == MANY
    stored = harness.keys()
    assert sum(key.endswith("/metadata.json") for key in stored) == MANY
    assert all(harness.holds(name) for name in names[:: MANY // 10])
    assert not harness.parts.checkpoints.held()


# ---------------------------------------------------------------------- clocks


@pytest.mark.parametrize("jump", [-10_000_000.0, 10_000_000.0], ids=["back", "ahead"])
def test_a_jump_of_the_wall_clock_ends_no_recording_and_keeps_none_open(
    harness: SmallHarness, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    harness.scan()
    harness.write("a.mp4", noise(SMALL_CHUNK + 1))
    harness.scan()
    harness.tick()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    harness.scan()
    harness.tick(TIMEOUT / 2)
    assert harness.state("a.mp4") is State.ACTIVE, "idle by the wall clock only"
    harness.tick(TIMEOUT / 2)
    harness.tick()
    assert harness.holds("a.mp4")


@pytest.mark.parametrize("stamp", [0, -1, 2**33, 1])
def test_a_file_of_any_time_is_uploaded(harness: SmallHarness, stamp: int) -> None:
    target = harness.write("a.mp4", b"x")
    os.utime(target, (stamp, stamp))
    harness.fall_idle()
    assert harness.holds("a.mp4")


# ---------------------------------------------------------------------- the watched folder


def test_a_watched_folder_that_goes_and_comes_is_waited_for(
    harness: SmallHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Told by the folder watch to /readyz, as `daemon.py` asks it."""
    caplog.set_level("INFO")
    content = noise(2 * SMALL_CHUNK + 1)
    away = harness.folder.with_name("away")
    harness.folder.rmdir()
    watch = harness.parts.watch
    try:
        watch.step()
        assert not watch.watching
        assert len(said(caplog, "watched folder missing")) == 1
        harness.folder.mkdir()
        harness.write("a.mp4", content)
        watch.step()
        harness.scan()
        assert watch.watching
        assert harness.stream("a.mp4").offset == 2 * SMALL_CHUNK
        harness.folder.rename(away)
        watch.step()
        assert not watch.watching
        for _ in range(3):
            harness.tick(TIMEOUT)
        assert harness.state("a.mp4") is State.ACTIVE, "with its folder away no source is gone"
        away.rename(harness.folder)
        watch.step()
        harness.fall_idle()
        assert watch.watching
        assert harness.holds("a.mp4")
    finally:
        watch.stop()
