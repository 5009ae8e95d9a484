"""Who is next: lanes in turn, one worker a path, nothing lost, finalizations bounded."""

import random
import threading
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from recording.stream import Signature
from scheduling.schedule import DEBOUNCE_SECONDS, Job, Lane, Schedule
from tests.support.harness import Clock
from tests.support.servers import wait_until

IDLE = Signature(1, 2, 3, 4, 5)
LATER = IDLE._replace(size=9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def schedule(clock: Clock) -> Schedule:
    return Schedule(max_finishing=2, clock=clock)


def taken(schedule: Schedule) -> str:
    job = schedule.take(0)
    assert job
    return job.path


def all_taken(schedule: Schedule) -> list[str]:
    found = []
    while job := schedule.take(0):
        found.append(job.path)
    return found


# ---------------------------------------------------------------------- notices


def test_nothing_is_due_at_first(schedule: Schedule) -> None:
    assert schedule.take(0) is None
    assert len(schedule) == 0


def test_a_path_noticed_often_gets_one_turn(schedule: Schedule) -> None:
    for _ in range(3):
        schedule.notice("a", lane=Lane.BULK)
        schedule.grown("a")
        schedule.touched("a")
    assert len(schedule) == 1
    assert all_taken(schedule) == ["a"]


def test_a_burst_of_events_ends_in_one_turn_a_moment_later(schedule: Schedule, clock: Clock) -> None:
    schedule.touched("a")
    clock.now += DEBOUNCE_SECONDS * 0.9
    schedule.touched("a")
    assert schedule.take(0) is None
    clock.now += DEBOUNCE_SECONDS * 0.2
    assert all_taken(schedule) == ["a"]


def test_turns_are_given_in_the_order_of_their_notices(schedule: Schedule) -> None:
    for path in "cab":
        schedule.notice(path, lane=Lane.BULK)
    assert all_taken(schedule) == ["c", "a", "b"]


def test_lanes_are_served_in_turn(schedule: Schedule) -> None:
    for number in range(3):
        schedule.notice(f"bulk{number}", lane=Lane.BULK)
        schedule.notice(f"live{number}", lane=Lane.LIVE)
        schedule.notice(f"finishing{number}", lane=Lane.FINISHING)
    assert all_taken(schedule) == [
        f"{lane}{number}" for number in range(3) for lane in ("live", "finishing", "bulk")
    ]


def test_a_backlog_does_not_starve_a_live_source(schedule: Schedule) -> None:
    schedule.notice("backlog", lane=Lane.BULK)
    for _ in range(5):
        job = schedule.take(0)
        assert job == Job("backlog")
        schedule.grown("live")
        schedule.again(job, lane=Lane.BULK)
        assert taken(schedule) == "live"
        schedule.done("live")


def test_a_source_in_a_backlog_moves_up_when_it_grows(schedule: Schedule) -> None:
    for path in "abc":
        schedule.notice(path, lane=Lane.BULK)
    schedule.grown("c")
    assert all_taken(schedule) == ["c", "a", "b"]


def test_what_was_put_off_stays_put_off_whatever_happens(schedule: Schedule, clock: Clock) -> None:
    schedule.notice("a", lane=Lane.LIVE)
    job = schedule.take(0)
    assert job
    schedule.again(job, lane=Lane.BULK, delay=30)
    schedule.grown("a")
    schedule.touched("a")
    schedule.idle("a", IDLE)
    clock.now += 29
    assert schedule.take(0) is None
    clock.now += 1
    assert schedule.take(0) == Job("a", idle=IDLE)


# ---------------------------------------------------------------------- one worker a path


def test_a_path_with_a_worker_is_given_to_no_other(schedule: Schedule, clock: Clock) -> None:
    schedule.grown("a")
    assert taken(schedule) == "a"
    schedule.grown("a")
    schedule.touched("a")
    schedule.idle("a", IDLE)
    clock.now += 10
    assert schedule.take(0) is None


def test_a_notice_during_a_turn_gives_another_turn(schedule: Schedule, clock: Clock) -> None:
    schedule.grown("a")
    assert taken(schedule) == "a"
    schedule.grown("a")
    schedule.done("a")
    clock.now += DEBOUNCE_SECONDS
    assert all_taken(schedule) == ["a"]


def test_notices_during_turns_do_not_make_a_busy_loop(schedule: Schedule) -> None:
    schedule.grown("a")
    assert taken(schedule) == "a"
    schedule.touched("a")
    schedule.done("a")
    assert schedule.take(0) is None
    assert len(schedule) == 1


def test_a_turn_without_a_notice_is_the_last(schedule: Schedule, clock: Clock) -> None:
    schedule.grown("a")
    assert taken(schedule) == "a"
    schedule.done("a")
    clock.now += 100
    assert schedule.take(0) is None
    assert len(schedule) == 0


def test_a_backlog_that_was_seen_to_grow_goes_on_as_live(schedule: Schedule) -> None:
    schedule.notice("a", lane=Lane.BULK)
    schedule.notice("b", lane=Lane.BULK)
    job = schedule.take(0)
    assert job
    schedule.grown("a")
    schedule.again(job, lane=Lane.BULK)
    assert all_taken(schedule) == ["a", "b"]


def test_a_notice_during_a_turn_that_asks_for_more_gives_one_turn(schedule: Schedule, clock: Clock) -> None:
    schedule.notice("a", lane=Lane.BULK)
    job = schedule.take(0)
    assert job
    schedule.notice("a", lane=Lane.BULK)
    schedule.again(job, lane=Lane.BULK)
    assert taken(schedule) == "a"
    schedule.done("a")
    clock.now += 100
    assert schedule.take(0) is None


# ---------------------------------------------------------------------- orders


def test_an_order_is_given_with_the_next_turn_and_once(schedule: Schedule) -> None:
    schedule.idle("a", IDLE)
    assert schedule.take(0) == Job("a", idle=IDLE)
    schedule.done("a")
    schedule.grown("a")
    assert schedule.take(0) == Job("a")


def test_the_last_order_counts(schedule: Schedule) -> None:
    schedule.idle("a", IDLE)
    schedule.idle("a", LATER)
    schedule.gone("b")
    schedule.idle("b", IDLE)
    assert schedule.take(0) == Job("a", idle=LATER)
    assert schedule.take(0) == Job("b", idle=IDLE)


@pytest.mark.parametrize("notice", ["grown", "touched"])
def test_an_order_is_carried_by_a_turn_that_waits_already(
    schedule: Schedule, clock: Clock, notice: str
) -> None:
    getattr(schedule, notice)("a")
    schedule.gone("a")
    clock.now += DEBOUNCE_SECONDS
    assert schedule.take(0) == Job("a", gone=True)
    schedule.done("a")
    assert schedule.take(0) is None


def test_an_order_during_a_turn_is_carried_out_after_it(schedule: Schedule) -> None:
    schedule.grown("a")
    assert schedule.take(0) == Job("a")
    schedule.idle("a", IDLE)
    schedule.done("a")
    schedule._clock.now += DEBOUNCE_SECONDS  # type: ignore[attr-defined]
    assert schedule.take(0) == Job("a", idle=IDLE)


@pytest.mark.parametrize("job", [Job("a", idle=IDLE), Job("a", gone=True)])
def test_an_order_that_could_not_be_carried_out_is_kept(schedule: Schedule, clock: Clock, job: Job) -> None:
    schedule._set_pending(job)
    assert schedule.take(0) == job
    schedule.again(job, lane=Lane.BULK, delay=5, keep_job=True)
    clock.now += 5
    assert schedule.take(0) == job


def test_a_newer_order_replaces_one_that_is_kept(schedule: Schedule) -> None:
    schedule.idle("a", IDLE)
    job = schedule.take(0)
    assert job
    schedule.idle("a", LATER)
    schedule.again(job, lane=Lane.BULK, keep_job=True)
    assert schedule.take(0) == Job("a", idle=LATER)


def test_an_order_that_was_carried_out_is_not_given_again(schedule: Schedule) -> None:
    schedule.idle("a", IDLE)
    job = schedule.take(0)
    assert job
    schedule.again(job, lane=Lane.FINISHING)
    assert schedule.take(0) == Job("a")


# ---------------------------------------------------------------------- finalizations


def begun(schedule: Schedule, *paths: str) -> None:
    for path in paths:
        schedule.idle(path, IDLE)
    for job in [schedule.take(0) for _ in paths]:
        assert job
        assert job.idle
        schedule.again(job, lane=Lane.FINISHING)


def test_no_more_finalizations_begin_than_may_be_under_way(schedule: Schedule) -> None:
    begun(schedule, "a", "b")
    schedule.idle("c", IDLE)
    for path in ("a", "b", "a", "b"):
        job = schedule.take(0)
        assert job == Job(path)
        assert len(schedule) == 2
        schedule.again(job, lane=Lane.FINISHING)


def test_the_next_finalization_begins_when_one_has_ended(schedule: Schedule) -> None:
    begun(schedule, "a", "b")
    schedule.idle("c", IDLE)
    schedule.idle("d", IDLE)
    job = schedule.take(0)
    assert job
    schedule.done(job.path)
    assert [taken(schedule), taken(schedule)] == ["c", "b"]
    assert schedule.take(0) is None


def test_finalizations_whose_first_turn_is_under_way_count(schedule: Schedule) -> None:
    for path in "abc":
        schedule.idle(path, IDLE)
    assert [taken(schedule), taken(schedule)] == ["a", "b"]
    assert schedule.take(0) is None


def test_other_work_goes_on_while_finalizations_wait(schedule: Schedule) -> None:
    begun(schedule, "a", "b")
    for number in range(100):
        schedule.idle(f"idle{number}", IDLE)
    schedule.notice("backlog", lane=Lane.BULK)
    schedule.gone("vanished")
    schedule.grown("live")
    assert set(all_taken(schedule)) == {"a", "b", "backlog", "vanished", "live"}
    assert len(schedule) == 100


def test_a_source_whose_finalization_waits_moves_up_when_it_grows(schedule: Schedule) -> None:
    begun(schedule, "a", "b")
    schedule.idle("c", IDLE)
    assert all_taken(schedule) == ["a", "b"]
    schedule.grown("c")
    assert schedule.take(0) == Job("c", idle=IDLE)  # the turn sees that the order is stale


def test_a_finalization_that_was_put_off_does_not_keep_others_from_theirs(schedule: Schedule) -> None:
    for path in ("bad1", "bad2"):
        schedule.idle(path, IDLE)
        job = schedule.take(0)
        assert job
        schedule.again(job, lane=Lane.BULK, delay=30, keep_job=True)
    schedule.idle("good", IDLE)
    assert all_taken(schedule) == ["good"]


def test_a_finalization_under_way_takes_a_new_order_at_once(schedule: Schedule) -> None:
    begun(schedule, "a", "b")
    schedule.idle("a", LATER)
    assert schedule.take(0) == Job("a", idle=LATER)


# ---------------------------------------------------------------------- waiting


def test_a_waiting_worker_gets_what_is_noticed() -> None:
    schedule = Schedule(max_finishing=2)
    found: list[Job | None] = []
    worker = threading.Thread(target=lambda: found.append(schedule.take(30)))
    worker.start()
    wait_until(lambda: schedule._changed._waiters)  # type: ignore[attr-defined]
    schedule.grown("a")
    worker.join(10)
    assert found == [Job("a")]


def test_a_waiting_worker_gets_the_finalization_that_may_begin_now() -> None:
    schedule = Schedule(max_finishing=2)
    for path in "abc":
        schedule.idle(path, IDLE)
    assert [taken(schedule), taken(schedule), schedule.take(0)] == ["a", "b", None]
    found: list[Job | None] = []
    worker = threading.Thread(target=lambda: found.append(schedule.take(30)))
    worker.start()
    wait_until(lambda: schedule._changed._waiters)  # type: ignore[attr-defined]
    schedule.done("a")
    worker.join(10)
    assert found == [Job("c", idle=IDLE)]


def test_nobody_waits_for_work_after_the_end() -> None:
    schedule = Schedule(max_finishing=2)
    schedule.grown("a")
    schedule.close()
    assert schedule.take(30) is None
    worker = threading.Thread(target=lambda: schedule.take(30))
    worker.start()
    worker.join(10)
    assert not worker.is_alive()


def test_a_worker_that_waits_when_the_end_comes_is_let_go() -> None:
    schedule = Schedule(max_finishing=2)
    worker = threading.Thread(target=lambda: schedule.take(30))
    worker.start()
    wait_until(lambda: schedule._changed._waiters)  # type: ignore[attr-defined]
    schedule.close()
    worker.join(10)
    assert not worker.is_alive()


# ---------------------------------------------------------------------- under any sequence of calls

PATHS = [f"p{number}" for number in range(6)]
any_path = st.sampled_from(PATHS)


class AnySequence(RuleBasedStateMachine):
    """Whatever is called in whatever order: a path is in one place, and each notice leads to a later turn."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.schedule = Schedule(max_finishing=2, clock=self.clock)
        self.running: dict[str, Job] = {}
        self.owed: set[str] = set()
        self.orders: dict[str, Job] = {}

    @rule(path=any_path, lane=st.sampled_from([Lane.LIVE, Lane.BULK]), delay=st.sampled_from([0.0, 0.1]))
    def notice(self, path: str, lane: Lane, delay: float) -> None:
        self.schedule.notice(path, lane=lane, delay=delay)
        self.owed.add(path)

    @rule(path=any_path, gone=st.booleans())
    def order(self, path: str, *, gone: bool) -> None:
        job = Job(path, gone=True) if gone else Job(path, idle=IDLE)
        self.schedule._set_pending(job)
        self.owed.add(path)
        self.orders[path] = job

    @rule()
    def take(self) -> None:
        job = self.schedule.take(0)
        if job:
            self.begin(job)

    def begin(self, job: Job) -> None:
        assert job.path not in self.running
        assert job.path in self.owed, "a turn that nobody asked for"
        assert job == self.orders.pop(job.path, Job(job.path))
        self.owed.discard(job.path)
        self.running[job.path] = job

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["done", "more", "finishing", "put off"]))
    def end(self, data: st.DataObject, how: str) -> None:
        job = self.running.pop(data.draw(st.sampled_from(sorted(self.running.values(), key=str))).path)
        if how == "done":
            self.schedule.done(job.path)
            return
        self.owed.add(job.path)
        if how == "put off":
            self.schedule.again(job, lane=Lane.BULK, delay=5, keep_job=True)
            if job.idle or job.gone:
                self.orders.setdefault(job.path, job)
        else:
            self.schedule.again(job, lane=Lane.FINISHING if how == "finishing" else Lane.BULK)

    @rule(seconds=st.sampled_from([0.05, 0.1, 6]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def what_waits_is_what_is_owed(self) -> None:
        assert len(self.schedule) == len(self.owed - self.running.keys())

    def teardown(self) -> None:
        for _ in range(100):
            self.clock.now += 10
            while job := self.schedule.take(0):
                self.begin(job)
            for path in list(self.running):
                del self.running[path]
                self.schedule.done(path)
        assert not self.owed, "lost"
        assert not self.orders


AnySequence.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnySequence = AnySequence.TestCase


# ---------------------------------------------------------------------- under threads


def test_with_many_threads_no_path_has_two_workers_and_no_change_is_lost() -> None:
    schedule = Schedule(max_finishing=3)
    paths = [f"p{number}" for number in range(20)]
    changes: Counter[str] = Counter()
    seen = dict.fromkeys(paths, 0)
    at_work = {path: threading.Lock() for path in paths}
    collisions: list[str] = []

    def work(chance: random.Random) -> None:
        while job := schedule.take(0.5):
            if not at_work[job.path].acquire(blocking=False):
                collisions.append(job.path)
                return
            seen[job.path] = changes[job.path]
            at_work[job.path].release()
            if chance.random() < 0.3:
                schedule.again(job, lane=chance.choice(list(Lane)), delay=chance.choice([0, 0.001]))
            else:
                schedule.done(job.path)

    def idle(path: str) -> None:
        schedule.idle(path, IDLE)

    def change(chance: random.Random) -> None:
        notices = [schedule.grown, schedule.touched, schedule.gone, idle]
        for _ in range(500):
            path = chance.choice(mine[chance])
            changes[path] += 1
            chance.choice(notices)(path)

    chances = [random.Random(seed) for seed in range(8)]
    mine = {chance: paths[number % 4 :: 4] for number, chance in enumerate(chances)}
    threads = [threading.Thread(target=work, args=(chance,)) for chance in chances[:4]]
    threads += [threading.Thread(target=change, args=(chance,)) for chance in chances[4:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not collisions
    assert len(schedule) == 0
    assert seen == dict(changes)
