"""Puts are confirmed by the strongest checksum that a store was seen to check, and no damage gets past it."""

import copy
import hashlib
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from errors import PermanentError, StoreUnavailable, TransientError
from s3.bucket import ObjectStore
from s3.checksums import Algorithm
from tests.stores.declared import DECLARED
from tests.stores.every_store import EVERY_STORE
from tests.stores.mechanisms import REFUSED
from tests.support.fault_proxy import FaultProxy
from tests.support.object_store import connected, store_at
from tests.support.servers import S3Server

BODY = os.urandom(300_000)
HEAD_BYTES = 1_500
"""After which the head of a put is over."""


def proven(name: str) -> Algorithm:
    """Return what the table says that a store checks."""
    return "sha256" if DECLARED[name]["wrong `x-amz-checksum-sha256`"] == REFUSED else "md5"


def ways() -> Iterator[Any]:
    """Every store with each way in which it confirms puts; SeaweedFS in every run, too."""
    for one in EVERY_STORE:
        name = str(one.values[0])
        marks = () if name == "seaweedfs" else one.marks
        yield pytest.param((name, "md5"), marks=one.marks, id=f"{name}-md5")
        if proven(name) == "sha256":
            yield pytest.param((name, "sha256"), marks=marks, id=f"{name}-sha256")


@pytest.fixture(params=ways())
def way(request: pytest.FixtureRequest) -> tuple[S3Server, Algorithm]:
    """A store and how it shall confirm puts."""
    name, algorithm = request.param
    return request.getfixturevalue(name), algorithm


@pytest.fixture
def server(way: tuple[S3Server, Algorithm]) -> S3Server:
    return way[0]


@pytest.fixture
def store(way: tuple[S3Server, Algorithm]) -> ObjectStore:
    """On a new bucket."""
    server, algorithm = way
    name = f"test-{uuid.uuid4().hex}"
    server.client.create_bucket(Bucket=name)
    store = copy.copy(connected(server.port))
    store.bucket, store.confirmation = name, copy.copy(store.confirmation)
    store.confirmation.algorithm = algorithm
    return store


def behind(proxy: FaultProxy, store: ObjectStore) -> ObjectStore:
    """Return the same bucket, through a proxy."""
    proxied = store_at(proxy.port, store.bucket)
    proxied.confirmation.algorithm = store.confirmation.algorithm
    return proxied


def test_sha256_is_taken_where_a_wrong_one_is_refused(server: S3Server, store: ObjectStore) -> None:
    assert store.checks_sha256("trial") == (proven(server.name) == "sha256")


def test_what_was_put_is_found_read_and_told_from_other_bytes(store: ObjectStore) -> None:
    sha256 = hashlib.sha256(BODY).hexdigest()
    stored = store.put("a", BODY, sha256=sha256)
    assert stored.size == len(BODY)
    assert store.find("a", BODY, sha256=sha256)
    assert store.find("a", BODY)
    assert store.find("a", BODY[:-1] + bytes([BODY[-1] ^ 1])) is None
    assert store.get("a", at_most=len(BODY)) == BODY
    assert store.copy("a", "b", BODY, sha256=sha256)


def test_an_object_that_was_put_without_sha256_is_found(server: S3Server, store: ObjectStore) -> None:
    server.client.put_object(Bucket=store.bucket, Key="a", Body=BODY)
    assert store.find("a", BODY)
    assert store.find("a", bytes(len(BODY))) is None
    assert store.get("a", at_most=len(BODY)) == BODY


def test_no_hash_is_computed_that_nobody_needs(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = hashlib.sha256(BODY).hexdigest()
    unneeded = {"sha256": ["md5", "sha256"], "md5": ["sha256"]}[store.confirmation.algorithm]

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("this hash is not needed")

    with monkeypatch.context() as patch:
        for name in unneeded:
            patch.setattr(f"s3.checksums.hashlib.{name}", never)
        store.put("a", BODY, sha256=sha256)
        assert store.find("a", BODY, sha256=sha256)


def test_a_wrong_sha256_is_refused_or_its_bytes_are_not_taken_for_stored(store: ObjectStore) -> None:
    if store.confirmation.algorithm == "md5":
        return
    with pytest.raises(TransientError) as refused:
        store.put("a", BODY, sha256=hashlib.sha256(b"other").hexdigest())
    assert refused.value.kind == "corrupt"
    assert store.find("a", BODY) is None


def test_each_of_many_changed_bytes_is_noticed(server: S3Server, store: ObjectStore) -> None:
    offsets = [HEAD_BYTES + step * len(BODY) // 20 for step in range(20)]
    with FaultProxy(server.port) as proxy:
        proxied = behind(proxy, store)
        for number, offset in enumerate(offsets):
            proxy.flip_byte(offset)
            with pytest.raises(TransientError) as noticed:
                proxied.put(f"a{number}", BODY)
            assert noticed.value.kind == "corrupt"
            proxy.heal()
        assert proxy.struck == len(offsets)
    assert not any(store.find(f"a{number}", BODY) for number in range(len(offsets)))


def test_a_changed_byte_of_the_head_costs_a_put_or_nothing(server: S3Server, store: ObjectStore) -> None:
    with FaultProxy(server.port) as proxy:
        proxied = behind(proxy, store)
        for offset in range(30, 700, 40):
            key = f"a{offset}"
            proxy.flip_byte(offset)
            try:
                proxied.put(key, BODY)
                told = True
            except (PermanentError, StoreUnavailable, TransientError):
                told = False
            proxy.heal()
            # "corrupt" wrongly costs one more put; stored wrongly would cost the recording.
            assert store.find(key, BODY) or not told
