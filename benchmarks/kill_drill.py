"""The long form of the kill drill: kill -9 of the daemon, with leases of their real length.

Run it as `python -m benchmarks.kill_drill --kills 30 --seed 1`; the test suite runs a short form.
"""

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.drills.kill import drill
from tests.support.daemon_process import CountingRclone, Site
from tests.support.servers import ValkeyServer


def main() -> int:
    """Run one drill and print its figures; gives the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-drill-") as folder:
        valkey, store = ValkeyServer(Path(folder, "valkey")), CountingRclone(Path(folder, "rclone"))
        site = Site(Path(folder), valkey, store, "drill")
        try:
            valkey.start()
            store.start()
            report = drill(site, store, kills=chosen.kills, seed=chosen.seed)
        finally:
            site.close()
            store.close()
            valkey.close()
    for name, figure in asdict(report).items():
        print(f"{name.replace('_', ' ')}: {figure:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
