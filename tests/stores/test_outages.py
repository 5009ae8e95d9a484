"""What a store confirmed outlives its restart and its kill, and while it is away that is told."""

import uuid
from collections.abc import Iterator

import pytest
from botocore.config import Config

from s3.bucket import ObjectStore
from tests.conftest import served
from tests.stores.every_store import REAL_STORES
from tests.support.object_store import kind, store_at
from tests.support.real_stores import MinIO, SeaweedFS, Versitygw
from tests.support.servers import RcloneS3, S3Server, wait_until

pytestmark = pytest.mark.stores

SHORT = 0.5
"""Seconds for an answer, in place of 60."""

SERVERS: dict[str, type[S3Server]] = {one.name: one for one in (RcloneS3, SeaweedFS, MinIO, Versitygw)}
BODY = bytes(range(256)) * 1000


@pytest.fixture(scope="module", params=REAL_STORES)
def private_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    """A store to stop, kill and freeze; each test leaves it running."""
    yield from served(SERVERS[request.param](tmp_path_factory.mktemp("private") / request.param))


@pytest.fixture
def hasty(private_store: S3Server, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """On a new bucket, with a connection that was used."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    store = store_at(private_store.port, f"test-{uuid.uuid4().hex}")
    store._clients._config = store._clients._config.merge(Config(read_timeout=SHORT))
    store._clients.line.stall_seconds = SHORT
    monkeypatch.setattr("s3.connections.LOOK_SECONDS", SHORT / 10)
    monkeypatch.setattr("s3.connections.MOVES_SECONDS", SHORT / 2)
    store.prepare(create=True)
    store.put("first", BODY)
    return store


def test_a_store_that_was_killed_has_all_that_it_confirmed(
    private_store: S3Server, hasty: ObjectStore
) -> None:
    for number in range(20):
        hasty.put(f"a/{number:02d}", BODY)
    private_store.kill()
    assert kind(lambda: hasty.put("away", BODY)) == "unreachable"
    assert kind(lambda: hasty.find("first", BODY)) == "unreachable"
    assert kind(lambda: list(hasty.objects("a/"))) == "unreachable"
    private_store.start()
    patient = store_at(private_store.port, hasty.bucket)
    assert [patient.get(found.key, at_most=len(BODY)) for found in patient.objects("a/")] == [BODY] * 20
    assert patient.find("first", BODY)
    assert patient.find("away", BODY) is None


def test_a_store_that_was_stopped_goes_on_where_it_was(private_store: S3Server, hasty: ObjectStore) -> None:
    private_store.restart()
    patient = store_at(private_store.port, hasty.bucket)
    patient.prepare(create=False)
    assert patient.find("first", BODY)
    assert patient.put("second", BODY).size == len(BODY)


def test_a_store_that_answers_nothing_is_told_and_used_again(
    private_store: S3Server, hasty: ObjectStore
) -> None:
    private_store.freeze()
    try:
        assert kind(lambda: hasty.put("second", BODY)) == "unreachable"
        assert kind(lambda: hasty.get("first", at_most=len(BODY))) == "unreachable"
    finally:
        private_store.thaw()
    patient = store_at(private_store.port, hasty.bucket)
    wait_until(lambda: patient.put("third", BODY))
    assert patient.get("first", at_most=len(BODY)) == BODY
    assert patient.get("third", at_most=len(BODY)) == BODY
