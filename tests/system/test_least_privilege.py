"""The rights that docs/operations.md asks for: enough for all that the daemon does, and none too many."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import redis

from doctor.redis import check_redis
from recording.stream import RecordedError
from redis_store import scripts as checkpoint_scripts
from redis_store.requests import Action, OperatorRequest
from status.overview import status_of
from tests.support.harness import CHUNK, TIMEOUT, Harness
from tests.support.mp4_boxes import box, mdat
from tests.support.servers import RcloneS3, ValkeyServer
from upload.audit import REFRESH_SECONDS
from upload.upkeep import COUNT_SECONDS

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "operations.md").read_text()
NAMESPACE = "video-uploader"

ACTIONS = {
    "head_bucket": "s3:ListBucket",
    "list_objects_v2": "s3:ListBucket",
    "head_object": "s3:GetObject",
    "get_object": "s3:GetObject",
    "put_object": "s3:PutObject",
    "delete_object": "s3:DeleteObject",
    "create_bucket": "s3:CreateBucket",
    "get_bucket_versioning": "s3:GetBucketVersioning",
    "copy_object": "s3:PutObject",
}
"""What Amazon asks for each call (Service Authorization Reference, "Actions defined by Amazon S3")."""


def acl() -> list[str]:
    (line,) = re.findall(r"^ACL SETUSER .+$", GUIDE, re.MULTILINE)
    words: list[str] = line.split()
    return words


def allowed_commands() -> set[str]:
    return {word[1:] for word in acl() if word.startswith("+")}


def policy() -> list[dict[str, Any]]:
    (text,) = re.findall(r"```json\n(\{.+?\})\n```", GUIDE, re.DOTALL)
    statements: list[dict[str, Any]] = json.loads(text)["Statement"]
    return statements


def live_a_whole_life(daemon: Harness) -> None:
    """Record, finalize, reopen, rename, lose a file, renew a lease: every script of a daemon."""
    content = os.urandom(2 * CHUNK + 9)
    daemon.write("a.mp4", content)
    daemon.write("b.mp4", content[:CHUNK])
    daemon.fall_idle()
    daemon.write("a.mp4", b"patched" + content[7:] + content)
    daemon.fall_idle()
    assert daemon.manifest("a.mp4")["revision"] == 2
    (daemon.folder / "b.mp4").rename(daemon.folder / "c.mp4")
    with (daemon.folder / "c.mp4").open("ab") as grows:
        grows.write(content)
    daemon.scan()
    assert daemon.stream("c.mp4").key_path == "b.mp4"
    (daemon.folder / "c.mp4").unlink()
    daemon.fall_idle()
    daemon.tick(TIMEOUT)
    assert daemon.parts.checkpoints.find("c.mp4") is None or daemon.state("c.mp4") == "incomplete"
    daemon.write("killed.mp4", box(b"ftyp", b"isom", bytes(4)) + mdat(1000))  # no player opens it
    daemon.fall_idle()
    daemon.write("d.mp4", content)
    daemon.scan()
    daemon.tick()
    with daemon.parts.checkpoints.leased(daemon.stream("d.mp4").stream_id):
        daemon.parts.checkpoints.renew_held()
    steer(daemon, "d.mp4@1")
    audit_findings(daemon)
    assert not daemon.refusal


def steer(daemon: Harness, stream_id: str) -> None:
    """Cancel a stream, look at it and have it tried again, with the rights of the daemon."""
    for action in (Action.CANCEL, Action.RETRY):
        placed = OperatorRequest(action, str(action), "anna", "2026-11-20T18:30:00.000Z")
        assert daemon.parts.checkpoints.place_request(stream_id, placed) == "OK"
        daemon.tick(COUNT_SECONDS)
        _, came = daemon.parts.checkpoints.request(stream_id)
        assert came
        assert came.done
    daemon.parts.checkpoints.set_last_error("d.mp4", RecordedError("busy", "waiting"))
    (shown,) = status_of(daemon.parts.checkpoints, str(daemon.folder), [stream_id])
    assert shown.error.message == "waiting"


def audit_findings(daemon: Harness) -> None:
    """Compare all that is finished with S3, and find that something is missing."""
    daemon.s3.delete_object(Bucket=daemon.bucket, Key=daemon.manifest("a.mp4")["chunks"][0]["key"])
    for _ in range(6):
        daemon.parts.auditor.step()
    assert daemon.parts.auditor.findings is not None
    daemon.clock.now += REFRESH_SECONDS
    daemon.parts.auditor.step()
    assert [each.stream_id for each in daemon.parts.auditor.findings] == ["a.mp4@1"]
    daemon.parts.auditor._audits.clear("a.mp4@1")
    daemon.fall_idle()
    daemon.tick(TIMEOUT)


def commands_that_ran(client: Any) -> tuple[set[str], set[str]]:
    """Return the commands that succeeded since the last reset, and those that were refused."""
    told = {name.removeprefix("cmdstat_"): counts for name, counts in client.info("commandstats").items()}
    refused = {name for name, counts in told.items() if counts["rejected_calls"]}
    return set(told) - refused, refused


def test_a_redis_user_with_the_documented_rights_runs_the_daemon_and_doctor_and_uses_all_of_them(
    tmp_path: Path, private_valkey: ValkeyServer, rclone: RcloneS3, bucket: str
) -> None:
    admin: Any = private_valkey.client
    admin.execute_command(*acl())
    user, password = acl()[2], acl()[4][1:]
    url = f"redis://{user}:{password}@127.0.0.1:{private_valkey.port}/0"
    admin.config_resetstat()
    daemon = Harness(tmp_path / "input", private_valkey, rclone, bucket, NAMESPACE, REDIS_URL=url)
    live_a_whole_life(daemon)
    admin.flushdb()
    daemon.restarted().fall_idle()
    assert daemon.holds("d.mp4")
    found = check_redis(daemon.settings.redis, store_identity="another", owner="doctor")
    assert {finding.check for finding in found if finding.level == "unchecked"} == set()
    ran, refused = commands_that_ran(admin)
    # Doctor asks for `appendfsync` and does without: the configuration holds the passwords, too.
    assert refused == {"config|get"}, "rights that are missing"
    assert allowed_commands() - ran == set(), "rights that nobody used"


def test_the_documented_redis_user_reaches_no_key_of_others(private_valkey: ValkeyServer) -> None:
    admin: Any = private_valkey.client
    admin.execute_command(*acl())
    admin.set("theirs", "1")
    with redis.Redis(port=private_valkey.port, username=acl()[2], password=acl()[4][1:]) as client:
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("theirs")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.flushall()
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.hget("theirs", "field")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.config_get("requirepass")


def test_every_command_of_a_script_is_among_the_documented_rights() -> None:
    source = Path(checkpoint_scripts.__file__).read_text()
    commands = {name.lower() for name in re.findall(r"redis\.call\(\s*'(\w+)'", source)}
    assert len(commands) > 5
    assert commands - allowed_commands() == set()


def test_the_documented_s3_policy_allows_exactly_the_calls_that_the_code_makes() -> None:
    sources = "\n".join(path.read_text() for path in [*ROOT.glob("*.py"), *ROOT.glob("s3/*.py")])
    calls = set(re.findall(r"\.([a-z0-9_]+)\(\s*Bucket=", sources))
    calls |= set(re.findall(r"get_paginator\(\"(\w+)\"\)", sources))
    assert calls == set(ACTIONS)
    allowed = {action for statement in policy() for action in statement["Action"]}
    # A person makes the bucket, and `cancel --purge` says so when it may not ask for versions.
    unneeded = {"s3:CreateBucket", "s3:GetBucketVersioning"}
    assert allowed == {ACTIONS[call] for call in calls} - unneeded


def test_the_documented_s3_policy_names_the_bucket_for_the_bucket_and_the_objects_for_the_rest() -> None:
    for statement in policy():
        of_bucket = statement["Action"] == ["s3:ListBucket"]
        assert statement["Effect"] == "Allow"
        assert statement["Resource"].endswith(":videos" if of_bucket else ":videos/*")
