"""Redis and S3 go away and come back: nothing is lost, everybody is told, nobody restarts anything."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.drills.outage import OUTAGES, SHORT_BACKOFF, SHORT_PATIENCE, Outage, outlive
from tests.support.daemon_process import Site
from tests.support.servers import RcloneS3, ValkeyServer

SECONDS = 3.5
IMPATIENT = f"{SHORT_BACKOFF}\n{SHORT_PATIENCE}"


def live_through(outage: Outage, base: Path) -> None:
    base.mkdir()
    with ExitStack() as servers:
        for server in (valkey := ValkeyServer(base / "valkey"), store := RcloneS3(base / "rclone")):
            servers.callback(server.close)
            server.start()
        site = Site(base, valkey, store, "outage")
        servers.callback(site.close)
        # A frozen Redis only looks slow at first: calls give up after 8 s.
        slow = (outage.service, outage.how) == ("redis", "frozen")
        prelude = IMPATIENT if (outage.service, outage.how) == ("s3", "frozen") else SHORT_BACKOFF
        outlive(outage, site, seconds=SECONDS, noticed=not slow, prelude=prelude)


@pytest.fixture(scope="module")
def outages(tmp_path_factory: pytest.TempPathFactory) -> dict[Outage, Future[None]]:
    """All outages at the same time, each with a daemon and servers of its own: they mostly wait."""
    base = tmp_path_factory.mktemp("outages")
    with ThreadPoolExecutor(len(OUTAGES)) as pool:
        return {
            outage: pool.submit(live_through, outage, base / str(number))
            for number, outage in enumerate(OUTAGES)
        }


@pytest.mark.parametrize("outage", OUTAGES, ids=str)
def test_an_outage_is_lived_through(outages: dict[Outage, Future[None]], outage: Outage) -> None:
    outages[outage].result()


@pytest.mark.parametrize(
    "outage",
    [outage for outage in OUTAGES if outage.service == "s3" and outage.when == "while recording"],
    ids=str,
)
def test_an_idle_daemon_notices_that_s3_is_away(
    tmp_path: Path, valkey: ValkeyServer, private_rclone: RcloneS3, redis_namespace: str, outage: Outage
) -> None:
    site = Site(tmp_path, valkey, private_rclone, redis_namespace)
    try:
        daemon = site.daemon(prelude=IMPATIENT)
        daemon.wait_for_ready()
        outage.begin(private_rclone)
        daemon.wait_for("outage begins", service="s3")
        status, text = daemon.get("/readyz")
        assert (status, text[:4]) == (503, "s3: ")
        outage.end(private_rclone)
        daemon.wait_for("outage ends", service="s3")
        daemon.wait_for_ready()
        assert daemon.terminate() == 0
    finally:
        site.close()
