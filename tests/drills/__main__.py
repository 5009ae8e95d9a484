"""The drills in their full length, with real servers; the test suite runs short forms of them.

A drill that finds something wrong fails and prints it. `python -m tests.drills DRILL --help` explains one.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tests.drills import alerts, crowd, kill, many_hands, outage, several, slow_line, soak
from tests.drills.soak_report import text_of
from tests.support import monitoring
from tests.support.daemon_process import CountingRclone, Site
from tests.support.servers import RcloneS3, Server, ValkeyServer

# Until a frozen server is noticed: 4 attempts of 2 s to Redis; to S3 two probes of 5 s after 5 s of silence.
_NOTICED_SECONDS = {"redis": 12.0, "s3": 19.0}

_CROWD_SETTINGS = {"STREAM_TIMEOUT_SECONDS": "20", "SCAN_INTERVAL_SECONDS": "20"}

Store = TypeVar("Store", bound=RcloneS3)


def main() -> int:
    """Run one drill; return the exit code, 1 if it found something wrong."""
    chosen = _parser().parse_args()
    run: Callable[[argparse.Namespace], int] = chosen.run
    return run(chosen)


def _parser() -> argparse.ArgumentParser:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m tests.drills", description=__doc__, formatter_class=style)
    drills = parser.add_subparsers(metavar="DRILL", required=True)

    def add(run: Callable[[argparse.Namespace], int]) -> Callable[..., argparse.Action]:
        text = run.__doc__ or ""
        drill = drills.add_parser(run.__name__.strip("_"), help=text.splitlines()[0], description=text)
        drill.set_defaults(run=run)
        return drill.add_argument

    option = add(_kill)
    option("--kills", type=int, default=30, help="how often it is killed (default: 30)")
    option("--seed", type=int, default=1, help="of moments, writers and sizes (default: 1)")
    option = add(_outage)
    option("--seconds", type=float, default=20.0, help="length of each outage (default: 20)")
    option = add(_several)
    option("--files", type=int, default=60, help="how many grow at the same time (default: 60)")
    option("--rate", type=float, default=500_000, help="bytes per second of each (default: 500000)")
    option = add(_many_hands)
    option("--names", type=int, default=200, help="in each of the three folders (default: 200)")
    option("--rounds", type=int, default=3, help="how often each name is changed (default: 3)")
    option("--seconds", type=float, default=60, help="of each round (default: 60)")
    option("--seed", type=int, default=1, help="of contents, actions and kills (default: 1)")
    option = add(_crowd)
    option("--known", type=int, default=100_000, help="files that are in S3 already (default: 100000)")
    option("--growing", type=int, default=1_000, help="files written at the same time (default: 1000)")
    option("--waiting", type=int, default=100_000, help="new files while S3 is away (default: 100000)")
    option = add(_slow_line)
    option("--rate", type=float, default=300_000, help="bytes per second, of all together (default: 300000)")
    option("--workers", type=int, default=4, help="of the daemon (default: 4)")
    option("--chunks", type=int, default=20, help="how many of the 20 files have a full chunk (default: 20)")
    option("--latency", type=float, default=0.2, help="seconds for a round trip (default: 0.2)")
    option("--stalls", type=float, nargs=2, metavar="SECONDS", help="flows and stalls for so long, in turn")
    option = add(_soak)
    option("--minutes", type=float, default=30.0, help="of load and faults (default: 30)")
    option("--seed", type=int, help="of all that is left to chance; a random one by default")
    option("--json", type=Path, help="a file for all figures and the journal")
    option("--dir", type=Path, help="where its folder is made; it needs up to 5 GB")
    option("--quiet", action="store_true", help="do not print each event")
    option = add(_alerts)
    option("--seconds", type=float, default=60, help="of the healthy part (default: 60)")
    return parser


@contextmanager
def _site(store_type: type[Store], base: Path, **settings: str) -> Iterator[tuple[Site, Store]]:
    """Start a Valkey and an S3 server in `base`, and end them with all daemons of the site."""
    valkey, store = ValkeyServer(base / "valkey"), store_type(base / "rclone")
    with ExitStack() as running:
        for server in (valkey, store):
            running.callback(server.close)
            server.start()
        site = Site(base, valkey, store, "drill", **settings)
        running.callback(site.close)
        yield site, store


def _print_figures(report: Any) -> None:
    for name, figure in asdict(report).items():
        shown = " + ".join(map(str, figure)) if isinstance(figure, tuple) else f"{figure:,}"
        print(f"{name.replace('_', ' ')}: {shown}")


def _kill(chosen: argparse.Namespace) -> int:
    """Kill -9 the daemon at random moments under live writers, with leases of their real length."""
    with (
        tempfile.TemporaryDirectory(prefix="kill-drill-") as folder,
        _site(CountingRclone, Path(folder)) as (site, store),
    ):
        _print_figures(kill.drill(site, store, kills=chosen.kills, seed=chosen.seed))
    return 0


def _outage(chosen: argparse.Namespace) -> int:
    """Run without Redis or S3, in every way in which they can fail, all at the same time."""
    with (
        tempfile.TemporaryDirectory(prefix="outage-drill-") as folder,
        ThreadPoolExecutor(len(outage.OUTAGES)) as pool,
    ):
        one = partial(_live_through, base=Path(folder), seconds=chosen.seconds)
        problems = list(pool.map(one, outage.OUTAGES))
    for each, problem in zip(outage.OUTAGES, problems, strict=True):
        print(f"{each}, {chosen.seconds:g} s: {problem or 'nothing lost'}")
    return 1 if any(problems) else 0


def _live_through(each: outage.Outage, base: Path, seconds: float) -> str:
    here = base / str(each).replace(" ", "-")
    here.mkdir()
    noticed = each.how == "refused" or seconds > _NOTICED_SECONDS[each.service]
    try:
        with _site(RcloneS3, here) as (site, _):
            outage.outlive(each, site, seconds=seconds, noticed=noticed)
    except AssertionError as error:
        return str(error)
    return ""


def _several(chosen: argparse.Namespace) -> int:
    """Run three daemons on growing files, kill one and stop one, with leases of their real length."""
    with (
        tempfile.TemporaryDirectory(prefix="several-daemons-") as folder,
        _site(CountingRclone, Path(folder)) as (site, store),
    ):
        _print_figures(several.drill(site, store, files=chosen.files, bytes_per_second=chosen.rate))
    return 0


def _slow_line(chosen: argparse.Namespace) -> int:
    """Let 20 files grow behind a slow line, and count what is sent and what is stored."""
    with (
        tempfile.TemporaryDirectory(prefix="slow-line-") as folder,
        _site(RcloneS3, Path(folder)) as (site, _),
    ):
        report = slow_line.drill(
            site,
            bytes_per_second=chosen.rate,
            workers=chosen.workers,
            full_chunks=chosen.chunks,
            latency_seconds=chosen.latency,
            stalls=tuple(chosen.stalls) if chosen.stalls else None,
        )
    _print_figures(report)
    return 0


def _many_hands(chosen: argparse.Namespace) -> int:
    """Let eight daemons of two sites work on the same names in one bucket, and lose nothing.

    They share folders or not, have other namespaces and chunk sizes, are killed, and lose their Redis.
    """
    with tempfile.TemporaryDirectory(prefix="many-hands-") as folder, ExitStack() as running:
        base = Path(folder)
        valkeys, store = [ValkeyServer(base / f"valkey-{site}") for site in (1, 2)], RcloneS3(base / "rclone")
        servers: list[Server] = [*valkeys, store]
        for server in servers:
            running.callback(server.close)
            server.start()
        report = many_hands.drill(
            base,
            valkeys,
            store,
            names=chosen.names,
            rounds=chosen.rounds,
            seconds=chosen.seconds,
            seed=chosen.seed,
        )
    _print_figures(report)
    return 0


def _crowd(chosen: argparse.Namespace) -> int:
    """Measure the memory for very many files: known ones, growing ones, and new ones while S3 is away."""
    counts = {name: getattr(chosen, name) for name in ("known", "growing", "waiting")}
    with (
        tempfile.TemporaryDirectory(prefix="crowd-") as folder,
        _site(RcloneS3, Path(folder), **_CROWD_SETTINGS) as (site, store),
    ):
        figures = crowd.drill(site, store, **counts, timeout_seconds=600)
    for name, figure in asdict(figures).items():
        print(f"{name.replace('_', ' ')}: {figure:,.0f}")
    return 0


def _soak(chosen: argparse.Namespace) -> int:
    """Run three sites and recorders of all kinds while everything fails, then compare every byte.

    Every second it asks each daemon's page whether all is safe, and compares that with the disks.
    A soak that found something keeps its folder with all logs, records and objects.
    """
    seed = random.randrange(1_000_000) if chosen.seed is None else chosen.seed
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir=chosen.dir))
    print(f"seed {seed}, {chosen.minutes:g} minutes, in {folder}", flush=True)
    tell: Callable[[str], None] = (lambda _: None) if chosen.quiet else partial(print, flush=True)
    with closing(soak.Soak(folder, seed=seed, tell=tell)) as running:
        report = running.run(chosen.minutes)
    print(text_of(report))
    if chosen.json:
        chosen.json.write_text(json.dumps(asdict(report), indent=2))
    if report.problems:
        print(f"The same faults again: --seed {seed}. What there is to look at: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _alerts(chosen: argparse.Namespace) -> int:
    """Try every alert and every panel, with a real Prometheus that scrapes real daemons."""
    with tempfile.TemporaryDirectory(prefix="alert-drill-") as folder:
        drill = alerts.Drill(Path(folder))
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
