"""Outages: who tries when, how long all wait, and what is said about it once."""

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import metrics
from errors import ErrorKind, Service, StoreUnavailable, hint_of
from scheduling import outages
from scheduling.outages import (
    BACKOFF_BASE_SECONDS,
    BACKOFF_CAP_SECONDS,
    NOT_REACHED,
    OUTAGES_KEPT,
    TRY_SECONDS,
    CircuitBreakers,
    Outage,
    ServiceHealth,
    backoff,
)
from scheduling.schedule import Schedule
from tests.support.harness import Clock
from tests.support.servers import wait_until

Said = Callable[[], list[dict[str, Any]]]


def down(service: Service = "s3", kind: ErrorKind = "unreachable", pause: float = 0.0) -> StoreUnavailable:
    return StoreUnavailable(f"{service} is {kind}", service=service, kind=kind, pause_seconds=pause)


def schedule_of(waiting: int) -> Schedule:
    """Return a schedule in which so many streams wait."""
    schedule = Schedule(max_finishing=1)
    for number in range(waiting):
        schedule.grown(f"{number}.mp4")
    return schedule


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def untried(clock: Clock) -> CircuitBreakers:
    """The breakers as they are at the start."""
    return CircuitBreakers(schedule_of(7), clock=clock)


@pytest.fixture
def working(untried: CircuitBreakers) -> CircuitBreakers:
    untried.succeed("redis")
    untried.succeed("s3")
    return untried


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    """What was logged up to now, with the level beside the values."""
    caplog.set_level("DEBUG", "scheduling.outages")
    return lambda: [{"level": record.levelname, **dict(record.msg)} for record in caplog.records]  # type: ignore[arg-type]


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"video_uploader_{name}", labels) or 0.0


def in_other_thread(call: Any) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join(10)
    return found[0]


# ---------------------------------------------------------------------- open and closed


def test_nothing_is_open_before_it_was_tried(untried: CircuitBreakers) -> None:
    assert not untried.works()
    assert not untried.works("s3")
    assert not untried.reached("redis")
    assert untried.failures() == {"s3": "not reached yet", "redis": "not reached yet"}


def test_all_is_open_when_both_services_work(untried: CircuitBreakers) -> None:
    assert untried.succeed("redis")
    assert untried.works("redis")
    assert not untried.works()
    assert untried.succeed("s3")
    assert untried.works()
    assert untried.failures() == {}


def test_a_failure_closes_one_gate_and_says_why(working: CircuitBreakers) -> None:
    working.fail(down("s3"))
    assert not working.works()
    assert working.works("redis")
    assert working.failures() == {"s3": f"S3: s3 is unreachable; {hint_of('unreachable')}"}


def test_a_service_that_worked_once_was_reached(working: CircuitBreakers) -> None:
    working.fail(down("s3"))
    assert working.reached("s3")


def test_a_service_that_only_failed_was_not_reached(untried: CircuitBreakers) -> None:
    untried.fail(down("s3"))
    assert not untried.reached("s3")


def test_success_of_an_open_gate_is_no_news(working: CircuitBreakers) -> None:
    assert not working.succeed("s3")


# ---------------------------------------------------------------------- who tries


def test_s3_is_first_tried_when_redis_works_because_that_knows_which_store_it_must_be(
    untried: CircuitBreakers,
) -> None:
    assert untried.claim_trial(0) == "redis"
    assert untried.claim_trial(0) is None
    untried.succeed("redis")
    assert untried.claim_trial(0) == "s3"
    assert untried.claim_trial(0) is None


def test_later_both_services_are_tried_at_once_each_by_one(working: CircuitBreakers, clock: Clock) -> None:
    working.fail(down("s3"))
    working.fail(down("redis"))
    clock.now += BACKOFF_CAP_SECONDS
    assert {working.claim_trial(0), working.claim_trial(0)} == {"redis", "s3"}
    assert working.claim_trial(0) is None


def test_a_try_that_proved_nothing_is_followed_by_the_next_at_once(
    working: CircuitBreakers, clock: Clock
) -> None:
    working.fail(down("s3"))
    clock.now += BACKOFF_BASE_SECONDS
    assert working.claim_trial(0) == "s3"
    assert working.claim_trial(0) is None
    working.inconclusive("s3")
    assert not working.works("s3")
    assert working.claim_trial(0) == "s3"


def test_nobody_tries_what_works(working: CircuitBreakers) -> None:
    assert working.claim_trial(0) is None


def test_one_tries_and_only_when_the_wait_is_over(working: CircuitBreakers, clock: Clock) -> None:
    working.fail(down("s3"))
    assert working.claim_trial(0) is None
    clock.now += BACKOFF_BASE_SECONDS
    assert working.claim_trial(0) == "s3"
    assert working.claim_trial(0) is None


def test_a_try_that_failed_makes_the_next_wait(working: CircuitBreakers, clock: Clock) -> None:
    working.fail(down("s3"))
    for _ in range(5):
        clock.now += BACKOFF_CAP_SECONDS
        assert working.claim_trial(0) == "s3"
        working.fail(down("s3"))
        assert working.claim_trial(0) is None


def test_late_failures_of_others_do_not_make_the_wait_longer(working: CircuitBreakers, clock: Clock) -> None:
    working.fail(down("s3"))
    for _ in range(20):
        in_other_thread(lambda: working.fail(down("s3", pause=60)))
    clock.now += BACKOFF_BASE_SECONDS
    assert working.claim_trial(0) == "s3"


def test_late_failures_of_the_one_who_tried_do_not_make_the_wait_longer(
    working: CircuitBreakers, clock: Clock
) -> None:
    working.fail(down("s3"))
    clock.now += BACKOFF_BASE_SECONDS
    assert working.claim_trial(0) == "s3"
    working.fail(down("s3"))
    working.fail(down("s3", pause=60))
    clock.now += BACKOFF_CAP_SECONDS
    assert working.claim_trial(0) == "s3"


def test_late_failures_of_others_do_not_end_a_try(working: CircuitBreakers, clock: Clock) -> None:
    working.fail(down("s3"))
    clock.now += BACKOFF_BASE_SECONDS
    assert working.claim_trial(0) == "s3"
    in_other_thread(lambda: working.fail(down("s3")))
    clock.now += BACKOFF_CAP_SECONDS
    assert working.claim_trial(0) is None


def test_a_try_without_a_verdict_is_given_out_again(working: CircuitBreakers, clock: Clock) -> None:
    working.fail(down("s3"))
    clock.now += BACKOFF_BASE_SECONDS
    assert working.claim_trial(0) == "s3"
    working.fail(down("redis"))  # the try of S3 ended on Redis
    clock.now += BACKOFF_CAP_SECONDS
    assert working.claim_trial(0) == "redis"
    working.succeed("redis")
    assert working.claim_trial(0) is None
    clock.now += TRY_SECONDS
    assert working.claim_trial(0) == "s3"


@pytest.mark.parametrize("pause", [2.0, 60.0])
def test_the_pause_that_an_error_asks_for_is_kept(
    working: CircuitBreakers, clock: Clock, pause: float
) -> None:
    working.fail(down("s3", pause=pause))
    clock.now += pause - 0.1
    assert working.claim_trial(0) is None
    clock.now += 0.2
    assert working.claim_trial(0) == "s3"


def test_the_wait_begins_short_again_after_a_success(
    working: CircuitBreakers, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "backoff", lambda attempts: 1.0 + attempts)
    working.fail(down("s3"))
    clock.now += 1
    assert working.claim_trial(0) == "s3"
    working.fail(down("s3"))
    clock.now += 1
    assert working.claim_trial(0) is None
    clock.now += 1
    assert working.claim_trial(0) == "s3"
    working.succeed("s3")
    working.fail(down("s3"))
    clock.now += 1
    assert working.claim_trial(0) == "s3"


@given(st.integers(0, 10_000))
def test_every_wait_lies_between_the_bounds(attempts: int) -> None:
    highest = min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2 ** min(attempts, 10))
    assert BACKOFF_BASE_SECONDS <= backoff(attempts) <= highest


def test_waits_are_spread_over_all_of_their_range() -> None:
    waits = [backoff(20) for _ in range(1000)]
    assert min(waits) < 3
    assert max(waits) > 27


# ---------------------------------------------------------------------- waiting for a try


def waiter(chosen: CircuitBreakers, found: list[Any]) -> threading.Thread:
    thread = threading.Thread(target=lambda: found.append(chosen.claim_trial(30)))
    thread.start()
    wait_until(lambda: chosen._changed._waiters)  # type: ignore[attr-defined]
    return thread


@pytest.fixture
def real() -> CircuitBreakers:
    """CircuitBreakers by the real clock, with both services being tried."""
    found = CircuitBreakers(schedule_of(0))
    assert found.claim_trial(0) == "redis"
    found.succeed("redis")
    assert found.claim_trial(0) == "s3"
    found.fail(down("redis"))
    return found


def test_a_waiting_worker_tries_when_the_wait_is_over(real: CircuitBreakers) -> None:
    found: list[Any] = []
    real.succeed("redis")
    thread = waiter(real, found)
    real.fail(down("s3"))
    thread.join(10)
    assert found == ["s3"]


def test_a_waiting_worker_goes_on_when_all_is_open(real: CircuitBreakers) -> None:
    found: list[Any] = []
    thread = waiter(real, found)
    real.succeed("redis")
    real.succeed("s3")
    thread.join(10)
    assert found == [None]


def test_nobody_waits_when_the_daemon_stops(real: CircuitBreakers) -> None:
    found: list[Any] = []
    thread = waiter(real, found)
    real.wake()
    thread.join(10)
    assert found == [None]
    assert real.claim_trial(30) is None


def test_many_workers_never_try_at_the_same_time() -> None:
    shared = CircuitBreakers(schedule_of(0), clock=Clock())
    shared.succeed("redis")
    claims: list[Service | None] = []
    threads = [threading.Thread(target=lambda: claims.append(shared.claim_trial(0))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(map(str, claims)) == ["None"] * 19 + ["s3"]


# ---------------------------------------------------------------------- what is said


def test_an_outage_is_said_once_when_it_begins_and_once_when_it_ends(
    working: CircuitBreakers, clock: Clock, said: Said
) -> None:
    for _ in range(5):
        working.fail(down("s3"))
    clock.now += 12.34
    working.succeed("s3")
    working.succeed("s3")
    assert said() == [
        {
            "event": "outage begins",
            "level": "ERROR",
            "service": "s3",
            "kind": "unreachable",
            "reason": "s3 is unreachable",
            "hint": hint_of("unreachable"),
            "streams_waiting": 7,
        },
        {
            "event": "outage ends",
            "level": "INFO",
            "service": "s3",
            "seconds": 12.3,
            "streams_waiting": 7,
        },
    ]


def test_an_outage_that_changes_its_kind_says_so(working: CircuitBreakers, said: Said) -> None:
    working.fail(down("redis", "unreachable"))
    working.fail(down("redis", "loading"))
    working.fail(down("redis", "loading"))
    assert [(line["event"], line["kind"]) for line in said()] == [
        ("outage begins", "unreachable"),
        ("outage goes on", "loading"),
    ]


def test_a_start_without_an_outage_says_nothing(untried: CircuitBreakers, said: Said) -> None:
    untried.succeed("s3")
    untried.succeed("redis")
    assert said() == []


def test_an_outage_at_the_start_is_said_too(untried: CircuitBreakers, said: Said) -> None:
    untried.claim_trial(0)
    untried.fail(down("s3"))
    untried.succeed("s3")
    assert [line["event"] for line in said()] == ["outage begins", "outage ends"]


def test_outages_are_counted_and_shown(working: CircuitBreakers) -> None:
    outages, errors = value("outages_total", service="s3"), value("errors_total", kind="throttled")
    assert value("service_up", service="s3") == 1
    for _ in range(3):
        working.fail(down("s3", "throttled"))
    assert value("service_up", service="s3") == 0
    assert value("service_up", service="redis") == 1
    assert value("outages_total", service="s3") == outages + 1
    assert value("errors_total", kind="throttled") == errors + 3
    working.succeed("s3")
    assert value("service_up", service="s3") == 1


# ---------------------------------------------------------------------- the memory of outages


@pytest.fixture
def remembered(clock: Clock) -> CircuitBreakers:
    """Open breakers whose clock on the wall is a million seconds ahead of the other."""
    found = CircuitBreakers(schedule_of(0), clock=clock, wall_clock=lambda: clock.now + 1_000_000)
    found.succeed("redis")
    found.succeed("s3")
    return found


def test_an_outage_is_remembered_with_its_times_and_its_first_reason(
    remembered: CircuitBreakers, clock: Clock
) -> None:
    assert remembered.outages() == []
    clock.now = 2000
    remembered.fail(down())
    remembered.fail(down(kind="full"))
    assert remembered.outages() == [Outage("s3", 1_002_000, None, "s3 is unreachable")]
    clock.now = 2060
    remembered.succeed("s3")
    assert remembered.outages() == [Outage("s3", 1_002_000, 1_002_060, "s3 is unreachable")]


def test_outages_of_both_services_end_each_for_itself(remembered: CircuitBreakers, clock: Clock) -> None:
    remembered.fail(down("s3"))
    remembered.fail(down("redis"))
    clock.now += 5
    remembered.succeed("s3")
    assert [(outage.service, outage.ended_at is None) for outage in remembered.outages()] == [
        ("redis", True),
        ("s3", False),
    ]


def test_a_start_is_no_outage_and_only_the_last_ones_are_kept(untried: CircuitBreakers) -> None:
    untried.succeed("s3")
    assert untried.outages() == []
    for number in range(OUTAGES_KEPT + 5):
        untried.fail(StoreUnavailable(f"number {number}", service="s3", kind="unreachable"))
        untried.succeed("s3")
    assert len(untried.outages()) == OUTAGES_KEPT
    assert untried.outages()[0].reason == f"number {OUTAGES_KEPT + 4}"


def test_how_a_service_does_is_told_with_what_is_known(
    remembered: CircuitBreakers, untried: CircuitBreakers, clock: Clock
) -> None:
    assert untried.health() == [ServiceHealth("s3", NOT_REACHED), ServiceHealth("redis", NOT_REACHED)]
    remembered.fail(down())
    clock.now += 5
    remembered.fail(down(kind="full"))
    full = ServiceHealth("s3", "s3 is full", "full", 1_001_000, hint_of("full"))
    assert remembered.health() == [full, ServiceHealth("redis")]


def test_when_a_service_began_to_work_is_known(untried: CircuitBreakers, clock: Clock) -> None:
    assert untried.working_since("s3") == math.inf
    untried.succeed("s3")
    clock.now += 5
    untried.succeed("s3")
    assert untried.working_since("s3") == clock.now - 5
    untried.fail(down())
    untried.succeed("s3")
    assert untried.working_since("s3") == clock.now
