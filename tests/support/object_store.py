"""Our store on a server of the tests, and what its failures are called."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from errors import PermanentError, TransientError
from s3.bucket import ObjectStore
from tests.support.servers import s3_settings


def store_at(port: int, bucket: str, **more: Any) -> ObjectStore:
    """Return one bucket of the server at a port; `more` are other settings of S3."""
    return ObjectStore(s3_settings(f"http://127.0.0.1:{port}", bucket, **more), connections=4)


@functools.cache
def connected(port: int) -> ObjectStore:
    """Return a store to copy: all on one server share their client, which takes 0.1 s to make."""
    return store_at(port, "")


def kind(work: Callable[[], object]) -> str:
    """Return the kind of the error that a call raises; the test fails if it raises none."""
    with pytest.raises((TransientError, PermanentError)) as failed:
        work()
    error: Any = failed.value
    return str(error.kind)
