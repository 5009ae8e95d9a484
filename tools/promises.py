"""Break each promise of docs/promises.md by its one-line change, and see the test that holds it fail.

Run it as `make promises`. Every change is made in a copy of the code; the code itself stays as it is.
"""

import argparse
import sys
import time

from tools.promise_page import PAGE, promises, tried, unchanged_problem


def main() -> int:
    """Try all changes; gives the exit code, 1 when a test passes although its promise is broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=int, help="the number of one promise")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    chosen = parser.parse_args()
    began = time.monotonic()
    all_promises = promises(PAGE.read_text())
    titles = {promise.number: promise.title for promise in all_promises}
    changes = [change for promise in all_promises for change in promise.changes]
    if chosen.only:
        changes = [change for change in changes if change.promise == chosen.only]
    if problem := unchanged_problem(changes):
        print(f"{problem}\nwithout any change, not all tests pass")
        return 1
    bad = 0
    for trial in tried(changes, chosen.jobs):
        change = trial.change
        verdict = "STILL PASSES" if trial.problem else "fails"
        where = f"{change.promise:2}  {titles[change.promise]}: {change.module} changed"
        print(f"{where:84} its test {verdict} ({trial.seconds:.1f} s)", flush=True)
        if trial.problem:
            bad += 1
            print(f"    {change.before.strip()}\n    {change.test}\n{trial.problem}")
    print(f"{len(changes)} changes, {bad} unnoticed, {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
