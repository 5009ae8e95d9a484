"""Live lag: how long after its last byte was written a chunk is confirmed by S3."""

import os
import shutil
import statistics
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from benchmarks.daemon_process import DaemonProcess
from benchmarks.throughput import BUCKET
from checkpoint import Checkpoints
from recording.layout import BucketLayout
from redis_store.client import connect_url
from tests.support.servers import RcloneS3, ValkeyServer

WRITE_BYTES = 256 * 1024
"""What ffmpeg writes at once: the size of its buffer."""

BYTES_PER_SECOND = 8_000_000


class Lag(NamedTuple):
    """`seconds` of every chunk, which include its put; `put_seconds` is what a put took on average.

    `bytes_per_second` is the pace of each writer, `cpu_percent` what the daemon used of one core.
    """

    writers: int
    bytes_per_second: int
    chunk_bytes: int
    seconds: list[float]
    put_seconds: float
    cpu_percent: float

    def percentile(self, percent: int) -> float:
        """Return the lag that so many percent of the chunks do not exceed."""
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[percent - 1]


class _Writer(threading.Thread):
    """Appends to one file at an even pace and notes when each chunk was full.

    Parameters:
        path: of the file.
        seconds: how long it writes.
        wait_first: seconds before it begins, so that the writers' chunks do not end together.
        chunk_size: bytes.
    """

    def __init__(self, path: Path, *, seconds: float, wait_first: float, chunk_size: int) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._seconds = seconds
        self._wait_first = wait_first
        self._chunk_size = chunk_size
        self.full_at: list[float] = []
        """Seconds since the epoch, taken right after the `write` with the chunk's last byte."""

    def run(self) -> None:
        pause = threading.Event()
        pause.wait(self._wait_first)
        piece, written = os.urandom(WRITE_BYTES), 0
        began = time.monotonic()
        with self._path.open("wb", buffering=0) as file:
            while (due := written / BYTES_PER_SECOND) < self._seconds:
                pause.wait(max(began + due - time.monotonic(), 0))
                written += file.write(piece)
                now = time.time()
                while len(self.full_at) < written // self._chunk_size:
                    self.full_at.append(now)


def measure(work: Path, valkey: ValkeyServer, *, writers: int, seconds: float, chunk_size: int) -> Lag:
    """Record several files at once and compare when chunks were written and when they were stored.

    "Stored" is the `uploaded_at` of the chunk's record, in milliseconds: the daemon takes it when the
    put was answered and the ETag compared. Writers and daemon share this machine's clock.
    """
    files, stored = work / "live", work / "live-objects"
    files.mkdir()
    server = RcloneS3(stored)
    server.start()
    server.client.create_bucket(Bucket=BUCKET)
    daemon = DaemonProcess(
        watch_dir=files,
        work_dir=work,
        redis_url=valkey.url,
        s3=(server.endpoint_url, server.access_key, server.secret_key, BUCKET),
        CHUNK_SIZE=str(chunk_size),
    )
    try:
        daemon.wait_for("watching", 1, 60)
        step = chunk_size / BYTES_PER_SECOND / writers
        running = {
            f"camera-{number}.mp4": _Writer(
                files / f"camera-{number}.mp4",
                seconds=seconds,
                wait_first=step * number,
                chunk_size=chunk_size,
            )
            for number in range(writers)
        }
        for writer in running.values():
            writer.start()
        for writer in running.values():
            writer.join()
        full_at = {path: writer.full_at for path, writer in running.items()}
        daemon.wait_for("chunk stored", sum(map(len, full_at.values())), 60)
        lags = _lags(valkey.url, daemon.namespace, full_at)
        series = daemon.metrics()
        cost = daemon.stop()
    finally:
        daemon.program.kill()
        server.close()
        shutil.rmtree(stored)
        shutil.rmtree(files)
    put_seconds = series["video_uploader_put_seconds_sum"] / series["video_uploader_put_seconds_count"]
    cpu_percent = 100 * cost.cpu_seconds / cost.wall_seconds
    return Lag(writers, BYTES_PER_SECOND, chunk_size, lags, put_seconds, cpu_percent)


def _lags(redis_url: str, namespace: str, full_at: dict[str, list[float]]) -> list[float]:
    client = connect_url(redis_url)
    checkpoints = Checkpoints(client, namespace=namespace, owner="benchmark")
    lags = []
    for path, times in full_at.items():
        stream = checkpoints.find(path)
        stored = (
            [chunk.uploaded_at for chunk in checkpoints.chunks(stream, BucketLayout(""))] if stream else []
        )
        pairs = zip(stored, times, strict=True)  # each record was there before its line in the log
        lags += [datetime.fromisoformat(there).timestamp() - full for there, full in pairs]
    client.close()
    return lags
