"""Whether `doctor` says of a store what the next start of the daemon will make of it, and changes nothing."""

import json
from collections.abc import Callable
from typing import NamedTuple

import pytest

from doctor.finding import Finding
from doctor.marker import check_marker
from doctor.run import run_checks
from tests.support.harness import CHUNK, Harness
from tests.support.servers import ValkeyServer

MARKER = ".vcu/store.json"


@pytest.fixture
def daemon(harness: Harness) -> Harness:
    """One that has stored a recording."""
    harness.write("a.mp4", bytes(CHUNK // 2))
    harness.fall_idle()
    return harness


def checked(harness: Harness, *, rebuild: bool = False) -> Finding:
    settings = harness.settings
    return check_marker(
        harness.parts.store,
        settings.redis,
        prefix=settings.s3.prefix,
        rebuild=rebuild,
    )


def put(harness: Harness, body: bytes) -> None:
    harness.s3.put_object(Bucket=harness.bucket, Key=MARKER, Body=body)


def mark_otherwise(harness: Harness) -> None:
    put(harness, json.dumps({"schema_version": 1, "store_id": "f" * 32}).encode())


def exchange(harness: Harness) -> None:
    empty(harness)
    mark_otherwise(harness)


def damage(harness: Harness) -> None:
    put(harness, b"{")


def lose_the_marker(harness: Harness) -> None:
    harness.s3.delete_object(Bucket=harness.bucket, Key=MARKER)


def empty(harness: Harness) -> None:
    for key in [*harness.keys(), MARKER, ".vcu/checksum-trial"]:
        harness.s3.delete_object(Bucket=harness.bucket, Key=key)


def lose_the_id(harness: Harness) -> None:
    harness.parts.checkpoints._redis.delete(harness.parts.checkpoints._base + "store")


def lose_the_id_of_another_store(harness: Harness) -> None:
    exchange(harness)
    lose_the_id(harness)


def lose_redis(harness: Harness) -> None:
    client = harness.parts.checkpoints._redis
    client.delete(*client.scan_iter(f"{harness.parts.checkpoints._base}*"))


class Case(NamedTuple):
    """What happened to a store, and what doctor has to say of it."""

    fault: Callable[[Harness], None]
    level: str
    said: str
    hint: str = ""


CASES = [
    Case(lambda _: None, "ok", "the store that the records in Redis are about"),
    Case(lose_redis, "ok", "records in Redis: none yet. The start of the daemon takes it over"),
    Case(mark_otherwise, "ok", "what they say is stored is in it"),
    Case(
        exchange, "problem", "is another store, ffffffff. Redis knows 1 recording in", "STORE_CHANGED=rebuild"
    ),
    Case(lose_the_marker, "problem", "is not marked: emptied, or made anew", "bring the right one back"),
    Case(empty, "problem", "; it is empty", "bring the right one back"),
    Case(damage, "problem", "store.json is damaged", "restore it, or delete it"),
    Case(lose_the_id, "ok", "what they say is stored is in it"),
    Case(
        lose_the_id_of_another_store,
        "warning",
        "are about no store that is known",
        "if this is not the right store",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.fault.__name__}-{case.level}")
def test_it_says_what_the_next_start_makes_of_the_store_and_what_to_do(daemon: Harness, case: Case) -> None:
    case.fault(daemon)
    found = checked(daemon)
    assert (found.check, found.level) == ("store marker", case.level)
    assert case.said in found.said
    assert case.hint in found.hint
    assert bool(found.hint) is (case.level != "ok")
    later = daemon.restarted()
    later.work()
    assert bool(later.refusal) is (case.level == "problem")


@pytest.mark.parametrize("fault", [exchange, lose_the_marker, empty])
def test_with_rebuild_it_warns_that_the_records_begin_anew(
    daemon: Harness, fault: Callable[[Harness], None]
) -> None:
    fault(daemon)
    found = checked(daemon, rebuild=True)
    assert found.level == "warning"
    assert "drops them" in found.said


def test_a_new_store_is_fine_and_is_left_unmarked(harness: Harness, valkey: ValkeyServer) -> None:
    harness.parts.store.prepare(create=False)
    found = checked(harness)
    assert found.level == "ok"
    assert "the first start of the daemon marks the store" in found.said
    assert "Contents" not in harness.s3.list_objects_v2(Bucket=harness.bucket)
    assert valkey.client.keys(f"*{harness.settings.redis.namespace}*") == []


def test_without_redis_or_the_bucket_it_says_where_to_look(harness: Harness) -> None:
    found = run_checks(harness.settings.replaced(s3={"bucket": "no-such-bucket"}))[-1]
    assert (found.check, found.level, found.said) == (
        "store marker",
        "unchecked",
        "whose store it is: see S3 bucket",
    )
