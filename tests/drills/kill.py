"""kill -9 of the daemon at random moments under live writers: counts every put and checks every byte."""

import math
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.support.daemon_process import CountingRclone, DaemonProcess, Site
from tests.support.harness import CHUNK
from tests.support.pacing import at_rate
from tests.support.servers import wait_until
from tests.support.writers import WRITERS, Written, sha256_of

WORKERS = 4
RECORDERS = 6
BYTES_PER_SECOND = 3_000_000
PAUSE_SECONDS = 1.5
SIZES = (2 * CHUNK + 1_000_000, 3 * CHUNK, 4 * CHUNK + 1)
# A daemon needs about 0.5 s until its first put.
LIFETIME_SECONDS = (0.3, 2.5)
# What to kill it right after, when that comes before its time: nothing, a put, the start of a re-read.
OCCASIONS = ("", "", "chunk stored", "finalizing", "complete")
SETTLE_SECONDS = 120.0


@dataclass(frozen=True)
class Report:
    """What a drill did; `repeated_puts` counts chunks that were put again."""

    seed: int
    kills: int
    files: int
    total_bytes: int
    chunk_puts: int
    repeated_puts: int
    most_allowed: int
    seconds: float
    seconds_until_all_was_stored: float


def drill(site: Site, store: CountingRclone, *, kills: int, seed: int, prelude: str = "") -> Report:
    """Record, kill, start again; then let the last daemon finish and check everything.

    Parameters:
        site: empty; its daemons run with `WORKERS` workers.
        store: the site's, for counting.
        kills: how often to kill -9 the daemon.
        seed: of the moments, the writers and the sizes.
        prelude: of the daemons, see `DaemonProcess`.

    Raises:
        AssertionError: a promise was broken.
    """
    began, rng, stop = time.monotonic(), random.Random(seed), threading.Event()
    with ThreadPoolExecutor(RECORDERS) as pool:
        try:
            recorders = [
                pool.submit(_record, site.folder, number, random.Random(rng.random()), stop)
                for number in range(RECORDERS)
            ]
            for _ in range(kills):
                _kill_at_a_random_moment(site.daemon(prelude=prelude, UPLOAD_WORKERS=str(WORKERS)), rng)
        finally:
            stop.set()
    written = _all_written(recorders)
    last, last_began = site.daemon(prelude=prelude, UPLOAD_WORKERS=str(WORKERS)), time.monotonic()
    site.wait_until_stored(*(path.name for path in written), timeout_seconds=SETTLE_SECONDS)
    waited = time.monotonic() - last_began
    assert last.terminate() == 0
    check(site, written)
    puts = store.chunk_puts(site.bucket)
    report = Report(
        seed=seed,
        kills=kills,
        files=len(written),
        total_bytes=sum(path.stat().st_size for path in written),
        chunk_puts=puts.total(),
        repeated_puts=puts.total() - len(puts),
        most_allowed=kills * WORKERS,
        seconds=round(time.monotonic() - began, 1),
        seconds_until_all_was_stored=round(waited, 1),
    )
    assert report.repeated_puts <= report.most_allowed, report
    return report


def check(site: Site, written: Written) -> None:
    """Check the bytes of each file and of each older generation, and that nothing else is in the bucket.

    Raises:
        AssertionError: a byte, an object or a manifest is wrong.
    """
    for path, sha256 in written.items():
        assert sha256_of(path) == sha256, f"the writer of {path.name} itself went wrong"
        record = site.view.stream(path.name)
        manifest = site.view.manifest(record.key_path, record.generation)
        assert (manifest["status"], manifest["sha256"]) == ("complete", sha256), path.name
    unnamed = site.unnamed_objects()
    assert not unnamed, "\n".join(line for key in sorted(unnamed) for line in (key, *site.history(key)))
    for key_path, generation in site.generations():
        site.view.recorded(key_path, generation)


def _record(folder: Path, number: int, rng: random.Random, stop: threading.Event) -> Written:
    """Write one recording after the other, each in another way, until `stop` is set."""
    written: Written = {}
    while not stop.is_set():
        name = rng.choice(sorted(WRITERS))
        path = folder / f"{name}-{number}-{len(written)}.mp4"
        written |= WRITERS[name](path, rng.choice(SIZES), at_rate(BYTES_PER_SECOND, PAUSE_SECONDS, stop))
    return written


def _kill_at_a_random_moment(daemon: DaemonProcess, rng: random.Random) -> None:
    ends_at, occasion = time.monotonic() + rng.uniform(*LIFETIME_SECONDS), rng.choice(OCCASIONS)
    count = rng.randint(1, 4)
    wait_until(
        lambda: time.monotonic() >= ends_at or (occasion and len(daemon.events(occasion)) >= count), math.inf
    )
    assert daemon.running(), f"it ended by itself:\n{daemon.output()}"
    daemon.kill()


def _all_written(recorders: list[Future[Written]]) -> Written:
    written: Written = {}
    for recorder in recorders:
        written |= recorder.result()
    return written
