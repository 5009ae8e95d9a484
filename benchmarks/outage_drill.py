"""The long form of the outage drill: 20 s without Redis or S3, all outages at the same time.

Run it as `python -m benchmarks.outage_drill --seconds 20`; the test suite runs a short form.
"""

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.drills.outage import OUTAGES, Outage, outlive
from tests.support.daemon_process import Site
from tests.support.servers import RcloneS3, ValkeyServer

# Until a frozen server is noticed: 4 attempts of 2 s to Redis; to S3 two probes of 5 s after 5 s of silence.
PATIENCE_SECONDS = {"redis": 12.0, "s3": 19.0}


def main() -> int:
    """Run every outage once and print how it went; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="outage-drill-") as folder,
        ThreadPoolExecutor(len(OUTAGES)) as pool,
    ):
        wrong = list(pool.map(partial(live_through, base=Path(folder), seconds=chosen.seconds), OUTAGES))
    for outage, problem in zip(OUTAGES, wrong, strict=True):
        print(f"{outage}, {chosen.seconds:g} s: {problem or 'nothing lost'}")
    return 1 if any(wrong) else 0


def live_through(outage: Outage, base: Path, seconds: float) -> str:
    """Live through one outage; gives what went wrong, "" for nothing."""
    here = base / str(outage).replace(" ", "-")
    here.mkdir()
    noticed = outage.how == "refused" or seconds > PATIENCE_SECONDS[outage.service]
    with ExitStack() as servers:
        for server in (valkey := ValkeyServer(here / "valkey"), store := RcloneS3(here / "rclone")):
            servers.callback(server.close)
            server.start()
        site = Site(here, valkey, store, "drill")
        servers.callback(site.close)
        try:
            outlive(outage, site, seconds=seconds, noticed=noticed)
        except AssertionError as error:
            return str(error)
    return ""


if __name__ == "__main__":
    sys.exit(main())
