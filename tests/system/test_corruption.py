"""A byte that changes on its way is noticed, sent again, and never reaches a manifest."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import metrics
from chunk_uploader import MAX_REFUSED_PUTS
from recording.stream import State
from scheduling.outages import BACKOFF_CAP_SECONDS
from tests.stores.every_store import EVERY_STORE
from tests.support.fault_proxy import FaultProxy, To
from tests.support.fault_server import FaultServer
from tests.support.harness import TIMEOUT
from tests.support.servers import RcloneS3, S3Server, ValkeyServer
from tests.support.small_harness import SMALL_CHUNK, SmallHarness, noise
from upload.crash_points import CrashPoint

INTO_A_BODY = 3000
"""Bytes of a request or reply after which its head is over for certain."""


class World:
    """A daemon whose S3 is behind a proxy that changes bytes from a crash point on."""

    def __init__(self, folder: Path, valkey: ValkeyServer, s3: Any, bucket: str, namespace: str) -> None:
        self.proxy = FaultProxy(s3.port)
        self._flip: tuple[CrashPoint, int, To] | None = None
        self.harness = SmallHarness(
            folder,
            valkey,
            s3,
            bucket,
            namespace,
            at=self._hook,
            S3_ENDPOINT_URL=f"http://127.0.0.1:{self.proxy.port}",
        )

    def flip_from(self, point: CrashPoint, after: int, *, to: To = "server") -> None:
        """Change one byte from the next time on that something has just been done."""
        self._flip = point, after, to

    def _hook(self, point: CrashPoint) -> None:
        if self._flip and point is self._flip[0]:
            (_, after, to), self._flip = self._flip, None
            self.proxy.flip_byte(after, to=to)


@pytest.fixture(params=EVERY_STORE)
def world(
    request: pytest.FixtureRequest, tmp_path: Path, valkey: ValkeyServer, redis_namespace: str
) -> Iterator[World]:
    """On each store: one checks SHA-256, another only Content-MD5, and of moto only the ETag tells."""
    server: S3Server = request.getfixturevalue(request.param)
    server.client.create_bucket(Bucket=redis_namespace[:60])
    world = World(tmp_path / "input", valkey, server, redis_namespace[:60], redis_namespace)
    with ExitStack() as stack:
        stack.enter_context(world.proxy)
        yield world


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"video_uploader_{name}", labels) or 0.0


@pytest.mark.parametrize(
    ("point", "after"),
    [
        pytest.param(CrashPoint.CHUNK_READ, INTO_A_BODY, id="a chunk"),
        pytest.param(CrashPoint.FINALIZING, INTO_A_BODY, id="the tail"),
        pytest.param(CrashPoint.REREAD, 1500, id="the manifest"),  # it is short
    ],
)
def test_a_byte_changed_on_the_way_to_the_store_is_sent_again(
    world: World, point: CrashPoint, after: int
) -> None:
    before = value("errors_total", kind="corrupt")
    world.flip_from(point, after)
    world.harness.write("a.mp4", noise(SMALL_CHUNK + 100_000))
    world.harness.until_finished("a.mp4")
    assert world.proxy.struck == 1
    assert value("errors_total", kind="corrupt") == before + 1
    assert world.harness.holds("a.mp4")
    assert world.harness.manifest("a.mp4")["repaired_chunks"] == 0


@pytest.mark.parametrize("after", [5, 40, 200, 400, 600])
def test_a_byte_changed_in_the_head_of_a_put_costs_a_try_and_nothing_else(world: World, after: int) -> None:
    world.flip_from(CrashPoint.CHUNK_READ, after)
    world.harness.write("a.mp4", noise(SMALL_CHUNK))
    world.harness.until_finished("a.mp4")
    assert world.proxy.struck == 1
    assert not world.harness.refusal
    assert len(world.harness.keys()) == len(world.harness.keys("a.mp4/g0001-"))
    assert world.harness.holds("a.mp4")


def test_a_manifest_that_reads_back_differently_is_put_again(world: World) -> None:
    before = value("errors_total", kind="corrupt")
    world.flip_from(CrashPoint.MANIFEST_PUT, INTO_A_BODY, to="client")
    world.harness.write("a.mp4", noise(8 * SMALL_CHUNK))
    world.harness.until_finished("a.mp4")
    assert world.proxy.struck == 1
    assert value("errors_total", kind="corrupt") == before + 1
    assert world.harness.holds("a.mp4")


@pytest.mark.parametrize("size", [SMALL_CHUNK, SMALL_CHUNK - 1], ids=["a chunk", "the tail"])
def test_a_stream_whose_bytes_arrive_changed_each_time_fails_and_goes_on_when_it_changes(
    world: World, size: int
) -> None:
    harness = world.harness
    harness.scan()
    target = harness.write("a.mp4", noise(size))
    world.proxy.flip_byte(INTO_A_BODY)
    harness.scan()
    for struck in range(world.proxy.struck, MAX_REFUSED_PUTS):
        assert harness.state("a.mp4") is not State.FAILED
        world.proxy.flip_byte(INTO_A_BODY)
        harness.tick(TIMEOUT)
        assert world.proxy.struck == struck + 1
    world.proxy.heal()
    assert world.proxy.struck == MAX_REFUSED_PUTS
    failed = harness.stream("a.mp4")
    assert failed.state is State.FAILED
    assert failed.error.kind == "corrupt"
    keys = harness.keys("a.mp4/")
    assert not [key for key in keys if "/metadata" in key], "nothing damaged was committed"
    with target.open("ab") as file:
        file.write(b"more")
    harness.until_finished("a.mp4")
    assert harness.holds("a.mp4")


def test_a_stream_whose_bytes_always_arrive_changed_does_not_stop_the_others(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> None:
    with FaultServer(rclone.port) as server:
        harness = SmallHarness(
            tmp_path / "input", valkey, rclone, bucket, redis_namespace, S3_ENDPOINT_URL=server.endpoint_url
        )
        server.fail(400, "BadDigest", method="PUT", containing="/bad.mp4/")
        for name in ("bad.mp4", "good.mp4", "new.mp4"):
            harness.write(name, noise(2 * SMALL_CHUNK + 9))
        harness.fall_idle()
        assert harness.holds("good.mp4")
        assert harness.holds("new.mp4")
        assert harness.state("bad.mp4") is not State.COMPLETE
        for _ in range(MAX_REFUSED_PUTS):
            harness.tick(BACKOFF_CAP_SECONDS)
        puts = [put for put in server.requests if put.method == "PUT" and "/bad.mp4/" in put.path]
        assert len(puts) == MAX_REFUSED_PUTS
        failed = harness.stream("bad.mp4")
        assert (failed.state, failed.error.kind) == (State.FAILED, "corrupt")
        assert "BadDigest" in failed.error.message
        harness.fall_idle()
        assert len([put for put in server.requests if "/bad.mp4/" in put.path and put.method == "PUT"]) == 5
