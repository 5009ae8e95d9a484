"""One life of a daemon in a process of its own, which a crash point may end by kill -9."""

import multiprocessing
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tests.support.harness import TIMEOUT, Harness
from upload.crash_points import CrashPoint

if TYPE_CHECKING:
    from tests.support.servers import S3Server, ValkeyServer

LIFE_SECONDS = 60.0
"""No life of these takes longer than a second or two."""


@dataclass(frozen=True)
class Addresses:
    """Where the test's servers are; can be sent to another process, unlike the servers themselves."""

    url: str
    endpoint_url: str
    access_key: str
    secret_key: str
    client: None = None


@dataclass(frozen=True)
class Life:
    """What one daemon finds and does.

    `idle`: time passes until everything is finalized; else only what grows is stored. `appends`: this
    file gets more bytes while the daemon finalizes it, once. `rewrites`: this file gets other bytes in
    place after the daemon has found it.
    """

    folder: Path
    addresses: Addresses
    bucket: str
    namespace: str
    point: CrashPoint | None
    idle: bool
    appends: str = ""
    rewrites: str = ""


def lived(life: Life) -> bool:
    """Run one daemon until it has nothing to do any more; False when it was killed at its crash point."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["daemon", "tests.support.harness"])
    process = context.Process(target=_live, args=(life,))
    process.start()
    process.join(LIFE_SECONDS)
    assert process.exitcode in (0, -signal.SIGKILL), f"the daemon ended with {process.exitcode}"
    return process.exitcode == 0


def _live(life: Life) -> None:
    def hook(point: CrashPoint) -> None:
        if point is life.point:
            os.kill(os.getpid(), signal.SIGKILL)
        grows = life.folder / life.appends
        if point is CrashPoint.SETTLING_RECORDED and life.appends and grows.stat().st_size % 10:
            with grows.open("ab") as file:
                file.write(bytes(10 - grows.stat().st_size % 10))

    harness = Harness(
        life.folder,
        cast("ValkeyServer", life.addresses),
        cast("S3Server", life.addresses),
        life.bucket,
        life.namespace,
        at=hook,
    )
    harness.scan()
    harness.tick()
    if life.rewrites:
        _rewrite(life.folder / life.rewrites)
    if life.idle:
        for _ in range(4):
            harness.tick(TIMEOUT)


def _rewrite(path: Path) -> None:
    """Once, however often the daemon is killed."""
    done = path.parent.parent / f"{path.name}-rewritten"
    if not done.exists():
        with path.open("r+b") as file:
            file.write(os.urandom(path.stat().st_size))
        done.touch()
