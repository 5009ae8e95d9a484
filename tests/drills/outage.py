"""One outage of Redis or S3, at the start or while recorders write, and all that must be seen of it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from tests.drills.kill import check
from tests.support.daemon_process import DaemonProcess, Site, prelude_of
from tests.support.harness import CHUNK
from tests.support.pacing import at_rate
from tests.support.servers import Server, wait_until
from tests.support.writers import WRITERS, Written

LIVE = ("ffmpeg_default", "appended_and_closed", "copied")
SIZE = 3 * CHUNK + 1_000_000
BYTES_PER_SECOND = 4_000_000
SHORT_BACKOFF = prelude_of({"scheduling.outages.BACKOFF_CAP_SECONDS": 1.0})
"""A service is tried again at least once a second, so that a short outage ends soon."""

SHORT_PATIENCE = """
import s3.clients, upload.prober
from botocore.config import Config
s3.clients._PROFILES["probe"] = s3.clients._PROFILES["probe"].merge(Config(connect_timeout=2, read_timeout=2))
upload.prober.SILENCE_SECONDS; upload.prober.SILENCE_SECONDS = 1.0
"""
"""A prelude: an S3 that is frozen is noticed after 6 s, not after 17."""


@dataclass(frozen=True)
class Outage:
    """What fails, how and when. Refused: nobody listens; frozen: connections are made and nothing answers."""

    service: Literal["redis", "s3"]
    how: Literal["refused", "frozen"]
    when: Literal["at the start", "while recording"]

    def __str__(self) -> str:
        return f"{self.service} {self.how} {self.when}"

    def begin(self, server: Server) -> None:
        if self.how == "refused":
            server.stop()
        else:
            server.freeze()

    def end(self, server: Server) -> None:
        if self.how == "refused":
            server.start()
        else:
            server.thaw()


OUTAGES = [
    Outage(service, how, when)
    for service in ("redis", "s3")
    for how in ("refused", "frozen")
    for when in ("at the start", "while recording")
]


def outlive(outage: Outage, site: Site, *, seconds: float, noticed: bool, prelude: str = "") -> None:
    """Have a daemon live through an outage, and check all that it promises about that.

    Parameters:
        outage: what fails.
        site: empty, with servers of its own that run.
        seconds: how long the outage lasts.
        noticed: whether it must be noticed while it lasts; a shorter one may pass as a slow answer.
        prelude: of the daemon, see `DaemonProcess`.

    Raises:
        AssertionError: a promise was broken.
    """
    server: Server = site.valkey if outage.service == "redis" else site.s3
    with _recorders(site) as written:
        if outage.when == "at the start":
            outage.begin(server)
            daemon = site.daemon(prelude=prelude)
        else:
            daemon = site.daemon(prelude=prelude)
            daemon.wait_for("chunk stored", count=3)
            outage.begin(server)
        if noticed:
            _must_be_down(daemon, outage)
        elif outage.when == "at the start":
            _must_not_be_ready(daemon, outage)
        began = time.monotonic()
        _must_be_healthy(daemon)
        wait_until(lambda: time.monotonic() - began >= seconds, 2 * seconds)
        _must_be_healthy(daemon)
        outage.end(server)
        site.wait_until_stored(*(f"{name}.mp4" for name in LIVE), timeout_seconds=seconds + 60)
    _must_be_over(daemon, outage, noticed=noticed, seconds=seconds)
    assert daemon.terminate() == 0
    check(site, written)


@contextmanager
def _recorders(site: Site) -> Iterator[Written]:
    written: Written = {}
    stop = threading.Event()
    with ThreadPoolExecutor(len(LIVE)) as pool:
        pace = at_rate(BYTES_PER_SECOND, 0.0, stop)
        recorders = [pool.submit(WRITERS[name], site.folder / f"{name}.mp4", SIZE, pace) for name in LIVE]
        try:
            yield written
        finally:
            stop.set()
        for recorder in recorders:
            written |= recorder.result()


def _must_be_healthy(daemon: DaemonProcess) -> None:
    assert daemon.get("/healthz") == (200, "ok\n"), "an outage is no illness of the daemon"


def _must_not_be_ready(daemon: DaemonProcess, outage: Outage) -> str:
    """Check that the page says which service is away; gives its text."""
    status, text = daemon.get("/readyz")
    assert status == 503
    assert f"{outage.service}: " in text
    assert daemon.metric("video_uploader_service_up", service=outage.service) == 0
    return text


def _must_be_down(daemon: DaemonProcess, outage: Outage) -> None:
    begins = daemon.wait_for("outage begins", service=outage.service)
    assert begins["reason"]
    assert begins["streams_waiting"] >= 0
    assert f"{outage.service}: not reached yet" not in _must_not_be_ready(daemon, outage)


def _must_be_over(daemon: DaemonProcess, outage: Outage, *, noticed: bool, seconds: float) -> None:
    assert daemon.get("/readyz") == (200, "ok\n")
    assert daemon.metric("video_uploader_service_up", service=outage.service) == 1
    begins, ends = daemon.events("outage begins"), daemon.events("outage ends")
    assert len(begins) == len(ends)
    assert len(begins) <= 1
    assert daemon.metric("video_uploader_outages_total", service=outage.service) == len(begins)
    if noticed:
        assert [end["service"] for end in ends] == [outage.service]
        assert ends[0]["streams_waiting"] >= 0
        assert seconds <= ends[0]["seconds"] <= seconds + 45
