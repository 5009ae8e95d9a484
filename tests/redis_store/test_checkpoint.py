"""The contract of the records and leases, on a real Valkey: what each write answers, and to whom."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from checkpoint import LOOKUP_BATCH, Checkpoints, Lease
from errors import LeaseLost, StoreUnavailable
from recording.layout import BucketLayout, RecordingId
from recording.stream import NO_ERROR, Chunk, IllegalMoveError, RecordedError, Signature, State, Stream
from redis_store import leases, scripts
from redis_store.client import connect_url
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import ValkeyServer, wait_until

SIZE = 100
"""Of a full chunk; no byte of any is needed here."""

SIGNATURE = Signature(size=1000, mtime_ns=2**60 + 1, ctime_ns=2**60 + 3, dev=66309, ino=2**63 + 5)


@contextmanager
def process(url: str, namespace: str) -> Iterator[Checkpoints]:
    with connect_url(url) as client:
        yield Checkpoints(client, namespace=namespace, owner=os.urandom(4).hex())


@pytest.fixture
def one(valkey: ValkeyServer, redis_namespace: str) -> Iterator[Checkpoints]:
    """A process."""
    with process(valkey.url, redis_namespace) as checkpoints:
        yield checkpoints


@pytest.fixture
def other(valkey: ValkeyServer, redis_namespace: str) -> Iterator[Checkpoints]:
    """Another process on the same records."""
    with process(valkey.url, redis_namespace) as checkpoints:
        yield checkpoints


@pytest.fixture
def proxy(valkey: ValkeyServer) -> Iterator[FaultProxy]:
    with FaultProxy(valkey.port) as proxy:
        yield proxy


@pytest.fixture
def proxied(valkey: ValkeyServer, proxy: FaultProxy, redis_namespace: str) -> Iterator[Checkpoints]:
    """A process that reaches Valkey through `proxy`, and whose calls end soon."""
    with process(valkey.url.replace(str(valkey.port), str(proxy.port)), redis_namespace) as checkpoints:
        redis: Any = checkpoints._redis
        redis.connection_pool.connection_kwargs |= {"socket_timeout": 0.2, "socket_connect_timeout": 0.2}
        yield checkpoints


def begun(
    checkpoints: Checkpoints,
    path: str = "a.mp4",
    *,
    replaces: str = "",
    generation: int = 1,
    revision: int = 0,
) -> tuple[Lease, Stream]:
    created = checkpoints.create(
        path,
        RecordingId(path, generation, OWNER),
        SIGNATURE,
        replaces=replaces,
        revision=revision,
        chunk_size=SIZE,
    )
    assert created
    return created


def chunk(index: int, size: int = SIZE, content: str = "as recorded") -> Chunk:
    sha256 = hashlib.sha256(f"{index} {size} {content}".encode()).hexdigest()
    key = LAYOUT.chunk(RecordingId("a.mp4", 1, OWNER), index, sha256)
    return Chunk(index, size, sha256, f'"etag of {content}"', key, "2026-09-01", "sha256")


OWNER = "7f3a91c2"
LAYOUT = BucketLayout("")


def chunks_of(checkpoints: Checkpoints, stream_id: str = "a.mp4@1") -> list[Chunk]:
    stream = checkpoints.stream(stream_id)
    assert stream
    return checkpoints.chunks(stream, LAYOUT)


def grow(checkpoints: Checkpoints, lease: Lease, chunks: int) -> None:
    for index in range(chunks):
        checkpoints.checkpoint(lease, chunk(index), SIGNATURE)


def move_on(checkpoints: Checkpoints, lease: Lease, *states: State) -> None:
    for old, new in pairwise(states):
        checkpoints.set_state(lease, old, new, SIGNATURE, revision=0)


def finish(checkpoints: Checkpoints, lease: Lease) -> None:
    move_on(checkpoints, lease, State.ACTIVE, State.FINALIZING, State.COMPLETE)


def found(checkpoints: Checkpoints, path: str = "a.mp4") -> Stream:
    stream = checkpoints.find(path)
    assert stream
    return stream


def offset_of(checkpoints: Checkpoints) -> tuple[int, int, list[int]]:
    """Next index, offset, and the indexes that have a record."""
    stream = found(checkpoints)
    return stream.next_index, stream.offset, [known.index for known in checkpoints.chunks(stream, LAYOUT)]


def field(checkpoints: Checkpoints, name: str, stream_id: str = "a.mp4@1") -> Any:
    return checkpoints._redis.hget(checkpoints._stream_key(stream_id), name)


def set_field(checkpoints: Checkpoints, name: str, value: int, stream_id: str = "a.mp4@1") -> None:
    checkpoints._redis.hset(checkpoints._stream_key(stream_id), name, str(value))


def let_lease_end(checkpoints: Checkpoints) -> None:
    set_field(checkpoints, "lease_until", 1)


def redis_now_us(checkpoints: Checkpoints) -> int:
    seconds, rest = checkpoints._redis.time()
    return int(seconds) * 1_000_000 + int(rest)


def refusal(write: Callable[[], object]) -> str:
    with pytest.raises(LeaseLost) as refused:
        write()
    return refused.value.reason


# ---------------------------------------------------------------------- leases


def test_a_held_lease_is_busy_for_another_process(one: Checkpoints, other: Checkpoints) -> None:
    lease, _ = begun(one)
    with pytest.raises(LeaseLost) as busy:
        other.acquire("a.mp4@1")
    assert (busy.value.reason, busy.value.holder) == ("busy", one._owner)
    assert leases.LEASE_TTL_SECONDS - 5 < busy.value.ends_in_seconds <= leases.LEASE_TTL_SECONDS
    one.release(lease)
    taken, stream = other.acquire("a.mp4@1")
    assert (stream, taken.previous_epoch) == (found(one), lease.epoch)


def test_a_process_holds_a_stream_only_once(one: Checkpoints) -> None:
    lease, _ = begun(one)
    assert refusal(lambda: one.acquire("a.mp4@1")) == "busy"
    one.release(lease)
    one.acquire("a.mp4@1")


def test_a_lease_that_could_not_be_asked_for_is_not_busy_for_ever(
    proxied: Checkpoints, proxy: FaultProxy, one: Checkpoints
) -> None:
    one.release(begun(one)[0])
    proxy.refuse()
    with pytest.raises(StoreUnavailable):
        proxied.acquire("a.mp4@1")
    proxy.heal()
    proxied.acquire("a.mp4@1")


def test_an_unknown_stream_is_gone(one: Checkpoints) -> None:
    assert refusal(lambda: one.acquire("a.mp4@1")) == "gone"


def test_a_lease_ends_by_the_clock_of_redis(one: Checkpoints, other: Checkpoints) -> None:
    begun(one)
    set_field(one, "lease_until", redis_now_us(one) + 100_000)

    def taken() -> bool:
        try:
            return bool(other.acquire("a.mp4@1"))
        except LeaseLost:
            return False

    assert not taken()
    wait_until(taken, 2)


def test_a_clock_that_was_set_back_holds_no_lease_for_longer_than_its_life(
    one: Checkpoints, other: Checkpoints
) -> None:
    begun(one)
    an_hour = 3_600_000_000
    set_field(one, "lease_until", redis_now_us(one) + an_hour)
    assert refusal(lambda: other.acquire("a.mp4@1")) == "busy"
    assert int(field(one, "lease_until")) <= redis_now_us(one) + leases.TTL_MS * 1000


def test_epochs_grow_even_when_the_clock_went_back(one: Checkpoints) -> None:
    lease, _ = begun(one)
    one.release(lease)
    ahead = redis_now_us(one) + 10**9
    set_field(one, "epoch", ahead)
    epochs = []
    for _ in range(3):
        lease, _ = one.acquire("a.mp4@1")
        epochs.append(int(lease.epoch))
        one.release(lease)
    assert epochs == [ahead + 1, ahead + 2, ahead + 3]


def test_a_dropped_lease_is_taken_again_at_once_by_its_process_only(
    one: Checkpoints, other: Checkpoints
) -> None:
    lease, _ = begun(one)
    one.drop(lease)
    assert refusal(lambda: other.acquire("a.mp4@1")) == "busy"
    again, _ = one.acquire("a.mp4@1")
    assert (int(again.epoch) > int(lease.epoch), again.previous_epoch) == (True, lease.epoch)


def test_a_superseded_lease_writes_nothing(one: Checkpoints, other: Checkpoints) -> None:
    lease, _ = begun(one)
    let_lease_end(one)
    other.acquire("a.mp4@1")
    assert refusal(lambda: one.checkpoint(lease, chunk(0), SIGNATURE)) == "fenced"
    assert offset_of(one) == (0, 0, [])


def test_a_lease_that_its_own_process_took_anew_writes_nothing(one: Checkpoints) -> None:
    lease, _ = begun(one)
    one.drop(lease)
    again, _ = one.acquire("a.mp4@1")
    assert refusal(lambda: one.checkpoint(lease, chunk(0), SIGNATURE)) == "fenced"
    one.checkpoint(again, chunk(0), SIGNATURE)


def test_a_lease_that_ended_but_was_not_taken_still_writes(one: Checkpoints) -> None:
    lease, _ = begun(one)
    let_lease_end(one)
    grow(one, lease, 1)
    assert offset_of(one) == (1, SIZE, [0])


def test_releasing_a_lost_lease_is_no_error_and_leaves_the_new_one_alone(
    one: Checkpoints, other: Checkpoints
) -> None:
    lease, _ = begun(one)
    let_lease_end(one)
    taken, _ = other.acquire("a.mp4@1")
    one.release(lease)
    other.checkpoint(taken, chunk(0), SIGNATURE)
    assert int(field(one, "lease_until")) > redis_now_us(one)


def test_a_released_lease_can_neither_write_nor_be_renewed(one: Checkpoints, other: Checkpoints) -> None:
    lease, _ = begun(one)
    one.release(lease)
    assert refusal(lambda: one.checkpoint(lease, chunk(0), SIGNATURE)) == "fenced"
    one._held[lease.stream_id] = lease  # as the monitor sees it that has begun to renew all
    one.renew_held()
    other.acquire("a.mp4@1")


def test_renewing_prolongs_what_is_held_and_forgets_what_was_lost(
    one: Checkpoints, other: Checkpoints
) -> None:
    kept, _ = begun(one, "kept.mp4")
    lost, _ = begun(one, "lost.mp4")
    set_field(one, "lease_until", 1, "lost.mp4@1")
    other.acquire("lost.mp4@1")
    set_field(one, "lease_until", 1, "kept.mp4@1")
    kept.renewed_at = lost.renewed_at = kept.renewed_at - leases.LEASE_FRESH_SECONDS + 1
    before = kept.renewed_at
    one.renew_held()
    assert one.held() == [kept]
    assert kept.renewed_at > before
    left_us = int(field(one, "lease_until", "kept.mp4@1")) - redis_now_us(one)
    assert left_us > (leases.LEASE_TTL_SECONDS - 1) * 1_000_000
    assert refusal(lost.check) == "expired"


def test_no_put_starts_under_a_lease_that_was_not_renewed_for_20_seconds(one: Checkpoints) -> None:
    lease, _ = begun(one)
    lease.check()
    lease.renewed_at -= leases.LEASE_FRESH_SECONDS
    assert refusal(lease.check) == "expired"


def test_a_lease_ends_while_the_machine_is_suspended(
    one: Checkpoints, other: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock stands still meanwhile: only the other one tells how long Redis waited."""
    begun(one)
    lease = one.held()[0]
    awake = time.clock_gettime
    asleep = {time.CLOCK_BOOTTIME: leases.LEASE_FRESH_SECONDS + 1}
    monkeypatch.setattr(time, "clock_gettime", lambda clock: awake(clock) + asleep.get(clock, 0.0))
    assert refusal(lease.check) == "expired"
    one.renew_held()
    lease.check()


def test_a_lease_for_a_few_writes_is_given_back_after_them_and_after_a_failure(
    one: Checkpoints, other: Checkpoints
) -> None:
    one.release(begun(one)[0])
    with one.leased("a.mp4@1") as (lease, _):
        one.checkpoint(lease, chunk(0), SIGNATURE)
    other.release(other.acquire("a.mp4@1")[0])
    assert refusal(lambda: gap_within(one)) == "gap"
    other.acquire("a.mp4@1")


def gap_within(checkpoints: Checkpoints) -> None:
    with checkpoints.leased("a.mp4@1") as (lease, _):
        checkpoints.checkpoint(lease, chunk(7), SIGNATURE)


def test_stopping_gives_every_lease_back(one: Checkpoints, other: Checkpoints) -> None:
    for name in ("a.mp4", "b.mp4"):
        begun(one, name)
    one.release_all()
    assert one.held() == []
    other.acquire("a.mp4@1")
    other.acquire("b.mp4@1")


def test_a_daemon_that_is_alone_ends_the_leases_of_its_predecessor(
    one: Checkpoints, other: Checkpoints
) -> None:
    lease, _ = begun(one)
    begun(one, "lost.mp4")
    one._redis.delete(one._stream_key("lost.mp4@1"))
    other.end_all()
    other.acquire("a.mp4@1")
    assert refusal(lambda: one.checkpoint(lease, chunk(0), SIGNATURE)) == "fenced"
    assert begun(other, "lost.mp4")[1].stream_id == "lost.mp4@2"


def test_stopping_ends_when_redis_is_away(proxied: Checkpoints, proxy: FaultProxy) -> None:
    begun(proxied)
    proxy.refuse()
    proxied.release_all()


def test_threads_that_take_give_back_forget_and_renew_leave_no_lease_behind(
    one: Checkpoints, other: Checkpoints
) -> None:
    names = [f"{number}.mp4" for number in range(4)]
    for name in names:
        one.release(begun(one, name)[0])
    stop = threading.Event()

    def turns(name: str, *, forget: bool) -> None:
        for _ in range(50):
            lease, _ = one.acquire(f"{name}@1")
            if forget:
                one.drop(lease)
            else:
                one.release(lease)

    def monitor() -> None:
        while not stop.is_set():
            one.renew_held()

    with ThreadPoolExecutor() as pool:
        monitoring = pool.submit(monitor)
        working = [pool.submit(turns, name, forget=name == names[0]) for name in names]
        for each in working:
            each.result()
        stop.set()
        monitoring.result()
    assert one.held() == []
    assert refusal(lambda: other.acquire("0.mp4@1")) == "busy"  # dropped: it ends by itself
    for name in names[1:]:
        other.acquire(f"{name}@1")


# ---------------------------------------------------------------------- beginning


def test_a_new_stream_is_found_as_it_was_begun(one: Checkpoints) -> None:
    _, stream = begun(one, generation=3, revision=2)
    assert stream == found(one)
    assert stream == one.find_inode(SIGNATURE.dev, SIGNATURE.ino)
    expected = ("a.mp4@3", "a.mp4", 3, 2, State.ACTIVE, SIGNATURE, SIZE, 0, 0)
    assert (
        stream.stream_id,
        stream.path,
        stream.generation,
        stream.revision,
        stream.state,
        stream.signature,
        stream.chunk_size,
        stream.next_index,
        stream.offset,
    ) == expected
    assert abs(stream.started_at_ms - redis_now_us(one) // 1000) < 10_000


def test_of_processes_that_begin_the_same_stream_exactly_one_does(
    one: Checkpoints, other: Checkpoints
) -> None:
    barrier = threading.Barrier(2)

    def begin(checkpoints: Checkpoints) -> list[bool]:
        begun_here = []
        for number in range(20):
            barrier.wait()
            created = checkpoints.create(
                f"{number}.mp4", RecordingId("k", 1, OWNER), SIGNATURE, replaces="", chunk_size=SIZE
            )
            begun_here.append(created is not None)
        return begun_here

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(begin, (one, other))
    assert [a != b for a, b in zip(first, second, strict=True)] == [True] * 20


def test_a_generation_is_never_used_twice_and_a_higher_one_begins_without_revisions(one: Checkpoints) -> None:
    finish(one, begun(one, generation=5, revision=3)[0])
    lease, next_one = begun(one, replaces="a.mp4@5", generation=5, revision=3)
    assert (next_one.stream_id, next_one.generation, next_one.revision) == ("a.mp4@6", 6, 0)
    finish(one, lease)
    _, far_one = begun(one, replaces="a.mp4@6", generation=9, revision=2)
    assert (far_one.stream_id, far_one.revision) == ("a.mp4@9", 2)


def test_a_stream_is_begun_only_after_the_one_that_it_replaces(one: Checkpoints, other: Checkpoints) -> None:
    lease, _ = begun(one)
    wanted = RecordingId("a.mp4", 1, OWNER)
    for replaced in ("", "a.mp4@2", "a.mp4@1"):  # the last one is unfinished
        assert other.create("a.mp4", wanted, SIGNATURE, replaces=replaced, chunk_size=SIZE) is None
    finish(one, lease)
    assert begun(other, replaces="a.mp4@1")[1].stream_id == "a.mp4@2"


def test_a_path_that_leads_to_a_lost_record_is_free(one: Checkpoints) -> None:
    begun(one)
    one._redis.delete(one._stream_key("a.mp4@1"))
    assert one.find("a.mp4") is None
    assert begun(one)[1].stream_id == "a.mp4@2"


def test_chunk_records_that_outlived_their_stream_are_not_those_of_a_new_one(one: Checkpoints) -> None:
    lease, _ = begun(one)
    grow(one, lease, 1)
    one._redis.delete(one._stream_key("a.mp4@1"), one._base + "generations")
    assert begun(one)[1].stream_id == "a.mp4@1"
    assert chunks_of(one) == []


# ---------------------------------------------------------------------- what each write answers

WRITES: dict[str, Callable[[Checkpoints, Lease], None]] = {
    "checkpoint": lambda c, lease: c.checkpoint(lease, chunk(0), SIGNATURE),
    "replace": lambda c, lease: c.replace(lease, chunk(0)),
    "set_state": lambda c, lease: move_on(c, lease, State.ACTIVE, State.FINALIZING),
    "restore": lambda c, lease: c.restore(lease, [chunk(0)]),
    "move": lambda c, lease: c.move(lease, "b.mp4", replaces=""),
}


@pytest.mark.parametrize("write", WRITES)
def test_no_write_goes_through_without_the_lease(write: str, one: Checkpoints, other: Checkpoints) -> None:
    lease, before = begun(one)
    let_lease_end(one)
    other.acquire("a.mp4@1")
    record = one._redis.hgetall(one._stream_key("a.mp4@1"))
    assert refusal(lambda: WRITES[write](one, lease)) == "fenced"
    assert one.held() == []
    assert (one._redis.hgetall(one._stream_key("a.mp4@1")), found(one)) == (record, before)


@pytest.mark.parametrize("write", WRITES)
def test_no_write_brings_a_lost_record_back(write: str, one: Checkpoints) -> None:
    lease, _ = begun(one)
    one._redis.flushall()
    assert refusal(lambda: WRITES[write](one, lease)) == "gone"
    assert one._redis.keys(f"{one._base}*") == []


def test_the_next_chunk_moves_index_offset_and_signature(one: Checkpoints) -> None:
    lease, _ = begun(one)
    one.checkpoint(lease, chunk(0), SIGNATURE._replace(size=2**53 + 1, mtime_ns=7))
    stream = found(one)
    assert (stream.next_index, stream.offset) == (1, SIZE)
    assert (stream.signature.size, stream.signature.mtime_ns) == (2**53 + 1, 7)
    assert chunks_of(one) == [chunk(0)]


def test_the_same_chunk_again_is_success_and_changes_nothing(one: Checkpoints) -> None:
    lease, _ = begun(one)
    grow(one, lease, 2)
    one.checkpoint(lease, chunk(0), SIGNATURE)
    assert offset_of(one) == (2, 2 * SIZE, [0, 1])


def test_other_content_at_a_recorded_index_is_a_conflict(one: Checkpoints) -> None:
    lease, _ = begun(one)
    grow(one, lease, 1)
    assert refusal(lambda: one.checkpoint(lease, chunk(0, content="other"), SIGNATURE)) == "conflict"
    assert chunks_of(one) == [chunk(0)]


@pytest.mark.parametrize("index", [2, 7])
def test_a_chunk_that_is_not_the_next_leaves_a_gap(index: int, one: Checkpoints) -> None:
    lease, _ = begun(one)
    grow(one, lease, 1)
    assert refusal(lambda: one.checkpoint(lease, chunk(index), SIGNATURE)) == "gap"
    assert offset_of(one) == (1, SIZE, [0])


def test_only_a_stream_that_is_finalized_has_a_tail_and_nothing_follows_it(one: Checkpoints) -> None:
    lease, _ = begun(one)
    assert refusal(lambda: one.checkpoint(lease, chunk(0, SIZE - 1), SIGNATURE)) == "conflict"
    move_on(one, lease, State.ACTIVE, State.FINALIZING)
    one.checkpoint(lease, chunk(0, SIZE - 1), SIGNATURE)
    assert refusal(lambda: one.checkpoint(lease, chunk(1), SIGNATURE)) == "gap"
    assert offset_of(one) == (1, SIZE - 1, [0])


def test_no_chunk_is_larger_than_the_chunk_size(one: Checkpoints) -> None:
    lease, _ = begun(one)
    assert refusal(lambda: one.checkpoint(lease, chunk(0, SIZE + 1), SIGNATURE)) == "conflict"


@pytest.mark.parametrize("end", [State.COMPLETE, State.INCOMPLETE, State.FAILED])
def test_a_stream_that_is_not_worked_on_takes_no_chunk(end: State, one: Checkpoints) -> None:
    lease, _ = begun(one)
    move_on(one, lease, State.ACTIVE, State.FINALIZING, end)
    assert refusal(lambda: one.checkpoint(lease, chunk(0), SIGNATURE)) == "conflict"


def test_a_chunk_is_replaced_and_counted_once(one: Checkpoints) -> None:
    lease, _ = begun(one)
    grow(one, lease, 2)
    move_on(one, lease, State.ACTIVE, State.FINALIZING)
    for _ in range(2):
        one.replace(lease, chunk(0, content="patched"))
    assert chunks_of(one) == [chunk(0, content="patched"), chunk(1)]
    assert (found(one).repaired, found(one).offset) == (1, 2 * SIZE)


def test_a_chunk_that_was_put_again_unchanged_is_recorded_and_not_counted(one: Checkpoints) -> None:
    lease, _ = begun(one)
    grow(one, lease, 1)
    move_on(one, lease, State.ACTIVE, State.FINALIZING)
    again = Chunk(0, SIZE, chunk(0).sha256, "another etag", chunk(0).key, "2026-09-02")
    one.replace(lease, again)
    assert (chunks_of(one), found(one).repaired) == ([again], 0)


def test_a_growing_stream_has_nothing_replaced(one: Checkpoints) -> None:
    lease, _ = begun(one)
    grow(one, lease, 1)
    assert refusal(lambda: one.replace(lease, chunk(0, content="patched"))) == "conflict"


def test_only_what_was_recorded_can_be_replaced(one: Checkpoints) -> None:
    lease, _ = begun(one)
    move_on(one, lease, State.ACTIVE, State.FINALIZING)
    assert refusal(lambda: one.replace(lease, chunk(0))) == "gap"


def test_the_last_chunk_changes_its_size(one: Checkpoints) -> None:
    lease, _ = begun(one)
    grow(one, lease, 2)
    move_on(one, lease, State.ACTIVE, State.FINALIZING)
    one.replace(lease, chunk(1, SIZE - 1))
    assert found(one).offset == 2 * SIZE - 1


@pytest.mark.parametrize(("index", "size"), [(0, 7), (1, SIZE + 1)])
def test_no_other_chunk_changes_its_size_and_none_outgrows_the_chunk_size(
    index: int, size: int, one: Checkpoints
) -> None:
    lease, _ = begun(one)
    grow(one, lease, 2)
    move_on(one, lease, State.ACTIVE, State.FINALIZING)
    assert refusal(lambda: one.replace(lease, chunk(index, size))) == "conflict"
    assert found(one).offset == 2 * SIZE


# ---------------------------------------------------------------------- states


def test_a_stream_moves_only_from_the_state_that_it_is_in(one: Checkpoints) -> None:
    lease, _ = begun(one)
    assert refusal(lambda: move_on(one, lease, State.FINALIZING, State.COMPLETE)) == "conflict"
    assert found(one).state is State.ACTIVE


def test_a_move_that_an_older_lease_made_is_not_ours(one: Checkpoints, other: Checkpoints) -> None:
    lease, _ = begun(one)
    move_on(one, lease, State.ACTIVE, State.FINALIZING)
    let_lease_end(one)
    taken, _ = other.acquire("a.mp4@1")
    assert refusal(lambda: move_on(other, taken, State.ACTIVE, State.FINALIZING)) == "conflict"


def test_a_move_that_the_table_does_not_know_never_reaches_redis(one: Checkpoints) -> None:
    lease, _ = begun(one)
    with pytest.raises(IllegalMoveError):
        move_on(one, lease, State.ACTIVE, State.COMPLETE)
    assert one.held() == [lease]


def test_going_back_to_active_drops_exactly_the_tail(one: Checkpoints) -> None:
    lease, _ = begun(one)
    grow(one, lease, 2)
    move_on(one, lease, State.ACTIVE, State.FINALIZING)
    one.checkpoint(lease, chunk(2, 1), SIGNATURE)
    stream = one.make_active(lease, found(one))
    assert stream == found(one)
    assert offset_of(one) == (2, 2 * SIZE, [0, 1])
    move_on(one, lease, State.ACTIVE, State.FINALIZING, State.ACTIVE)
    assert offset_of(one) == (2, 2 * SIZE, [0, 1])


def test_a_failed_stream_keeps_its_chunks_and_its_reason_until_it_is_retried(one: Checkpoints) -> None:
    lease, _ = begun(one)
    grow(one, lease, 1)
    move_on(one, lease, State.ACTIVE, State.FINALIZING)
    one.checkpoint(lease, chunk(1, 1), SIGNATURE)
    one.set_state(
        lease,
        State.FINALIZING,
        State.FAILED,
        SIGNATURE,
        revision=0,
        error=RecordedError("corrupt", "\udcff ünïcode"),
    )
    assert (found(one).error, offset_of(one)) == (("corrupt", "\udcff ünïcode"), (2, SIZE + 1, [0, 1]))
    move_on(one, lease, State.FAILED, State.ACTIVE)
    assert (found(one).error, offset_of(one)) == (NO_ERROR, (1, SIZE, [0]))


def test_a_finished_stream_needs_no_chunk_records(one: Checkpoints) -> None:
    lease, _ = begun(one)
    grow(one, lease, 1)
    move_on(one, lease, State.ACTIVE, State.FINALIZING)
    one.set_state(lease, State.FINALIZING, State.COMPLETE, SIGNATURE._replace(ino=5), revision=4)
    stream = found(one)
    assert (stream.state, stream.revision, stream.signature.ino) == (State.COMPLETE, 4, 5)
    one.release(lease)
    assert one.acquire("a.mp4@1")[1] == stream
    assert offset_of(one) == (1, SIZE, [])


def test_streams_are_counted_in_the_state_that_they_are_in(one: Checkpoints) -> None:
    ends = [State.COMPLETE, State.COMPLETE, State.INCOMPLETE, State.FAILED, State.FINALIZING, State.ACTIVE]
    for number, end in enumerate(ends):
        lease, _ = begun(one, f"{number}.mp4")
        if end is not State.ACTIVE:
            move_on(one, lease, State.ACTIVE, State.FINALIZING)
        if end not in (State.ACTIVE, State.FINALIZING):
            move_on(one, lease, State.FINALIZING, end)
    expected = {State.ACTIVE: 2, State.COMPLETE: 2, State.INCOMPLETE: 1, State.FAILED: 1}
    assert one.counts() == expected
    assert sorted(one.unfinished_paths()) == ["3.mp4", "4.mp4", "5.mp4"]


# ---------------------------------------------------------------------- going on with known chunks


def reopened(checkpoints: Checkpoints, chunks: int) -> Lease:
    """A complete stream of so many full chunks and a tail, whose chunks are about to be restored."""
    lease, _ = begun(checkpoints)
    move_on(checkpoints, lease, State.ACTIVE, State.FINALIZING)
    grow(checkpoints, lease, chunks)
    checkpoints.checkpoint(lease, chunk(chunks, 1), SIGNATURE)
    move_on(checkpoints, lease, State.FINALIZING, State.COMPLETE)
    return lease


def test_a_reopened_stream_goes_on_after_its_full_chunks(one: Checkpoints) -> None:
    lease = reopened(one, 2)
    one.restore(lease, [chunk(0), chunk(1)])
    move_on(one, lease, State.COMPLETE, State.ACTIVE)
    assert offset_of(one) == (2, 2 * SIZE, [0, 1])
    one.checkpoint(lease, chunk(2), SIGNATURE)


def test_a_reopened_stream_without_a_full_chunk_begins_at_0(one: Checkpoints) -> None:
    lease = reopened(one, 0)
    one.restore(lease, [])
    move_on(one, lease, State.COMPLETE, State.ACTIVE)
    assert offset_of(one) == (0, 0, [])


def test_chunks_of_an_earlier_restore_that_was_cut_short_are_forgotten(one: Checkpoints) -> None:
    lease = reopened(one, 3)
    one.restore(lease, [chunk(0, content="stale"), chunk(1, content="stale"), chunk(2)])
    one.restore(lease, [chunk(0), chunk(1)])
    assert chunks_of(one) == [chunk(0), chunk(1)]


@pytest.mark.parametrize("before", [State.COMPLETE, State.ACTIVE])
def test_a_restore_that_is_cut_short_leaves_a_stream_that_can_go_on(
    before: State, proxied: Checkpoints, proxy: FaultProxy, other: Checkpoints
) -> None:
    known = [chunk(index) for index in range(2 * LOOKUP_BATCH + 200)]
    lease = reopened(proxied, 1) if before is State.COMPLETE else begun(proxied)[0]
    proxied._redis.set_retry(Retry(NoBackoff(), 0))
    proxy.reset_after(120_000)  # within the second batch of some 80 kB
    with pytest.raises(StoreUnavailable):
        proxied.restore(lease, known)
    let_lease_end(other)
    taken, _ = other.acquire("a.mp4@1")
    assert offset_of(other) == (LOOKUP_BATCH, LOOKUP_BATCH * SIZE, list(range(LOOKUP_BATCH)))
    if before is State.COMPLETE:
        other.restore(taken, known)
        move_on(other, taken, State.COMPLETE, State.ACTIVE)
        assert chunks_of(other) == known
    else:
        other.checkpoint(taken, chunk(LOOKUP_BATCH), SIGNATURE)


def test_a_stream_that_has_chunks_takes_no_others_back(one: Checkpoints) -> None:
    lease, _ = begun(one)
    grow(one, lease, 3)
    assert refusal(lambda: one.restore(lease, [chunk(0, content="other")])) == "gap"
    assert offset_of(one) == (3, 3 * SIZE, [0, 1, 2])


def test_a_reopened_stream_whose_chunks_nobody_put_back_begins_at_0(one: Checkpoints) -> None:
    lease = reopened(one, 2)
    move_on(one, lease, State.COMPLETE, State.ACTIVE)
    assert offset_of(one) == (0, 0, [])


def test_a_stream_of_which_a_chunk_record_was_lost_begins_at_0(one: Checkpoints) -> None:
    lease, _ = begun(one)
    grow(one, lease, 3)
    one.release(lease)
    one._redis.hdel(one._chunks_key("a.mp4@1"), "1")
    lease, stream = one.acquire("a.mp4@1")
    assert (stream.next_index, stream.offset, chunks_of(one)) == (0, 0, [])
    grow(one, lease, 3)


# ---------------------------------------------------------------------- paths


def test_a_moved_stream_is_found_where_it_is_now(one: Checkpoints) -> None:
    lease, _ = begun(one)
    for _ in range(2):
        one.move(lease, "b.mp4", replaces="")
    assert one.find("a.mp4") is None
    assert (found(one, "b.mp4").stream_id, found(one, "b.mp4").path) == ("a.mp4@1", "b.mp4")
    inode = one.find_inode(SIGNATURE.dev, SIGNATURE.ino)
    assert inode
    assert inode.path == "b.mp4"


def test_a_stream_moves_only_over_the_one_that_it_replaces(one: Checkpoints) -> None:
    lease, _ = begun(one)
    replaced, _ = begun(one, "b.mp4")
    assert refusal(lambda: one.move(lease, "b.mp4", replaces="b.mp4@1")) == "conflict", "it is unfinished"
    finish(one, replaced)
    assert refusal(lambda: one.move(lease, "b.mp4", replaces="")) == "conflict"
    one.move(lease, "b.mp4", replaces="b.mp4@1")
    assert found(one, "b.mp4").stream_id == "a.mp4@1"


def test_a_stream_that_was_replaced_at_its_path_leaves_it_to_the_next(one: Checkpoints) -> None:
    lease, _ = begun(one)
    finish(one, lease)
    begun(one, replaces="a.mp4@1")
    one.move(lease, "b.mp4", replaces="")
    assert found(one, "a.mp4").stream_id == "a.mp4@2"
    assert found(one, "b.mp4").stream_id == "a.mp4@1"


def test_a_finished_stream_is_not_reopened_when_another_has_its_path(one: Checkpoints) -> None:
    lease, _ = begun(one)
    finish(one, lease)
    begun(one, replaces="a.mp4@1")
    assert refusal(lambda: one.restore(lease, [chunk(0)])) == "conflict"
    assert refusal(lambda: move_on(one, lease, State.COMPLETE, State.ACTIVE)) == "conflict"
    assert chunks_of(one) == []
    assert one.counts()[State.ACTIVE] == 1


def test_500_paths_are_looked_up_in_one_round_trip(
    proxied: Checkpoints, proxy: FaultProxy, one: Checkpoints
) -> None:
    known = [f"{number}.mp4" for number in range(LOOKUP_BATCH)]
    for name in known[::2]:
        one.release(begun(one, name)[0])
    proxied.find("the script is loaded")
    before = proxy.requests
    streams = proxied.find_all(known)
    assert proxy.requests - before == 1
    assert [stream.path if stream else None for stream in streams[:4]] == ["0.mp4", None, "2.mp4", None]
    assert sum(stream is not None for stream in streams) == LOOKUP_BATCH // 2


def test_nothing_is_asked_about_no_path(one: Checkpoints) -> None:
    assert one.find_all([]) == []


NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name).map(os.fsdecode)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES)
def test_a_path_of_any_bytes_comes_back_as_it_was(name: str, one: Checkpoints) -> None:
    one._redis.flushdb()
    lease, stream = begun(one, "k")
    one.move(lease, name, replaces="")
    assert (found(one, name).path, one.unfinished_paths()) == (name, [name])
    assert found(one, name).stream_id == stream.stream_id


# ---------------------------------------------------------------------- lost replies, restarts


Step = Callable[[Checkpoints, Lease], object]

STORY: list[Step] = [
    lambda c, lease: c.checkpoint(lease, chunk(0), SIGNATURE),
    lambda c, lease: c.checkpoint(lease, chunk(1), SIGNATURE),
    lambda c, lease: move_on(c, lease, State.ACTIVE, State.FINALIZING),
    lambda c, lease: c.replace(lease, chunk(0, content="patched")),
    lambda c, lease: c.checkpoint(lease, chunk(2, 1), SIGNATURE),
    lambda c, lease: move_on(c, lease, State.FINALIZING, State.ACTIVE),
    lambda c, lease: move_on(c, lease, State.ACTIVE, State.FINALIZING),
    lambda c, lease: c.checkpoint(lease, chunk(2, 2), SIGNATURE),
    lambda c, lease: move_on(c, lease, State.FINALIZING, State.COMPLETE),
    lambda c, lease: c.restore(lease, [chunk(0), chunk(1)]),
    lambda c, lease: move_on(c, lease, State.COMPLETE, State.ACTIVE),
    lambda c, lease: c.move(lease, "b.mp4", replaces=""),
    lambda c, _: c.renew_held(),
    lambda c, lease: c.release(lease),
    lambda c, _: c.release(c.acquire("a.mp4@1")[0]),
]
"""Every write that there is, in the order of a life; each step is a request to Redis, the last one two."""

OF_THE_MOMENT = ("owner", "epoch", "moved_in_epoch", "lease_until", "started_at", "updated_at")


def written(checkpoints: Checkpoints) -> dict[str, Any]:
    """All that Redis holds, without what differs from run to run."""
    redis, base = checkpoints._redis, checkpoints._base
    record: Any = redis.hgetall(checkpoints._stream_key("a.mp4@1"))
    return {
        "record": {name: value for name, value in record.items() if name not in OF_THE_MOMENT},
        "chunks": chunks_of(checkpoints),
        "hashes": [redis.hgetall(base + name) for name in ("paths", "generations", "inodes")],
        "states": [
            redis.zrange(base + name, 0, -1) for name in ("active", "complete", "incomplete", "failed")
        ],
    }


def test_a_write_whose_reply_was_lost_ran_once(
    proxied: Checkpoints, proxy: FaultProxy, valkey: ValkeyServer, redis_namespace: str
) -> None:
    with process(valkey.url, redis_namespace + "-undisturbed") as undisturbed:
        lease, _ = begun(undisturbed)
        for step in STORY:
            step(undisturbed, lease)
        expected = written(undisturbed)
    proxy.lose_reply(containing=b"EVALSHA")
    lease, _ = begun(proxied)
    for step in STORY:
        proxy.lose_reply(containing=b"EVALSHA")
        step(proxied, lease)
    assert written(proxied) == expected
    assert proxy.struck == 1 + len(STORY)
    assert proxied.held() == []


def test_a_creation_whose_reply_was_lost_is_no_race_but_the_work_of_another_is(
    proxied: Checkpoints, proxy: FaultProxy, one: Checkpoints
) -> None:
    proxied.find("b.mp4")
    begun(one, "b.mp4")
    proxy.lose_reply(containing=b"EVALSHA")
    lease, stream = begun(proxied)
    assert (proxy.struck, stream.stream_id, lease.epoch) == (1, "a.mp4@1", field(one, "epoch"))
    proxied.checkpoint(lease, chunk(0), SIGNATURE)
    wanted = RecordingId("a.mp4", 1, OWNER)
    assert proxied.create("a.mp4", wanted, SIGNATURE, replaces="", chunk_size=SIZE) is None


def test_a_stream_of_another_file_is_not_taken_for_our_own_lost_creation(one: Checkpoints) -> None:
    begun(one)
    wanted = RecordingId("a.mp4", 1, OWNER)
    for other in (SIGNATURE._replace(ino=1), SIGNATURE._replace(dev=1)):
        assert one.create("a.mp4", wanted, other, replaces="", chunk_size=SIZE) is None


def test_putting_chunks_back_into_a_new_stream_survives_a_lost_reply(
    proxied: Checkpoints, proxy: FaultProxy
) -> None:
    lease, _ = begun(proxied)
    proxied._redis.script_load(scripts.RESTORE)
    proxy.lose_reply(containing=b"EVALSHA")
    proxied.restore(lease, [chunk(0), chunk(1)])
    assert (proxy.struck, offset_of(proxied)) == (1, (2, 2 * SIZE, [0, 1]))


def test_scripts_are_loaded_again_when_redis_has_lost_them(one: Checkpoints) -> None:
    lease, _ = begun(one)
    one._redis.script_flush()
    grow(one, lease, 1)
    one._redis.script_flush()
    assert found(one).next_index == 1


def test_work_goes_on_after_redis_was_killed_and_started_again(private_valkey: ValkeyServer) -> None:
    with process(private_valkey.url, "ns") as checkpoints:
        lease, _ = begun(checkpoints)
        grow(checkpoints, lease, 1)
        private_valkey.kill()
        with pytest.raises(StoreUnavailable):
            checkpoints.renew_held()
        private_valkey.start()
        checkpoints.checkpoint(lease, chunk(1), SIGNATURE)
        assert offset_of(checkpoints) == (2, 2 * SIZE, [0, 1])


# ---------------------------------------------------------------------- whose records these are


def test_records_of_a_newer_layout_are_refused(one: Checkpoints) -> None:
    one.prepare("bucket videos")
    one._redis.set(one._base + "schema", "4")
    with pytest.raises(StoreUnavailable, match="have layout 4, this version knows 3; update") as refused:
        one.prepare("bucket videos")
    assert (refused.value.refused, refused.value.kind) == (True, "schema")


def test_records_of_another_bucket_are_refused(one: Checkpoints, other: Checkpoints) -> None:
    one.prepare("bucket videos")
    other.prepare("bucket videos")
    with pytest.raises(
        StoreUnavailable, match="about bucket videos, the settings name bucket films"
    ) as refused:
        other.prepare("bucket films")
    assert (refused.value.refused, refused.value.kind) == (True, "schema")


def test_a_kind_of_error_that_this_version_does_not_know_is_none_and_its_message_stays(
    one: Checkpoints,
) -> None:
    lease, stream = begun(one)
    one.release(lease)
    one.set_last_error(stream.path, RecordedError("source_io", "the disk is slow"))
    assert found(one).error == ("source_io", "the disk is slow")
    one._redis.hset(one._stream_key(stream.stream_id), "error_kind", "of another version")
    assert found(one).error == ("", "the disk is slow")
    one.set_last_error(stream.path, NO_ERROR)
    assert not found(one).error
