"""`status`, `cancel` and `retry` as people and scripts start them, beside a daemon."""

import io
import json
import logging
import math
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

import logs
from cli import app, cancel_retry, session
from errors import ExitCode
from folder import silence
from recording.stream import RecordedError, State
from redis_store.audits import Finding
from redis_store.requests import Action
from tests.support.daemon_process import ROOT, Site
from tests.support.harness import CHUNK, Harness
from tests.support.servers import S3Server, ValkeyServer, wait_until

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import VersioningConfigurationTypeDef

FULL = os.urandom(CHUNK)


@pytest.fixture(params=["rclone"])
def site(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    valkey: ValkeyServer,
    redis_namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    """A folder and its stores, and their settings for the commands of this process."""
    store: S3Server = request.getfixturevalue(request.param)
    site = Site(tmp_path, valkey, store, redis_namespace)
    store.client.create_bucket(Bucket=site.bucket)
    for name, value in site.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logs, "_secrets", logs._secrets)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield site
    root.handlers[:], root.level = before, level
    logging.captureWarnings(capture=False)
    site.close()


@pytest.fixture
def daemon(site: Site) -> Harness:
    """A daemon that a test steps, with a recording under way."""
    site.view.write("cam/a.mp4", FULL + b"tail")
    site.view.scan()
    return site.view


# ---------------------------------------------------------------------- what the audit found


def test_what_the_audit_found_is_shown_and_can_be_acknowledged(
    daemon: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    audits = daemon.parts.auditor._audits
    assert app.main(["audit"]) == 0
    audits.note(Finding("cam/a.mp4@1", "cam/a.mp4", ("cam/a.mp4/x is not there",), 1, "2026-11-21T12:00:00Z"))
    capsys.readouterr()
    assert app.main(["audit"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == ["cam/a.mp4@1: 1 problem", "  cam/a.mp4/x is not there"]
    assert app.main(["audit", "--acknowledge", "cam/a.mp4"]) == 0
    assert "acknowledged by " in capsys.readouterr().out
    (found,) = audits.findings()
    assert "@" in found.acknowledged_by
    assert app.main(["audit", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stream_id"] == "cam/a.mp4@1"
    audits.clear("cam/a.mp4@1")
    assert app.main(["audit", "--acknowledge", "cam/a.mp4"]) == 1
    assert "found nothing wrong with cam/a.mp4@1" in capsys.readouterr().err


# ---------------------------------------------------------------------- what the records say is complete


@pytest.fixture
def completed(daemon: Harness) -> Harness:
    """A daemon that has completed its recording."""
    daemon.fall_idle()
    assert daemon.state("cam/a.mp4") is State.COMPLETE
    return daemon


def verified(capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], str]:
    """Run `verify --all`: its exit code, what it says of keys, and what it compared with."""
    code = app.main(["verify", "--all", "--json"])
    said = capsys.readouterr()
    reports = map(json.loads, said.out.splitlines())
    problems = [f"{each['kind']} {each['key']}" for report in reports for each in report["problems"]]
    return code, problems, said.err.splitlines()[-2]


def everything_in(daemon: Harness) -> list[str]:
    listed = daemon.s3.list_objects_v2(Bucket=daemon.bucket).get("Contents", [])
    return [each["Key"] for each in listed]


def test_verify_all_compares_with_the_records_and_says_so(
    completed: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = "compared with the list of commits in the bucket (0 complete), and with the records in Redis"
    assert verified(capsys) == (0, [], f"{lists} (1 complete)")
    manifest = f"{completed.generation('cam/a.mp4')}metadata.json"
    completed.s3.delete_object(Bucket=completed.bucket, Key=manifest)  # its chunks alone look like a live one
    assert verified(capsys)[:2] == (1, [f"missing {manifest}"])
    for key in everything_in(completed):
        completed.s3.delete_object(Bucket=completed.bucket, Key=key)
    assert verified(capsys)[:2] == (1, [f"missing {manifest}"])


def test_verify_all_leaves_out_what_somebody_accepted(
    completed: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in everything_in(completed):
        completed.s3.delete_object(Bucket=completed.bucket, Key=key)
    lost = Finding("cam/a.mp4@1", "cam/a.mp4", ("it is not there",), 1, "2026-11-21T12:00:00Z", "me")
    completed.parts.auditor._audits.note(lost)
    code, problems, compared = verified(capsys)
    assert (code, problems) == (0, [])
    assert compared.endswith("(0 complete, 1 whose loss was acknowledged)")


def test_verify_all_tells_once_what_both_the_list_and_the_records_miss(
    completed: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    completed.clock.now += 60
    completed.parts.auditor.step()
    manifest = f"{completed.generation('cam/a.mp4')}metadata.json"
    completed.s3.delete_object(Bucket=completed.bucket, Key=manifest)
    code, problems, compared = verified(capsys)
    assert (code, problems) == (1, [f"missing {manifest}"])
    assert "(1 complete), and with the records in Redis (1 complete)" in compared


def test_verify_all_finds_that_an_older_revision_was_put_back(
    completed: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = f"{completed.generation('cam/a.mp4')}metadata.json"
    former = completed.read(manifest)
    completed.write("cam/a.mp4", b"head" + FULL[4:] + b"tail")
    completed.fall_idle()
    assert completed.stream("cam/a.mp4").revision == 2
    completed.s3.put_object(Bucket=completed.bucket, Key=manifest, Body=former)
    assert verified(capsys)[:2] == (1, [f"manifest {manifest}"])


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("REDIS_URL=redis://127.0.0.1:1/0", "not with all of the records in Redis (0 complete): "),
        ("REDIS_URL=", "not with the records in Redis: REDIS_URL is not set"),
        ("S3_PREFIX=other/", "not with the records in Redis: the records in Redis are about bucket"),
    ],
)
def test_verify_all_says_why_it_could_not_compare_with_the_records(
    completed: Harness,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    reason: str,
) -> None:
    name, _, value = setting.partition("=")
    monkeypatch.setenv(name, value)
    code, problems, compared = verified(capsys)
    assert (code, problems) == (0, [])
    assert compared.startswith(f"compared with the list of commits in the bucket (0 complete), {reason}")


@contextmanager
def running(daemon: Harness) -> Iterator[None]:
    """Let a daemon work, on a thread of its own."""
    stop = threading.Event()

    def step() -> None:
        while not stop.wait(0.01):
            daemon.tick()

    thread = threading.Thread(target=step)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def run(daemon: Harness, *arguments: str) -> int:
    with running(daemon):
        return app.main(list(arguments))


class Printed:
    """What the commands printed since the last look."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def both(self) -> tuple[str, str]:
        return self._capsys.readouterr()

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.both()[0].splitlines()]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    return Printed(capsys)


# ---------------------------------------------------------------------- status


def test_status_prints_a_line_for_each_stream(daemon: Harness, printed: Printed) -> None:
    assert app.main(["status"]) == 0
    out, err = printed.both()
    header, line = (" ".join(line.split()) for line in out.splitlines())
    assert header == "STATE IN S3 OF LAG RATE LEFT NAME"
    assert line.startswith("active 5.2 MB 5.2 MB 0:00:0")
    assert line.endswith("cam/a.mp4@1")
    assert err == "1 active, 0 complete, 0 incomplete, 0 failed; 4 bytes not in S3 yet\n"


def test_status_tells_which_cameras_went_silent_unless_that_is_off(
    daemon: Harness, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "COPIED_SECONDS", math.inf)  # nobody can set the time of an inode
    for number in range(6):
        path = daemon.write(f"cam07/{number}.mp4", b"x")
        os.utime(path, (time.time() - 18_000 - 900 * number,) * 2)
    assert app.main(["status"]) == 0
    assert "cam07 has been silent for 5:00:0" in printed.both()[1]
    monkeypatch.setenv("SILENT_CAMERAS", "off")
    assert app.main(["status"]) == 0
    assert "silent" not in printed.both()[1]


def test_status_as_json_has_every_field(daemon: Harness, printed: Printed) -> None:
    daemon.parts.checkpoints.set_last_error("cam/a.mp4", RecordedError("busy", "S3 is busy"))
    assert app.main(["status", "--json"]) == 0
    (row,) = printed.rows()
    assert row["id"] == "cam/a.mp4@1"
    assert row["path"] == "cam/a.mp4"
    assert (row["state"], row["cancelled"], row["error"]) == ("active", False, "S3 is busy")
    assert (row["size_bytes"], row["offset_bytes"], row["unsafe_bytes"]) == (CHUNK + 4, CHUNK, 4)
    assert row["started_at"].endswith("Z")
    assert row["last_chunk_at"].endswith("Z")
    assert row.keys() >= {"lag_seconds", "rate_bytes_per_second", "seconds_left", "owner", "repaired_chunks"}


def test_status_of_named_streams_shows_only_these(daemon: Harness, printed: Printed) -> None:
    daemon.write("b.mp4", b"b")
    daemon.scan()
    assert app.main(["status", "--json", "b.mp4"]) == 0
    assert [row["id"] for row in printed.rows()] == ["b.mp4@1"]
    assert app.main(["status", "--json", "cam/a.mp4@1", str(daemon.folder / "b.mp4")]) == 0
    assert [row["id"] for row in printed.rows()] == ["cam/a.mp4@1", "b.mp4@1"]


def test_status_shows_the_last_finished_ones_as_well(daemon: Harness, printed: Printed) -> None:
    daemon.write("b.mp4", b"b")
    daemon.fall_idle()
    app.main(["status", "--json", "--recent", "1"])
    assert len(printed.rows()) == 1
    app.main(["status", "--json"])
    assert {row["state"] for row in printed.rows()} == {"complete"}


def test_an_unknown_name_is_answered_with_those_that_resemble_it(daemon: Harness, printed: Printed) -> None:
    assert app.main(["status", "cam/b.mp4"]) == 1
    assert "did you mean cam/a.mp4?" in printed.both()[1]
    assert app.main(["cancel", "nothing like it"]) == 1
    assert "`status` shows all there are" in printed.both()[1]


def test_a_renamed_source_is_found_by_its_path_and_by_its_id(daemon: Harness, printed: Printed) -> None:
    (daemon.folder / "cam/a.mp4").rename(daemon.folder / "new.mp4")
    with (daemon.folder / "new.mp4").open("ab") as file:
        file.write(b"more")
    daemon.scan()
    for name in ("new.mp4", "cam/a.mp4@1", "cam/a.mp4"):
        assert app.main(["status", "--json", name]) == 0
        (row,) = printed.rows()
        assert (row["id"], row["path"]) == ("cam/a.mp4@1", "new.mp4")


def on_a_terminal(site: Site, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command on a terminal of its own; gives its process and the other end."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, **site.environment(), "TERM": "xterm", "COLUMNS": "160"}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        cwd=site.base,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    return process, ours


def read_until(terminal: int, *wanted: str) -> str:
    """Read what a terminal shows until it has shown this."""
    found = b""

    def shown() -> bool:
        nonlocal found
        while select.select([terminal], [], [], 0)[0]:
            try:
                found += os.read(terminal, 65536)
            except OSError:  # it ended
                break
        return all(each in found.decode(errors="replace") for each in wanted)

    try:
        wait_until(shown, 30, f"not shown: {wanted}")
    except AssertionError as error:
        raise AssertionError(f"{error}; but {found!r}") from None
    return found.decode()


def test_status_on_a_terminal_is_a_table(daemon: Harness, site: Site) -> None:
    process, terminal = on_a_terminal(site, "status")
    text = read_until(terminal, "STATE", "NAME", "cam/a.mp4@1", "not in S3 yet")
    assert process.wait(30) == 0
    os.close(terminal)
    assert "active" in text


def test_a_table_says_all_once_and_cuts_no_name(daemon: Harness, site: Site) -> None:
    path = "x" * 90 + ".mp4"
    daemon.write(path, FULL)
    daemon.scan()
    process, terminal = on_a_terminal(site, "status")
    text = read_until(terminal, "not in S3 yet")
    assert process.wait(30) == 0
    text += read_until(terminal)
    os.close(terminal)
    assert text.count("not in S3 yet") == 1
    assert text.count("x") == 90
    assert "…" not in text


def test_status_watch_follows_what_happens_until_ctrl_c(daemon: Harness, site: Site) -> None:
    process, terminal = on_a_terminal(site, "status", "--watch")
    read_until(terminal, "cam/a.mp4@1", "active")
    daemon.fall_idle()
    read_until(terminal, "complete")
    process.send_signal(signal.SIGINT)
    read_until(terminal)
    assert process.wait(30) == 0
    os.close(terminal)


def test_status_watch_without_a_terminal_prints_lines_until_ctrl_c(daemon: Harness, site: Site) -> None:
    with subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), "status", "--watch", "--json"],
        cwd=site.base,
        env={**os.environ, **site.environment()},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        rows = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert [row["id"] for row in rows] == ["cam/a.mp4@1"] * 2


# ---------------------------------------------------------------------- cancel and retry


def test_cancel_says_what_was_done_and_retry_undoes_it(daemon: Harness, printed: Printed) -> None:
    assert run(daemon, "cancel", "cam/a.mp4") == 0
    assert "cam/a.mp4@1: cancelled\n" in printed.both()[1]
    assert daemon.stream("cam/a.mp4").cancelled
    assert daemon.manifest("cam/a.mp4")["status"] == "incomplete"
    app.main(["status"])
    assert "\ncancelled " in printed.both()[0]
    assert run(daemon, "retry", "cam/a.mp4@1", "--json") == 0
    (row,) = printed.rows()
    assert (row["id"], row["done"], row["outcome"]) == ("cam/a.mp4@1", True, "it goes on")
    daemon.fall_idle()
    assert daemon.holds("cam/a.mp4")


def test_an_request_names_who_gave_it(daemon: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_user", lambda: "anna")
    run(daemon, "cancel", "cam/a.mp4")
    assert daemon.stream("cam/a.mp4").error.message.startswith("by an operator (anna@")


def test_without_a_daemon_the_request_stands(daemon: Harness, printed: Printed) -> None:
    assert app.main(["cancel", "cam/a.mp4", "--wait", "0", "--json"]) == 4
    out, err = printed.both()
    assert "The request stands: the next one that works will cancel cam/a.mp4@1" in err
    assert json.loads(out)["stands"]
    with running(daemon):
        wait_until(lambda: daemon.stream("cam/a.mp4").cancelled, 30)


@pytest.mark.parametrize(("command", "said"), [("cancel", "to cancel"), ("retry", "to retry")])
def test_a_complete_recording_is_let_be(daemon: Harness, printed: Printed, command: str, said: str) -> None:
    daemon.fall_idle()
    assert app.main([command, "cam/a.mp4"]) == 1
    assert f"cam/a.mp4@1 is complete: there is nothing {said}" in printed.both()[1]
    assert daemon.parts.checkpoints.look().requested == []


def test_a_stream_that_waits_is_not_tried_again_but_explained(daemon: Harness, printed: Printed) -> None:
    daemon.parts.checkpoints.set_last_error("cam/a.mp4", RecordedError("busy", "the disk is slow"))
    assert app.main(["retry", "cam/a.mp4"]) == 1
    assert "has not failed: it is active; it waits because of this: the disk is slow" in printed.both()[1]


def test_what_a_daemon_refuses_is_said(daemon: Harness, printed: Printed) -> None:
    run(daemon, "cancel", "cam/a.mp4")
    (daemon.folder / "cam/a.mp4").unlink()
    printed.both()
    assert run(daemon, "retry", "cam/a.mp4", "--json") == 1
    out, err = printed.both()
    assert "its file is not there any more" in err
    assert json.loads(out)["done"] is False


def test_records_of_another_bucket_are_not_steered(
    daemon: Harness, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_BUCKET", "another")
    assert app.main(["cancel", "cam/a.mp4"]) == 2
    assert "choose another REDIS_NAMESPACE" in printed.both()[1]
    assert daemon.parts.checkpoints.look().requested == []


def test_redis_that_is_not_there_ends_with_exit_code_3(
    site: Site, private_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", private_valkey.url)
    private_valkey.stop()
    assert app.main(["status"]) == 3


# ---------------------------------------------------------------------- purge


def objects(daemon: Harness) -> list[str]:
    return daemon.keys("cam/a.mp4/")


def test_purge_deletes_what_is_stored_of_that_generation_only(daemon: Harness, printed: Printed) -> None:
    daemon.write("cam/a.mp4-other.mp4", FULL)
    daemon.write("cam/a.mp4", b"cut")
    daemon.tick()
    assert len(daemon.keys("cam/a.mp4/g0001-")) == 2
    with (daemon.folder / "cam/a.mp4").open("ab") as file:
        file.write(FULL)
    daemon.tick()
    stored = daemon.keys()
    others = [key for key in stored if not key.startswith("cam/a.mp4/g0002-")]
    assert run(daemon, "cancel", "cam/a.mp4", "--purge", "--yes") == 0
    assert "cam/a.mp4@2: 2 objects deleted from the bucket" in printed.both()[1]
    assert daemon.keys("cam/a.mp4/g0002-") == []
    assert set(others) <= set(daemon.keys())
    assert daemon.stream("cam/a.mp4").cancelled
    assert daemon.stream("cam/a.mp4").offset == 0
    daemon.fall_idle()
    assert daemon.keys("cam/a.mp4/g0002-") == []


def test_what_was_cancelled_before_can_be_purged(daemon: Harness) -> None:
    run(daemon, "cancel", "cam/a.mp4")
    assert objects(daemon)
    assert app.main(["cancel", "cam/a.mp4", "--purge", "--yes"]) == 0
    assert objects(daemon) == []


def test_an_older_recording_that_was_cancelled_can_be_purged(daemon: Harness) -> None:
    run(daemon, "cancel", "cam/a.mp4")
    daemon.write("cam/a.mp4", FULL[:9])
    daemon.fall_idle()
    assert app.main(["cancel", "cam/a.mp4@1", "--purge", "--yes"]) == 0
    assert daemon.keys("cam/a.mp4/g0001-") == []
    assert daemon.holds("cam/a.mp4", 2)


def test_a_purged_stream_that_is_tried_again_is_uploaded_anew(daemon: Harness) -> None:
    run(daemon, "cancel", "cam/a.mp4", "--purge", "--yes")
    assert run(daemon, "retry", "cam/a.mp4") == 0
    daemon.fall_idle()
    assert daemon.holds("cam/a.mp4", 2)


def test_purge_asks_first_and_does_nothing_without_a_yes(
    daemon: Harness, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.main(["cancel", "cam/a.mp4", "--purge"]) == 2
    assert "add --yes" in printed.both()[1]

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("no\n"))
    assert app.main(["cancel", "cam/a.mp4", "--purge"]) == 1
    assert "from the bucket for good. Type yes" in printed.both()[1]
    assert daemon.state("cam/a.mp4") is State.ACTIVE
    assert daemon.parts.checkpoints.look().requested == []
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    assert run(daemon, "cancel", "cam/a.mp4", "--purge") == 0
    assert objects(daemon) == []


@pytest.mark.parametrize("site", ["moto"], indirect=True)
def test_purge_says_that_a_bucket_with_versions_keeps_the_bytes(
    site: Site, daemon: Harness, printed: Printed
) -> None:
    versioning: VersioningConfigurationTypeDef = {"Status": "Enabled"}
    daemon.s3.put_bucket_versioning(Bucket=site.bucket, VersioningConfiguration=versioning)
    assert run(daemon, "cancel", "cam/a.mp4", "--purge", "--yes") == 0
    said = printed.both()[1]
    assert "deleted from the bucket, which keeps versions: the bytes stay" in said
    assert objects(daemon) == []
    assert "Versions" in daemon.s3.list_object_versions(Bucket=site.bucket)


def test_purge_spares_complete_recordings(daemon: Harness, printed: Printed) -> None:
    daemon.fall_idle()
    stored = objects(daemon)
    assert app.main(["cancel", "cam/a.mp4", "--purge", "--yes"]) == 1
    with (daemon.folder / "cam/a.mp4").open("ab") as file:
        file.write(b"more")
    daemon.scan()
    assert run(daemon, "cancel", "cam/a.mp4", "--purge", "--yes") == 1
    assert "a complete recording of cam/a.mp4@1, revision 1: that is never purged" in printed.both()[1]
    assert objects(daemon) == stored


def test_purge_spares_what_a_later_version_may_have_completed(daemon: Harness, printed: Printed) -> None:
    run(daemon, "cancel", "cam/a.mp4")
    (key,) = [key for key in objects(daemon) if key.endswith("metadata.json")]
    daemon.s3.put_object(Bucket=daemon.bucket, Key=key, Body=b'{"schema_version": 99}')
    stored = objects(daemon)
    assert app.main(["cancel", "cam/a.mp4", "--purge", "--yes"]) == 1
    assert "cannot be read" in printed.both()[1]
    assert objects(daemon) == stored


def test_purge_spares_what_ended_without_being_cancelled(daemon: Harness) -> None:
    daemon.write("cam/a.mp4", b"")
    daemon.tick()
    stored = daemon.keys("cam/a.mp4/g0001-")
    assert app.main(["cancel", "cam/a.mp4@1", "--purge", "--yes"]) == 1
    assert daemon.keys("cam/a.mp4/g0001-") == stored


def test_purge_lets_what_is_tried_again_meanwhile_be(
    daemon: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(daemon, "cancel", "cam/a.mp4")
    stored = objects(daemon)
    asked = cancel_retry._Request._ask

    def meanwhile(request: Any, stays: str) -> ExitCode:
        with pytest.raises(click.UsageError):
            asked(request, stays)
        request._steering.request(Action.RETRY, request._stream)
        daemon.fall_idle()
        return ExitCode.OK

    monkeypatch.setattr(cancel_retry._Request, "_ask", meanwhile)
    assert app.main(["cancel", "cam/a.mp4", "--purge"]) == 1
    assert set(stored) <= set(objects(daemon))
    daemon.fall_idle()
    assert daemon.holds("cam/a.mp4")
