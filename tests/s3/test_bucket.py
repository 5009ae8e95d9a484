"""What the store makes of keys that change, of strange answers and of a broken network."""

import hashlib
import itertools
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.config import Config

from errors import TransientError
from s3.bucket import ObjectStore
from settings.s3 import S3Credentials
from tests.support.fault_proxy import FaultProxy
from tests.support.fault_server import FaultServer
from tests.support.object_store import kind, store_at
from tests.support.servers import BUSY_MACHINE_SECONDS, MotoServer, RcloneS3, S3Server, free_port, s3_settings

MIB = 1024 * 1024
BODY = os.urandom(300_000)
"""More than the sockets of a proxy hold."""

KEYS = S3Credentials(S3Server.access_key, S3Server.secret_key, None)


def test_a_bucket_in_another_region_is_created_there(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto.endpoint_url)
    name = f"test-{uuid.uuid4().hex}"
    store = ObjectStore(s3_settings(None, name, region="eu-central-1"), connections=4)
    store.prepare(create=True)
    where = moto.client.get_bucket_location(Bucket=name)
    assert where["LocationConstraint"] == "eu-central-1"


# ---------------------------------------------------------------------- credentials


def test_keys_that_were_changed_count_after_they_are_read_again(rclone: RcloneS3, bucket: str) -> None:
    keys = [S3Credentials("test-access-key", "wrong", None)]
    store = store_at(rclone.port, bucket)
    store._clients._credentials = lambda: keys[0]
    assert kind(lambda: store.prepare(create=True)) == "credentials"
    assert kind(lambda: store.put("a", b"x")) == "credentials"
    keys[0] = KEYS
    assert kind(lambda: store.put("a", b"x")) == "credentials"
    store.renew_credentials()
    store.prepare(create=False)
    store.put("a", b"x")


def test_keys_of_botos_own_chain_are_found_when_they_come(
    rclone: RcloneS3, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at(rclone.port, bucket, access_key="")
    assert kind(lambda: store.prepare(create=False)) == "credentials"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", rclone.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", rclone.secret_key)
    store.renew_credentials()
    store.prepare(create=False)


def test_the_same_keys_read_again_keep_the_connection(rclone: RcloneS3, bucket: str) -> None:
    with FaultProxy(rclone.port) as proxy:
        store = store_at(proxy.port, bucket)
        for _ in range(3):
            store.put("a", b"x")
            store.renew_credentials()
        assert proxy.connections == 1


def test_workers_go_on_while_the_keys_are_read_again(rclone: RcloneS3, bucket: str) -> None:
    tokens = itertools.count()
    store = store_at(rclone.port, bucket)
    store._clients._credentials = lambda: KEYS._replace(session_token=f"token {next(tokens)}")
    started = threading.Event()

    def put_all(worker: int) -> None:
        for number in range(10):
            store.put(f"{worker}/{number}", BODY)
            started.set()

    with ThreadPoolExecutor() as pool:
        working = [pool.submit(put_all, worker) for worker in range(2)]
        assert started.wait(10)
        for _ in range(3):
            store.renew_credentials()
        for work in working:
            work.result()
    assert len(list(store.objects(""))) == 20


# ---------------------------------------------------------------------- what an ETag says

ANOTHER = "d41d8cd98f00b204e9800998ecf8427e"
ENCRYPTED = "x-amz-server-side-encryption"


def find_and_put(headers: dict[str, str], held: bytes = BODY) -> tuple[bool, bool]:
    """Return whether objects that a server answers for in this way count as found and as stored."""
    with FaultServer() as server:
        server.answer(200, headers=headers, method="PUT")
        modified = {"Last-Modified": "Mon, 31 Aug 2026 12:00:00 GMT", "Content-Length": str(len(BODY))}
        server.answer(200, headers=headers | modified, method="HEAD")
        server.answer(200, held, headers=headers | modified, method="GET")
        store = store_at(server.port, "videos")
        try:
            stored = store.put("a", BODY).size == len(BODY)
        except TransientError as error:
            stored = error.kind != "corrupt"
        return store.find("a", BODY) is not None, stored


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": f'"{ANOTHER}"'},
        {"ETag": ANOTHER.upper()},
        {"ETag": f'"{ANOTHER}"', ENCRYPTED: "AES256"},
    ],
)
def test_an_etag_that_is_the_md5_of_other_bytes_confirms_nothing(headers: dict[str, str]) -> None:
    assert find_and_put(headers) == (False, False)


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": f'"{ANOTHER}"', ENCRYPTED: "aws:kms"},
        {"ETag": f'"{ANOTHER}"', ENCRYPTED: "aws:kms:dsse"},
        {"ETag": f'"{ANOTHER}"', f"{ENCRYPTED}-customer-algorithm": "AES256"},
        {"ETag": f'"{ANOTHER}-2"'},
        {"ETag": f'W/"{ANOTHER}"'},
        {"ETag": hashlib.md5(BODY).hexdigest().upper()},
    ],
)
def test_an_etag_that_is_no_md5_or_the_right_one_speaks_against_nothing(headers: dict[str, str]) -> None:
    assert find_and_put(headers) == (True, True)


@pytest.mark.parametrize("headers", [{"ETag": f'"{ANOTHER}-2"'}, {"ETag": '"x"', ENCRYPTED: "aws:kms"}])
def test_an_object_whose_etag_is_no_md5_is_found_by_its_bytes_and_not_by_its_size(
    headers: dict[str, str],
) -> None:
    assert find_and_put(headers) == (True, True)
    assert find_and_put(headers, BODY[:-1] + bytes([BODY[-1] ^ 1])) == (False, True)


# ---------------------------------------------------------------------- a broken network

SHORT = 0.5
"""Seconds in place of the 10 for connecting and the 60 for a byte that leaves and for an answer."""


@pytest.fixture
def proxy(rclone: RcloneS3) -> Iterator[FaultProxy]:
    with FaultProxy(rclone.port) as proxy:
        yield proxy


@pytest.fixture
def hasty(proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Behind the proxy, with a connection that was used."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    store = store_at(proxy.port, bucket)
    clients = store._clients
    clients._config = clients._config.merge(Config(connect_timeout=SHORT, read_timeout=SHORT))
    clients.line.stall_seconds = SHORT
    monkeypatch.setattr("s3.connections.LOOK_SECONDS", SHORT / 10)
    monkeypatch.setattr("s3.connections.MOVES_SECONDS", SHORT / 2)
    store.put("first", b"x")
    return store


@pytest.fixture
def direct(rclone: RcloneS3, bucket: str) -> ObjectStore:
    """The same bucket, not through the proxy."""
    return store_at(rclone.port, bucket)


def seconds(work: Callable[[], object]) -> float:
    began_at = time.monotonic()
    assert kind(work) == "unreachable"
    return time.monotonic() - began_at


def test_a_store_that_is_not_there_is_told_at_once() -> None:
    assert seconds(lambda: store_at(free_port(), "videos").prepare(create=True)) < BUSY_MACHINE_SECONDS


def test_an_outage_that_begins_between_two_requests_is_told_at_once(
    hasty: ObjectStore, proxy: FaultProxy
) -> None:
    proxy.refuse()
    assert seconds(lambda: hasty.put("a", BODY)) < BUSY_MACHINE_SECONDS


def test_a_black_hole_costs_an_answer_and_a_connection(hasty: ObjectStore, proxy: FaultProxy) -> None:
    proxy.black_hole()
    assert 2 * SHORT <= seconds(lambda: hasty.find("a", BODY)) < BUSY_MACHINE_SECONDS


def test_a_send_that_stalls_is_given_up(hasty: ObjectStore, proxy: FaultProxy) -> None:
    proxy.stall_after(50_000)
    assert SHORT <= seconds(lambda: hasty.put("a", os.urandom(10 * MIB))) < BUSY_MACHINE_SECONDS


def test_an_answer_that_does_not_come_is_given_up(hasty: ObjectStore, proxy: FaultProxy) -> None:
    proxy.stall_after(0, to="client")
    assert 2 * SHORT <= seconds(lambda: hasty.put("a", BODY)) < BUSY_MACHINE_SECONDS


def test_a_connection_that_breaks_once_is_mended_by_a_second_attempt(
    hasty: ObjectStore, proxy: FaultProxy, direct: ObjectStore
) -> None:
    proxy.reset_after(100_000, times=1)
    hasty.put("a", BODY)
    assert (proxy.struck, direct.get("a", at_most=len(BODY))) == (1, BODY)


def test_a_connection_that_always_breaks_stores_nothing(
    hasty: ObjectStore, proxy: FaultProxy, direct: ObjectStore
) -> None:
    proxy.reset_after(100_000)
    assert kind(lambda: hasty.put("a", BODY)) == "unreachable"
    assert proxy.struck == 2
    assert [found.key for found in direct.objects("")] == ["first"]


def test_an_answer_that_was_lost_costs_a_second_put_and_no_more(
    hasty: ObjectStore, proxy: FaultProxy, direct: ObjectStore
) -> None:
    proxy.lose_reply()
    hasty.put("a", BODY)
    assert (proxy.struck, direct.get("a", at_most=len(BODY))) == (1, BODY)


@pytest.mark.parametrize("fault", ["reset", "stall"])
def test_an_object_that_breaks_off_is_not_taken_for_whole(
    fault: str, hasty: ObjectStore, proxy: FaultProxy
) -> None:
    hasty.put("a", BODY)
    {"reset": proxy.reset_after, "stall": proxy.stall_after}[fault](100_000, to="client")
    assert kind(lambda: hasty.get("a", at_most=len(BODY))) == "unreachable"
    assert kind(lambda: list(hasty.pieces("a", len(BODY)))) == "unreachable"
    assert proxy.struck == 2
    proxy.heal()
    assert hasty.get("a", at_most=len(BODY)) == BODY


def test_only_an_answer_counts_as_one(hasty: ObjectStore, proxy: FaultProxy) -> None:
    before = hasty.answered_at
    proxy.refuse()
    assert kind(lambda: hasty.put("a", b"x")) == "unreachable"
    assert hasty.answered_at == before
    proxy.heal()
    assert hasty.find("nothing", b"x") is None
    assert hasty.answered_at > before
