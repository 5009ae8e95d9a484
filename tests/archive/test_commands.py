"""`list`, `verify`, `restore` and `follow` as people and scripts start them."""

import hashlib
import json
import logging
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import logs
from archive import retrying_bucket as archive_store
from archive import verify as archive_verify
from cli import app, output
from cli.session import Session
from embedded.servers import EmbeddedServers
from recording.layout import key_path
from recording.manifest import Media
from recording.service_keys import commit_key
from recording.stream import State
from settings.version import VERSION
from tests.support.archive_parts import CHUNK, MOVIE, OWNER, Shelf, noise
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import MotoServer, RcloneS3, free_port, wait_until

ROOT = Path(__file__).parents[2]
DAY = 86_400
FIRST_DAY = 1_767_225_600  # 2026-01-01T00:00:00Z


@pytest.fixture
def shelf(rclone: RcloneS3, bucket: str) -> Shelf:
    return Shelf(rclone, bucket)


@pytest.fixture
def here(tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder and the settings of the shelf; logging is put back afterwards."""
    for name, value in shelf.settings().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logs, "_secrets", logs._secrets)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield tmp_path
    root.handlers[:], root.level = before, level
    logging.captureWarnings(capture=False)


@pytest.fixture
def at_hand(shelf: Shelf, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection for all commands of a test: making one takes longer than all the rest."""
    monkeypatch.setattr(Session, "archive", lambda *_, **__: nullcontext(shelf.archive()))


def started(*arguments: str, cwd: Path, shelf: Shelf, **more: Any) -> subprocess.Popen[bytes]:
    """A command as a process of its own."""
    environment = {**os.environ, **shelf.settings(), **more.pop("env", {})}
    command = [sys.executable, str(ROOT / "main.py"), *arguments]
    return subprocess.Popen(command, cwd=cwd, env=environment, **more)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


# ---------------------------------------------------------------------- list


def test_list_prints_a_line_for_each_recording(
    shelf: Shelf, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.store_complete("cam/a.mp4", noise(2 * CHUNK + 1))
    shelf.record("live.mp4", noise(CHUNK))
    assert app.main(["list"]) == 0
    header, first, second = (" ".join(line.split()) for line in lines(capsys))
    assert header == "STATUS SIZE CHUNKS DURATION RECORDED UPLOADED NAME"
    assert first == "complete 2.0 kB 3 ~0:16:40 2023-11-14 21:56 2023-11-14 22:14 cam/a.mp4@1"
    assert second.startswith("growing 1.0 kB 1 20")
    assert second.endswith("live.mp4@1")


def test_list_as_json_tells_everything(shelf: Shelf, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.store_complete("we:ird.mp4", noise(CHUNK))
    assert app.main(["list", "--json"]) == 0
    (line,) = lines(capsys)
    told = json.loads(line)
    assert told.pop("key_path") in told.pop("name")
    assert told == {
        "generation": 1,
        "owner": OWNER,
        "path": "we:ird.mp4",
        "status": "complete",
        "size_bytes": CHUNK,
        "chunk_count": 1,
        "duration_seconds": 1000.0,
        "duration_source": "wall_clock",
        "recorded_from": "2023-11-14T21:56:40.000Z",
        "recorded_until": "2023-11-14T22:13:20.000Z",
        "playable": True,
        "unplayable_reason": None,
        "cut_short": None,
        "started_at": "2023-11-14T21:56:40.000Z",
        "ended_at": "2023-11-14T22:14:00.000Z",
        "problem": None,
    }


def names(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """What `list` lists, without the generation."""
    assert app.main(["list", *arguments]) == 0
    return [line.split()[-1].partition("@")[0] for line in lines(capsys)[1:]]


def test_list_goes_by_the_time_of_the_recording(
    shelf: Shelf, here: Path, at_hand: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four recordings of an hour from noon on; they were uploaded at another time."""
    hour = Media(MOVIE.facts and replace(MOVIE.facts, duration_seconds=3600.0), None)
    for day in range(4):
        noon = FIRST_DAY + day * DAY + DAY // 2
        shelf.commit(f"{day + 1}", [], b"", modified=noon + 3600, media=hour)

    assert names(capsys, "--since", "2026-01-02") == ["2", "3", "4"]
    assert names(capsys, "--until", "2026-01-02") == ["1", "2"]
    assert names(capsys, "--until", "2026-01-02T11:00") == ["1"]
    assert names(capsys, "--since", "2026-01-02 13:01", "--until", "2026-01-03 12:00") == ["3"]
    times = ("--since", "2026-01-02T12:00:00+00:00", "--until", "2026-01-02T13:00:00+01:00")
    assert names(capsys, *times) == ["2"]
    assert names(capsys, "3", "--since", "2026-01-02") == ["3"]
    assert names(capsys, "--since", "4w") == []


def test_recordings_are_chosen_by_folders_patterns_and_names(
    shelf: Shelf, here: Path, at_hand: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("nvr/cam05/1.mp4", "nvr/cam05/2.mp4", "nvr/cam06/1.mp4", "nvr/cam055.mp4"):
        shelf.store_complete(path, noise(1))
    assert names(capsys, "nvr/cam05/") == ["nvr/cam05/1.mp4", "nvr/cam05/2.mp4"]
    assert names(capsys, "nvr/cam05") == ["nvr/cam05/1.mp4", "nvr/cam05/2.mp4", "nvr/cam055.mp4"]
    assert names(capsys, "nvr/*/1.mp4") == ["nvr/cam05/1.mp4", "nvr/cam06/1.mp4"]
    assert names(capsys, "input/nvr/*6/*") == ["nvr/cam06/1.mp4"]
    assert names(capsys, "nvr/cam06/", "*/1.mp4") == ["nvr/cam06/1.mp4", "nvr/cam05/1.mp4"]
    assert app.main(["verify", "nvr/cam05/", "nvr/cam055.mp4"]) == 0
    assert [line.split()[1] for line in lines(capsys)] == [
        "nvr/cam05/1.mp4@1",
        "nvr/cam05/2.mp4@1",
        "nvr/cam055.mp4@1",
    ]
    assert app.main(["restore", "nvr/*/1.mp4", "--to", "out"]) == 0
    assert sorted(path.name for path in (here / "out/nvr").iterdir()) == ["cam05", "cam06"]
    assert not (here / "out/nvr/cam05/2.mp4").exists()
    assert app.main(["verify", "nvr/cam05/", "nvr/cam07.mp4"]) == 1
    assert "did you mean nvr/cam055.mp4" in capsys.readouterr().err


def test_a_recording_that_no_player_opens_is_told_and_can_be_left_out(
    shelf: Shelf, here: Path, at_hand: None, capsys: pytest.CaptureFixture[str]
) -> None:
    content = noise(CHUNK)
    shelf.store_complete("good.mp4", content)
    shelf.commit(
        "bad.mp4",
        shelf.record("bad.mp4", content),
        content,
        media=Media(None, "no moov box", unplayable=True),
    )
    assert names(capsys, "--playable") == ["good.mp4"]
    assert app.main(["list"]) == 0
    assert "bad.mp4@1  (no player can open it: no moov box)" in lines(capsys)[1]
    assert app.main(["list", "--json"]) == 0
    assert [json.loads(line)["playable"] for line in lines(capsys)] == [False, True]
    for command in (["verify", "bad.mp4", "--json"], ["restore", "bad.mp4", "--json", "--to", "json.mp4"]):
        assert app.main(command) == 0
        told = json.loads(lines(capsys)[-1])
        assert (told["playable"], told["unplayable_reason"]) == (False, "no moov box")
        assert (told["duration_seconds"], told["duration_source"]) == (1000.0, "wall_clock")
    for command in (["verify", "bad.mp4"], ["restore", "bad.mp4"]):
        assert app.main(command) == 0
        assert lines(capsys)[-1] == "  note: no player can open it: no moov box"


def test_names_are_those_of_the_folder_and_keys_can_be_had(
    shelf: Shelf, here: Path, at_hand: None, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.store_complete("we:ird \n.mp4", noise(CHUNK))
    assert app.main(["list"]) == 0
    shown = lines(capsys)[1]
    assert shown.endswith("  we:ird \\n.mp4@1")
    assert app.main(["list", "--keys"]) == 0
    assert lines(capsys)[1].endswith(f"  {key_path('we:ird ' + chr(10) + '.mp4')}@1")


def test_quiet_prints_results_alone_and_a_settings_file_can_be_named(
    shelf: Shelf, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.store_complete("a.mp4", noise(CHUNK))
    assert app.main(["list", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    (here / "other.env").write_text(f"S3_BUCKET={shelf.bucket}\n")
    monkeypatch.delenv("S3_BUCKET")
    assert app.main(["--env-file", "other.env", "list"]) == 0
    assert len(lines(capsys)) == 2
    assert app.main(["list", "--env-file", "missing.env"]) == 2
    assert "missing.env" in capsys.readouterr().err


def test_verify_says_how_far_it_is(
    shelf: Shelf,
    here: Path,
    at_hand: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output, "PLAIN_PROGRESS_SECONDS", 0)
    for number in range(3):
        shelf.store_complete(f"{number}.mp4", noise(1))
    assert app.main(["verify", "--all"]) == 0
    said = capsys.readouterr().err.splitlines()
    lists = "the list of commits in the bucket (0 complete)"
    assert said == [
        *("verify: 1 of 3", "verify: 2 of 3", "verify: 3 of 3"),
        f"compared with {lists}, not with the records in Redis: REDIS_URL is not set",
        "3 recordings, 0 with problems",
    ]


def test_list_ends_at_once_when_its_reader_has_enough(here: Path) -> None:
    """Also with a server of its own, which is gone before the requests under way are answered."""
    for number in range(300):
        under = here / f"data/objects/videos/{number:03}.mp4/g0001-{OWNER}/chunks"
        under.mkdir(parents=True)
        store_as_file(under, 0, b"x")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("S3_")}
    command = [sys.executable, str(ROOT / "main.py"), "--embedded", "list"]
    with subprocess.Popen(
        command, cwd=here, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith(b"STATUS")
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


def test_a_terminal_gets_a_table_and_no_control_characters_of_strangers(shelf: Shelf, here: Path) -> None:
    shelf.store_complete("a.mp4", noise(CHUNK))
    hostile = f"b\x1b[31m\x07.mp4/g0001-{OWNER}/metadata.json"
    shelf.put(hostile, b"{}")
    terminal, side = pty.openpty()
    with started("list", cwd=here, shelf=shelf, stdout=side, stderr=side, env={"TERM": "xterm"}) as process:
        os.close(side)
        printed = read_all(terminal)
    assert process.returncode == 0
    assert "NAME" in printed
    assert "2 recordings" in printed
    assert "\x1b[31m\x07" not in printed
    assert "\\x1b[31m\\x07" in printed


def read_all(terminal: int) -> str:
    """What was printed to a terminal until it was closed."""
    printed = b""
    try:
        while piece := os.read(terminal, 1000):
            printed += piece
    except OSError:  # EIO: the other side is closed
        pass
    finally:
        os.close(terminal)
    return printed.decode()


# ---------------------------------------------------------------------- verify


def test_verify_tells_by_its_exit_code_whether_all_is_well(
    shelf: Shelf, here: Path, at_hand: None, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.store_complete("a.mp4", noise(CHUNK))
    chunks = shelf.store_complete("b.mp4", noise(2 * CHUNK))
    assert app.main(["verify", "--all", "--deep"]) == 0
    shelf.delete(chunks[1].key)
    assert app.main(["verify", "a.mp4"]) == 0
    lines(capsys)
    assert app.main(["verify", "b.mp4"]) == 1
    verdict, problem = lines(capsys)
    assert verdict.split()[:2] == ["PROBLEM", "b.mp4@1"]
    assert problem.split()[:2] == ["missing", chunks[1].key + ":"]
    assert app.main(["verify", "--all", "--json"]) == 1
    good, bad = map(json.loads, lines(capsys))
    assert (good["name"], good["ok"]) == ("a.mp4@1", True)
    assert [problem["key"] for problem in bad["problems"]] == [chunks[1].key]


def test_verify_all_finds_that_all_recordings_are_gone(
    shelf: Shelf, here: Path, at_hand: None, capsys: pytest.CaptureFixture[str]
) -> None:
    line = commit_key("", 1_763_735_405_123, "complete", 1, "cam/a.mp4/g0001")
    shelf.put(line, b"{}")
    assert app.main(["verify", "--all"]) == 1
    said = capsys.readouterr()
    assert "cam/a.mp4/g0001/metadata.json: it was complete on 2025-11-21T14:30:05Z" in said.out
    shelf.delete(line)
    assert app.main(["verify", "--all"]) == 0


def test_verify_all_finds_a_damaged_manifest(
    shelf: Shelf, here: Path, at_hand: None, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.commit("a.mp4", [], b"", spoil=lambda m: m.clear())
    assert app.main(["verify", "--all"]) == 1
    assert "damaged" in capsys.readouterr().out
    assert app.main(["verify", "a.mp4"]) == 1
    assert "metadata.json is damaged" in capsys.readouterr().err


class PageText(HTMLParser):
    """The text of a page and the names of its elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - HTMLParser's
        self.tags.add(tag)


def test_verify_writes_a_report_for_people(
    shelf: Shelf, here: Path, at_hand: None, capsys: pytest.CaptureFixture[str]
) -> None:
    content = noise(CHUNK)
    shelf.store_complete("cam/a.mp4", content)
    chunks = shelf.record("b.mp4", b"video")
    shelf.commit(
        "b.mp4", chunks, b"video", media=Media(None, "<script>alert(1)</script>\x1b[31m", unplayable=True)
    )
    shelf.delete(chunks[0].key)
    printed = app.main(["verify", "--all", "--deep"]), capsys.readouterr().out
    assert (
        app.main(["verify", "--all", "--deep", "--report", "report.html"]),
        capsys.readouterr().out,
    ) == printed
    assert printed[0] == 1
    page = PageText((here / "report.html").read_text())
    assert "2 recordings, 1 with problems" in page.text
    assert page.text.index("PROBLEM complete") < page.text.index("ok complete cam/a.mp4@1")
    assert f"missing: {chunks[0].key} : chunk 0 is not there" in page.text
    assert "no player can open it: <script>alert(1)</script>" in page.text
    assert (
        "2023-11-14 21:56:40 2023-11-14 22:13:20 1.0 kB 1 1 " + hashlib.sha256(content).hexdigest()
        in page.text
    )
    for fact in (
        f"Bucket {shelf.bucket}",
        "How every byte was read",
        "Compared with the list",
        f"Uploader {VERSION}",
    ):
        assert fact in page.text
    assert not page.tags & {"script", "link", "img"}
    assert "\x1b" not in (here / "report.html").read_text()
    assert os.listdir(here) == ["report.html"]
    assert (here / "report.html").stat().st_mode & 0o777 == 0o600


def test_a_report_takes_the_place_of_a_report_and_of_nothing_else(
    shelf: Shelf, here: Path, at_hand: None, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.store_complete("a.mp4", noise(CHUNK))
    for _ in range(2):
        assert app.main(["verify", "a.mp4", "--report", "report.html"]) == 0
    (here / "a.mp4").write_bytes(b"a recording")
    (here / "link").symlink_to("nowhere")
    for other in ("a.mp4", "link", "."):
        assert app.main(["verify", "a.mp4", "--report", other]) == 2
        assert f"--report: {other} " in capsys.readouterr().err
    assert (here / "a.mp4").read_bytes() == b"a recording"
    assert app.main(["verify", "a.mp4", "--report", "missing/report.html"]) == 2
    assert "cannot be written (No such file or directory)" in capsys.readouterr().err


def test_a_verification_that_does_not_end_leaves_the_last_report(
    shelf: Shelf, here: Path, at_hand: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.store_complete("a.mp4", noise(CHUNK))
    assert app.main(["verify", "a.mp4", "--report", "report.html"]) == 0
    before = (here / "report.html").read_bytes()

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(archive_verify, "verify", interrupt)
    assert app.main(["verify", "a.mp4", "--report", "report.html"]) == 130
    assert (here / "report.html").read_bytes() == before
    assert os.listdir(here) == ["report.html"]


# ---------------------------------------------------------------------- restore


def test_restore_writes_where_it_is_told(
    shelf: Shelf, here: Path, at_hand: None, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = noise(CHUNK), noise(2 * CHUNK)
    shelf.store_complete("cam/a.mp4", old)
    shelf.store_complete("cam/a.mp4", new, generation=2)
    (here / "folder").mkdir()
    assert app.main(["restore", "cam/a.mp4"]) == 0
    assert app.main(["restore", "cam/a.mp4@1", "--to", "old.mp4"]) == 0
    assert app.main(["restore", "input/cam/a.mp4", "--generation", "1", "--to", "folder"]) == 0
    assert app.main(["restore", "cam/a.mp4", "--to", "folder/new.mp4", "--json"]) == 0
    assert (here / "a.mp4").read_bytes() == (here / "folder/new.mp4").read_bytes() == new
    assert (here / "old.mp4").read_bytes() == (here / "folder/a.mp4").read_bytes() == old
    told = json.loads(lines(capsys)[-1])
    assert (told["ok"], told["to"], told["fetched_bytes"]) == (True, "folder/new.mp4", 2 * CHUNK)
    assert app.main(["restore", "cam/a.mp4", "--to", "old.mp4"]) == 1
    assert "--force" in capsys.readouterr().err
    assert app.main(["restore", "cam/a.mp4", "--to", "old.mp4", "--force"]) == 0
    assert (here / "old.mp4").read_bytes() == new
    assert app.main(["restore", "cam/a.mp4", "--to", "missing/"]) == 1
    assert not (here / "missing").exists()


def test_restore_saves_manifests_when_asked(
    shelf: Shelf, here: Path, at_hand: None, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.store_complete("cam/a.mp4", noise(CHUNK))
    shelf.record("cam/live.mp4", noise(CHUNK))
    assert app.main(["restore", "cam/a.mp4", "--with-manifest"]) == 0
    assert json.loads((here / "a.mp4.metadata.json").read_text())["key_path"] == "cam/a.mp4"
    assert "  manifest saved as ./a.mp4.metadata.json" in lines(capsys)
    assert app.main(["restore", "--all", "--to", "back", "--with-manifest", "--json"]) == 0
    assert [json.loads(line)["manifest"] for line in lines(capsys)] == ["back/cam/a.mp4.metadata.json", None]
    assert (here / "back/cam/a.mp4.metadata.json").read_bytes() == (here / "a.mp4.metadata.json").read_bytes()


def test_restore_all_restores_all_but_what_is_damaged(
    shelf: Shelf, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = noise(CHUNK)
    shelf.store_complete("cam/a.mp4", content)
    shelf.commit("b.mp4", [], b"", spoil=lambda m: m.clear())
    assert app.main(["restore", "--all", "--to", "out"]) == 1
    assert (here / "out/cam/a.mp4").read_bytes() == content
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].startswith("FAILED   b.mp4@1")
    assert "1 recording restored to out, 1 failed" in printed.err


def test_an_interrupted_restore_ends_at_once_and_goes_on_later(shelf: Shelf, here: Path) -> None:
    content = noise(6 * 1_000_000)
    chunks = shelf.record("a.mp4", content, chunk_size=1_000_000)
    shelf.commit("a.mp4", chunks, content, chunk_size=1_000_000)
    with FaultProxy(shelf.server.port) as proxy:
        proxy.stall_after(500_000, to="client")
        address = {"S3_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        process = started("restore", "a.mp4", cwd=here, shelf=shelf, env=address, stderr=subprocess.PIPE)
        wait_until(lambda: proxy.struck >= 1)
        process.send_signal(signal.SIGINT)
        proxy.heal()
        _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert said.splitlines() == [b"interrupted; the same command goes on from here"]
    assert app.main(["restore", "a.mp4"]) == 0
    assert (here / "a.mp4").read_bytes() == content


# ---------------------------------------------------------------------- follow


def test_follow_writes_a_recording_to_a_pipe(shelf: Shelf, here: Path) -> None:
    content = noise(3 * CHUNK + 1)
    shelf.store_complete("a.mp4", content)
    with started("follow", "a.mp4", cwd=here, shelf=shelf, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, content)


def test_follow_waits_for_the_first_chunk_of_a_file_that_is_there(shelf: Shelf, here: Path) -> None:
    content = noise(CHUNK)
    (here / "input").mkdir()
    (here / "input/live.mp4").touch()
    shelf.store_complete("live2.mp4", noise(CHUNK))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started("follow", "live.mp4", cwd=here, shelf=shelf, **pipes) as process:
        assert process.stdout
        assert process.stderr
        assert process.stderr.readline() == "waiting up to 300 s for the first chunk of live.mp4…\n".encode()
        shelf.store_complete("live.mp4", content)
        assert process.stdout.read() == content
    assert process.returncode == 0


def test_follow_says_when_nothing_came(
    shelf: Shelf, here: Path, at_hand: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["follow", "live.mp4"]) == 1
    hint, problem = capfd.readouterr().err.splitlines()
    assert "before its first chunk is full" in hint
    assert problem == "error: no recording 'live.mp4' in the bucket; `list` shows all there are"


@pytest.mark.parametrize("state", ["complete", "growing"])
def test_follow_ends_quietly_when_its_reader_has_enough(shelf: Shelf, here: Path, state: str) -> None:
    """While it writes, and while it waits for the next chunk of a live recording."""
    content = noise(2_000_000)  # more than a pipe holds
    if state == "complete":
        chunks = shelf.record("a.mp4", content, chunk_size=1_000_000)
        shelf.commit("a.mp4", chunks, content, chunk_size=1_000_000)
    else:
        shelf.record("a.mp4", content[:CHUNK])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started("follow", "a.mp4", cwd=here, shelf=shelf, **pipes) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(CHUNK) == content[:CHUNK]
        process.stdout.close()
        assert process.wait(20) == 0
        assert process.stderr.read() == b""


def test_follow_does_not_write_video_to_a_terminal(shelf: Shelf, here: Path) -> None:
    shelf.store_complete("a.mp4", noise(CHUNK))
    terminal, side = pty.openpty()
    with started("follow", "a.mp4", cwd=here, shelf=shelf, stdout=side, stderr=subprocess.PIPE) as process:
        os.close(side)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 2
    assert b"pipe it" in said
    assert read_all(terminal) == ""


# ---------------------------------------------------------------------- what can be wrong


@pytest.mark.parametrize(
    "arguments",
    [
        ["restore"],
        ["restore", "a.mp4", "--all", "--to", "x"],
        ["restore", "--all"],
        ["restore", "--all", "--to", "x", "--generation", "1"],
        ["restore", "a.mp4", "--generation", "0"],
        ["verify"],
        ["verify", "a.mp4", "--all"],
        ["follow"],
        ["list", "--since", "some day"],
        ["restore", "a/"],
        ["restore", "a.mp4", "b.mp4"],
        ["verify", "a/", "--generation", "1"],
        ["verify", "a/", "--revision", "1"],
        ["restore", "a.mp4", "--revision", "0"],
        ["prune"],
        ["prune", "--older-than", "7d"],
        ["prune", "--older-than", "old"],
        ["destroy"],
    ],
)
def test_wrong_arguments_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(arguments) == 2
    assert "error:" in capsys.readouterr().err


def test_wrong_settings_end_with_2_and_redis_is_not_among_them(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "nonsense")
    assert app.main(["list"]) == 0
    monkeypatch.setenv("S3_BUCKET", "No Bucket")
    assert app.main(["list"]) == 2
    assert "S3_BUCKET" in capsys.readouterr().err


def test_an_unknown_name_ends_with_1_and_a_suggestion(
    shelf: Shelf, here: Path, at_hand: None, capfd: pytest.CaptureFixture[str]
) -> None:
    shelf.store_complete("front.mp4", noise(CHUNK))
    for command in ("verify", "restore", "follow"):
        assert app.main([command, "frnt.mp4"]) == 1
        assert "did you mean front.mp4?" in capfd.readouterr().err
    assert os.listdir(here) == []


def test_wrong_keys_a_missing_bucket_and_no_server_end_with_3(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_store, "FIRST_PAUSE_SECONDS", 0.0)
    for name, value, said in (
        ("AWS_SECRET_ACCESS_KEY", "wrong-secret-key", "AWS_SECRET_ACCESS_KEY"),
        ("S3_BUCKET", "no-such-bucket", "S3_BUCKET"),
        ("S3_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}", "Could not connect"),
    ):
        with monkeypatch.context() as wrong:
            wrong.setenv(name, value)
            assert app.main(["list"]) == 3
        printed = capsys.readouterr().err
        assert said in printed
        assert "wrong-secret-key" not in printed


# ---------------------------------------------------------------------- with --embedded


def test_an_embedded_store_is_read_while_the_daemon_runs_and_when_it_does_not(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("S3_ENDPOINT_URL", "S3_BUCKET", "S3_PREFIX"):
        monkeypatch.delenv(name)
    content = noise(3 * CHUNK)
    daemon = EmbeddedServers(here / "data", "videos")
    addresses = daemon.start()
    assert addresses
    running = RcloneS3(here / "unused")
    running.port = int(addresses.s3_endpoint_url.rpartition(":")[2])
    running.access_key, running.secret_key = addresses.access_key, addresses.secret_key
    try:
        Shelf(running, "videos").store_complete("a.mp4", content)
        assert app.main(["--embedded", "verify", "a.mp4", "--deep"]) == 0
    finally:
        running.close()
        daemon.stop(5)
    assert app.main(["restore", "--embedded", "a.mp4"]) == 0
    assert (here / "a.mp4").read_bytes() == content
    for command in ("verify", "restore"):
        assert app.main(["--embedded", command, "b.mp4"]) == 1
        assert "did you mean a.mp4?" in capsys.readouterr().err
    assert app.main(["--embedded", "--data-dir", "elsewhere", "list"]) == 2
    assert "nothing was ever stored in elsewhere" in capsys.readouterr().err
    assert not (here / "elsewhere").exists()


def test_a_reader_of_an_embedded_store_sees_what_comes_later(here: Path) -> None:
    """The second rclone looks again, so that a live recording can be followed."""
    objects = here / "data/objects/videos"
    objects.mkdir(parents=True)
    command = [sys.executable, str(ROOT / "main.py"), "--embedded", "follow", "a.mp4"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("S3_")}
    under = objects / f"a.mp4/g0001-{OWNER}/chunks"
    under.mkdir(parents=True)
    chunk = noise(CHUNK)
    store_as_file(under, 0, chunk)
    with subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.read(CHUNK) == chunk
        store_as_file(under, 1, chunk)
        ready, _, _ = select.select([process.stdout], [], [], 10)
        assert ready, "it does not see the second chunk"
        assert process.stdout.read(CHUNK) == chunk
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 130


def store_as_file(folder: Path, index: int, body: bytes) -> None:
    (folder / f"{index:06d}-{hashlib.sha256(body).hexdigest()[:12]}.part").write_bytes(body)


# ---------------------------------------------------------------------- revisions and owners


def test_a_former_revision_is_restored_and_verified(
    shelf: Shelf, here: Path, at_hand: None, capfd: pytest.CaptureFixture[str]
) -> None:
    was, now = noise(2 * CHUNK), noise(2 * CHUNK + 5)
    chunks = shelf.store_complete("a.mp4", was, former=True)
    newest = shelf.store_complete("a.mp4", now, revision=2)
    for revision, content in ((1, was), (2, now)):
        assert app.main(["restore", "a.mp4", "--revision", str(revision), "--to", f"{revision}.mp4"]) == 0
        assert (here / f"{revision}.mp4").read_bytes() == content
        assert app.main(["verify", "a.mp4", "--deep", "--revision", str(revision)]) == 0
        said = capfd.readouterr().out
        assert ("  note: this is revision 1, which was superseded" in said.splitlines()) is (revision == 1)
        assert "no manifest names" not in said
    shelf.delete(newest[0].key)
    assert app.main(["verify", "a.mp4", "--revision", "1"]) == 0
    shelf.delete(chunks[0].key)
    assert app.main(["verify", "a.mp4", "--revision", "1"]) == 1
    assert chunks[0].key in capfd.readouterr().out


def test_a_recording_that_grew_and_vanished_says_which_revision_was_complete(
    shelf: Shelf, here: Path, at_hand: None, capfd: pytest.CaptureFixture[str]
) -> None:
    content = noise(2 * CHUNK)
    chunks = shelf.store_complete("a.mp4", content, former=True)
    more = [*chunks, *shelf.record("a.mp4", content + noise(CHUNK))[2:]]
    shelf.commit("a.mp4", more, None, revision=2, status=State.INCOMPLETE)
    assert app.main(["restore", "a.mp4"]) == 0
    assert "earlier it was stored as --revision 1, which is kept" in capfd.readouterr().out
    assert (here / "a.mp4").stat().st_size == 3 * CHUNK


def test_a_former_revision_comes_back_though_the_newest_manifest_is_damaged(
    shelf: Shelf, here: Path, at_hand: None
) -> None:
    content = noise(CHUNK + 1)
    chunks = shelf.store_complete("a.mp4", content, former=True)
    shelf.commit("a.mp4", chunks, content, revision=2, spoil=lambda m: m.clear())
    assert app.main(["restore", "a.mp4"]) == 1
    assert app.main(["restore", "a.mp4", "--revision", "1"]) == 0
    assert (here / "a.mp4").read_bytes() == content


def test_a_revision_that_is_not_kept_is_not_taken_from_an_older_generation(
    shelf: Shelf, here: Path, at_hand: None, capfd: pytest.CaptureFixture[str]
) -> None:
    shelf.store_complete("a.mp4", noise(CHUNK))
    shelf.store_complete("a.mp4", noise(CHUNK), generation=2, revision=2, former=True)
    shelf.store_complete("a.mp4", noise(CHUNK), generation=2, revision=3)
    for command in ("verify", "restore"):
        assert app.main([command, "a.mp4", "--revision", "1"]) == 1
        said = capfd.readouterr().err
        assert said == "error: no revision 1 of 'a.mp4@2' in the bucket: there is 2 and 3\n"
    assert app.main(["verify", "a.mp4@1", "--revision", "1"]) == 0
    assert os.listdir(here) == []


def test_two_owners_of_one_name_are_listed_told_and_restored_by_their_names(
    shelf: Shelf, here: Path, at_hand: None, capfd: pytest.CaptureFixture[str]
) -> None:
    mine, theirs = noise(CHUNK), noise(CHUNK)
    shelf.store_complete("a.mp4", mine)
    shelf.store_complete("a.mp4", theirs, owner="0badcafe")
    both = ["a.mp4@1-0badcafe", f"a.mp4@1-{OWNER}"]
    assert app.main(["list"]) == 0
    assert [line.split()[-1] for line in lines(capfd)[1:]] == both
    for command in ("verify", "restore"):
        assert app.main([command, "a.mp4"]) == 1
        said = capfd.readouterr().err
        assert said == f"error: 'a.mp4' is the name of 2 recordings: say which, {both[0]} or {both[1]}\n"
    for name, content in zip(both, (theirs, mine), strict=True):
        assert app.main(["restore", name, "--to", f"{name}.mp4"]) == 0
        assert (here / f"{name}.mp4").read_bytes() == content
        assert lines(capfd)[0].split()[:2] == ["restored", name]
        assert app.main(["verify", name]) == 0
        assert lines(capfd)[0].split()[:2] == ["ok", name]


@pytest.mark.parametrize("chosen", [["--all"], ["a*"], ["a.mp4@1-0badcafe", f"a.mp4@1-{OWNER}", "b.mp4"]])
def test_two_owners_of_one_name_are_told_apart_among_many(
    shelf: Shelf, here: Path, at_hand: None, capfd: pytest.CaptureFixture[str], chosen: list[str]
) -> None:
    chunks = shelf.store_complete("a.mp4", noise(CHUNK))
    shelf.store_complete("a.mp4", noise(CHUNK), owner="0badcafe")
    shelf.store_complete("b.mp4", noise(CHUNK))
    shelf.delete(chunks[0].key)
    more = [] if chosen == ["a*"] else ["b.mp4@1"]
    for command, well in ((["verify"], "ok"), (["restore", "--to", "back"], "restored")):
        assert app.main([*command, *chosen]) == 1
        bad = "PROBLEM" if well == "ok" else "FAILED"
        told = [line.split()[:2] for line in lines(capfd) if not line.startswith(" ")]
        assert [[verdict, name.rstrip(":")] for verdict, name in told] == [
            [well, "a.mp4@1-0badcafe"],
            [bad, f"a.mp4@1-{OWNER}"],
            *([well, name] for name in more),
        ]


# ---------------------------------------------------------------------- prune


def test_prune_shows_what_would_go_and_removes_it_only_when_told(
    shelf: Shelf, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.put_at = FIRST_DAY
    for path in ("cam/a.mp4", "b.mp4"):
        shelf.store_complete(path, noise(2 * CHUNK), former=True)
        shelf.store_complete(path, noise(CHUNK), revision=2)
    keys = shelf.all_keys()
    assert app.main(["prune", "cam/", "--older-than", "8d"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"would remove  cam/a.mp4@1-{OWNER}  (revision 1, 3 objects, ")
    assert "3 objects" in said.err
    assert "add --yes" in said.err
    assert app.main(["prune", "cam/a.mp4", "--older-than", "8d", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["objects"], told["removed"], told["ok"], told["revisions"]) == (3, False, True, [1])
    assert shelf.all_keys() == keys
    assert app.main(["prune", "cam/a.mp4", "--older-than", "8d", "--yes"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"removed  cam/a.mp4@1-{OWNER}  (revision 1, 3 objects, ")
    assert said.err.endswith("removed from the bucket\n")
    assert set(keys) - set(shelf.all_keys()) == set(told["keys"])
    assert app.main(["prune", "--older-than", "2026-01-01", "--yes", "--quiet"]) == 0
    assert capsys.readouterr().out == ""  # it was put and committed on that very day
    assert app.main(["prune", "--older-than", "8d", "--yes"]) == 0
    assert len(shelf.all_keys()) == 2 * 2


def test_prune_tells_an_unknown_name_and_what_it_leaves_alone(
    shelf: Shelf, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.commit("a.mp4", [], b"", spoil=lambda m: m.clear())
    assert app.main(["prune", "b.mp4", "--older-than", "30d"]) == 1
    assert "no recording 'b.mp4' in the bucket" in capsys.readouterr().err
    assert app.main(["prune", "--older-than", "30d", "--yes"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith(f"PROBLEM  a.mp4@1-{OWNER}: left alone: metadata.json is damaged")


def test_prune_says_that_a_bucket_keeps_versions(
    moto: MotoServer,
    moto_bucket: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in Shelf(moto, moto_bucket).settings().items():
        monkeypatch.setenv(name, value)
    moto.client.put_bucket_versioning(Bucket=moto_bucket, VersioningConfiguration={"Status": "Enabled"})
    assert app.main(["prune", "--older-than", "30d", "--yes"]) == 0
    assert "from the bucket, which keeps versions: the bytes stay" in capsys.readouterr().err


def test_prune_of_an_embedded_store_needs_its_daemon(
    here: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in shelf.settings():
        monkeypatch.delenv(name)
    assert app.main(["--embedded", "prune", "--older-than", "30d"]) == 2
    assert "no daemon runs on data" in capsys.readouterr().err
