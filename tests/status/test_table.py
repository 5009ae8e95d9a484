"""The list of streams behind the page: how old it may be, and who asks Redis for it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from errors import StoreUnavailable
from recording.stream import State
from status import table as status_table
from status.overview import Overview
from status.table import FRESH_SECONDS, MAX_REST_SECONDS, MAX_WAITING, REST, StatusTable
from tests.support.harness import Clock
from tests.support.pacing import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


class Table:
    """A table whose overviews are counted: each has the number of its read, and when it was."""

    def __init__(self) -> None:
        self.clock, self.reads, self.works = Clock(), 0, True
        self.failures: list[StoreUnavailable] = []
        self.during: Callable[[], None] = lambda: None
        self.table = StatusTable(
            take=self._take, works=lambda: self.works, failed=self.failures.append, clock=self.clock
        )

    def _take(self) -> Overview:
        self.reads += 1
        taken = Overview([], {State.COMPLETE: self.reads}, self.clock.now)
        self.during()
        return taken

    def age(self, *, after: float) -> float:
        self.clock.now += after
        found = self.table.look()
        assert found
        return self.clock.now - found.taken_at

    def fails(self) -> None:
        raise StoreUnavailable("away", service="redis", kind="unreachable")

    def hang(self) -> tuple[threading.Event, threading.Event]:
        """Let the next read hang; returns what says that it does, and what ends it."""
        reading, answer = threading.Event(), threading.Event()

        def wait() -> None:
            reading.set()
            answer.wait(60)

        self.during = wait
        return reading, answer

    def takes(self, seconds: float) -> None:
        def pass_by() -> None:
            self.clock.now += seconds

        self.during = pass_by


def test_the_list_is_never_older_than_it_may_be_however_often_somebody_asks() -> None:
    found = Table()
    for seconds in (0, 0.5, 1, 3, 29, 31, 44, 44, 600):
        assert found.age(after=seconds) <= FRESH_SECONDS


def test_redis_is_asked_only_while_somebody_looks_and_not_more_often_than_needed() -> None:
    found = Table()
    found.clock.now += 100
    assert found.reads == 0
    for _ in range(10):
        found.age(after=FRESH_SECONDS / 10)
    assert found.reads == 1


def test_a_list_that_took_long_is_kept_for_longer_but_not_for_ever() -> None:
    found = Table()
    found.takes(1)
    found.table.look()
    assert found.age(after=REST - 0.1) == pytest.approx(REST + 0.9)
    assert found.age(after=0.1) == 1
    found.takes(5)
    found.table.look()
    found.clock.now += MAX_REST_SECONDS
    found.table.look()
    assert found.age(after=MAX_REST_SECONDS) == 5


def test_without_redis_nobody_waits_and_the_last_list_stays() -> None:
    found = Table()
    found.works = False
    assert found.table.look() is None
    found.works = True
    first = found.table.look()
    found.works = False
    found.clock.now += 100
    assert found.table.look() is first
    assert found.reads == 1


def test_an_answer_of_redis_that_fails_is_told_and_the_last_list_stays() -> None:
    found = Table()
    first = found.table.look()
    found.during = found.fails
    found.clock.now += FRESH_SECONDS
    assert found.table.look() is first
    assert len(found.failures) == 1
    found.during = lambda: None
    assert found.age(after=FRESH_SECONDS) == 0


def test_those_who_ask_at_once_share_one_read_or_get_the_last_list() -> None:
    found = Table()
    last = found.table.look()
    found.clock.now += FRESH_SECONDS
    gate = threading.Barrier(8)
    with ThreadPoolExecutor(8) as askers:
        lists = list(askers.map(lambda _: gate.wait() >= 0 and found.table.look(), range(8)))
    assert found.reads == 2
    assert {id(each) for each in lists} <= {id(last), id(found.table.look())}


def test_a_read_that_hangs_holds_up_as_many_as_may_wait_and_no_more() -> None:
    found = Table()
    first = found.table.look()
    found.clock.now += FRESH_SECONDS
    reading, answer = found.hang()
    with ThreadPoolExecutor(1 + MAX_WAITING) as others:
        others.submit(found.table.look)
        assert reading.wait(60)
        for _ in range(MAX_WAITING):
            others.submit(found.table.look)
        wait_until(lambda: found.table._asking._value == 0)
        assert [found.table.look() for _ in range(20)] == [first] * 20
        answer.set()


def test_a_read_that_hangs_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_table, "WAIT_SECONDS", 0.01)
    found = Table()
    first = found.table.look()
    found.clock.now += FRESH_SECONDS
    reading, answer = found.hang()
    with ThreadPoolExecutor(1) as other:
        hanging = other.submit(found.table.look)
        assert reading.wait(60)
        assert found.table.look() is first
        answer.set()
        second = hanging.result(60)
    assert second
    assert second is not first
    assert found.reads == 2
