"""Which store this is: nothing is stored, nor called safe, in one that the records are not about."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recording.stream import RecordedError, State
from redis_store.store_claim import CHECKSUM_SECONDS
from status import table as status_table
from tests.support.fault_server import FaultServer
from tests.support.harness import CHUNK, TIMEOUT, Harness
from tests.support.real_stores import SeaweedFS
from tests.support.servers import MotoServer, RcloneS3, ValkeyServer
from tests.support.small_harness import SmallHarness
from tests.support.stepped_page import Page
from upload import store_marker
from upload.prober import MARKER_SECONDS
from upload.upkeep import COUNT_SECONDS

MARKER = ".vcu/store.json"
TRIAL = ".vcu/checksum-trial"
VIDEO = bytes(range(256)) * (CHUNK // 128)


@pytest.fixture(autouse=True)
def the_list_is_read_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_table, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(status_table, "MAX_REST_SECONDS", 0.0)


@pytest.fixture
def daemon(harness: Harness) -> Harness:
    """One that has stored a recording."""
    harness.write("a.mp4", VIDEO)
    harness.fall_idle()
    assert harness.state("a.mp4") is State.COMPLETE
    return harness


def marker(harness: Harness, key: str = MARKER) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(harness.read(key))
    return content


def empty(harness: Harness, *, keep: str = "") -> None:
    for key in [*harness.keys(), MARKER, TRIAL]:
        if key != keep:
            harness.s3.delete_object(Bucket=harness.bucket, Key=key)


def refused(harness: Harness) -> str:
    """Let a new daemon start; gives why it refuses the store."""
    harness.work()
    refusal = harness.refusal
    assert refusal
    assert refusal.kind in ("store", "bucket")
    assert not harness.parts.breakers.works("s3")
    return str(refusal)


def rebuilt(harness: Harness) -> Harness:
    """Start the next daemon with the records to begin anew."""
    harness._more = {"STORE_CHANGED": "rebuild"}
    return harness.restarted()


# ---------------------------------------------------------------------- the first start


def test_a_new_store_is_marked_and_redis_says_the_same(harness: Harness) -> None:
    harness.work()
    assert harness.parts.breakers.works()
    content = marker(harness)
    assert content["schema_version"] == 1
    assert len(content["store_id"]) == 32
    assert harness.parts.marker._claim.read() == content["store_id"] == harness.parts.marker.agreed


def test_the_marker_lies_under_the_prefix_and_is_no_recording(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> None:
    harness = Harness(tmp_path / "in", valkey, rclone, bucket, redis_namespace, S3_PREFIX="cams/")
    harness.work()
    assert marker(harness, "cams/" + MARKER)
    assert harness.keys() == []


def test_the_next_start_finds_the_same_store(daemon: Harness) -> None:
    before = marker(daemon)
    later = daemon.restarted()
    later.work()
    assert later.parts.breakers.works()
    assert marker(later) == before


def test_a_bucket_that_is_not_there_is_made_for_the_first_recording(
    tmp_path: Path, valkey: ValkeyServer, moto: MotoServer, redis_namespace: str
) -> None:
    harness = Harness(tmp_path / "in", valkey, moto, redis_namespace[:60], redis_namespace)
    harness.work()
    assert harness.parts.breakers.works()
    assert marker(harness)


def test_a_lost_redis_takes_over_what_the_store_says(daemon: Harness, valkey: ValkeyServer) -> None:
    before = marker(daemon)
    valkey.client.flushdb()
    later = daemon.restarted()
    later.fall_idle()
    assert later.holds("a.mp4")
    assert marker(later) == before
    assert later.parts.marker._claim.read() == before["store_id"]


def test_another_namespace_on_a_known_store_takes_over_its_id(daemon: Harness) -> None:
    before = marker(daemon)
    daemon._namespace += "-second"
    second = daemon.restarted()
    second.work()
    assert second.parts.breakers.works()
    assert marker(second) == before


# ---------------------------------------------------------------------- another store


def lose_all(harness: Harness) -> None:
    empty(harness)


def lose_the_bucket(harness: Harness) -> None:
    empty(harness)
    harness.s3.delete_bucket(Bucket=harness.bucket)


def make_the_bucket_anew(harness: Harness) -> None:
    lose_the_bucket(harness)
    harness.s3.create_bucket(Bucket=harness.bucket)


def lose_the_marker(harness: Harness) -> None:
    harness.s3.delete_object(Bucket=harness.bucket, Key=MARKER)


def mark_otherwise(harness: Harness) -> None:
    other = {"schema_version": 1, "store_id": "f" * 32, "made_at": "2026-11-21T00:00:00.000Z"}
    harness.s3.put_object(Bucket=harness.bucket, Key=MARKER, Body=json.dumps(other).encode())


def exchange(harness: Harness) -> None:
    lose_all(harness)
    mark_otherwise(harness)


def exchange_for_an_older_copy(harness: Harness) -> None:
    """One that has all but what was stored last, under an id of its own."""
    harness.s3.delete_object(Bucket=harness.bucket, Key=harness.generation("a.mp4") + "metadata.json")
    mark_otherwise(harness)


Fault = Callable[[Harness], None]
FAULTS = [
    lose_all,
    lose_the_bucket,
    make_the_bucket_anew,
    lose_the_marker,
    exchange,
    exchange_for_an_older_copy,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_is_not_that_of_the_records_is_refused_at_the_start(
    daemon: Harness, fault: Fault
) -> None:
    fault(daemon)
    said = refused(daemon.restarted())
    assert "Redis knows 1 recording in " in said
    assert "STORE_CHANGED=rebuild" in said


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_is_exchanged_while_nothing_is_uploaded_is_noticed(
    daemon: Harness, fault: Fault
) -> None:
    fault(daemon)
    daemon.clock.now += MARKER_SECONDS
    daemon.parts.prober.step()
    assert "STORE_CHANGED=rebuild" in daemon.parts.breakers.failures()["s3"]
    daemon.work()
    assert not daemon.parts.breakers.works("s3")
    assert not daemon.refusal, "a running daemon waits"


def test_a_bucket_that_vanished_is_not_made_anew(daemon: Harness) -> None:
    lose_the_bucket(daemon)
    assert "Redis knows 1 recording in it" in refused(daemon.restarted())
    names = {found["Name"] for found in daemon.s3.list_buckets()["Buckets"]}
    assert daemon.bucket not in names


@pytest.mark.parametrize("fault", FAULTS[:-1])
def test_when_told_so_the_records_begin_anew_and_all_is_sent_again(daemon: Harness, fault: Fault) -> None:
    fault(daemon)
    later = rebuilt(daemon)
    later.work()
    later.tick()  # Redis is tried again, because the records went
    later.fall_idle()
    assert not later.refusal
    assert later.state("a.mp4") is State.COMPLETE
    assert later.holds("a.mp4")
    assert marker(later)["store_id"] == later.parts.marker.agreed


def test_a_store_that_comes_back_is_gone_on_with(daemon: Harness) -> None:
    before = daemon.read(MARKER)
    exchange(daemon)
    daemon.clock.now += MARKER_SECONDS
    daemon.parts.prober.step()
    daemon.work()
    assert not daemon.parts.breakers.works()
    daemon.s3.put_object(Bucket=daemon.bucket, Key=MARKER, Body=before)
    daemon.clock.now += store_marker.PAUSE_SECONDS + 31
    daemon.work()
    assert daemon.parts.breakers.works()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"schema_version": 2, "store_id": "x"}', b"x" * 5000])
def test_a_marker_that_cannot_be_read_is_refused_by_its_name(harness: Harness, body: bytes) -> None:
    harness.s3.put_object(Bucket=harness.bucket, Key=MARKER, Body=body)
    said = refused(harness)
    assert MARKER in said
    assert "restore or delete it" in said


# ---------------------------------------------------------------------- two at once


def test_two_sites_that_mark_a_store_at_the_same_moment_end_with_one_id(harness: Harness) -> None:
    """Each reads its own marker back, because the other's put lands in between; no put is conditional."""
    harness.work()
    first = harness.read(MARKER)
    harness.s3.delete_object(Bucket=harness.bucket, Key=MARKER)
    harness._namespace += "-other-site"
    other = harness.restarted()
    other.write("b.mp4", VIDEO)
    other.fall_idle()
    assert other.parts.marker.agreed not in ("", harness.parts.marker.agreed)
    other.s3.put_object(Bucket=other.bucket, Key=MARKER, Body=first)  # the slower put
    other.clock.now += MARKER_SECONDS
    other.parts.prober.step()
    assert other.parts.breakers.works()
    assert other.parts.marker.agreed == harness.parts.marker.agreed
    assert not other.refusal


@pytest.mark.parametrize("state", [State.ACTIVE, State.COMPLETE, State.INCOMPLETE, State.FAILED])
def test_who_lost_the_race_for_the_marker_takes_the_other_id_over_with_all_records(
    harness: Harness, state: State
) -> None:
    """However late it reads the marker: what its records say is stored is in that very bucket."""
    path = harness.write("a.mp4", VIDEO)
    harness.write("only-begun.mp4", b"nothing of it is stored yet")
    harness.scan()
    if state is State.INCOMPLETE:
        path.unlink()
    if state is State.FAILED:
        lease, stream = harness.parts.checkpoints.acquire(harness.stream("a.mp4").stream_id)
        harness.parts.checkpoints.set_state(
            lease,
            State.ACTIVE,
            State.FAILED,
            stream.signature,
            revision=0,
            error=RecordedError("unreadable", "a test"),
        )
    elif state is not State.ACTIVE:
        harness.fall_idle()
        harness.tick(TIMEOUT)
    before = harness.stream("a.mp4")
    assert before.state is state
    mark_otherwise(harness)
    later = harness.restarted()
    later.parts.marker.open()
    assert later.parts.marker.agreed == "f" * 32 == later.parts.marker._claim.read()
    assert later.stream("a.mp4") == before


def test_daemons_with_one_redis_put_the_same_marker(harness: Harness) -> None:
    second = harness.restarted()
    claim = harness.parts.marker._claim
    assert claim.claim("a" * 32) == second.parts.marker._claim.claim("b" * 32)
    harness.work()
    second.work()
    assert marker(harness)["store_id"] == "a" * 32 == second.parts.marker.agreed


def test_an_id_that_redis_lost_is_written_again(daemon: Harness, valkey: ValkeyServer) -> None:
    valkey.client.flushdb()
    daemon.parts.marker.keep()
    assert daemon.parts.marker._claim.read() == daemon.parts.marker.agreed


def test_a_damaged_id_in_redis_is_none(daemon: Harness, valkey: ValkeyServer) -> None:
    key = f"{{{daemon._namespace}}}:store"
    valkey.client.set(key, "[1]")
    daemon.parts.marker.keep()
    assert daemon.parts.marker._claim.read() == daemon.parts.marker.agreed


# ---------------------------------------------------------------------- what counts as safe meanwhile


def test_while_records_begin_anew_nothing_is_safe_before_the_folder_was_scanned(daemon: Harness) -> None:
    later = rebuilt(daemon)
    later.fall_idle()
    later.tick(COUNT_SECONDS)
    page = Page(later)
    assert page.answer()[0] == "safe"
    lose_all(later)
    later.clock.now += MARKER_SECONDS
    later.parts.prober.step()
    assert page.answer()[0] != "safe"
    later.tick()
    assert page.answer() == ("behind", "Looking through the folder")
    assert later.parts.watch.requests.take() == {""}, "a full scan is asked for"
    later.fall_idle()  # its next look finds the same, and it scans once more
    later.fall_idle()
    assert later.holds("a.mp4")
    assert page.answer()[0] == "safe"


def test_a_daemon_whose_fellow_began_the_records_anew_scans_its_folder_also_when_new_ones_came(
    daemon: Harness,
) -> None:
    daemon.tick(COUNT_SECONDS)
    daemon.parts.watch.requests.take()
    fellow = rebuilt(daemon)
    fellow.work()
    lose_all(daemon)
    fellow.clock.now += MARKER_SECONDS
    fellow.parts.prober.step()
    daemon.write("b.mp4", VIDEO)
    daemon.parts.schedule.grown("b.mp4")
    daemon.work()
    assert daemon.state("b.mp4") is State.ACTIVE, "so there are as many records as before"
    daemon.tick(COUNT_SECONDS)
    daemon.tick()
    assert daemon.parts.watch.requests.take() == {""}, "a full scan is asked for"


def test_an_emptied_store_into_which_new_recordings_went_is_not_taken_over(daemon: Harness) -> None:
    """Puts go well into a bucket that was made anew, until the marker is read, and another site marks it."""
    lose_all(daemon)
    exchange(daemon)
    daemon.write("b.mp4", VIDEO)
    daemon.fall_idle()
    assert daemon.state("b.mp4") is State.COMPLETE
    daemon.clock.now += MARKER_SECONDS
    daemon.parts.prober.step()
    assert "STORE_CHANGED=rebuild" in daemon.parts.breakers.failures()["s3"]


# ---------------------------------------------------------------------- how puts are confirmed


def trials(server: FaultServer) -> int:
    return sum(request.path.endswith(TRIAL) for request in server.requests)


@pytest.fixture
def seaweed_bucket(seaweedfs: SeaweedFS, redis_namespace: str) -> str:
    seaweedfs.client.create_bucket(Bucket=redis_namespace[:60])
    return redis_namespace[:60]


def test_sha256_is_tried_once_for_a_store_and_remembered(
    tmp_path: Path, valkey: ValkeyServer, seaweedfs: SeaweedFS, seaweed_bucket: str, redis_namespace: str
) -> None:
    with FaultServer(seaweedfs.port) as server:
        harness = SmallHarness(
            tmp_path / "in",
            valkey,
            seaweedfs,
            seaweed_bucket,
            redis_namespace,
            S3_ENDPOINT_URL=server.endpoint_url,
        )
        harness.write("a.mp4", VIDEO)
        harness.until_finished("a.mp4")
        assert harness.holds("a.mp4")
        assert [chunk["confirmed_by"] for chunk in harness.manifest("a.mp4")["chunks"]] == ["sha256"] * 40
        assert trials(server) == 2
        puts = [each for each in server.requests if each.method == "PUT" and each.path.endswith(".part")]
        assert puts
        assert all(
            "x-amz-checksum-sha256" in put.headers and "content-md5" not in put.headers for put in puts
        )
        later = harness.restarted()
        later.work()
        assert (later.parts.store.confirmation.name, trials(server)) == ("SHA-256", 2)


def test_a_store_that_takes_a_wrong_sha256_confirms_by_md5(harness: Harness, valkey: ValkeyServer) -> None:
    harness.work()
    assert harness.parts.store.confirmation.name == "MD5"
    store_id = harness.parts.marker.agreed
    assert harness.parts.marker._claim.checksum(store_id) == "md5"
    assert harness.parts.marker._claim.checksum("0" * 32) == "", "of another store nothing is known"
    key = f"{{{harness._namespace}}}:checksum:{store_id}"
    assert 0 < valkey.client.ttl(key) <= CHECKSUM_SECONDS
    valkey.client.set(key, "nonsense")
    later = harness.restarted()
    later.work()
    assert later.parts.marker._claim.checksum(store_id) == "md5"


def test_md5_that_was_asked_for_is_no_question_to_the_store(
    tmp_path: Path, valkey: ValkeyServer, seaweedfs: SeaweedFS, seaweed_bucket: str, redis_namespace: str
) -> None:
    with FaultServer(seaweedfs.port) as server:
        harness = Harness(
            tmp_path / "in",
            valkey,
            seaweedfs,
            seaweed_bucket,
            redis_namespace,
            S3_ENDPOINT_URL=server.endpoint_url,
            S3_CHECKSUMS="md5",
        )
        harness.work()
        assert harness.parts.breakers.works()
        assert (trials(server), harness.parts.store.confirmation.name) == (0, "MD5")


def test_a_store_that_does_not_answer_the_trial_is_asked_again(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> None:
    with FaultServer(rclone.port) as server:
        harness = SmallHarness(
            tmp_path / "in", valkey, rclone, bucket, redis_namespace, S3_ENDPOINT_URL=server.endpoint_url
        )
        server.fail(503, "SlowDown", method="PUT", containing=TRIAL, times=2)
        harness.work()
        assert not harness.parts.breakers.works("s3")
        harness.until_open()
        assert harness.parts.store.confirmation.name == "MD5"


def test_the_api_says_how_puts_are_confirmed(harness: Harness) -> None:
    harness.work()
    assert Page(harness).report()["setup"]["confirmed_by"] == "MD5"
