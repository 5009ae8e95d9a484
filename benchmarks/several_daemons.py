"""Three daemons, 60 growing files, one daemon killed and one stopped, with leases of their real length.

Run it as `python -m benchmarks.several_daemons --files 60`; the test suite runs a short form.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from tests.drills.several import drill
from tests.support.daemon_process import CountingRclone, Site
from tests.support.servers import ValkeyServer


def main() -> int:
    """Run one drill and print its figures; gives the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=60, help="how many grow at the same time")
    parser.add_argument("--rate", type=float, default=500_000, help="bytes per second of each")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="several-daemons-") as folder, ExitStack() as running:
        valkey, store = ValkeyServer(Path(folder, "valkey")), CountingRclone(Path(folder, "rclone"))
        site = Site(Path(folder), valkey, store, "drill")
        for part in (valkey, store):
            running.callback(part.close)
            part.start()
        running.callback(site.close)
        report = drill(site, store, files=chosen.files, bytes_per_second=chosen.rate)
    for name, figure in asdict(report).items():
        shown = " + ".join(map(str, figure)) if isinstance(figure, tuple) else f"{figure:,}"
        print(f"{name.replace('_', ' ')}: {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
