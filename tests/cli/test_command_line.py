"""The command as people type it: exit codes, what is said of wrong settings, and `--embedded`."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from cli import app
from tests.support.daemon_process import MAIN, ROOT, DaemonProcess, Site
from tests.support.harness import CHUNK
from tests.support.servers import RcloneS3, ValkeyServer, wait_until

STOPPED, WRONG_SETTINGS, REFUSED = 0, 2, 3
SECRET = "a-secret-that-nobody-may-read"


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, redis_namespace: str) -> Iterator[Site]:
    site = Site(tmp_path, valkey, rclone, redis_namespace)
    yield site
    site.close()
    output = site.output()
    for secret in (SECRET, valkey.password, rclone.secret_key, rclone.access_key):
        assert secret not in output


def run(folder: Path, settings: dict[str, str], *arguments: str) -> tuple[int, DaemonProcess]:
    """Run the command to its end; its exit code, and what it printed."""
    process = DaemonProcess(folder, settings, *arguments)
    try:
        return process.exit_code(), process
    finally:
        process.close()


def refusal(daemon: DaemonProcess) -> str:
    """Wait until a daemon ends because it was refused; why it says that was."""
    assert daemon.exit_code() == REFUSED
    [event] = daemon.events("refused at the start")
    assert daemon.events("stopped", exit_code=REFUSED)
    assert not daemon.events("outage begins"), "it is told twice"
    return str(event["reason"])


def test_all_wrong_settings_are_told_at_once(tmp_path: Path) -> None:
    wrong = {
        "CHUNK_SIZE": "1MiB",
        "UPLOAD_WORKERS": "0",
        "REDIS_URL": f"http://:{SECRET}@localhost",
        "S3_BUCKET": "No_Bucket",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    code, process = run(tmp_path, wrong)
    assert code == WRONG_SETTINGS
    problems = [line for line in process.other_lines() if line.startswith("error: ")]
    for name in (
        "CHUNK_SIZE",
        "UPLOAD_WORKERS",
        "REDIS_URL",
        "S3_BUCKET",
        "S3_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
    ):
        assert [problem for problem in problems if name in problem], f"{name} is missing in {problems}"
    assert SECRET not in process.output()


def test_without_settings_it_asks_for_them_and_stores_nothing(tmp_path: Path) -> None:
    code, process = run(tmp_path, {})
    assert code == WRONG_SETTINGS
    for name in ("REDIS_URL", "S3_ENDPOINT_URL", "--embedded"):
        assert name in process.output()
    assert [path.name for path in tmp_path.iterdir()] == [process.log_path.name]


def test_an_unknown_argument_is_a_wrong_setting(tmp_path: Path) -> None:
    code, process = run(tmp_path, {}, "--embeded")
    assert code == WRONG_SETTINGS
    assert "--embeded" in process.output()


def test_without_its_packages_it_says_so_in_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", str(MAIN)], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "the package click is not installed: pip install -r requirements.txt" in line


def test_a_wrong_argument_is_answered_with_the_usage_of_its_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert app.main(["verify", "a.mp4", "--depp"]) == WRONG_SETTINGS
    usage, problem = capsys.readouterr().err.splitlines()
    assert usage.startswith("Usage:")
    assert "verify [OPTIONS] [NAME]" in usage
    assert problem.startswith("error: No such option '--depp'")


def test_the_help_names_the_exit_codes(tmp_path: Path) -> None:
    code, process = run(tmp_path, {}, "--help")
    assert code == STOPPED
    codes = [
        line.split()[0]
        for line in process.other_lines()
        if line.startswith("  ") and line.strip()[0].isdigit()
    ]
    assert codes == ["0", "1", "2", "3"]


def test_the_version_is_that_of_the_project(tmp_path: Path) -> None:
    code, process = run(tmp_path, {}, "--version")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (code, process.output().split()[-1]) == (STOPPED, project["version"])


def test_a_port_that_is_taken_is_a_wrong_setting(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        daemon = site.daemon(HTTP_PORT=port)
        assert daemon.exit_code() == WRONG_SETTINGS
    assert "HTTP_PORT" in daemon.output()
    assert port in daemon.output()


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_s3_credentials_end_the_start_with_what_to_change(site: Site, name: str) -> None:
    reason = refusal(site.daemon(**{name: SECRET}))
    assert name in reason


def test_a_wrong_redis_password_ends_the_start_with_what_to_change(site: Site) -> None:
    url = site.valkey.url.replace(site.valkey.password, SECRET)
    assert "password" in refusal(site.daemon(REDIS_URL=url))
    missing = site.valkey.url.replace(f":{site.valkey.password}@", "")
    assert "REDIS_URL" in refusal(site.daemon(REDIS_URL=missing))


def test_records_of_a_newer_version_end_the_start_with_what_to_change(site: Site) -> None:
    site.valkey.client.set(f"{{{site.namespace}}}:schema", 99)
    reason = refusal(site.daemon())
    assert "99" in reason
    assert "REDIS_NAMESPACE" in reason


def test_records_about_another_bucket_end_the_start_with_what_to_change(site: Site) -> None:
    first = site.daemon()
    first.wait_for_ready()
    assert first.terminate() == STOPPED
    reason = refusal(site.daemon(S3_BUCKET=f"{site.bucket}-2"))
    for word in (site.bucket, f"{site.bucket}-2", "REDIS_NAMESPACE", "S3_BUCKET"):
        assert word in reason


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_is_in_the_most_talkative_log(site: Site, log_format: str) -> None:
    (site.folder / "a.mp4").write_bytes(os.urandom(CHUNK + 1))
    daemon = site.daemon(LOG_LEVEL="DEBUG", LOG_FORMAT=log_format)
    site.wait_until_stored("a.mp4")
    assert daemon.terminate() == STOPPED
    assert "complete" in daemon.output()


def embedded(folder: Path) -> DaemonProcess:
    settings = {"STREAM_TIMEOUT_SECONDS": "1", "CHUNK_SIZE": "5MiB"}
    return DaemonProcess(folder, settings, "--embedded")


def restored_sha256(folder: Path, name: str) -> str:
    """Put a recording together from the plain files of the local store; its manifest must agree."""
    (here,) = (folder / "data/objects/videos" / name).glob("g0001-*")
    parts = sorted((here / "chunks").iterdir())
    whole = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    manifest = json.loads((here / "metadata.json").read_bytes())
    assert manifest["sha256"] == whole
    assert [chunk["key"].rpartition("/")[2] for chunk in manifest["chunks"]] == [part.name for part in parts]
    return whole


def test_embedded_in_an_empty_folder_stores_what_is_dropped_into_input(tmp_path: Path) -> None:
    daemon = embedded(tmp_path)
    try:
        missing = daemon.wait_for("watched folder missing")
        assert missing["folder"] == str(tmp_path / "input")
        assert daemon.get("/readyz")[0] == 503
        (tmp_path / "input").mkdir()
        daemon.wait_for_ready()
        assert daemon.wait_for("the store is on this disk: no off-site copy")["folder"] == "data"
        setup = json.loads(daemon.get("/api/status")[1])["setup"]
        assert (setup["embedded"], setup["watching"]) == (
            True,
            f"Watching {tmp_path}/input for *.mp4 → s3://videos/",
        )
        body = os.urandom(2 * CHUNK + 1)
        (tmp_path / "input" / "a.mp4").write_bytes(body)
        daemon.wait_for("complete", stream="a.mp4@1")
        assert daemon.terminate() == STOPPED
        assert restored_sha256(tmp_path, "a.mp4") == hashlib.sha256(body).hexdigest()
    finally:
        daemon.close()


def test_an_embedded_daemon_goes_on_after_kill_9(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    source = tmp_path / "input" / "a.mp4"
    source.write_bytes(os.urandom(2 * CHUNK))
    first = embedded(tmp_path)
    try:
        first.wait_for("chunk stored")
        servers = psutil.Process(first.pid).children()
        first.kill()
        with source.open("ab") as file:
            file.write(os.urandom(CHUNK + 7))
    finally:
        first.close()
    second = embedded(tmp_path)
    try:
        # Nobody else can have its lease, so it does not wait for the 30 s of the killed one.
        second.wait_for("complete", stream="a.mp4@1", timeout_seconds=15)
        assert second.terminate() == STOPPED
    finally:
        second.close()
    assert restored_sha256(tmp_path, "a.mp4") == hashlib.sha256(source.read_bytes()).hexdigest()
    assert len(servers) == 2
    wait_until(lambda: not any(server.is_running() for server in servers))
