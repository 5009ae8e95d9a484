"""The stores of the contract, one after the other."""

import pytest

from tests.stores.every_store import EVERY_STORE
from tests.support.servers import S3Server


@pytest.fixture(params=EVERY_STORE)
def server(request: pytest.FixtureRequest) -> S3Server:
    """Each store, shared with all tests: one that stops it uses `private_store`."""
    server: S3Server = request.getfixturevalue(request.param)
    return server
