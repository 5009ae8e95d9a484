"""Redis loses records while a daemon runs, or while none does: not "safe" before all was looked at again."""

from typing import Any

import pytest

from recording.stream import State
from status import table as status_table
from tests.support.harness import Harness
from tests.support.servers import ValkeyServer
from tests.support.stepped_page import Page
from upload.upkeep import COUNT_SECONDS


@pytest.fixture(autouse=True)
def the_list_is_read_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_table, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(status_table, "MAX_REST_SECONDS", 0.0)


def lose(harness: Harness, valkey: ValkeyServer, *names: str) -> None:
    """Delete keys of the namespace, all of them without a name."""
    base = f"{{{harness.settings.redis.namespace}}}:"
    keys: Any = [base + name for name in names] or valkey.client.keys(base + "*")
    assert valkey.client.delete(*keys)


def has_a_failed_recording(harness: Harness) -> None:
    harness.write("good.mp4", b"good")
    harness.write("/".join(["d" * 99] * 11) + "/a.mp4", b"x")
    harness.fall_idle()
    assert Page(harness).answer() == ("at_risk", "One recording cannot be stored")


def test_a_failed_recording_is_not_forgotten_with_redis(harness: Harness, valkey: ValkeyServer) -> None:
    has_a_failed_recording(harness)
    lose(harness, valkey)
    harness.clock.now += COUNT_SECONDS
    harness.parts.monitor.tick()
    level, title = Page(harness).answer()
    assert (level, title.partition(" for ")[0]) == ("at_risk", "Redis has been failing")
    harness.clock.now += 1  # the breaker is tried again within half a second
    harness.work()
    assert Page(harness).answer() == ("behind", "Looking through the folder")
    assert harness.parts.watch.requests.take() == {""}, "a full scan is asked for"
    harness.fall_idle()
    assert Page(harness).answer() == ("at_risk", "One recording cannot be stored")
    assert harness.holds("good.mp4")


@pytest.mark.parametrize("part", ["failed", "paths", "generations", "complete"])
def test_a_failed_recording_is_not_forgotten_with_a_part_of_the_index(
    part: str, harness: Harness, valkey: ValkeyServer
) -> None:
    has_a_failed_recording(harness)
    lose(harness, valkey, part)
    harness.tick(COUNT_SECONDS)
    assert Page(harness).answer()[0] == "at_risk"
    harness.fall_idle()
    assert Page(harness).answer() == ("at_risk", "One recording cannot be stored")


def test_a_recording_whose_file_is_gone_is_closed_also_when_its_path_was_evicted(
    harness: Harness, valkey: ValkeyServer
) -> None:
    harness.write("a.mp4", b"\1" * (5 * 1024 * 1024 + 1))
    harness.scan()
    assert harness.state("a.mp4") is State.ACTIVE
    lose(harness, valkey, "paths")
    (harness.folder / "a.mp4").unlink()
    again = harness.restarted()
    again.fall_idle()
    again.fall_idle()
    assert again.state("a.mp4") is State.INCOMPLETE
    assert again.manifest("a.mp4")["status"] == "incomplete"
    assert Page(again).answer() == ("attention", "Not quite: a recording of the last day was cut short")


def test_a_record_of_another_recording_leaves_nothing_active_for_ever(
    harness: Harness, valkey: ValkeyServer
) -> None:
    harness.write("done.mp4", b"done")
    harness.fall_idle()
    harness.write("grows.mp4", b"\1" * (5 * 1024 * 1024 + 1))
    harness.scan()
    assert harness.state("grows.mp4") is State.ACTIVE
    base = f"{{{harness.settings.redis.namespace}}}:stream:"
    other: Any = valkey.client.hgetall(f"{base}done.mp4@1")
    valkey.client.hset(f"{base}grows.mp4@1", mapping=other)
    again = harness.restarted()
    for _ in range(2):
        again.fall_idle()
    assert again.holds("done.mp4")
    assert again.holds("grows.mp4", again.stream("grows.mp4").generation)
    assert Page(again).answer() == ("safe", "Everything is in S3")


def test_a_record_that_is_about_another_path_is_no_record(harness: Harness, valkey: ValkeyServer) -> None:
    harness.write("a.mp4", b"\1" * (5 * 1024 * 1024 + 1))
    harness.write("b.mp4", b"\2" * 1000)
    harness.scan()
    base = f"{{{harness.settings.redis.namespace}}}:stream:"
    other: Any = valkey.client.hgetall(f"{base}b.mp4@1")
    tail_is_stored = {"state": "finalizing", "next_index": 1, "offset": 1000}
    valkey.client.hset(f"{base}a.mp4@1", mapping=other | tail_is_stored)
    again = harness.restarted()
    for _ in range(2):
        again.fall_idle()
    for name in ("a.mp4", "b.mp4"):
        assert again.holds(name, again.stream(name).generation)
    page = Page(again)
    page.answer()  # has the audit look
    assert page.answer() == ("safe", "Everything is in S3")
