"""Redis loses records, on a real Valkey: it is noticed at the next look, and the index is rebuilt."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from checkpoint import Checkpoints
from errors import StoreUnavailable
from recording.layout import RecordingId
from recording.stream import Signature, State
from redis_store.client import connect_url
from tests.support.servers import ValkeyServer

SIGNATURE = Signature(size=1000, mtime_ns=2**60, ctime_ns=2**60, dev=66309, ino=2**63 + 5)


@contextmanager
def process(valkey: ValkeyServer, namespace: str) -> Iterator[Checkpoints]:
    with connect_url(valkey.url) as client:
        checkpoints = Checkpoints(client, namespace=namespace, owner=os.urandom(4).hex())
        checkpoints.prepare("bucket videos, prefix (none)")
        checkpoints.mend_index()
        checkpoints.look()
        yield checkpoints


@pytest.fixture
def records(valkey: ValkeyServer, redis_namespace: str) -> Iterator[Checkpoints]:
    """Of a process that has looked, with a stream in each state."""
    with process(valkey, redis_namespace) as checkpoints:
        for number, state in enumerate((State.ACTIVE, State.COMPLETE, State.INCOMPLETE, State.FAILED)):
            begin(checkpoints, f"{state}.mp4", state, ino=number)
        yield checkpoints


def begin(checkpoints: Checkpoints, path: str, state: State, *, ino: int = 9, replaces: str = "") -> str:
    generation = int(replaces.rpartition("@")[2] or 0) + 1
    signature = SIGNATURE._replace(ino=ino)
    created = checkpoints.create(
        path,
        RecordingId(path, generation, "7f3a91c2"),
        signature,
        replaces=replaces,
        chunk_size=100,
    )
    assert created
    lease, stream = created
    if state is not State.ACTIVE:
        checkpoints.set_state(lease, State.ACTIVE, State.FINALIZING, signature, revision=0)
        checkpoints.set_state(lease, State.FINALIZING, state, signature, revision=1)
    checkpoints.release(lease)
    return stream.stream_id


def evict(valkey: ValkeyServer, namespace: str, *names: str) -> None:
    assert valkey.client.delete(*(f"{{{namespace}}}:{name}" for name in names)) == len(names)


def loss(checkpoints: Checkpoints) -> str:
    """What the next look says of lost records; the one after it says nothing."""
    with pytest.raises(StoreUnavailable) as caught:
        checkpoints.look()
    assert (caught.value.kind, caught.value.refused) == ("records_lost", False)
    checkpoints.prepare("bucket videos, prefix (none)")
    checkpoints.mend_index()
    checkpoints.look()
    return str(caught.value)


def test_looking_counts_and_finds_nothing_missing_while_streams_come_and_change(
    records: Checkpoints, valkey: ValkeyServer, redis_namespace: str
) -> None:
    with process(valkey, redis_namespace) as other:
        for _ in range(3):
            records.look()
            other.look()
        begin(other, "complete.mp4", State.COMPLETE, replaces="complete.mp4@1")
        with other.leased("active.mp4@1") as (lease, _):
            other.move(lease, "incomplete.mp4", replaces="incomplete.mp4@1")
        assert records.look().counts == {
            State.ACTIVE: 1,
            State.COMPLETE: 2,
            State.INCOMPLETE: 1,
            State.FAILED: 1,
        }


def test_an_emptied_redis_is_noticed_once_by_each_daemon(
    records: Checkpoints, valkey: ValkeyServer, redis_namespace: str
) -> None:
    with process(valkey, redis_namespace) as other:
        evict(valkey, redis_namespace, "pulse")
        assert "was emptied or set back" in loss(records)
        assert "was emptied or set back" in loss(other)


def test_an_older_copy_is_noticed(records: Checkpoints, valkey: ValkeyServer, redis_namespace: str) -> None:
    pulse = f"{{{redis_namespace}}}:pulse"
    copy = valkey.client.dump(pulse)
    assert copy
    records.look()
    valkey.client.restore(pulse, 0, copy, replace=True)
    assert "was emptied or set back" in loss(records)


INDEX = ("paths", "generations", "inodes", "active", "complete", "incomplete", "failed")


def index(valkey: ValkeyServer, namespace: str) -> dict[str, object]:
    base = f"{{{namespace}}}:"
    hashes: dict[str, object] = {name: valkey.client.hgetall(base + name) for name in INDEX[:3]}
    sets = {name: valkey.client.zrange(base + name, 0, -1, withscores=True) for name in INDEX[3:]}
    return hashes | sets


@pytest.mark.parametrize("name", [name for name in INDEX if name != "inodes"])
def test_an_evicted_part_of_the_index_is_noticed_and_rebuilt(
    name: str, records: Checkpoints, valkey: ValkeyServer, redis_namespace: str
) -> None:
    before = index(valkey, redis_namespace)
    evict(valkey, redis_namespace, name)
    assert "evict" in loss(records)
    assert index(valkey, redis_namespace) == before


@pytest.mark.parametrize("name", [name for name in INDEX if name != "inodes"])
def test_what_was_evicted_while_no_daemon_ran_is_rebuilt_at_the_start(
    name: str, records: Checkpoints, valkey: ValkeyServer, redis_namespace: str
) -> None:
    before = index(valkey, redis_namespace)
    evict(valkey, redis_namespace, name)
    with process(valkey, redis_namespace) as restarted:
        assert index(valkey, redis_namespace) == before
        assert restarted.find("failed.mp4") == records.find("failed.mp4")


def test_inodes_come_back_with_the_rest(
    records: Checkpoints, valkey: ValkeyServer, redis_namespace: str
) -> None:
    before = index(valkey, redis_namespace)
    evict(valkey, redis_namespace, "paths", "inodes", "generations")
    loss(records)
    assert index(valkey, redis_namespace) == before


def test_a_path_leads_to_its_unfinished_stream_again_else_to_the_one_changed_last(
    records: Checkpoints, valkey: ValkeyServer, redis_namespace: str
) -> None:
    begin(records, "complete.mp4", State.INCOMPLETE, replaces="complete.mp4@1")
    begin(records, "failed.mp4", State.COMPLETE, replaces="failed.mp4@1")
    begin(records, "incomplete.mp4", State.ACTIVE, replaces="incomplete.mp4@1")
    old = f"{{{redis_namespace}}}:stream:complete.mp4@1"
    valkey.client.hincrby(old, "updated_at", -1)
    valkey.client.hincrby(old.replace("complete", "failed"), "updated_at", -1)
    before = records.look()
    evict(valkey, redis_namespace, "paths")
    loss(records)
    for path in ("complete.mp4", "incomplete.mp4", "failed.mp4"):
        found = records.find(path)
        assert found
        assert found.stream_id == f"{path}@2"
    assert records.look() == before


def test_a_stream_whose_record_is_away_leaves_the_index(
    records: Checkpoints, valkey: ValkeyServer, redis_namespace: str
) -> None:
    evict(valkey, redis_namespace, "stream:failed.mp4@1", "failed", "complete")
    loss(records)
    assert records.look().counts[State.FAILED] == 0
    assert records.look().counts[State.COMPLETE] == 1
    assert valkey.client.hlen(f"{{{redis_namespace}}}:paths") == 3
    records.look()


@pytest.mark.parametrize("looks", ["junk", str(2**63 - 1)])
def test_a_count_of_looks_that_cannot_go_on_is_a_loss_and_begins_anew(
    records: Checkpoints, valkey: ValkeyServer, redis_namespace: str, looks: str
) -> None:
    records.look()
    valkey.client.hset(f"{{{redis_namespace}}}:pulse", "looks", looks)
    assert "emptied or set back" in loss(records)
    records.look()
