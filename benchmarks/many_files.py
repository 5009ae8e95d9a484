"""Many complete files: how long a start takes until all are known, and what the idle daemon costs."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from benchmarks.daemon_process import DaemonProcess
from benchmarks.processes import cpu_seconds, resident_mb
from benchmarks.throughput import BUCKET
from checkpoint import Checkpoints
from recording.stream import Signature
from redis_store.client import connect_url
from tests.drills.crowd import record_complete
from tests.support.servers import ValkeyServer, wait_until

FILES_A_FOLDER = 100
SETTLE_SECONDS = 3.0
TIMEOUT_SECONDS = 120.0

LOOK_SECONDS = 2.0
"""Between two questions of an open status page."""

LOOKS_PART = 3
"""The page is looked at for this part of the time."""


class Start(NamedTuple):
    """A start with files that are complete already. `requests` are those that the S3 server saw."""

    files: int
    seconds: float
    cpu_seconds: float
    requests: list[str]


class Idle(NamedTuple):
    """A daemon with nothing to do. Percents are of one core; `viewed_…` are those with the page open."""

    files: int
    seconds: float
    cpu_percent: float
    resident_mb: float
    viewed_cpu_percent: float
    viewed_resident_mb: float
    requests: list[str]


@contextmanager
def _known_files(work: Path, redis_url: str, count: int) -> Iterator[tuple[Path, str]]:
    """Make files that the records call complete; gives their folder and the namespace of the records."""
    folder, namespace = work / "known", f"bench-{uuid4().hex}"
    client = connect_url(redis_url)
    checkpoints = Checkpoints(client, namespace=namespace, owner="benchmark")
    for number in range(count):
        path = f"day-{number // FILES_A_FOLDER:03d}/recording-{number:05d}.mp4"
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"\0" * 64)
        record_complete(checkpoints, path, Signature.of(target.stat()))
    client.close()
    try:
        yield folder, namespace
    finally:
        shutil.rmtree(folder)


@contextmanager
def _counting_s3() -> Iterator[tuple[str, list[str]]]:
    """Serve an S3 that has the bucket and nothing else, and lists every request that it gets."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            requests.append(f"{self.command} {self.path}")
            known = self.command == "HEAD" and self.path.strip("/") == BUCKET
            self.send_response(HTTPStatus.OK if known else HTTPStatus.NOT_IMPLEMENTED)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _daemon(work: Path, valkey: ValkeyServer, files: tuple[Path, str], endpoint_url: str) -> DaemonProcess:
    folder, namespace = files
    return DaemonProcess(
        watch_dir=folder,
        work_dir=work,
        redis_url=valkey.url,
        s3=(endpoint_url, valkey.password, valkey.password, BUCKET),
        namespace=namespace,
    )


def _all_are_known(valkey: ValkeyServer, files: int) -> bool:
    """Return whether every file was looked up: Valkey counts one HGET for each, inside the lookup script."""
    done: dict[str, int] = valkey.client.info("commandstats").get("cmdstat_hget", {})
    return done.get("calls", 0) >= files


def measure_start(work: Path, valkey: ValkeyServer, *, files: int) -> Start:
    """Start the daemon over files that are complete; ends when every one was looked up.

    The time is from the start of the process until the last of them was looked up in Redis.
    """
    with _known_files(work, valkey.url, files) as known, _counting_s3() as (endpoint_url, requests):
        valkey.client.config_resetstat()
        daemon = _daemon(work, valkey, known, endpoint_url)
        try:
            wait_until(lambda: _all_are_known(valkey, files), TIMEOUT_SECONDS)
            seconds = time.time() - daemon.program.started_at
            used = cpu_seconds(daemon.pid)
            if daemon.events("found"):
                raise RuntimeError("the daemon took a complete file for a new one")
            daemon.stop()
        finally:
            daemon.program.kill()
    return Start(files, seconds, used, _about_files(requests))


def measure_idle(work: Path, valkey: ValkeyServer, *, files: int, seconds: float) -> Idle:
    """Let the daemon stand idle over files that are complete, then with the status page open.

    Parameters:
        work: a folder to work in.
        valkey: keeps the records.
        files: how many.
        seconds: to stand idle; more than a minute, so that a full scan is among them.
    """
    pause = threading.Event()
    with _known_files(work, valkey.url, files) as known, _counting_s3() as (endpoint_url, requests):
        valkey.client.config_resetstat()
        daemon = _daemon(work, valkey, known, endpoint_url)
        try:
            wait_until(lambda: _all_are_known(valkey, files), TIMEOUT_SECONDS)
            pause.wait(SETTLE_SECONDS)
            percent = _cpu_percent(daemon, seconds, pause, lambda: None)
            resident = resident_mb(daemon.pid)
            viewed = _cpu_percent(daemon, seconds / LOOKS_PART, pause, daemon.look_at_page)
            viewed_resident = resident_mb(daemon.pid)
            daemon.stop()
        finally:
            daemon.program.kill()
    return Idle(files, seconds, percent, resident, viewed, viewed_resident, _about_files(requests))


def _cpu_percent(
    daemon: DaemonProcess, seconds: float, pause: threading.Event, look: Callable[[], object]
) -> float:
    """Return the part of a core that the daemon takes while somebody looks every two seconds."""
    began_at, before = time.monotonic(), cpu_seconds(daemon.pid)
    while (passed := time.monotonic() - began_at) < seconds:
        look()
        pause.wait(min(LOOK_SECONDS, seconds - passed))
    return 100 * (cpu_seconds(daemon.pid) - before) / passed


def _about_files(requests: list[str]) -> list[str]:
    """Leave out the one question whether the bucket is there."""
    return [request for request in requests if request.split("?")[0].rstrip("/") != f"HEAD /{BUCKET}"]
