"""A volume below the watched folder is unmounted: nothing on it is lost, closed, or called safe."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.servers import RcloneS3, ValkeyServer

PROGRAM = """
import os, subprocess, sys, threading
from pathlib import Path
from types import SimpleNamespace
import boto3
from recording.stream import State
from status.server import create_app
from status.wiring import wire_page
from tests.support.harness import CHUNK, TIMEOUT, Harness

base, redis_url, endpoint, access_key, secret_key, bucket, namespace = sys.argv[1:]
client = boto3.client(
    "s3",
    endpoint_url=endpoint,
    aws_access_key_id=access_key,
    aws_secret_access_key=secret_key,
    region_name="us-east-1",
)
s3 = SimpleNamespace(endpoint_url=endpoint, access_key=access_key, secret_key=secret_key, client=client)
folder, disk = Path(base, "input"), Path(base, "disk")
(folder / "cam1").mkdir(parents=True)
disk.mkdir()

def mount(): subprocess.run(["mount", "--bind", disk, folder / "cam1"], check=True)
def umount(): subprocess.run(["umount", folder / "cam1"], check=True)

def answer(harness):
    harness.parts.watch.watching = True  # as their own threads would have it
    harness.parts.auditor.step()
    page = wire_page(harness.settings, harness.parts, unhealthy=dict, stop=threading.Event())
    app = create_app(unhealthy=dict, unready=dict, pages=[page.blueprint]).test_client()
    return app.get("/api/status", headers={"Host": "127.0.0.1"}).json

mount()
harness = Harness(folder, SimpleNamespace(url=redis_url), s3, bucket, namespace)
harness.write("cam1/done.mp4", os.urandom(5))
harness.fall_idle()
harness.write("cam1/grows.mp4", os.urandom(2 * CHUNK + 5))
harness.scan()
harness.tick()
before = harness.stream("cam1/grows.mp4")
assert before.state is State.ACTIVE

def is_away(harness):
    harness.scan()
    for seconds in (1, TIMEOUT, TIMEOUT, 1):
        harness.tick(seconds)
    stream = harness.stream("cam1/grows.mp4")
    assert (stream.state, stream.stream_id) == (State.ACTIVE, before.stream_id), stream
    assert stream.error.kind == "away", stream
    found = answer(harness)
    assert found["answer"]["title"] == "A volume is away", found["answer"]
    assert "only on this disk" in found["answer"]["detail"], found["answer"]
    assert harness.parts.monitor.backlog.away == 1
"""


@pytest.fixture
def in_a_namespace(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> "Runner":
    return Runner(
        [
            str(tmp_path),
            valkey.url,
            rclone.endpoint_url,
            rclone.access_key,
            rclone.secret_key,
            bucket,
            redis_namespace,
        ]
    )


class Runner:
    """Runs a daemon that a test steps as root of a namespace of its own, on the shared servers."""

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments

    def __call__(self, program: str) -> None:
        command = ["unshare", "--user", "--map-root-user", "--mount"]
        try:
            subprocess.run([*command, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no namespaces here: {error}")
        ended = subprocess.run(
            [*command, sys.executable, "-c", PROGRAM + textwrap.dedent(program), *self._arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert ended.returncode == 0, ended.stderr[-3000:]


def test_a_growing_recording_waits_for_its_volume_and_ends_whole(in_a_namespace: Runner) -> None:
    in_a_namespace(
        """
        umount()
        is_away(harness)
        mount()
        with (folder / "cam1/grows.mp4").open("ab") as file:
            file.write(os.urandom(CHUNK))
        harness.tick()
        assert harness.parts.monitor.backlog.away == 0, harness.parts.monitor.backlog
        harness.fall_idle()
        assert not harness.stream("cam1/grows.mp4").error, harness.stream("cam1/grows.mp4")
        assert harness.holds("cam1/grows.mp4") and harness.holds("cam1/done.mp4"), harness.keys()
        assert answer(harness)["answer"]["level"] == "safe"
        """
    )


def test_a_daemon_that_starts_while_the_volume_is_away_waits_for_it_too(in_a_namespace: Runner) -> None:
    in_a_namespace(
        """
        umount()
        again = harness.restarted()
        is_away(again)
        mount()
        (folder / "cam1/grows.mp4").unlink()
        for seconds in (1, TIMEOUT, TIMEOUT, 1):
            again.tick(seconds)
        assert again.state("cam1/grows.mp4") is State.INCOMPLETE, "it was deleted while its volume was away"
        assert answer(again)["answer"]["level"] == "attention"
        """
    )


def test_what_redis_lost_while_the_volume_is_away_is_not_forgotten(in_a_namespace: Runner) -> None:
    in_a_namespace(
        """
        import redis
        umount()
        again = harness.restarted()
        is_away(again)
        client = redis.Redis.from_url(redis_url)
        client.delete(*client.keys("{%s}:*" % namespace))
        for seconds in (1, 5, 1, TIMEOUT, TIMEOUT, 1):
            again.tick(seconds)
            again.scan()
            again.parts.schedule.grown("cam1/grows.mp4")  # as what waits for a turn at that moment
        again.tick()
        assert answer(again)["answer"]["title"] == "A volume is away", answer(again)["answer"]
        mount()
        for _ in range(2):
            again.fall_idle()
        assert again.holds("cam1/done.mp4"), again.keys()
        assert again.state("cam1/grows.mp4") is State.COMPLETE
        assert answer(again)["answer"]["level"] == "safe", answer(again)["answer"]
        """
    )


def test_it_is_waited_for_whatever_key_that_leads_to_it_redis_evicts(in_a_namespace: Runner) -> None:
    in_a_namespace(
        """
        umount()
        is_away(harness)
        redis, again = harness.parts.checkpoints._redis, harness
        for name in ("active", "paths", "pulse", "store"):
            again = again.restarted()
            assert redis.delete("{" + namespace + "}:" + name) == 1, name
            is_away(again)
        assert redis.hdel(again.parts.checkpoints._stream_key(before.stream_id), "volume") == 1
        is_away(again.restarted())
        """
    )


EXCHANGED = """
def exchange(new):
    umount()
    subprocess.run(["mount", "--bind", new, folder / "cam1"], check=True)

other = Path(base, "other")
other.mkdir()
(other / "grows.mp4").write_bytes(os.urandom(7))

def is_left_behind(harness):
    for seconds in (1, 1, TIMEOUT, TIMEOUT, 1):
        harness.scan()
        harness.tick(seconds)
        assert answer(harness)["answer"]["level"] != "safe", answer(harness)["answer"]
    found = answer(harness)
    assert found["answer"]["title"] == "A volume is away", found["answer"]
    assert found["answer"]["detail"].startswith("One recording, such as cam1/grows.mp4@1:"), found["answer"]
    assert found["answer"]["unsafe_bytes"] == 5, found["answer"]
    assert harness.parts.monitor.backlog.away == 1
    closed = harness.parts.checkpoints.stream(before.stream_id)
    assert closed.state is State.INCOMPLETE and closed.error.kind == "away", closed
    assert harness.manifest("cam1/grows.mp4", 1)["total_size_bytes"] == 2 * CHUNK
"""


def test_a_volume_in_the_place_of_another_has_its_files_stored_and_the_other_is_waited_for(
    in_a_namespace: Runner,
) -> None:
    in_a_namespace(
        EXCHANGED
        + """
exchange(other)
is_left_behind(harness)
assert harness.stream("cam1/grows.mp4").generation == 2 and harness.holds("cam1/grows.mp4", 2)
again = harness.restarted()
is_left_behind(again)
redis = again.parts.checkpoints._redis
assert redis.delete("{" + namespace + "}:pulse") == 1
is_left_behind(again.restarted())
assert redis.delete("{" + namespace + "}:pulse") == 1
is_left_behind(again)
exchange(disk)
last = again.restarted()
for seconds in (1, 5, 1, TIMEOUT, 1):  # without a scan: it is looked for by itself
    last.tick(seconds)
assert last.stream("cam1/grows.mp4").generation == 3 and last.holds("cam1/grows.mp4", 3)
last.scan()
assert not last.parts.checkpoints.stream(before.stream_id).error
assert answer(last)["answer"]["level"] == "safe", answer(last)["answer"]
"""
    )


def test_who_gives_up_a_volume_that_was_exchanged_cancels_its_recordings(in_a_namespace: Runner) -> None:
    in_a_namespace(
        EXCHANGED
        + """
from redis_store.requests import Action, OperatorRequest
exchange(other)
is_left_behind(harness)
placed = OperatorRequest(Action.CANCEL, "token", "anna", "2026-11-20T18:30:00.000Z")
assert harness.parts.checkpoints.place_request(before.stream_id, placed) == "OK"
harness.tick(5)
harness.tick()
assert harness.parts.checkpoints.request(before.stream_id)[1].done
assert harness.parts.checkpoints.stream(before.stream_id).cancelled
assert answer(harness.restarted())["answer"]["level"] != "safe", "nothing was looked at yet"
harness.tick(5)
assert answer(harness)["answer"]["level"] == "safe", answer(harness)["answer"]
"""
    )


def test_a_volume_that_has_another_name_when_it_is_back_is_known_by_the_file(in_a_namespace: Runner) -> None:
    """As one with exFAT: its root is born when it is mounted."""
    in_a_namespace(
        EXCHANGED
        + """
exchange(other)
is_left_behind(harness)
renamed = Path(base, "renamed")
renamed.mkdir()
os.rename(disk / "grows.mp4", renamed / "grows.mp4")
exchange(renamed)
for seconds in (1, 1, TIMEOUT, 1):
    harness.tick(seconds)
assert harness.stream("cam1/grows.mp4").generation == 3 and harness.holds("cam1/grows.mp4", 3)
assert answer(harness)["answer"]["level"] == "safe", answer(harness)["answer"]
"""
    )


@pytest.mark.parametrize(
    ("daemon", "stored", "births"),
    [
        ("goes on", "2 * CHUNK", "known"),
        ("goes on", "0", "unknown"),
        ("starts anew", "2 * CHUNK", "unknown"),
        ("starts anew", "0", "known"),
    ],
)
def test_the_same_numbers_on_another_volume_are_another_file(
    in_a_namespace: Runner, daemon: str, stored: str, births: str
) -> None:
    """Cards give their first file the same inode number, and a reader gives all cards one device number."""
    in_a_namespace(
        f"""
        from folder import birth_time
        from recording.stream import Signature
        seen = Signature.of
        Signature.of = lambda status: seen(status)._replace(dev=7)  # one reader for all cards
        if {births!r} == "unknown":
            birth_time._statx = None  # as on many file systems
        umount()
        def insert(card): subprocess.run(["mount", "-t", "tmpfs", card, folder / "cam1"], check=True)
        insert("card1")
        harness.write("cam1/card.mp4", os.urandom({stored} + 5))
        harness.scan()
        harness.tick()
        first = os.stat(folder / "cam1/card.mp4")
        umount()
        insert("card2")
        harness.write("cam1/card.mp4", os.urandom({stored} + 6))
        second = os.stat(folder / "cam1/card.mp4")
        assert first.st_ino == second.st_ino
        harness = harness.restarted() if {daemon!r} == "starts anew" else harness
        for _ in range(2):
            harness.fall_idle()
        assert harness.parts.checkpoints.stream("cam1/card.mp4@1").left_behind
        assert harness.holds("cam1/card.mp4", 2)
        assert harness.parts.monitor.backlog.away == 2, "that file and the one of the test's first volume"
        """
    )
