"""Redis and S3 go away and come back: nothing is lost, everybody is told, nobody restarts anything."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemon_process import Site
from tests.outage_drill import OUTAGES, SHORT_BACKOFF, Outage, outlive
from tests.servers import RcloneS3, ValkeyServer

# Two workers of pytest-xdist would do all the work of the fixture twice.
pytestmark = pytest.mark.xdist_group("outages")

SECONDS = 3.5


def live_through(outage: Outage, base: Path) -> None:
    base.mkdir()
    with ExitStack() as servers:
        for server in (valkey := ValkeyServer(base / "valkey"), store := RcloneS3(base / "rclone")):
            servers.callback(server.close)
            server.start()
        site = Site(base, valkey, store, "outage")
        servers.callback(site.close)
        # A frozen server only looks slow at first: calls to Redis give up after 8 s, to S3 after 60 s.
        outlive(outage, site, seconds=SECONDS, noticed=outage.how == "refused", prelude=SHORT_BACKOFF)


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
