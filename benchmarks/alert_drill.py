"""`make alerts`: every alert and every panel, with a real Prometheus that scrapes real daemons."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.drills.alerts import Drill
from tests.support import monitoring


def main() -> int:
    """Run one drill and print its figures; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of the healthy part (default: 60)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="alert-drill-") as folder:
        drill = Drill(Path(folder))
        try:
            drill.start()
            files = drill.record(chosen.seconds)
            drill.check_health()
            print(f"{time.time() - drill.began:.0f} s with live recorders, {files} files: no alert")
            drill.show_costs()
            print(f"\n{'alert':<32}{'fault':<28}{'fired after':>10}{'ended after':>12}", flush=True)
            drill.all_faults()
        finally:
            drill.close()
    fired, rules = {each.alert for each in drill.fired}, {rule["alert"] for rule in monitoring.alerts()}
    print(f"{len(fired)} of {len(rules)} alerts fired and ended")
    return 0 if fired == rules else 1


if __name__ == "__main__":
    sys.exit(main())
