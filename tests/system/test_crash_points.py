"""Promises 1, 2, 3, 5, 6 and 8: kill -9 at every place between two writes, at every occurrence, and go on."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recording.stream import State
from tests.support.crash_child import Addresses, Life, lived
from tests.support.harness import CHUNK, Harness
from tests.support.servers import RcloneS3, ValkeyServer
from upload.crash_points import CrashPoint

MAX_KILLS = 12
"""In one scene; none has more places of one kind."""

DEEP = "/".join(["x" * 100] * 10) + "/too-deep.mp4"


class World:
    """A folder and its recorders; daemons live and die at the crash point until all is done."""

    def __init__(self, point: CrashPoint | None, harness: Harness, addresses: Addresses) -> None:
        self.point, self.harness, self.addresses = point, harness, addresses
        self.folder = harness.folder
        self.kills = 0

    def live(self, *, idle: bool, appends: str = "", rewrites: str = "") -> None:
        for _ in range(MAX_KILLS):
            life = Life(
                self.folder,
                self.addresses,
                self.harness.bucket,
                self.harness.settings.redis.namespace,
                self.point,
                idle,
                appends,
                rewrites,
            )
            if lived(life):
                return
            self.kills += 1
            self.let_leases_end()
        life = Life(**{**life.__dict__, "point": None})
        assert lived(life)

    def let_leases_end(self) -> None:
        """Thirty seconds pass for Redis."""
        redis: Any = self.harness.parts.checkpoints._redis
        base = f"{{{self.harness.settings.redis.namespace}}}:"
        for name in ("active", "complete", "incomplete", "failed"):
            for stream_id in redis.zrange(base + name, 0, -1):
                redis.hset(f"{base}stream:{stream_id}", "lease_until", 0)

    def write(self, path: str, size: int) -> Path:
        return self.harness.write(path, os.urandom(size))


def growing_and_patched(world: World) -> None:
    target = world.write("patched.mp4", 2 * CHUNK + 7)
    world.live(idle=False)
    with target.open("r+b") as file:
        file.write(os.urandom(64))
    world.live(idle=True)


def grown_again(world: World) -> None:
    with (world.folder / "patched.mp4").open("ab") as file:
        file.write(os.urandom(CHUNK))
    world.live(idle=True)


def patched_again(world: World) -> None:
    """The former revision is kept: it is no beginning of the new one."""
    with (world.folder / "patched.mp4").open("r+b") as file:
        file.write(os.urandom(64))
    world.live(idle=True)


def rewritten_in_place(world: World) -> None:
    """It grows after its end, and then every byte is another recording's."""
    target = world.write("ring.mp4", CHUNK + 3)
    world.live(idle=True)
    with target.open("ab") as file:
        file.write(os.urandom(7))
    world.live(idle=True, rewrites="ring.mp4")
    world.live(idle=True)


def grown_while_finalizing(world: World) -> None:
    world.write("busy.mp4", CHUNK + 11)
    world.live(idle=True, appends="busy.mp4")


def truncated(world: World) -> None:
    world.write("cut.mp4", 2 * CHUNK)
    world.live(idle=False)
    with (world.folder / "cut.mp4").open("r+b") as file:
        file.truncate(0)
        file.write(os.urandom(CHUNK + 1))
    world.live(idle=True)


def renamed(world: World) -> None:
    target = world.write("old.mp4", CHUNK + 3)
    world.live(idle=False)
    target.rename(world.folder / "new.mp4")
    world.live(idle=True)


def vanished(world: World) -> None:
    world.write("gone.mp4", CHUNK + 3)
    world.live(idle=False)
    (world.folder / "gone.mp4").unlink()
    world.live(idle=True)


def too_deep(world: World) -> None:
    world.write(DEEP, CHUNK)
    world.live(idle=True)


def forgotten(world: World) -> None:
    namespace = world.harness.settings.redis.namespace
    redis: Any = world.harness.parts.checkpoints._redis
    redis.delete(*redis.keys(f"{{{namespace}}}:*"))
    world.live(idle=True)


SCENES: tuple[Callable[[World], None], ...] = (
    growing_and_patched,
    grown_again,
    patched_again,
    rewritten_in_place,
    grown_while_finalizing,
    truncated,
    renamed,
    vanished,
    too_deep,
    forgotten,
)


QUICK = (CrashPoint.MANIFEST_PUT, CrashPoint.CLOSING_MANIFEST_PUT)
"""In every run of the tests; the others are a drill of some minutes."""


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, id=point.name, marks=() if point in QUICK else pytest.mark.drill)
        for point in CrashPoint
    ],
)
def test_every_recording_is_right_after_kills_at(
    point: CrashPoint, harness: Harness, valkey: ValkeyServer, rclone: RcloneS3
) -> None:
    addresses = Addresses(valkey.url, rclone.endpoint_url, rclone.access_key, rclone.secret_key)
    world = World(point, harness, addresses)
    for scene in SCENES:
        scene(world)
    assert world.kills > 0, "no scene reaches this crash point"
    assert harness.holds("patched.mp4")
    assert harness.manifest("patched.mp4")["revision"] == 3
    assert len(harness.recorded("patched.mp4", revision=2)) == 3 * CHUNK + 7
    assert harness.holds("ring.mp4", 2)
    assert len(harness.recorded("ring.mp4", 1, leftovers=None)) == CHUNK + 3
    assert harness.holds("busy.mp4")
    assert harness.holds("cut.mp4", 2)
    assert harness.manifest("cut.mp4", 1)["status"] == "incomplete"
    assert len(harness.recorded("cut.mp4", 1)) == 2 * CHUNK
    assert harness.recorded("gone.mp4")[:CHUNK]
    assert (harness.folder / "new.mp4").read_bytes() in (
        harness.recorded("old.mp4"),
        harness.recorded("new.mp4") if harness.keys("new.mp4/") else b"",
    )
    assert harness.state(DEEP) is State.FAILED
