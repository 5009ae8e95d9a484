"""`status`, `cancel` and `retry` against daemons as processes: one, and three that share the work."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recording.stream import RecordedError, State
from tests.support.daemon_process import ROOT, SHORT_LEASES, Site, prelude_of
from tests.support.harness import CHUNK
from tests.support.servers import RcloneS3, ValkeyServer, wait_until

QUICK = SHORT_LEASES + "\n" + prelude_of({"upload.upkeep.COUNT_SECONDS": 1.0})
"""Daemons that look for requests each second."""

CHUNKS = 4


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, redis_namespace: str) -> Iterator[Site]:
    # Nothing is finalized here: what a recording is at the time of a request must not depend on luck.
    site = Site(tmp_path, valkey, rclone, redis_namespace, STREAM_TIMEOUT_SECONDS="600")
    yield site
    site.close()


def command(site: Site, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    """Run a command as people do; gives its exit code and what it printed as JSON."""
    environment = {**os.environ, **site.environment(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments, "--json"],
        cwd=site.base,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def states(site: Site) -> dict[object, object]:
    code, rows = command(site, "status")
    assert code == 0
    return {row["path"]: "cancelled" if row["cancelled"] else row["state"] for row in rows}


def record(site: Site, *paths: str) -> None:
    """Let recordings be under way, all their full chunks stored."""
    for path in paths:
        site.view.write(path, os.urandom(CHUNKS * CHUNK) + b"tail")

    def all_stored() -> bool:
        found = site.view.parts.checkpoints.find_all(paths)
        return all(each and each.next_index == CHUNKS for each in found)

    wait_until(all_stored, 60)


def grow(site: Site, path: str) -> None:
    with (site.folder / path).open("ab") as file:
        file.write(os.urandom(CHUNK))


def fail(site: Site, path: str) -> None:
    """Let a stream fail for a reason that no scan mends."""
    checkpoints = site.view.parts.checkpoints
    stream = site.view.stream(path)
    with checkpoints.leased(stream.stream_id) as (lease, fresh):
        checkpoints.set_state(
            lease,
            fresh.state,
            State.FAILED,
            fresh.signature,
            revision=0,
            error=RecordedError("corrupt", "on the way"),
        )


def steer(site: Site) -> None:
    """Cancel one recording, let one that failed go on, take the cancel back; `status` shows all of it."""
    record(site, "a.mp4", "b.mp4", "c.mp4")
    fail(site, "b.mp4")
    assert states(site) == {"a.mp4": "active", "b.mp4": "failed", "c.mp4": "active"}

    assert command(site, "cancel", "a.mp4")[0] == 0
    assert command(site, "retry", "b.mp4")[0] == 0
    assert states(site) == {"a.mp4": "cancelled", "b.mp4": "active", "c.mp4": "active"}
    assert site.view.manifest("a.mp4")["status"] == "incomplete"
    assert len(site.view.manifest("a.mp4")["chunks"]) == CHUNKS

    stored = site.view.keys("a.mp4/")
    for path in ("a.mp4", "b.mp4", "c.mp4"):
        grow(site, path)
    wait_until(lambda: site.view.stream("b.mp4").next_index > CHUNKS, 60)
    wait_until(lambda: site.view.stream("c.mp4").next_index > CHUNKS, 60)
    assert site.view.keys("a.mp4/") == stored
    assert states(site) == {"a.mp4": "cancelled", "b.mp4": "active", "c.mp4": "active"}

    code, (said,) = command(site, "retry", "a.mp4@1")
    assert (code, said["outcome"]) == (0, "it goes on")
    wait_until(lambda: site.view.stream("a.mp4").next_index > CHUNKS, 60)
    assert command(site, "cancel", "c.mp4", "--purge", "--yes")[0] == 0
    assert site.view.keys("c.mp4/") == []


@pytest.mark.drill
def test_one_daemon_is_steered(site: Site) -> None:
    daemon = site.daemon(prelude=QUICK)
    steer(site)
    requested = daemon.events("operator request done")
    assert [event["action"] for event in requested] == ["cancel", "retry", "retry", "cancel"]
    assert daemon.metric("video_uploader_operator_requests_total", kind="cancel") == 2


def test_three_daemons_are_steered_and_each_request_is_carried_out_once(site: Site) -> None:
    daemons = [site.daemon(prelude=QUICK, UPLOAD_WORKERS="2") for _ in range(3)]
    for daemon in daemons:
        daemon.wait_for_ready()
    steer(site)
    requested = [event["action"] for daemon in daemons for event in daemon.events("operator request done")]
    assert sorted(requested) == ["cancel", "cancel", "retry", "retry"]
    daemons[0].kill()
    assert command(site, "cancel", "b.mp4")[0] == 0
    assert states(site)["b.mp4"] == "cancelled"


def test_the_request_for_a_stream_of_a_stopped_daemon_is_carried_out_by_another(site: Site) -> None:
    stopped = site.daemon(prelude=QUICK)
    record(site, "a.mp4")
    stopped.send(signal.SIGSTOP)
    lease, _ = site.view.parts.checkpoints.acquire("a.mp4@1")  # nobody can work on it for now
    other = site.daemon(prelude=QUICK)
    code, (said,) = command(site, "cancel", "a.mp4", "--wait", "0")
    assert (code, said["stands"]) == (4, True)
    other.wait_for_ready()
    site.view.parts.checkpoints.release(lease)
    wait_until(lambda: site.view.stream("a.mp4").cancelled, 60)
    other.wait_for("operator request done", action="cancel")
    stopped.send(signal.SIGCONT)
    grow(site, "a.mp4")
    stored = site.view.keys("a.mp4/")
    record(site, "b.mp4")
    assert site.view.keys("a.mp4/") == stored
    assert site.view.stream("a.mp4").cancelled


def test_the_embedded_daemon_is_steered_from_beside_it(tmp_path: Path, site: Site) -> None:
    """Everything but the folder is its own: no address is given to the commands."""
    named = ("WATCH_DIR", "S3_BUCKET", "REDIS_NAMESPACE")
    settings = {name: value for name, value in site.environment().items() if name in named}
    settings["PATH"] = os.environ["PATH"]

    def beside(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "main.py"), "--embedded", *arguments],
            cwd=tmp_path,
            env=settings,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    none = beside("status")
    assert (none.returncode, none.stdout) == (2, "")
    assert "no daemon runs on data: start one with `main.py --embedded`" in none.stderr
    own = ("REDIS_URL", "S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    daemon = site.daemon("--embedded", prelude=QUICK, **dict.fromkeys(own, ""))
    site.view.write("a.mp4", os.urandom(CHUNK + 9))
    daemon.wait_for("chunk stored")
    shown = beside("status", "--json")
    assert json.loads(shown.stdout)["offset_bytes"] == CHUNK, shown.stderr
    done = beside("cancel", "a.mp4", "--purge", "--yes")
    assert done.returncode == 0, done.stderr
    assert "2 objects deleted" in done.stderr
    addresses = tmp_path / "data" / "valkey" / "addresses.json"
    assert addresses.stat().st_mode & 0o077 == 0
    assert daemon.terminate() == 0
    assert not addresses.exists()
    assert beside("status").returncode == 2
