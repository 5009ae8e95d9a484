"""Two daemons, recorders of all kinds, and faults of everything at once, for as long as you like.

Run it as `python -m benchmarks.soak --minutes 30`. A run that found something exits with 1, and keeps its
folder with all logs, records and objects. The same seed draws the same faults again.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from benchmarks.report import table
from tests.drills.soak import Report, Soak


def main() -> int:
    """Run one soak and print its figures; gives the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="of load and faults (30)")
    parser.add_argument("--seed", type=int, help="of all that is left to chance; a random one by default")
    parser.add_argument("--json", type=Path, help="a file for all figures and the journal")
    parser.add_argument("--dir", type=Path, help="where its folder is made; it needs up to 4 GB")
    parser.add_argument("--quiet", action="store_true", help="say nothing of the single events")
    chosen = parser.parse_args()
    seed = random.randrange(1_000_000) if chosen.seed is None else chosen.seed
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir=chosen.dir))
    print(f"seed {seed}, {chosen.minutes:g} minutes, in {folder}", flush=True)
    with closing(Soak(folder, seed=seed, tell=_silent if chosen.quiet else _tell)) as soak:
        report = soak.run(chosen.minutes)
    print(text_of(report))
    if chosen.json:
        chosen.json.write_text(json.dumps(asdict(report), indent=2))
    if report.problems:
        print(f"The same faults again: --seed {seed}. What there is to look at: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)


def _silent(_: str) -> None:
    pass


def text_of(report: Report) -> str:
    """Give the figures as tables, and the verdict."""
    figures = [
        ["recordings", f"{report.recordings}"],
        ["written", f"{report.written_bytes / 1e9:.2f} GB"],
        ["writers", f"{len(report.writers)}"],
        ["chunk puts begun", f"{report.chunk_puts:,}"],
        ["of which repeated", f"{report.repeated_puts:,} (at most {report.most_repeated:,})"],
        ["objects that came after their commit", f"{report.late_puts}"],
        ["without a manifest: file and record were gone", f"{report.unclosed}"],
        ["until all was stored, after the last fault", f"{report.settle_seconds:.1f} s"],
    ]
    growth = report.growth
    moments = [
        ("B, ready", growth.ready),
        (f"B, at {growth.reference.at_seconds:.0f} s", growth.reference),
        (f"B, at its end ({growth.end.at_seconds:.0f} s)", growth.end),
        ("A, its last process", growth.last_a),
    ]
    processes = [
        [name, f"{at.resident_mb:.0f}", f"{at.peak_mb:.0f}", str(at.threads), str(at.descriptors)]
        for name, at in moments
    ]
    verdict = "\n".join(["PROBLEMS:", *report.problems]) if report.problems else "Nothing was lost."
    return "\n\n".join(
        [
            "",
            table([["Faults", ""], *([name, str(count)] for name, count in sorted(report.faults.items()))]),
            table(
                [["Done to files", ""], *([name, str(count)] for name, count in sorted(report.deeds.items()))]
            ),
            table([["Figures", ""], *figures]),
            table([["Processes", "MB", "peak MB", "threads", "descriptors"], *processes]),
            verdict,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
