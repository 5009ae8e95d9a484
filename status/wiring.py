"""The status page, made from the settings and connected with the components; nothing runs here."""

import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import flask

from archive.retrying_bucket import ArchiveStore
from config import Settings
from folder.disk_space import disk_space
from scheduling.outages import CircuitBreakers
from settings.risks import is_loopback
from settings.version import VERSION
from status.access import Access
from status.overview import Overview, take_overview
from status.pages import Json, create_pages, read_page
from status.player import Player
from status.recording_cache import Recordings
from status.report import DaemonSnapshot, describe, report
from status.setup import Setup
from status.table import StatusTable
from wiring import Parts

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "web")

MAX_STREAMS = 500
"""In the list of the page: 250 kB of JSON every two seconds."""

VIEWER_ATTEMPTS = 2
"""For one request to S3 while a person waits: a pooled connection may be stale."""

VIEWER_WAIT_SECONDS = 5.0
"""For a large manifest that the daemon is reading itself; then a player is asked to come again."""


class Page(NamedTuple):
    """What the daemon serves: the pages, and who may see them, for the log."""

    blueprint: flask.Blueprint
    who: str


def wire_page(
    settings: Settings,
    parts: Parts,
    *,
    unhealthy: Callable[[], dict[str, str]],
    stop: threading.Event,
    data_dir: Path | None = None,
) -> Page | None:
    """Make the status page; None when it is off.

    Parameters:
        settings: complete.
        parts: what the page tells of.
        unhealthy: what is wrong with the process itself, by part.
        stop: set when the daemon stops; then nothing is read for players any more.
        data_dir: of the embedded servers; None without them.

    Raises:
        ConfigError: the files of the page are not there.
    """
    if settings.http.status_page == "off":
        return None
    password = settings.http.status_password
    access = Access(
        password=password.get_secret_value() if password else None,
        networks=settings.http.status_networks,
        names=(settings.http.host, socket.gethostname()),
    )
    table = StatusTable(
        take=partial(take_overview, parts.checkpoints, settings.folder.root),
        works=partial(parts.breakers.works, "redis"),
        failed=parts.breakers.fail,
    )
    store = ArchiveStore(
        parts.store.for_viewers(), stop=stop, attempts=VIEWER_ATTEMPTS, large_wait_seconds=VIEWER_WAIT_SECONDS
    )
    blueprint = create_pages(
        files=read_page(FOLDER),
        access=access,
        status=partial(_status, _Snapshots(settings, parts, unhealthy, stop, data_dir), table),
        stream=lambda stream_id: _stream(table.look(), stream_id),
        player=Player(Recordings(store, prefix=settings.s3.prefix), works=partial(_readable, parts.breakers)),
    )
    who = access.who
    if password and is_loopback(settings.http.host):
        who += ", from this machine only: for a phone in the same network set HTTP_HOST=0.0.0.0"
    return Page(blueprint, who)


def _readable(breakers: CircuitBreakers) -> bool:
    """Return whether players may ask S3; a full one still gives what it has."""
    return all(not each.problem or each.kind == "full" for each in breakers.health() if each.service == "s3")


def _status(snapshot: Callable[[], DaemonSnapshot], table: StatusTable) -> Json:
    overview = table.look()
    return report(snapshot(), overview, version=VERSION, host=socket.gethostname(), max_streams=MAX_STREAMS)


def _stream(overview: Overview | None, stream_id: str) -> Json | None:
    found = (each for each in (overview.streams if overview else ()) if each.stream_id == stream_id)
    return next(map(describe, found), None)


class _Snapshots:
    """Knows how things are now, from memory alone."""

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        unhealthy: Callable[[], dict[str, str]],
        stop: threading.Event,
        data_dir: Path | None,
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._unhealthy = unhealthy
        self._stop = stop
        self._data_dir = data_dir
        self._started_at = time.time()

    def __call__(self) -> DaemonSnapshot:
        parts = self._parts
        problem = parts.watch.problem()
        return DaemonSnapshot(
            now=time.time(),
            started_at=self._started_at,
            health=parts.breakers.health(),
            outages=parts.breakers.outages(),
            unsafe=parts.monitor.backlog,
            undone=parts.schedule.undone(),
            overlooked=self._overlooked(),
            folder=problem and f"{self._settings.folder.watch_dir} {problem}",
            unreadable=parts.watch.scanner.unreadable,
            unhealthy=self._unhealthy(),
            stopping=self._stop.is_set(),
            findings=parts.auditor.findings,
            setup=self._setup(),
            silent=silences.silent if (silences := parts.watch.scanner.silences) else (),
        )

    def _setup(self) -> Setup:
        settings = self._settings
        return Setup(
            folder=settings.folder.root,
            patterns=settings.folder.file_patterns,
            bucket=settings.s3.bucket,
            prefix=settings.s3.prefix,
            confirmed_by=self._parts.store.confirmation.name,
            embedded=self._data_dir is not None,
            store_disk=disk_space(self._data_dir) if self._data_dir else None,
            other_videos=self._parts.watch.scanner.other_videos.last,
        )

    def _overlooked(self) -> str:
        """Sources that were found while Redis could not be asked are looked up by the next full scan."""
        if not self._parts.monitor.looked:
            return "The records were not read since the start."
        if self._parts.watch.scanned_from >= self._parts.breakers.working_since("redis"):
            return ""
        return "Not every file was looked at since the start, or since Redis came back."
