"""Having one chunk in S3: what is there is not sent again, what is damaged is."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

import metrics
from errors import TransientError
from recording.stream import Chunk
from tests.support.fault_proxy import FaultProxy
from tests.support.fault_server import FaultServer
from tests.support.servers import RcloneS3, ValkeyServer
from tests.support.small_harness import SMALL_CHUNK, SmallHarness, noise
from upload.chunk_writer import ChunkWriter

BODY = noise(SMALL_CHUNK)


class Begun(SmallHarness):
    """A daemon whose stream of `a.mp4` has begun, and has no chunk yet."""

    def ensure(self, *, ask: bool) -> Chunk:
        if not self.parts.checkpoints.find("a.mp4"):
            self.write("a.mp4", b"x")
            self.scan()
        writer = ChunkWriter(self.parts.site)
        return writer.ensure(self.stream("a.mp4"), 0, BODY, hashlib.sha256(BODY).hexdigest(), ask=ask)


@pytest.fixture
def begin(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> Callable[[int], Begun]:
    """Make the daemon, with its S3 at a port."""

    def begun(port: int) -> Begun:
        endpoint = f"http://127.0.0.1:{port}"
        return Begun(tmp_path / "input", valkey, rclone, bucket, redis_namespace, S3_ENDPOINT_URL=endpoint)

    return begun


def test_a_chunk_that_is_there_is_not_sent_again(begin: Callable[[int], Begun], rclone: RcloneS3) -> None:
    with FaultServer(rclone.port) as counting:
        begun = begin(counting.port)
        first = begun.ensure(ask=True)
        puts, adopted = counting.count("PUT"), metrics.CHUNKS_ADOPTED._value.get()
        again = begun.ensure(ask=True)
        assert (again.key, again.etag, again.size) == (first.key, first.etag, len(BODY))
        assert (counting.count("PUT"), metrics.CHUNKS_ADOPTED._value.get()) == (puts, adopted + 1)
        asked = counting.count("HEAD")
        begun.ensure(ask=False)
        assert (counting.count("PUT"), counting.count("HEAD")) == (puts + 1, asked)


def test_a_chunk_that_is_damaged_is_sent_again(begin: Callable[[int], Begun], rclone: RcloneS3) -> None:
    begun = begin(rclone.port)
    key = begun.ensure(ask=False).key
    begun.s3.put_object(Bucket=begun.bucket, Key=key, Body=b"damaged!!!")
    begun.ensure(ask=True)
    assert begun.read(key) == BODY


def test_only_what_arrived_is_counted(begin: Callable[[int], Begun], rclone: RcloneS3) -> None:
    with FaultProxy(rclone.port) as proxy:
        begun = begin(proxy.port)
        begun.ensure(ask=False)
        uploaded = metrics.CHUNKS_UPLOADED._value.get()
        proxy.flip_byte(100_000)
        with pytest.raises(TransientError):
            begun.ensure(ask=False)
        assert metrics.CHUNKS_UPLOADED._value.get() == uploaded
        begun.ensure(ask=False)
        assert metrics.CHUNKS_UPLOADED._value.get() == uploaded + 1
