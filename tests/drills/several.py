"""Three daemons on one folder: one is killed and one stopped while recordings grow, and nobody may notice."""

import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from recording.service_keys import FOLDER
from tests.drills.kill import check
from tests.support.daemon_process import CountingRclone, DaemonProcess, Site
from tests.support.harness import CHUNK
from tests.support.pacing import at_rate
from tests.support.servers import wait_until
from tests.support.writers import WRITERS, Written

DAEMONS = 3
WORKERS = 4
SIZES = (2 * CHUNK + 1_000_000, 3 * CHUNK, 2 * CHUNK + 1)
PAUSE_SECONDS = 2.0
SETTLE_SECONDS = 300.0
GROWING = (
    "appended_and_closed",
    "copied",
    "head_patched",
    "allocated_and_filled",
    "paused_and_continued",
    "rsynced_in_place",
)
"""Writers that grow in place and cost little, so that 60 of them run at once."""

ENCODED = ("ffmpeg_default", "ffmpeg_fragmented")
"""One file of each."""


@dataclass(frozen=True)
class Report:
    """What a drill did; `shares` are the chunks that each daemon stored: the killed, the stopped, the last.

    `longest_delay_seconds`: from the kill or the stop to the next work on a stream whose lease was
    held then; `held_leases` counts those streams.
    """

    files: int
    total_bytes: int
    shares: tuple[int, ...]
    chunk_puts: int
    repeated_puts: int
    most_allowed: int
    held_leases: int
    longest_delay_seconds: float
    seconds: float


def drill(
    site: Site, store: CountingRclone, *, files: int, bytes_per_second: float, prelude: str = ""
) -> Report:
    """Record with three daemons, kill the first, stop the second, let the third end it; then wake the second.

    Parameters:
        site: empty.
        store: the site's, for counting.
        files: how many grow at the same time.
        bytes_per_second: of each.
        prelude: of the daemons, see `DaemonProcess`.

    Raises:
        AssertionError: a promise was broken.
    """
    began = time.monotonic()
    daemons = [site.daemon(prelude=prelude, UPLOAD_WORKERS=str(WORKERS)) for _ in range(DAEMONS)]
    for daemon in daemons:
        daemon.wait_for_ready()
    killed, stopped, survivor = daemons
    losses: list[tuple[DaemonProcess, float]] = []
    stop = threading.Event()
    with ThreadPoolExecutor(files) as pool:
        recorders = [
            pool.submit(
                WRITERS[name],
                site.folder / f"{name}-{number}.mp4",
                size,
                at_rate(bytes_per_second, PAUSE_SECONDS, stop),
            )
            for number, (name, size) in enumerate(_cast(files))
        ]
        try:
            for loss, (victim, number) in enumerate(((killed, signal.SIGKILL), (stopped, signal.SIGSTOP)), 1):
                # In the middle of all that is written, and right after a chunk of its own.
                wait_until(partial(_have_stored, daemons, loss * files // 2), SETTLE_SECONDS)
                victim.wait_for("chunk stored", count=len(victim.events("chunk stored")) + 1)
                victim.send(number)
                losses.append((victim, time.time()))
        finally:
            stop.set()
    written: Written = {}
    for recorder in recorders:
        written |= recorder.result()
    site.wait_until_stored(*(path.name for path in written), timeout_seconds=SETTLE_SECONDS)
    delays = [delay for victim, at in losses for delay in _delays(site, daemons, victim, at)]
    check(site, written)
    before = snapshot(site)
    stopped.send(signal.SIGCONT)
    wait_until(lambda: stopped.metric("video_uploader_backlog_bytes") == 0, SETTLE_SECONDS)
    assert stopped.terminate() == 0
    assert survivor.terminate() == 0
    # S3 cannot refuse a put that was on its way when the daemon was stopped: of a chunk that others have
    # repaired since, the old content lands beside the new one, and no manifest names it.
    changed = changes(before, snapshot(site))
    assert all(was is None and name.endswith(".part") for name, (was, _) in changed.items()), changed
    assert len(changed) <= WORKERS, changed
    puts = store.chunk_puts(site.bucket)
    report = Report(
        files=len(written),
        total_bytes=sum(path.stat().st_size for path in written),
        shares=shares(daemons),
        chunk_puts=puts.total(),
        repeated_puts=puts.total() - len(puts),
        most_allowed=len(losses) * WORKERS,
        held_leases=len(delays),
        longest_delay_seconds=round(max(delays, default=0.0), 1),
        seconds=round(time.monotonic() - began, 1),
    )
    assert report.repeated_puts <= report.most_allowed, report
    assert min(report.shares) > 0, report
    return report


def shares(daemons: list[DaemonProcess]) -> tuple[int, ...]:
    """Return how many chunks each daemon stored."""
    return tuple(len(daemon.events("chunk stored")) for daemon in daemons)


def snapshot(site: Site) -> dict[str, object]:
    """Return every object and every record of a stream by its name, so that a change is seen."""
    pages = site.view.s3.get_paginator("list_objects_v2").paginate(Bucket=site.bucket)
    found: dict[str, object] = {item["Key"]: item["ETag"] for page in pages for item in page["Contents"]}
    found = {key: etag for key, etag in found.items() if not key.startswith(FOLDER)}  # the audit adds there
    client: Any = site.valkey.client
    for key in client.scan_iter(f"{{{site.namespace}}}:stream:*"):
        record = client.hgetall(key)
        # A lease may be taken and given back without a change: to see that nothing is left to do.
        found[key.decode()] = {
            name: record[name] for name in record.keys() - {b"owner", b"epoch", b"lease_until"}
        }
    return found


def changes(before: dict[str, object], after: dict[str, object]) -> dict[str, tuple[object, object]]:
    """Return what is different between two snapshots."""
    names = before.keys() | after.keys()
    return {
        name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
    }


def _cast(files: int) -> list[tuple[str, int]]:
    names = [*ENCODED, *(GROWING[number % len(GROWING)] for number in range(files))][:files]
    rng = random.Random(files)
    return [(name, rng.choice(SIZES)) for name in names]


def _have_stored(daemons: list[DaemonProcess], more_than: int) -> bool:
    return sum(shares(daemons)) > more_than


def _delays(site: Site, daemons: list[DaemonProcess], victim: DaemonProcess, lost_at: float) -> list[float]:
    """Return for each stream that waited for a lease of the victim how long nobody worked on it."""
    others = [daemon for daemon in daemons if daemon is not victim]
    waited = {
        event["stream"]
        for daemon in others
        for event in daemon.events("waiting for a lease")
        if f":{victim.pid}:" in event["holder"] and _seconds(event) > lost_at
    }
    return [
        min(
            (
                _seconds(event) - lost_at
                for daemon in others
                for event in daemon.events(stream=stream)
                if event["event"] in {"chunk stored", "finalizing", "complete"} and _seconds(event) > lost_at
            ),
            default=float("inf"),
        )
        for stream in waited
    ]


def _seconds(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()
