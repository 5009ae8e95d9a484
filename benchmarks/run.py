"""`make bench`: what the daemon does in a second, what it costs, and the same of other uploaders."""

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import live_lag, many_files, primitives, restore, throughput
from benchmarks.report import Results
from tests.support.servers import ValkeyServer

MIB = 1024**2


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: everything small, in less than a minute"
    )
    parser.add_argument(
        "--only", choices=_MEASURES, action="append", help="leave the other parts out; may be repeated"
    )
    parser.add_argument("--rounds", type=int, help="of throughput and restore (default: 5)")
    parser.add_argument("--workers", type=int, default=4, help="UPLOAD_WORKERS of the daemon (default: 4)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single figure there, too")
    parser.add_argument(
        "--dir",
        type=Path,
        help="where to work, on a disk with 7 GB (default: the folder for temporary files)",
    )
    return parser.parse_args()


def main() -> int:
    """Measure, print, and give the exit code: 0 also when targets are missed."""
    chosen = parse_arguments()
    parts = [part for part in _MEASURES if part in (chosen.only or _MEASURES)]
    missing = throughput.missing_peers() if "throughput" in parts else []
    if missing:
        print(f"not installed: {', '.join(missing)}: pip install -r requirements/bench.txt", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was made is deleted
    machine = _machine()
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}")
    work = Path(tempfile.mkdtemp(prefix="video-chunk-uploader-bench-", dir=chosen.dir))
    valkey = ValkeyServer(work / "valkey")
    results = Results()
    try:
        valkey.start()
        for part in parts:
            _say(part)
            shown = len(results.tables())
            _MEASURES[part](results, work, valkey, chosen)
            for table in results.tables()[shown:]:
                print(f"\n{table}", flush=True)
    finally:
        valkey.close()
        shutil.rmtree(work)
    print(f"\n{results.verdict()}")
    if chosen.quick:
        print("\n--quick: a smoke test; its figures mean little")
    if chosen.json:
        content = {"machine": machine, "quick": chosen.quick, **results.as_json()}
        chosen.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def _throughput(results: Results, work: Path, valkey: ValkeyServer, chosen: argparse.Namespace) -> None:
    results.primitives = primitives.measure(work)
    folder = work / "race"
    folder.mkdir()
    count = 4 if chosen.quick else 10
    race = throughput.Race(folder, valkey, count=count, size=100_000_000, workers=chosen.workers)
    race.run(chosen.rounds or (1 if chosen.quick else 5))
    shutil.rmtree(folder)
    results.race = race


def _lag(results: Results, work: Path, valkey: ValkeyServer, chosen: argparse.Namespace) -> None:
    writers, seconds, chunk_size = (2, 4.0, 5 * MIB) if chosen.quick else (4, 60.0, 10 * MIB)
    results.lag = live_lag.measure(work, valkey, writers=writers, seconds=seconds, chunk_size=chunk_size)


def _start(results: Results, work: Path, valkey: ValkeyServer, chosen: argparse.Namespace) -> None:
    results.start = many_files.measure_start(work, valkey, files=1_000 if chosen.quick else 10_000)


def _idle(results: Results, work: Path, valkey: ValkeyServer, chosen: argparse.Namespace) -> None:
    seconds = 5.0 if chosen.quick else 65.0
    results.idle = many_files.measure_idle(work, valkey, files=1_000, seconds=seconds)


def _restore(results: Results, work: Path, _valkey: ValkeyServer, chosen: argparse.Namespace) -> None:
    chunks, rounds = (20, 1) if chosen.quick else (200, 5)
    results.restore = restore.measure(work, chunks=chunks, rounds=chosen.rounds or rounds)


_MEASURES: dict[str, Callable[[Results, Path, ValkeyServer, argparse.Namespace], None]] = {
    "throughput": _throughput,
    "lag": _lag,
    "start": _start,
    "idle": _idle,
    "restore": _restore,
}


def _say(what: str) -> None:
    print(f"measuring: {what}", file=sys.stderr, flush=True)


def _machine() -> dict[str, Any]:
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": os.getloadavg(),
    }


if __name__ == "__main__":
    sys.exit(main())
