"""The servers and the rules that all tests share."""

import os
import threading
import time
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from errors import ConfigError
from tests.support.harness import Harness
from tests.support.missing import skip_or_fail
from tests.support.real_stores import MinIO, NotBuiltError, SeaweedFS, Versitygw
from tests.support.servers import MotoServer, RcloneS3, Server, ValkeyServer

_JOIN_SECONDS = 5.0
AnyServer = TypeVar("AnyServer", bound=Server)


def pytest_configure() -> None:
    """Nothing of this machine's settings for S3 or for proxies reaches a test."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull


@pytest.fixture(autouse=True)
def no_thread_outlives_its_test() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _JOIN_SECONDS
    started = [thread for thread in threading.enumerate() if thread not in before]
    for thread in started:
        thread.join(max(0.0, deadline - time.monotonic()))
    leaked = [thread.name for thread in started if thread.is_alive()]
    assert not leaked, f"threads that this test left running: {leaked}"


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """One Valkey for all tests; a test that stops it uses `private_valkey`."""
    yield from served(ValkeyServer(tmp_path_factory.mktemp("shared") / "valkey"))


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneS3]:
    """One rclone S3 for all tests; a test that stops it uses `private_rclone`."""
    yield from served(RcloneS3(tmp_path_factory.mktemp("shared") / "rclone"))


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    """One moto S3 for all tests, a second opinion beside rclone."""
    yield from served(MotoServer(tmp_path_factory.mktemp("shared") / "moto"))


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """One SeaweedFS for all tests."""
    yield from served(SeaweedFS(tmp_path_factory.mktemp("shared") / "seaweedfs"))


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinIO]:
    """One MinIO for all tests; without Go they are skipped."""
    yield from served(MinIO(tmp_path_factory.mktemp("shared") / "minio"))


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versitygw]:
    """One versitygw for all tests; without Go they are skipped."""
    yield from served(Versitygw(tmp_path_factory.mktemp("shared") / "versitygw"))


@pytest.fixture
def private_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey of the test's own, to stop, kill and freeze."""
    yield from served(ValkeyServer(tmp_path / "private-valkey"))


@pytest.fixture
def private_rclone(tmp_path: Path) -> Iterator[RcloneS3]:
    """An rclone S3 of the test's own, to stop, kill and freeze; it has no bucket yet."""
    yield from served(RcloneS3(tmp_path / "private-rclone"))


@pytest.fixture
def redis_namespace() -> str:
    """A REDIS_NAMESPACE that no other test uses."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def bucket(rclone: RcloneS3) -> str:
    """A new, empty bucket of the shared rclone; its objects are the files in `rclone.data_dir / bucket`."""
    name = f"test-{uuid.uuid4().hex}"
    rclone.client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def moto_bucket(moto: MotoServer) -> str:
    """A new, empty bucket of the shared moto."""
    name = f"test-{uuid.uuid4().hex}"
    moto.client.create_bucket(Bucket=name)
    return name


def served(server: AnyServer) -> Iterator[AnyServer]:
    """A fixture's body: the server while the test runs; skipped, or in CI failed, if it is not installed."""
    try:
        try:
            server.start()
        except NotBuiltError as missing:  # in CI too: there may be no way to the Go modules
            pytest.skip(str(missing))
        except ConfigError as missing:
            skip_or_fail(str(missing))
        yield server
    finally:
        server.close()


@pytest.fixture
def harness(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> Harness:
    """The daemon without its threads, on the shared servers."""
    return Harness(tmp_path / "input", valkey, rclone, bucket, redis_namespace)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape names of files that are no UTF-8: one of them in a failure would end the whole run of xdist."""
    return _printable((yield))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_printable(one) for one in value)
    return value
