"""Puts on a slow line: a timeout is for progress, and a line that stands still is still noticed."""

import os
import threading
import time
from collections.abc import Iterator

import pytest
from botocore.config import Config

from errors import StoreUnavailable, TransientError
from s3.bucket import ObjectStore
from tests.support.servers import RcloneS3, s3_settings, wait_until
from tests.support.slow_line import SlowLine

SHORT = 0.5
"""Seconds in place of the 10 for connecting and the 60 for a byte that leaves and for an answer."""

BODY = bytearray(os.urandom(6_000_000))
"""More than the kernel takes at once, and 4 times what the line carries in SHORT."""


@pytest.fixture
def line(rclone: RcloneS3) -> Iterator[SlowLine]:
    with SlowLine(rclone.port, bytes_per_second=3_000_000) as line:
        yield line


@pytest.fixture
def store(line: SlowLine, bucket: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Behind the line, with little patience and one attempt."""
    monkeypatch.setattr("s3.connections.LOOK_SECONDS", SHORT / 10)
    monkeypatch.setattr("s3.connections.MOVES_SECONDS", SHORT / 2)
    store = ObjectStore(s3_settings(f"http://127.0.0.1:{line.port}", bucket), connections=4)
    clients = store._clients
    once = {"mode": "standard", "total_max_attempts": 1}
    clients._config = clients._config.merge(
        Config(connect_timeout=SHORT, read_timeout=SHORT, retries=once)  # type: ignore[arg-type]
    )
    clients.line.stall_seconds = SHORT
    return store


def test_a_body_that_takes_longer_than_every_timeout_arrives(store: ObjectStore) -> None:
    began_at = time.monotonic()
    store.put("a", BODY)
    assert time.monotonic() - began_at > 2 * SHORT
    assert store.get("a", at_most=len(BODY)) == bytes(BODY)


def test_several_at_once_share_the_line_and_none_is_sent_twice(store: ObjectStore, line: SlowLine) -> None:
    part = BODY[:1_500_000]
    puts = [threading.Thread(target=store.put, args=(str(number), part)) for number in range(4)]
    for put in puts:
        put.start()
    for put in puts:
        put.join()
    assert sum(stored.size for stored in store.objects("")) == 4 * len(part)
    assert line.sent_bytes < 1.1 * 4 * len(part)


def test_while_a_body_leaves_the_store_counts_as_heard_from(store: ObjectStore) -> None:
    put = threading.Thread(target=store.put, args=("a", BODY))
    before = store.heard_at
    put.start()
    first = wait_until(lambda: store.heard_at if store.heard_at > before else 0)
    wait_until(lambda: store.heard_at > first)
    assert put.is_alive()
    put.join()


def test_a_question_that_only_the_kernel_of_a_frozen_store_took_is_no_sign_of_life(
    store: ObjectStore, private_rclone: RcloneS3
) -> None:
    private_rclone.client.create_bucket(Bucket=store.bucket)
    store._clients._endpoint_url = private_rclone.endpoint_url
    store.prepare(create=False)
    private_rclone.freeze()
    before = store.heard_at
    with pytest.raises(StoreUnavailable):
        store.find("a", b"x")
    assert store.heard_at == before


def test_a_put_that_times_out_while_bytes_of_others_leave_is_no_outage_but_too_much_for_the_line(
    store: ObjectStore, line: SlowLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store._clients.line, "moves", lambda: True)
    line.stall()
    with pytest.raises(TransientError) as failed:
        store.put("a", BODY)
    assert (type(failed.value), failed.value.kind) == (TransientError, "slow")
    assert (store.puts.limit, store.takes_puts) == (2, True)
    line.go_on()
    for _ in range(2):
        store.put("a", b"x")
    assert store.puts.limit == 3


def test_a_line_that_stands_still_is_given_up(rclone: RcloneS3, store: ObjectStore, line: SlowLine) -> None:
    line.stall()
    with pytest.raises(StoreUnavailable) as failed:
        store.put("a", BODY)
    assert "no byte left for 0.5 s" in str(failed.value)
    line.go_on()
    store.put("a", BODY)
