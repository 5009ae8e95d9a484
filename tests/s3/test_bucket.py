"""The contract of the store on two real servers, and what a broken network does to it."""

import base64
import copy
import functools
import hashlib
import itertools
import os
import re
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.config import Config

import metrics
from errors import PermanentError, TransientError
from recording.layout import BucketLayout, RecordingId, key_path
from s3.bucket import ObjectStore
from settings.s3 import S3Credentials
from tests.support.fault_proxy import FaultProxy
from tests.support.fault_server import FaultServer
from tests.support.servers import BUSY_MACHINE_SECONDS, MotoServer, RcloneS3, S3Server, free_port, s3_settings

MIB = 1024 * 1024
BODY = os.urandom(300_000)
"""More than the sockets of a proxy hold."""

KEYS = S3Credentials(S3Server.access_key, S3Server.secret_key, None)


def store_at(port: int, bucket: str, **more: Any) -> ObjectStore:
    return ObjectStore(s3_settings(f"http://127.0.0.1:{port}", bucket, **more), connections=4)


def pages_of(number: int, server: S3Server, store: ObjectStore) -> ObjectStore:
    """Return the same bucket, whose lists come in pages of so many entries."""

    def limit(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = number

    paged = store_at(server.port, store.bucket)
    paged._connected().meta.events.register("before-parameter-build.s3.ListObjectsV2", limit)
    return paged


@pytest.fixture(params=["rclone", "moto"])
def server(request: pytest.FixtureRequest) -> S3Server:
    """Both servers, one after the other."""
    server: S3Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def store(server: S3Server) -> ObjectStore:
    """On a new, empty bucket; all on one server share their client, which takes 0.1 s to make."""
    name = f"test-{uuid.uuid4().hex}"
    server.client.create_bucket(Bucket=name)
    store = copy.copy(connected(server.port))
    store.bucket = name
    return store


@functools.cache
def connected(port: int) -> ObjectStore:
    return store_at(port, "")


def content(server: S3Server, store: ObjectStore, key: str) -> bytes:
    return server.client.get_object(Bucket=store.bucket, Key=key)["Body"].read()


def kind(work: Callable[[], object]) -> str:
    with pytest.raises((TransientError, PermanentError)) as failed:
        work()
    error: Any = failed.value
    return str(error.kind)


# ---------------------------------------------------------------------- objects


@pytest.mark.parametrize("body", [b"", b"x", BODY, bytearray(BODY)], ids=["empty", "one", "many", "array"])
def test_an_object_is_stored_byte_for_byte_and_confirmed(
    body: bytes, server: S3Server, store: ObjectStore
) -> None:
    stored = store.put("a/b.part", body)
    assert (stored.key, stored.size, stored.etag) == ("a/b.part", len(body), hashlib.md5(body).hexdigest())
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stored.uploaded_at)
    assert content(server, store, "a/b.part") == body
    assert store.get("a/b.part", at_most=len(body)) == body
    found = store.find("a/b.part", body)
    assert found
    assert found._replace(uploaded_at="") == stored._replace(uploaded_at="")


def test_only_an_object_with_the_same_bytes_is_found(store: ObjectStore) -> None:
    store.put("a", b"some bytes")
    assert store.find("a", b"some bytes")
    assert store.find("a", b"same size!") is None
    assert store.find("a", b"some") is None
    assert store.find("b", b"some bytes") is None


def test_a_chunk_that_is_there_is_not_sent_again(server: S3Server, store: ObjectStore) -> None:
    with FaultServer(server.port) as counting:
        store = store_at(counting.port, store.bucket)
        adopted = metrics.CHUNKS_ADOPTED._value.get()
        store.ensure("a", BODY, ask=True)
        again = store.ensure("a", BODY, ask=True)
        assert (counting.count("PUT"), again.size) == (1, len(BODY))
        assert metrics.CHUNKS_ADOPTED._value.get() == adopted + 1
        store.ensure("a", BODY, ask=False)
        assert (counting.count("PUT"), counting.count("HEAD")) == (2, 2)


def test_a_chunk_that_is_damaged_is_sent_again(server: S3Server, store: ObjectStore) -> None:
    server.client.put_object(Bucket=store.bucket, Key="a", Body=b"damaged!!!")
    store.ensure("a", b"some bytes", ask=True)
    assert content(server, store, "a") == b"some bytes"


def test_an_object_that_is_not_there_is_none(store: ObjectStore) -> None:
    assert store.get("a", at_most=10) is None


def test_no_more_is_read_than_was_asked_for(store: ObjectStore) -> None:
    store.put("a", BODY)
    assert kind(lambda: store.get("a", at_most=len(BODY) - 1)) == "manifest"
    tracemalloc.start()
    with pytest.raises(PermanentError, match="more than 10 bytes"):
        store.get("a", at_most=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(BODY)


def test_pieces_are_the_range_and_no_longer_than_asked(store: ObjectStore) -> None:
    store.put("a", BODY)
    assert b"".join(store.pieces("a", len(BODY))) == BODY
    pieces = list(store.pieces("a", len(BODY), start=10, end=110, piece_bytes=40))
    assert (b"".join(pieces), [len(piece) for piece in pieces]) == (BODY[10:110], [40, 40, 20])


@pytest.mark.parametrize("size", [len(BODY) - 1, len(BODY) + 1])
def test_pieces_of_an_object_of_another_size_are_refused(size: int, store: ObjectStore) -> None:
    store.put("a", BODY)
    assert kind(lambda: list(store.pieces("a", size))) == "size"
    assert kind(lambda: list(store.pieces("a", size, start=1, end=5))) == "size"
    assert kind(lambda: list(store.pieces("b", size))) == "missing"


def test_deleting_leaves_the_others_and_nothing_is_no_error(store: ObjectStore) -> None:
    for key in ("a", "b", "c"):
        store.put(key, b"x")
    store.delete(["a", "c", "never was"])
    assert [found.key for found in store.objects("")] == ["b"]


# ---------------------------------------------------------------------- lists


def test_objects_are_listed_in_order_over_many_pages(server: S3Server, store: ObjectStore) -> None:
    keys = sorted(f"a/{number:02d}.part" for number in range(7))
    for key in [*reversed(keys), "b/other"]:
        store.put(key, key.encode())
    listed = list(pages_of(3, server, store).objects("a/"))
    assert [found.key for found in listed] == keys
    assert [(found.size, found.etag) for found in listed] == [
        (len(key), hashlib.md5(key.encode()).hexdigest()) for key in keys
    ]
    assert list(store.objects("nothing/")) == []


def test_more_than_a_thousand_objects_are_listed(rclone: RcloneS3, bucket: str) -> None:
    folder = rclone.data_dir / bucket / "many"
    folder.mkdir()
    for number in range(1_001):
        (folder / f"{number:04d}").touch()
    listed = [found.key for found in store_at(rclone.port, bucket).objects("many/")]
    assert listed == [f"many/{number:04d}" for number in range(1_001)]


def test_one_level_is_folders_and_objects(server: S3Server, store: ObjectStore) -> None:
    for key in ("p/a/1", "p/a/2", "p/b/1", "p/c", "p/d", "q"):
        store.put(key, b"x")
    folders, found = pages_of(2, server, store).level("p/")
    assert (folders, [item.key for item in found]) == (["p/a/", "p/b/"], ["p/c", "p/d"])


def test_chunks_are_listed_by_hundreds_until_there_are_no_more(server: S3Server, store: ObjectStore) -> None:
    layout, recording = BucketLayout(""), RecordingId("a.mp4", 1, "7f3a91c2")
    under = layout.chunks(recording)
    indexes = [0, 99, 100, 199, 200]
    keys = [layout.chunk(recording, index, "0" * 64) for index in indexes]
    for key in [*keys, layout.chunk(recording, 400, "0" * 64)]:
        store.put(key, b"x")
    with FaultServer(server.port) as counting:
        listed = [found.key for found in store_at(counting.port, store.bucket).chunk_objects(under)]
        assert (listed, counting.count()) == (keys, 4)


def test_folders_are_listed_over_many_pages(server: S3Server, store: ObjectStore) -> None:
    assert store.folders("a.mp4/g") == []
    for name in ("g1", "g2", "g3", "gold", "x9"):
        store.put(f"a.mp4/{name}/metadata.json", b"{}")
    store.put("a.mp4/g4", b"no folder")
    found = pages_of(2, server, store).folders("a.mp4/g")
    assert found == ["a.mp4/g1/", "a.mp4/g2/", "a.mp4/g3/", "a.mp4/gold/"]


def test_an_object_is_copied_by_the_store_and_the_copy_compared(server: S3Server, store: ObjectStore) -> None:
    store.put("a b/ü.part", b"chunk")
    copied = store.copy("a b/ü.part", "c/d.part", b"chunk")
    assert copied
    assert (copied.key, store.get("c/d.part", at_most=5)) == ("c/d.part", b"chunk")
    assert store.copy("a b/ü.part", "e", b"other") is None, "it holds other bytes than are wanted"
    assert store.copy("missing", "e", b"chunk") is None
    assert store.get("e", at_most=5) is None


def test_a_copy_that_the_store_only_says_it_made_is_none(server: S3Server, store: ObjectStore) -> None:
    store.put("a", b"chunk")
    with FaultServer(server.port) as lying:
        lying.answer(200, b"<CopyObjectResult><ETag>x</ETag></CopyObjectResult>", method="PUT")
        assert store_at(lying.port, store.bucket).copy("a", "b", b"chunk") is None


# ---------------------------------------------------------------------- the bucket


def test_a_bucket_that_is_there_is_opened(store: ObjectStore) -> None:
    store.prepare(create=False)
    store.prepare(create=True)


def test_a_missing_bucket_is_created_only_when_it_may_be(server: S3Server) -> None:
    store = store_at(server.port, f"test-{uuid.uuid4().hex}")
    assert kind(lambda: store.prepare(create=False)) == "bucket"
    assert kind(lambda: store.prepare(create=False)) == "bucket"
    store.prepare(create=True)
    store.put("a", b"x")
    store.prepare(create=False)


def test_daemons_that_create_the_bucket_at_once_all_open_it(server: S3Server) -> None:
    name = f"test-{uuid.uuid4().hex}"
    stores = [store_at(server.port, name) for _ in range(4)]
    barrier = threading.Barrier(4)

    def open_it(store: ObjectStore) -> None:
        barrier.wait()
        store.prepare(create=True)

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(open_it, stores)) == [None] * 4


def test_a_bucket_that_was_deleted_is_told_from_a_stream_that_cannot_be_stored(
    server: S3Server, store: ObjectStore
) -> None:
    server.client.delete_bucket(Bucket=store.bucket)
    for work in (
        lambda: store.put("a", b"x"),
        lambda: store.get("a", at_most=1),
        lambda: list(store.objects("a")),
    ):
        assert kind(work) == "bucket"


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


# ---------------------------------------------------------------------- names

HOSTILE_NAMES = [
    "a b.mp4",
    'it\'s "quoted".mp4',
    "ünï/çødé 録画.mp4",
    "<script>alert(1)</script>.mp4",
    "new\nline\ttab.mp4",
    "100% &+,;=@!().mp4",
    "back\\slash|pipe?*#.mp4",
    "not \udcff utf-8.mp4",
    "~tilde^caret`.mp4",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_recording_of_any_name_is_stored_listed_and_read(name: str, store: ObjectStore) -> None:
    path = key_path(name)
    layout, recording = BucketLayout("videos/"), RecordingId(path, 1, "7f3a91c2")
    key = layout.chunk(recording, 0, "0" * 64)
    store.put(key, b"chunk")
    assert store.find(key, b"chunk")
    assert store.get(key, at_most=5) == b"chunk"
    assert [found.key for found in store.chunk_objects(layout.chunks(recording))] == [key]
    assert store.folders(layout.path(path) + "g") == [layout.generation(recording)]
    store.delete([key])
    assert store.find(key, b"chunk") is None


# ---------------------------------------------------------------------- on the wire


@pytest.mark.parametrize("checksums", ["when_required", "when_supported"])
def test_the_signature_covers_content_md5_in_place_of_the_body(
    checksums: str, server: S3Server, store: ObjectStore
) -> None:
    with FaultServer(server.port) as captured:
        store_at(captured.port, store.bucket, checksums=checksums).put("a", BODY)
        request = captured.requests[-1]
    md5 = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    assert (request.method, request.headers["content-md5"]) == ("PUT", md5)
    assert request.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    signed = re.search(r"SignedHeaders=([^,]+)", request.headers["authorization"])
    assert signed
    assert {"content-md5", "host", "x-amz-content-sha256"} <= set(signed[1].split(";"))
    assert content(server, store, "a") == BODY


@pytest.mark.parametrize("kind_of_body", [bytes, bytearray])
def test_a_put_copies_no_body(kind_of_body: Callable[[bytes], bytes], store: ObjectStore) -> None:
    body = kind_of_body(os.urandom(10 * MIB))
    store.put("warm", b"x")
    tracemalloc.start()
    store.put("a", body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MIB


# ---------------------------------------------------------------------- other bytes than were sent


def test_a_byte_that_changes_on_its_way_up_is_noticed_and_sent_again(
    server: S3Server, store: ObjectStore
) -> None:
    with FaultProxy(server.port) as proxy:
        proxied = store_at(proxy.port, store.bucket)
        uploaded = metrics.CHUNKS_UPLOADED._value.get()
        proxy.flip_byte(100_000)
        assert kind(lambda: proxied.ensure("a", BODY, ask=False)) == "corrupt"
        assert (proxy.struck, metrics.CHUNKS_UPLOADED._value.get()) == (1, uploaded)
        assert store.find("a", BODY) is None
        proxied.ensure("a", BODY, ask=True)
    assert content(server, store, "a") == BODY


def test_a_byte_that_changes_on_its_way_down_is_noticed(server: S3Server, store: ObjectStore) -> None:
    store.put("a", BODY)
    with FaultProxy(server.port) as proxy:
        proxied = store_at(proxy.port, store.bucket)
        proxy.flip_byte(100_000, to="client")
        assert kind(lambda: proxied.get("a", at_most=len(BODY))) == "corrupt"
        assert proxied.get("a", at_most=len(BODY)) == BODY


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
