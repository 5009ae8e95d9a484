"""How many put at once on a line that is too slow for all."""

from concurrent.futures import ThreadPoolExecutor

from scheduling.put_limit import PutLimit
from tests.support.harness import Clock


def test_all_may_work_until_a_request_times_out() -> None:
    puts = PutLimit(4, clock=Clock())
    assert [puts.enter(0) for _ in range(5)] == [True] * 4 + [False]


def test_a_timeout_halves_the_limit_down_to_one_and_those_under_way_together_count_once() -> None:
    clock = Clock()
    puts, limits = PutLimit(16, clock=clock), []
    for _ in range(6):
        began_at = clock.now
        clock.now += 60
        puts.timed_out(began_at)
        puts.timed_out(began_at)
        limits.append(puts.limit)
    assert limits == [8, 4, 2, 1, 1, 1]


def test_who_is_over_the_limit_ends_first() -> None:
    puts = PutLimit(2, clock=Clock())
    assert puts.enter(0)
    assert puts.enter(0)
    puts.timed_out(puts._clock())
    puts.leave()
    assert not puts.enter(0)
    puts.leave()
    assert puts.enter(0)


def test_as_many_confirmed_puts_as_may_be_under_way_let_one_more_go() -> None:
    puts = PutLimit(4, clock=Clock())
    puts.timed_out(puts._clock())
    limits = []
    for _ in range(8):
        puts.confirmed()
        limits.append(puts.limit)
    assert limits == [2, 3, 3, 3, 4, 4, 4, 4]


def test_a_timeout_begins_the_count_anew() -> None:
    puts = PutLimit(8, clock=Clock())
    puts.timed_out(puts._clock())
    for _ in range(3):
        puts.confirmed()
    puts.timed_out(puts._clock())
    puts.confirmed()
    assert puts.limit == 2


def test_one_who_waits_goes_on_when_a_place_is_free() -> None:
    puts = PutLimit(1)
    assert puts.enter(0)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(puts.enter, 10)
        puts.leave()
        assert waiting.result()


def test_confirmed_puts_never_let_more_go_than_there_are_workers() -> None:
    limit = PutLimit(2)
    for _ in range(10):
        limit.confirmed()
    assert limit.limit == 2
