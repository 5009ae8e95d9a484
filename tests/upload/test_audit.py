"""The audit: what S3 lost of a finished recording is found, told, and sent again while the file is here."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import metrics
from errors import StoreUnavailable
from recording.service_keys import parse_commit_key
from recording.stream import State
from redis_store import audits
from redis_store.audits import MAX_FINDINGS, Finding
from status.overview import take_overview
from status.report import report
from tests.status.test_report import WELL
from tests.support.harness import CHUNK, Harness
from tests.support.servers import ValkeyServer
from upload.audit import AGAIN_SECONDS, ENROL_SECONDS, HOLD_SECONDS, REFRESH_SECONDS

VIDEO = bytes(range(256)) * (CHUNK // 128) + b"tail"


@pytest.fixture(autouse=True)
def gauge_of_no_other_test() -> Iterator[None]:
    yield
    metrics.AUDIT_FINDINGS.set(0)


@pytest.fixture
def daemon(harness: Harness) -> Harness:
    """One that has stored a recording of three chunks, and compared it."""
    harness.write("a.mp4", VIDEO)
    harness.fall_idle()
    assert harness.state("a.mp4") is State.COMPLETE
    audit(harness)
    assert harness.parts.auditor.findings == []
    return harness


def audit(harness: Harness) -> list[Finding]:
    """Let the auditor look at everything that is due, and read what stands."""
    for _ in range(4):
        harness.parts.auditor.step()
    harness.clock.now += REFRESH_SECONDS
    harness.parts.auditor.step()
    assert harness.parts.auditor.findings is not None
    return harness.parts.auditor.findings


def due(harness: Harness) -> None:
    """Have every recording of the queue looked at now."""
    client: Any = harness._servers[0].client
    key = f"{{{harness._namespace}}}:audits"
    for stream_id in client.zrange(key, 0, -1):
        client.zadd(key, {stream_id: 0})


def looks(status: str) -> float:
    return metrics.REGISTRY.get_sample_value("video_uploader_audits_total", {"status": status}) or 0.0


def chunk_keys(harness: Harness) -> list[str]:
    return [chunk["key"] for chunk in harness.manifest("a.mp4")["chunks"]]


# ---------------------------------------------------------------------- faults, each of which is found


def lose_a_chunk(harness: Harness) -> None:
    harness.s3.delete_object(Bucket=harness.bucket, Key=chunk_keys(harness)[1])


def lose_all_chunks(harness: Harness) -> None:
    for key in chunk_keys(harness):
        harness.s3.delete_object(Bucket=harness.bucket, Key=key)


def lose_the_manifest(harness: Harness) -> None:
    (key,) = (key for key in sorted(harness.keys()) if key.endswith("/metadata.json"))
    harness.s3.delete_object(Bucket=harness.bucket, Key=key)


def lose_everything(harness: Harness) -> None:
    for key in sorted(harness.keys()):
        harness.s3.delete_object(Bucket=harness.bucket, Key=key)


def cut_a_chunk(harness: Harness) -> None:
    harness.s3.put_object(Bucket=harness.bucket, Key=chunk_keys(harness)[0], Body=b"short")


def damage_a_chunk(harness: Harness) -> None:
    harness.s3.put_object(Bucket=harness.bucket, Key=chunk_keys(harness)[0], Body=bytes(CHUNK))


def damage_the_manifest(harness: Harness) -> None:
    (key,) = (key for key in sorted(harness.keys()) if key.endswith("/metadata.json"))
    harness.s3.put_object(Bucket=harness.bucket, Key=key, Body=b"{")


def set_the_manifest_back(harness: Harness) -> None:
    """The store shows an older copy: of the revision before."""
    (key,) = (key for key in sorted(harness.keys()) if key.endswith("/metadata.json"))
    content = harness.manifest("a.mp4") | {"revision": 0}
    harness.s3.put_object(Bucket=harness.bucket, Key=key, Body=json.dumps(content).encode())


Fault = Callable[[Harness], None]
FAULTS = [
    lose_a_chunk,
    lose_all_chunks,
    lose_the_manifest,
    lose_everything,
    cut_a_chunk,
    damage_a_chunk,
    damage_the_manifest,
    set_the_manifest_back,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_s3_lost_is_found_told_and_sent_again(
    daemon: Harness, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    fault(daemon)
    due(daemon)
    (found,) = audit(daemon)
    assert found.stream_id == "a.mp4@1"
    assert found.problems
    assert metrics.REGISTRY.get_sample_value("video_uploader_audit_findings") == 1
    assert answer(daemon)["level"] == "at_risk"
    assert "not whole in S3" in answer(daemon)["title"]
    said: list[Any] = [each.msg for each in caplog.records]
    (line,) = [each for each in said if each["event"] == "not whole in S3"]
    assert line["stream"] == "a.mp4@1"
    assert line["taken_up_again"] is True
    daemon.fall_idle()
    assert daemon.state("a.mp4") is State.COMPLETE
    assert daemon.holds("a.mp4")
    assert audit(daemon) == []
    assert answer(daemon)["level"] == "safe"


@pytest.mark.parametrize("fault", [lose_a_chunk, lose_the_manifest])
def test_without_its_file_a_finding_stands_until_it_is_whole_again(daemon: Harness, fault: Fault) -> None:
    before = {key: daemon.read(key) for key in sorted(daemon.keys())}
    (daemon.folder / "a.mp4").unlink()
    fault(daemon)
    due(daemon)
    (found,) = audit(daemon)
    daemon.fall_idle()
    assert daemon.state("a.mp4") is State.COMPLETE, "what cannot be sent again is not taken up"
    due(daemon)
    assert audit(daemon) == [found]
    for key, body in before.items():
        daemon.s3.put_object(Bucket=daemon.bucket, Key=key, Body=body)
    due(daemon)
    assert audit(daemon) == []


def test_a_file_that_changed_since_is_left_to_the_scan(daemon: Harness) -> None:
    lose_a_chunk(daemon)
    (daemon.folder / "a.mp4").write_bytes(b"other")
    due(daemon)
    assert audit(daemon)
    assert daemon.state("a.mp4") is State.COMPLETE


def test_a_whole_recording_is_no_finding_and_costs_four_requests(daemon: Harness) -> None:
    before, sent = looks("whole"), []
    for client in daemon.parts.auditor._stored._store._clients._clients.values():
        client.meta.events.register_first("before-send.s3.*", lambda request, **_: sent.append(request.url))
    due(daemon)
    assert audit(daemon) == []
    assert looks("whole") == before + 1
    audit(daemon)
    assert looks("whole") == before + 1, "and not again before the interval is over"
    assert len([url for url in sent if "store.json" not in url]) == 4  # manifest, two lists, commit


def test_each_recording_is_looked_at_soon_after_its_completion(harness: Harness) -> None:
    before = looks("whole")
    for name in ("a.mp4", "b.mp4"):
        harness.write(name, VIDEO)
    harness.fall_idle()
    audit(harness)
    assert looks("whole") == before + 2
    harness.write("a.mp4", VIDEO + b"more")
    harness.fall_idle()
    audit(harness)
    assert looks("whole") == before + 3


def test_what_was_closed_is_looked_at_too(daemon: Harness) -> None:
    daemon.write("cut.mp4", VIDEO)
    daemon.scan()
    (daemon.folder / "cut.mp4").unlink()
    daemon.fall_idle()
    daemon.tick(60)
    assert daemon.state("cut.mp4") is State.INCOMPLETE
    assert audit(daemon) == []
    for key in sorted(daemon.keys("cut.mp4/")):
        daemon.s3.delete_object(Bucket=daemon.bucket, Key=key)
    due(daemon)
    assert [each.stream_id for each in audit(daemon)] == ["cut.mp4@1"]


def test_what_was_found_whole_is_in_the_list_of_commits_once(daemon: Harness) -> None:
    def listed() -> list[str]:
        found = daemon.s3.list_objects_v2(Bucket=daemon.bucket, Prefix=".vcu/index/")
        return [each["Key"] for each in found.get("Contents", ())]

    (key,) = listed()
    commit = parse_commit_key("", key)
    assert commit
    assert (commit.state, commit.revision, commit.folder.partition("/")[0]) == ("complete", 1, "a.mp4")
    daemon.s3.delete_object(Bucket=daemon.bucket, Key=key)
    due(daemon)
    audit(daemon)
    assert listed() == [key], "a round of the audit rebuilds it"


# ---------------------------------------------------------------------- who looks, and when


def test_an_outage_is_no_finding_and_nothing_is_asked_in_one(daemon: Harness) -> None:
    lose_a_chunk(daemon)
    due(daemon)
    daemon.parts.breakers.fail(StoreUnavailable("S3: away", service="s3", kind="unreachable"))
    before = looks("damaged")
    daemon.parts.auditor.step()
    assert looks("damaged") == before


def test_a_restart_goes_on_and_knows_what_was_found(daemon: Harness) -> None:
    (daemon.folder / "a.mp4").unlink()
    lose_a_chunk(daemon)
    due(daemon)
    (found,) = audit(daemon)
    later = daemon.restarted()
    later.work()
    before = looks("damaged")
    assert audit(later) == [found]
    assert looks("damaged") == before, "its next look is not due yet"


def test_two_daemons_share_a_round(daemon: Harness) -> None:
    for number in range(4):
        daemon.write(f"{number}.mp4", b"x" * 1000)
    daemon.fall_idle()
    other = daemon.restarted()
    other.work()
    due(daemon)
    before = looks("whole")
    for _ in range(5):
        daemon.parts.auditor.step()
        other.parts.auditor.step()
    assert looks("whole") == before + 5


def test_what_a_killed_daemon_took_is_looked_at_after_the_hold(daemon: Harness) -> None:
    due(daemon)
    queue = daemon.parts.auditor._audits
    assert queue.take(1, hold_seconds=HOLD_SECONDS) == ["a.mp4@1"]
    assert queue.take(1, hold_seconds=HOLD_SECONDS) == []
    due(daemon)
    assert queue.take(1, hold_seconds=HOLD_SECONDS) == ["a.mp4@1"]


def test_what_is_completed_during_a_look_is_looked_at_again(daemon: Harness) -> None:
    queue = daemon.parts.auditor._audits
    due(daemon)  # as a completion does it
    queue.later("a.mp4@1", 1000)
    queue.drop("a.mp4@1")
    assert queue.take(1, hold_seconds=HOLD_SECONDS) == ["a.mp4@1"]


def test_a_queue_that_redis_lost_is_filled_again(daemon: Harness, valkey: ValkeyServer) -> None:
    valkey.client.delete(f"{{{daemon._namespace}}}:audits")
    lose_a_chunk(daemon)
    daemon.clock.now += ENROL_SECONDS
    daemon.parts.auditor.step()
    due(daemon)
    assert [each.stream_id for each in audit(daemon)] == ["a.mp4@1"]


def test_a_stop_begins_no_look(daemon: Harness) -> None:
    before = looks("whole")
    due(daemon)
    daemon.parts.auditor.stop()
    daemon.parts.auditor.step()
    assert looks("whole") == before


def test_a_round_of_a_million_ends_within_its_time(harness: Harness) -> None:
    auditor = harness.parts.auditor
    auditor._finished = 1_000_000
    assert auditor._at_once() == 4  # a second: 2.4 million in seven days
    auditor._finished = 1_000
    assert auditor._at_once() == 1


# ---------------------------------------------------------------------- what stands


def test_what_is_acknowledged_makes_nobody_unsafe(daemon: Harness) -> None:
    (daemon.folder / "a.mp4").unlink()
    lose_a_chunk(daemon)
    due(daemon)
    (found,) = audit(daemon)
    daemon.parts.auditor._audits.note(found._replace(acknowledged_by="anna"))
    due(daemon)
    assert [each.acknowledged_by for each in audit(daemon)] == ["anna"]
    assert metrics.REGISTRY.get_sample_value("video_uploader_audit_findings") == 0
    assert answer(daemon)["level"] == "safe"
    lose_all_chunks(daemon)
    due(daemon)
    assert [each.acknowledged_by for each in audit(daemon)] == [""], "this is worse than what was known"


def test_findings_are_bounded(daemon: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_FINDINGS == 1_000
    monkeypatch.setattr(audits, "MAX_FINDINGS", 2)
    noted = [
        daemon.parts.auditor._audits.note(Finding(f"{number}@1", "p", ("x" * 5000,) * 9, 9, "now"))
        for number in (1, 2, 3, 2)
    ]
    assert noted == [True, True, False, True]
    *kept, more = daemon.parts.auditor._audits.findings()
    assert "2 findings stand" in more.problems[0]
    assert not more.acknowledged_by, "the page must not say safe of what nobody can see"
    assert [len(each.problems) for each in kept] == [audits.MAX_PROBLEMS] * 2
    assert len(kept[0].problems[0]) == audits.MAX_PROBLEM_CHARACTERS


@pytest.mark.parametrize("damage", ["{", "[" * 200_000, '{"problem_count": 1e999, "problems": ["?"]}'])
def test_a_damaged_record_of_a_finding_is_still_a_finding(
    daemon: Harness, valkey: ValkeyServer, damage: str
) -> None:
    valkey.client.hset(f"{{{daemon._namespace}}}:findings", "x@1", damage)
    daemon.clock.now += REFRESH_SECONDS
    assert [each.stream_id for each in audit(daemon)] == ["x@1"]


def answer(harness: Harness) -> dict[str, Any]:
    """What the page says, with everything else as it should be."""
    parts = harness.parts
    overview = take_overview(parts.checkpoints, str(harness.folder))
    overview = replace(overview, taken_at=WELL.now)
    situation = replace(WELL, health=parts.breakers.health(), findings=parts.auditor.findings)
    document = report(situation, overview, version="1", host="h", max_streams=10)
    found: dict[str, Any] = document["answer"]
    return found


def test_nothing_is_safe_before_the_findings_were_read(harness: Harness, tmp_path: Path) -> None:
    harness.write("a.mp4", VIDEO)
    harness.fall_idle()
    assert harness.parts.auditor.findings is None
    assert answer(harness)["level"] == "behind"
    assert AGAIN_SECONDS < 86_400
