"""Each store does what docs/stores.md says of it: no less, and no more."""

import uuid

import pytest

from tests.stores.declared import DECLARED
from tests.stores.mechanisms import MECHANISMS, Bucket
from tests.support.servers import S3Server


@pytest.fixture
def new_bucket(server: S3Server) -> Bucket:
    name = f"test-{uuid.uuid4().hex}"
    server.client.create_bucket(Bucket=name)
    return Bucket(server, server.client, name)


@pytest.mark.stores
@pytest.mark.parametrize("title", MECHANISMS)
def test_a_store_does_what_is_declared_of_it(title: str, server: S3Server, new_bucket: Bucket) -> None:
    assert MECHANISMS[title](new_bucket) == DECLARED[server.name][title]


@pytest.mark.parametrize("name", DECLARED)
def test_every_mechanism_is_declared_of_every_store(name: str) -> None:
    assert list(DECLARED[name]) == list(MECHANISMS)
