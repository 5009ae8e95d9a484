"""Very many files: those that are known, those that grow, and those that wait while S3 is away."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from checkpoint import Checkpoints
from recording.layout import RecordingId
from recording.stream import Chunk, Signature, State
from redis_store.client import connect_url
from tests.support.daemon_process import DaemonProcess, Site
from tests.support.servers import Server, wait_until

FILES_A_FOLDER = 100
PIECES = 4
PIECE_BYTES = 20_000
MB = 1_000_000


@dataclass(frozen=True)
class Crowd:
    """The most memory (VmHWM, in MB) that a daemon had until the end of each part, and what it stored.

    `stored` counts the recordings that are complete before the last part, `left` those that wait after it.
    """

    known: int
    growing: int
    waiting: int
    mb_with_an_empty_folder: float
    mb_with_known_files: float
    mb_with_growing_files: float
    mb_with_waiting_files: float
    stored: int
    left: int


def record_complete(checkpoints: Checkpoints, path: str, signature: Signature) -> None:
    """Let the records say of a file that it is in S3 as it is."""
    created = checkpoints.create(
        path, RecordingId(path, 1, "7f3a91c2"), signature, replaces="", chunk_size=10 * 1024**2
    )
    if created is None:
        raise RuntimeError(f"there is a record of {path} already")
    lease, _ = created
    checkpoints.set_state(lease, State.ACTIVE, State.FINALIZING, signature, revision=0)
    if signature.size:
        sha256 = hashlib.sha256(path.encode()).hexdigest()
        checkpoints.checkpoint(lease, Chunk(0, signature.size, sha256, "", "", ""), signature)
    checkpoints.set_state(lease, State.FINALIZING, State.COMPLETE, signature, revision=1)
    checkpoints.release(lease)


def resident_bytes(pid: int, field: str) -> int:
    """Return resident memory: `VmRSS`, as it is now, or `VmHWM`, the most that there was."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def peak_mb(daemon: DaemonProcess) -> float:
    return resident_bytes(daemon.pid, "VmHWM") / MB


def paths(name: str, count: int) -> list[str]:
    return [f"{name}-{number // FILES_A_FOLDER:04d}/{number:06d}.mp4" for number in range(count)]


def written(site: Site, names: list[str], content: bytes) -> Iterator[tuple[str, Path]]:
    for name in names:
        target = site.folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        yield name, target


def drill(
    site: Site, store: Server, *, known: int, growing: int, waiting: int, timeout_seconds: float
) -> Crowd:
    """Have a daemon live with so many files, and look at its memory and at what became of each file.

    Parameters:
        site: an empty folder.
        store: its S3 server, which is stopped while the last files come.
        known: files that the records call complete.
        growing: files that are written a piece at a time, all at once.
        waiting: new files that come at once while S3 is away; they wait still when this returns.
        timeout_seconds: for each part.

    Raises:
        AssertionError: a file was lost, or failed.
    """
    daemon = site.daemon()
    daemon.wait_for_ready()
    empty = peak_mb(daemon)
    assert daemon.terminate() == 0
    client = connect_url(site.valkey.url)
    checkpoints = Checkpoints(client, namespace=site.namespace, owner="crowd")
    for name, target in written(site, paths("known", known), bytes(64)):
        record_complete(checkpoints, name, Signature.of(target.stat()))
    client.close()

    daemon = site.daemon()
    daemon.wait_for_ready()
    scanned = "video_uploader_scans_total"
    wait_until(lambda: daemon.metric(scanned) >= 2, timeout_seconds, "it did not scan twice")
    assert not daemon.events("found"), "it took a known file for a new one"
    with_known = peak_mb(daemon)

    names = paths("growing", growing)
    targets = [target for _, target in written(site, names, b"")]
    for number in range(PIECES):
        for target in targets:
            with target.open("ab") as file:
                file.write(os.urandom(PIECE_BYTES))
        if number == 0:
            wait_until(lambda: len(daemon.events("found")) >= growing, timeout_seconds, "files were not seen")
    count = site.view.parts.checkpoints.counts
    total = known + growing
    wait_until(lambda: count()[State.COMPLETE] == total, timeout_seconds, "files were lost")
    site.wait_until_stored(*names, timeout_seconds=timeout_seconds)
    assert all(site.view.holds(name) for name in names[:: max(growing // 20, 1)])
    with_growing = peak_mb(daemon)

    store.stop()
    daemon.wait_for("outage begins", service="s3", timeout_seconds=timeout_seconds)
    assert len(list(written(site, paths("waiting", waiting), bytes(64)))) == waiting
    queue = "video_uploader_queue_length"
    wait_until(lambda: daemon.metric(queue) >= waiting, timeout_seconds, "not all of them wait")
    with_waiting = peak_mb(daemon)
    assert not daemon.events("failed")
    left = int(daemon.metric(queue))
    store.start()
    return Crowd(
        known, growing, waiting, empty, with_known, with_growing, with_waiting, count()[State.COMPLETE], left
    )
