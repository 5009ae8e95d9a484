"""The contract of the store, which every store keeps that people may store recordings in."""

import base64
import copy
import hashlib
import os
import re
import threading
import tracemalloc
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from errors import PermanentError
from recording.layout import BucketLayout, RecordingId, key_path
from s3.bucket import ObjectStore
from tests.stores.every_store import quick_on_seaweedfs
from tests.support.fault_proxy import FaultProxy
from tests.support.fault_server import FaultServer
from tests.support.object_store import connected, kind, store_at
from tests.support.servers import S3Server

MIB = 1024 * 1024
BODY = os.urandom(300_000)
"""More than the sockets of a proxy hold."""


@pytest.fixture
def store(server: S3Server) -> ObjectStore:
    """On a new, empty bucket."""
    name = f"test-{uuid.uuid4().hex}"
    server.client.create_bucket(Bucket=name)
    store = copy.copy(connected(server.port))
    store.bucket = name
    return store


def pages_of(number: int, server: S3Server, store: ObjectStore) -> ObjectStore:
    """Return the same bucket, whose lists come in pages of so many entries."""

    def limit(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = number

    paged = store_at(server.port, store.bucket)
    paged._connected().meta.events.register("before-parameter-build.s3.ListObjectsV2", limit)
    return paged


def content(server: S3Server, store: ObjectStore, key: str) -> bytes:
    return server.client.get_object(Bucket=store.bucket, Key=key)["Body"].read()


# ---------------------------------------------------------------------- objects


@quick_on_seaweedfs
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


@quick_on_seaweedfs
def test_only_an_object_with_the_same_bytes_is_found(store: ObjectStore) -> None:
    store.put("a", b"some bytes")
    assert store.find("a", b"some bytes")
    assert store.find("a", b"same size!") is None
    assert store.find("a", b"some") is None
    assert store.find("b", b"some bytes") is None


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


@quick_on_seaweedfs
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


@quick_on_seaweedfs
def test_deleting_leaves_the_others_and_nothing_is_no_error(store: ObjectStore) -> None:
    for key in ("a", "b", "c"):
        store.put(key, b"x")
    store.delete(["a", "c", "never was"])
    assert [found.key for found in store.objects("")] == ["b"]


# ---------------------------------------------------------------------- lists


@quick_on_seaweedfs
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


@pytest.mark.stores
def test_more_than_a_thousand_objects_are_listed(server: S3Server, store: ObjectStore) -> None:
    keys = [f"many/{number:04d}" for number in range(1_001)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))
    assert [found.key for found in store.objects("many/")] == keys


def test_one_level_is_folders_and_objects(server: S3Server, store: ObjectStore) -> None:
    for key in ("p/a/1", "p/a/2", "p/b/1", "p/c", "p/d", "q"):
        store.put(key, b"x")
    folders, found = pages_of(2, server, store).level("p/")
    assert (folders, [item.key for item in found]) == (["p/a/", "p/b/"], ["p/c", "p/d"])


@quick_on_seaweedfs
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


@quick_on_seaweedfs
def test_a_bucket_that_was_deleted_is_told_from_a_stream_that_cannot_be_stored(
    server: S3Server, store: ObjectStore
) -> None:
    server.client.delete_bucket(Bucket=store.bucket)
    for work in (
        lambda: store.get("a", at_most=1),
        lambda: list(store.objects("a")),
        lambda: store.prepare(create=False),
    ):
        assert kind(work) == "bucket"


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


def test_the_signature_covers_content_md5_in_place_of_the_body(server: S3Server, store: ObjectStore) -> None:
    with FaultServer(server.port) as captured:
        store_at(captured.port, store.bucket).put("a", BODY)
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


@quick_on_seaweedfs
def test_a_byte_that_changes_on_its_way_up_is_noticed_and_sent_again(
    server: S3Server, store: ObjectStore
) -> None:
    with FaultProxy(server.port) as proxy:
        proxied = store_at(proxy.port, store.bucket)
        proxy.flip_byte(100_000)
        assert kind(lambda: proxied.put("a", BODY)) == "corrupt"
        assert proxy.struck == 1
        assert store.find("a", BODY) is None
        proxied.put("a", BODY)
    assert content(server, store, "a") == BODY


def test_a_byte_that_changes_on_its_way_down_is_noticed(server: S3Server, store: ObjectStore) -> None:
    store.put("a", BODY)
    with FaultProxy(server.port) as proxy:
        proxied = store_at(proxy.port, store.bucket)
        proxy.flip_byte(100_000, to="client")
        assert kind(lambda: proxied.get("a", at_most=len(BODY))) == "corrupt"
        assert proxied.get("a", at_most=len(BODY)) == BODY


# ---------------------------------------------------------------------- keys


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_wrong_keys_are_told_from_a_missing_bucket(wrong: str, server: S3Server, store: ObjectStore) -> None:
    if server.name == "moto":
        pytest.skip("moto looks at no key")
    stranger = store_at(server.port, store.bucket, **{wrong: "another-key"})
    assert kind(lambda: stranger.prepare(create=True)) == "credentials"
    assert kind(lambda: stranger.put("a", b"x")) == "credentials"
    assert kind(lambda: stranger.get("a", at_most=1)) == "credentials"
    assert list(store.objects("")) == []
