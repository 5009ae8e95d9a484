"""Any calls in any order by three processes: the records stay what a simple model says they are."""

import hashlib
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from checkpoint import Checkpoints, Lease
from errors import LeaseLost
from recording.layout import BucketLayout, RecordingId
from recording.stream import LEGAL_MOVES, UNFINISHED, Chunk, Signature, State
from redis_store.client import connect_url
from tests.support.servers import ValkeyServer

SIZE = 100
SIGNATURE = Signature(1, 2, 3, 4, 5)
PROCESSES = st.sampled_from(range(3))


def chunk(index: int, size: int, content: int) -> Chunk:
    return Chunk(
        index,
        size,
        hashlib.sha256(f"{size} {content}".encode()).hexdigest(),
        "etag",
        f"key of {index}",
        "2026-09-01T00:00:00.000Z",
    )


@dataclass
class Record:
    """What a stream's record must hold; `holder` is a process and an epoch."""

    holder: tuple[int, str] | None
    state: State = State.ACTIVE
    chunks: list[Chunk] = field(default_factory=list)
    repaired: int = 0
    ended: bool = False
    moved_in: str = ""
    next_index: int = 0
    offset: int = 0

    def put(self, chunks: list[Chunk]) -> None:
        self.chunks = chunks
        self.next_index, self.offset = len(chunks), sum(chunk.size for chunk in chunks)

    @property
    def has_tail(self) -> bool:
        return self.offset % SIZE != 0


class Machine(RuleBasedStateMachine):
    """Three processes on one path."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.open = ExitStack()
        namespace = uuid.uuid4().hex
        self.processes = [
            Checkpoints(
                self.open.enter_context(connect_url(self.url)), namespace=namespace, owner=f"owner {name}"
            )
            for name in range(3)
        ]
        self.redis: Any = self.processes[0]._redis
        self.records: dict[str, Record] = {}
        self.newest = ""
        self.held: list[dict[str, Lease]] = [{}, {}, {}]
        self.last_epoch = 0

    leases = Bundle("leases")

    # ------------------------------------------------------------------ leases

    @initialize(target=leases)
    def begin(self) -> tuple[int, Lease]:
        return self.create(0)

    def ask_to_begin(self, process: int) -> Any:
        return self.processes[process].create(
            "a.mp4",
            RecordingId("a.mp4", 1, "7f3a91c2"),
            SIGNATURE,
            replaces=self.newest,
            chunk_size=SIZE,
        )

    def create(self, process: int) -> tuple[int, Lease]:
        generation = int(self.newest.rpartition("@")[2] or 0) + 1
        created = self.ask_to_begin(process)
        assert created
        lease, stream = created
        assert stream.stream_id == f"a.mp4@{generation}"
        self.newest = stream.stream_id
        self.records[stream.stream_id] = Record((process, lease.epoch))
        return self.granted(process, lease)

    def granted(self, process: int, lease: Lease) -> tuple[int, Lease]:
        assert int(lease.epoch) > self.last_epoch, "an epoch that is not higher than all before"
        self.last_epoch = int(lease.epoch)
        self.held[process][lease.stream_id] = lease
        return process, lease

    @rule(target=leases, process=PROCESSES)
    def begin_the_next_generation(self, process: int) -> Any:
        if self.newest and self.records[self.newest].state in UNFINISHED:
            assert self.ask_to_begin(process) is None, "an unfinished stream lost its path"
            return multiple()
        return self.create(process)

    @rule(target=leases, process=PROCESSES)
    def begin_what_another_has_begun(self, process: int) -> Any:
        if not self.newest:
            return multiple()
        created = self.processes[process].create(
            "a.mp4", RecordingId("a.mp4", 1, "7f3a91c2"), SIGNATURE, replaces="", chunk_size=SIZE
        )
        record = self.records[self.newest]
        mine = record.holder and record.holder[0] == process
        if mine and record.state is State.ACTIVE and not record.chunks:
            assert created, "a repeated creation must answer as the first one did"
            lease = created[0]
            assert record.holder == (process, lease.epoch)
            self.held[process][lease.stream_id] = lease
            return process, lease
        assert created is None
        return multiple()

    @rule(target=leases, process=PROCESSES, which=st.sampled_from(["newest", "oldest"]))
    def acquire(self, process: int, which: str) -> Any:
        stream_id = self.newest if which == "newest" or not self.records else min(self.records)
        record = self.records.get(stream_id)
        expected = None
        if stream_id in self.held[process]:
            expected = "busy"
        elif record is None:
            expected = "gone"
        elif record.holder and record.holder[0] != process and not record.ended:
            expected = "busy"
        try:
            lease, stream = self.processes[process].acquire(stream_id)
        except LeaseLost as lost:
            self.check_reason(lost, expected)
            return multiple()
        assert expected is None
        assert record
        if record.state in UNFINISHED and len(record.chunks) != record.next_index:
            record.put([])
        assert stream.next_index == record.next_index
        record.holder, record.ended = (process, lease.epoch), False
        return self.granted(process, lease)

    @rule(stream_id=st.sampled_from(["a.mp4@1", "a.mp4@2"]))
    def a_lease_ends(self, stream_id: str) -> None:
        record = self.records.get(stream_id)
        if record:
            self.redis.hset(self.processes[0]._stream_key(stream_id), "lease_until", "1")
            record.ended = True

    @rule(held=consumes(leases))
    def release(self, held: tuple[int, Lease]) -> None:
        process, lease = held
        self.processes[process].release(lease)
        self.forget(process, lease)
        record = self.records.get(lease.stream_id)
        if record and record.holder == (process, lease.epoch):
            record.holder, record.ended = None, False

    @rule(held=leases)
    def drop(self, held: tuple[int, Lease]) -> None:
        process, lease = held
        self.processes[process].drop(lease)
        self.forget(process, lease)

    def forget(self, process: int, lease: Lease) -> None:
        if self.held[process].get(lease.stream_id) is lease:
            del self.held[process][lease.stream_id]

    @rule(process=PROCESSES)
    def renew(self, process: int) -> None:
        self.processes[process].renew_held()
        for lease in list(self.held[process].values()):
            record = self.records.get(lease.stream_id)
            if record and record.holder == (process, lease.epoch):
                record.ended = False
            else:
                self.forget(process, lease)

    # ------------------------------------------------------------------ writes

    def answer(self, held: tuple[int, Lease], expected: str, write: Any) -> Record | None:
        """Do a write; give the record if it must have gone through."""
        process, lease = held
        record = self.records.get(lease.stream_id)
        if record is None:
            expected = "gone"
        elif record.holder != (process, lease.epoch):
            expected = "fenced"
        try:
            write(self.processes[process], lease)
        except LeaseLost as lost:
            self.check_reason(lost, expected)
            self.forget(process, lease)
            return None
        assert expected in ("ok", "dup")
        return record if expected == "ok" else None

    def check_reason(self, lost: LeaseLost, expected: str | None) -> None:
        assert lost.reason == expected

    def record_of(self, held: tuple[int, Lease]) -> Record:
        return self.records.get(held[1].stream_id) or Record(None)

    def may_begin_again(self, held: tuple[int, Lease]) -> bool:
        """Return whether a stream is unfinished, or finished and still the one that its path leads to."""
        return self.record_of(held).state in UNFINISHED or held[1].stream_id == self.newest

    @rule(
        held=leases,
        ahead=st.sampled_from([0, 0, 0, -1, 1]),
        size=st.sampled_from([SIZE, SIZE, 7, SIZE + 1]),
        content=st.integers(1, 2),
    )
    def checkpoint(self, held: tuple[int, Lease], ahead: int, size: int, content: int) -> None:
        record = self.record_of(held)
        index = max(record.next_index + ahead, 0)
        new = chunk(index, size, content)
        if record.state not in UNFINISHED:
            expected = "conflict"
        elif index < record.next_index:
            same = record.chunks[index] == new
            expected = "dup" if same else "conflict"
        elif index > record.next_index or record.has_tail:
            expected = "gap"
        elif size > SIZE or (size < SIZE and record.state is State.ACTIVE):
            expected = "conflict"
        else:
            expected = "ok"
        if written := self.answer(held, expected, lambda c, lease: c.checkpoint(lease, new, SIGNATURE)):
            written.put([*written.chunks, new])

    @rule(
        held=leases,
        index=st.integers(0, 3),
        size=st.sampled_from([SIZE, SIZE, 7, SIZE + 1]),
        content=st.integers(1, 2),
    )
    def replace(self, held: tuple[int, Lease], index: int, size: int, content: int) -> None:
        record = self.record_of(held)
        new = chunk(index, size, content)
        if record.state is not State.FINALIZING:
            expected = "conflict"
        elif index >= record.next_index:
            expected = "gap"
        elif record.chunks[index] == new:
            expected = "dup"
        elif size > SIZE or (size != record.chunks[index].size and index != record.next_index - 1):
            expected = "conflict"
        else:
            expected = "ok"
        if written := self.answer(held, expected, lambda c, lease: c.replace(lease, new)):
            written.put([*written.chunks[:index], new, *written.chunks[index + 1 :]])
            written.repaired += 1

    @rule(held=leases, move=st.sampled_from(sorted(LEGAL_MOVES)))
    def move_on(self, held: tuple[int, Lease], move: tuple[State, State]) -> None:
        self.moved(held, *move)

    @rule(held=leases, follow=st.integers(0, 3))
    def move_on_from_where_it_is(self, held: tuple[int, Lease], follow: int) -> None:
        state = self.record_of(held).state
        moves = [new for old, new in sorted(LEGAL_MOVES) if old is state]
        self.moved(held, state, moves[follow % len(moves)])

    def moved(self, held: tuple[int, Lease], old: State, new: State) -> None:
        record, epoch = self.record_of(held), held[1].epoch
        if new is record.state and record.moved_in == epoch:
            expected = "dup"
        else:
            expected = "ok" if record.state is old and self.may_begin_again(held) else "conflict"
        written = self.answer(
            held, expected, lambda c, lease: c.set_state(lease, old, new, SIGNATURE, revision=0)
        )
        if written:
            written.state, written.moved_in = new, epoch
            if new is State.ACTIVE:
                full = written.next_index - written.has_tail
                written.put(written.chunks[:full] if len(written.chunks) >= full else [])
            elif new in (State.COMPLETE, State.INCOMPLETE):
                written.chunks = []

    @rule(held=leases, count=st.integers(0, 3))
    def restore(self, held: tuple[int, Lease], count: int) -> None:
        record = self.record_of(held)
        chunks = [chunk(index, SIZE, 1) for index in range(count)]
        if not self.may_begin_again(held):
            expected = "conflict"
        elif record.state in UNFINISHED and count == record.next_index and count:
            expected = "dup"
        elif record.state in UNFINISHED and record.next_index:
            expected = "gap"
        else:
            expected = "ok"
        if written := self.answer(held, expected, lambda c, lease: c.restore(lease, chunks)):
            written.put(chunks)

    # ------------------------------------------------------------------ Redis loses it

    @rule()
    def the_newest_chunk_record_is_lost(self) -> None:
        record = self.records.get(self.newest)
        if record and record.chunks and record.holder is None:
            index = record.chunks.pop().index
            self.redis.hdel(self.processes[0]._chunks_key(self.newest), str(index))

    @rule()
    def everything_is_lost(self) -> None:
        self.redis.delete(*(self.redis.keys(f"{self.processes[0]._base}*") or ["-"]))
        self.records.clear()
        self.newest = ""

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def the_records_are_what_the_model_says(self) -> None:
        reader = self.processes[0]
        for stream_id, record in self.records.items():
            stream = reader._load(stream_id)
            assert stream
            assert (stream.state, stream.next_index, stream.offset, stream.repaired) == (
                record.state,
                record.next_index,
                record.offset,
                record.repaired,
            )
            claimed = [replace(known, key="") for known in reader.chunks(stream, BucketLayout(""))]
            assert claimed == [replace(known, key="") for known in record.chunks]
            if record.state in UNFINISHED and record.holder:
                assert [known.index for known in record.chunks] == list(range(stream.next_index))
                assert stream.offset == sum(known.size for known in record.chunks)
        states = [record.state for record in self.records.values()]
        active = sum(state in UNFINISHED for state in states)
        others = {state: states.count(state) for state in (State.COMPLETE, State.INCOMPLETE, State.FAILED)}
        assert reader.counts() == {State.ACTIVE: active, **others}

    @invariant()
    def every_process_knows_what_it_holds(self) -> None:
        for process, held in zip(self.processes, self.held, strict=True):
            assert {lease.stream_id: lease for lease in process.held()} == held

    def teardown(self) -> None:
        self.everything_is_lost()
        self.open.close()


def test_no_order_of_calls_breaks_the_promises(valkey: ValkeyServer) -> None:
    class Connected(Machine):
        url = valkey.url

    run_state_machine_as_test(
        Connected,
        settings=settings(
            max_examples=40,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
