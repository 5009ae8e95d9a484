"""What failed recordings have on this disk alone counts as not in S3: in the metrics, and for the page."""

import os
import time
from collections.abc import Iterator

import pytest

from errors import StoreUnavailable
from recording.stream import State
from scheduling.backlog import Backlog
from tests.support.harness import Harness
from tests.support.rights import bound_by_file_modes
from tests.support.stepped_page import Page
from tests.support.watched_folder import value
from upload.upkeep import COUNT_SECONDS

DAYS = 3 * 86_400.0


@pytest.fixture
def unreadable(harness: Harness) -> Iterator[Harness]:
    """A daemon that may not read one of its recordings, which was written three days ago."""
    path = harness.write("cam/a.mp4", b"x" * 1000)
    os.utime(path, (time.time() - DAYS,) * 2)
    path.chmod(0)
    with bound_by_file_modes():
        harness.scan()
        harness.tick(COUNT_SECONDS)
        assert harness.state("cam/a.mp4") is State.FAILED
        yield harness


def unsafe(harness: Harness) -> Backlog:
    return harness.parts.monitor.backlog._replace(oldest_seconds=0)


def test_a_failed_recording_counts_as_not_in_s3_for_as_long_as_it_lies_there(unreadable: Harness) -> None:
    assert unsafe(unreadable) == Backlog(sources=1, bytes=1000)
    assert unreadable.parts.monitor.backlog.oldest_seconds == pytest.approx(DAYS, abs=3600)
    assert value("oldest_unsafe_byte_age_seconds") == pytest.approx(DAYS, abs=3600)
    assert (value("failed_bytes"), value("backlog_bytes"), value("oldest_waiting_byte_age_seconds")) == (
        1000,
        0,
        0,
    )


def test_page_and_api_count_a_failed_recording_too(unreadable: Harness) -> None:
    answer = Page(unreadable).report()["answer"]
    assert (answer["title"], answer["unsafe_bytes"]) == ("One recording cannot be stored", 1000)
    assert answer["oldest_unsafe_seconds"] == pytest.approx(DAYS, abs=3600)
    assert answer["detail"].endswith("1.0 kB of one recording are only on this disk, the oldest for 3 days.")


def test_what_a_failed_recording_grows_by_counts_too(unreadable: Harness) -> None:
    path = unreadable.folder / "cam/a.mp4"
    path.chmod(0o600)
    with path.open("ab") as file:
        path.chmod(0)
        file.write(b"y" * 500)
    unreadable.tick()
    assert unsafe(unreadable) == Backlog(sources=1, bytes=1500)


def test_a_daemon_that_starts_counts_what_failed_before_and_goes_on_while_redis_is_away(
    unreadable: Harness,
) -> None:
    later = unreadable.restarted()
    later.work()
    later.tick(COUNT_SECONDS)
    assert unsafe(later) == Backlog(sources=1, bytes=1000)
    later.parts.breakers.fail(StoreUnavailable("Redis: away", service="redis", kind="unreachable"))
    later.parts.monitor.tick()
    assert unsafe(later) == Backlog(sources=1, bytes=1000)


def test_what_was_mended_counts_no_more(unreadable: Harness) -> None:
    (unreadable.folder / "cam/a.mp4").chmod(0o600)
    unreadable.fall_idle()
    unreadable.tick(COUNT_SECONDS)
    assert unreadable.state("cam/a.mp4") is State.COMPLETE
    assert unsafe(unreadable) == Backlog()
    assert value("oldest_unsafe_byte_age_seconds") == 0
