"""Growing files on a slow line: all arrive, hardly a byte is sent twice, and /readyz tells the truth."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.drills.kill import check
from tests.support.daemon_process import DaemonProcess, Site
from tests.support.harness import CHUNK
from tests.support.servers import wait_until
from tests.support.slow_line import SlowLine
from tests.support.writers import Written, sha256_of

STEPS = 10
STEP_SECONDS = 0.4
SMALL_BYTES = 100_000
LEAST_SHARE = 0.9
"""Of what is sent that must be stored in the end."""


@dataclass(frozen=True)
class Report:
    """What a drill did; `unready` are answers of /readyz other than 200, after the first good one."""

    bytes_per_second: float
    workers: int
    files: int
    stored_bytes: int
    sent_bytes: int
    share: float
    seconds: float
    outages: int
    unready: int


def drill(
    site: Site,
    *,
    bytes_per_second: float,
    workers: int,
    files: int = 20,
    full_chunks: int = 20,
    latency_seconds: float = 0.2,
    stalls: tuple[float, float] | None = None,
) -> Report:
    """Let files grow for some seconds, and wait until they are stored.

    Parameters:
        site: empty.
        bytes_per_second: of the line, for all workers together.
        workers: of the daemon.
        files: how many grow.
        full_chunks: so many files have a full chunk; the others are small.
        latency_seconds: for a round trip.
        stalls: see `SlowLine`.

    Raises:
        AssertionError: a promise was broken.
    """
    sizes = [CHUNK + SMALL_BYTES if number < full_chunks else SMALL_BYTES for number in range(files)]
    expected = sum(sizes) / bytes_per_second * (1 + (stalls[1] / stalls[0] if stalls else 0))
    began = time.monotonic()
    with SlowLine(
        site.s3.port, bytes_per_second=bytes_per_second, latency_seconds=latency_seconds, stalls=stalls
    ) as line:
        daemon = site.daemon(
            S3_ENDPOINT_URL=f"http://127.0.0.1:{line.port}",
            UPLOAD_WORKERS=str(workers),
            STREAM_TIMEOUT_SECONDS="3",
        )
        daemon.wait_for_ready()
        with _watched(daemon) as answers:
            written = _grow(site.folder, sizes)
            names = [path.name for path in written]
            site.wait_until_stored(*names, timeout_seconds=4 * expected + 120)
        seconds, outages = time.monotonic() - began, len(daemon.events("outage begins"))
        wait_until(lambda: daemon.get("/readyz") == (200, "ok\n"), 60)
        assert daemon.terminate() == 0
        sent = line.sent_bytes
    check(site, written)
    stored = sum(sizes)
    report = Report(
        bytes_per_second=bytes_per_second,
        workers=workers,
        files=files,
        stored_bytes=stored,
        sent_bytes=sent,
        share=round(stored / sent, 3),
        seconds=round(seconds, 1),
        outages=outages,
        unready=len([status for status in answers if status != 200]),
    )
    assert report.share >= LEAST_SHARE, report
    # A line that stalls is away meanwhile, and may be called so; one that is only slow is not.
    assert stalls or not (report.outages or report.unready), report
    return report


def _grow(folder: Path, sizes: list[int]) -> Written:
    paths = [folder / f"camera-{number}.mp4" for number in range(len(sizes))]
    pause = threading.Event()
    for step in range(STEPS):
        for path, size in zip(paths, sizes, strict=True):
            with path.open("ab") as file:
                file.write(os.urandom(size * (step + 1) // STEPS - size * step // STEPS))
        pause.wait(STEP_SECONDS)
    return {path: sha256_of(path) for path in paths}


@contextmanager
def _watched(daemon: DaemonProcess) -> Iterator[list[int]]:
    """Ask /readyz once a second."""
    answers: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(1.0):
            answers.append(daemon.get("/readyz")[0])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()
