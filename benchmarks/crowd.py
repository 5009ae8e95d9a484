"""The memory for 100,000 known files, 1,000 that grow, and 100,000 that come at once while S3 is away.

Run it as `python -m benchmarks.crowd`; the test suite runs a short form.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from tests.drills.crowd import drill
from tests.support.daemon_process import Site
from tests.support.servers import RcloneS3, ValkeyServer


def main() -> int:
    """Run one drill and print its figures; gives the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--known", type=int, default=100_000, help="files that are in S3 already")
    parser.add_argument("--growing", type=int, default=1_000, help="files that are written at the same time")
    parser.add_argument("--waiting", type=int, default=100_000, help="new files while S3 is away")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crowd-") as folder, ExitStack() as running:
        valkey, store = ValkeyServer(Path(folder, "valkey")), RcloneS3(Path(folder, "rclone"))
        settings = {"STREAM_TIMEOUT_SECONDS": "20", "SCAN_INTERVAL_SECONDS": "20"}
        site = Site(Path(folder), valkey, store, "crowd", **settings)
        for part in (valkey, store):
            running.callback(part.close)
            part.start()
        running.callback(site.close)
        crowd = drill(site, store, **vars(chosen), timeout_seconds=600)
    for name, figure in asdict(crowd).items():
        print(f"{name.replace('_', ' ')}: {figure:,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
