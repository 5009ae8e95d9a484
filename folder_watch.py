"""The watched folder: watchdog's observer, its supervision, and the scans that catch what it missed."""

import fnmatch
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingObserver

import logs
import metrics
from stream import Signature

log = logs.get_logger(__name__)

POLLING_SECONDS = 2.0
"""Between two polls of the polling observer; 10,000 files cost it about 76 ms each time."""

SUPERVISION_SECONDS = 1.0

MOST_SKIPPED_NAMES = 10_000
"""Entries of which it is remembered that their skipping was logged."""

_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileClosedEvent,
    FileDeletedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]

# Kinds of file system whose changes by other machines the kernel does not tell.
_SILENT_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "fuse", "virtiofs", "vboxsf", "afs", "ceph", "gluster")


def is_source_name(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a file name is that of a source; case does not matter.

    Names that begin with a dot are temporary files of others, unless a pattern begins with one too.
    """
    lowered = name.lower()
    return any(
        fnmatch.fnmatchcase(lowered, pattern.lower())
        and (not name.startswith(".") or pattern.startswith("."))
        for pattern in patterns
    )


class ScanRequests:
    """Folders that somebody wants scanned soon. Safe for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: set[str] = set()  # guarded by _lock

    def add(self, folder: str = "") -> None:
        """Have a folder scanned within a second.

        Parameters:
            folder: relative to the root; "" for all of it.
        """
        with self._lock:
            self._folders.add(folder)

    def take(self) -> set[str]:
        """Give what was asked for, and forget it."""
        with self._lock:
            taken, self._folders = self._folders, set()
        return taken


class FolderWatch:
    """Tells of every source below a folder, by events at once and by scans for sure.

    The watcher's thread calls `step` again and again; the observer's threads only call `notice`.

    Parameters:
        root: the folder; it may be missing, and come and go.
        patterns: of file names.
        mode: `native`, `polling`, or `auto` (polling where the kernel cannot tell of changes).
        requests: scans that others ask for.
        scan_interval_seconds: between two full scans.
        notice: called with the relative path of a source that may have changed; never blocks.
        found: called with (path, signature) of each source that a scan sees; may raise to end the scan.
        scanned: called after each complete full scan.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        root: str,
        patterns: tuple[str, ...],
        mode: str,
        requests: ScanRequests,
        scan_interval_seconds: float,
        notice: Callable[[str], None],
        found: Callable[[str, Signature], None],
        scanned: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = os.path.abspath(root)
        self._patterns = patterns
        self._mode = mode
        self._interval = scan_interval_seconds
        self._notice = notice
        self._found = found
        self._scanned = scanned
        self._clock = clock
        self._observer: BaseObserver | None = None  # owned by the watcher's thread
        self._identity: tuple[int, int] | None = None  # of the root that is observed; likewise
        self._missing = False  # likewise
        self._scan_at = clock()
        self._skipped: set[str] = set()  # entries already logged; likewise
        self.requests = requests
        self.watching = False  # written by the watcher's thread only

    # ------------------------------------------------------------------ the watcher's thread

    def step(self) -> None:
        """Look after the observer, and scan what is due."""
        self._supervise()
        if not self.watching:
            return
        wanted = self.requests.take()
        if "" in wanted or self._clock() >= self._scan_at:
            self.scan()
        else:
            for folder in wanted:
                self._scan(folder)

    def scan(self) -> None:
        """Tell of every source that is there now."""
        self._scan_at = self._clock() + self._interval
        started = time.perf_counter()
        self._scan("")
        self._scanned()
        metrics.SCANS.inc()
        metrics.SCAN_SECONDS.observe(time.perf_counter() - started)

    def stop(self) -> None:
        """End the observer."""
        observer, self._observer, self._identity = self._observer, None, None
        self.watching = False
        metrics.FOLDER_WATCHED.set(0)
        if observer:
            observer.stop()
            if observer.is_alive():
                observer.join(5)

    # ------------------------------------------------------------------ the observer

    def _supervise(self) -> None:
        """Have exactly one live observer on the folder that is at the root's path now."""
        try:
            found = os.stat(self._root)
            identity = (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None
        except OSError:
            identity = None
        if identity is None:
            if not self._missing:
                log.error("watched folder missing", folder=self._root, cure="create it or set WATCH_DIR")
            self._missing = True
            self.stop()
            return
        self._missing = False
        if self.watching and identity == self._identity and self._healthy():
            return
        if self._identity is not None:
            reason = "its threads died" if identity == self._identity else "the folder was exchanged"
            log.warning("observer started anew", reason=reason, folder=self._root)
            metrics.WATCHER_RESTARTS.inc()
        self.stop()
        self._observe(identity)
        self.requests.add()

    def _healthy(self) -> bool:
        observer = self._observer
        return (
            observer is not None
            and observer.is_alive()
            and all(emitter.is_alive() for emitter in observer.emitters)
            and len(observer.emitters) > 0
        )

    def _observe(self, identity: tuple[int, int]) -> None:
        # A path that is itself a link yields no events, so watch what it leads to.
        real = os.path.realpath(self._root)
        polling = self._mode == "polling" or (self._mode == "auto" and _is_silent(real))
        try:
            observer = self._started(real, polling=polling)
        except OSError as error:
            log.error(  # noqa: TRY400 - no bug, no traceback
                "the kernel cannot watch the folder",
                folder=real,
                reason=str(error),
                cure="raise fs.inotify.max_user_watches and max_user_instances, or set WATCH_MODE=polling",
            )
            observer, polling = self._started(real, polling=True), True
        self._observer, self._identity, self.watching = observer, identity, True
        metrics.FOLDER_WATCHED.set(1)
        log.info("watching", folder=real, by="polling" if polling else "events")

    def _started(self, real: str, *, polling: bool) -> BaseObserver:
        observer = PollingObserver(timeout=POLLING_SECONDS) if polling else Observer()
        try:
            observer.schedule(_Handler(self, real), real, recursive=True, event_filter=_EVENTS)
            observer.start()
        except OSError:
            observer.stop()
            raise
        return observer

    def on_event(self, real: str, event: FileSystemEvent) -> None:
        """Turn an event into a notice or a scan; called by the observer's thread, never blocks."""
        for raw in {event.src_path, event.dest_path}:
            path = os.fsdecode(raw)
            if not path.startswith(real + "/"):
                continue
            relative = path[len(real) + 1 :]
            if event.is_directory:
                self.requests.add(relative)
            elif self._is_source(relative):
                metrics.WATCHER_EVENTS.labels(event.event_type).inc()
                self._notice(relative)

    def _is_source(self, relative: str) -> bool:
        *folders, name = relative.split("/")
        return is_source_name(name, self._patterns) and not any(folder.startswith(".") for folder in folders)

    # ------------------------------------------------------------------ scans

    def _scan(self, folder: str) -> None:
        for path, signature in self._walk(folder):
            self._found(path, signature)

    def _walk(self, folder: str) -> Iterator[tuple[str, Signature]]:
        """Find every source below a folder, following no links. Folders with a leading dot are left out."""
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            try:
                with os.scandir(os.path.join(self._root, here)) as entries:
                    for entry in entries:
                        path = f"{here}/{entry.name}" if here else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            if not entry.name.startswith("."):
                                waiting.append(path)
                        elif is_source_name(entry.name, self._patterns) and self._is_regular(entry, path):
                            yield path, Signature.of(entry.stat(follow_symlinks=False))
            except FileNotFoundError:
                continue  # deleted while we looked
            except OSError as error:
                self._skip(here or ".", f"the folder cannot be read: {error.strerror}")

    def _is_regular(self, entry: "os.DirEntry[str]", path: str) -> bool:
        if entry.is_file(follow_symlinks=False):
            return True
        self._skip(path, "a link" if entry.is_symlink() else "no regular file")
        return False

    def _skip(self, path: str, reason: str) -> None:
        metrics.SKIPPED.inc()
        if path not in self._skipped and len(self._skipped) < MOST_SKIPPED_NAMES:
            self._skipped.add(path)
            log.warning("skipped", path=path, reason=reason)


class _Handler(FileSystemEventHandler):
    """Passes events on. An exception here would kill the observer's thread, so none may leave."""

    def __init__(self, watch: FolderWatch, real: str) -> None:
        self._watch = watch
        self._real = real

    def on_any_event(self, event: FileSystemEvent) -> None:
        try:
            self._watch.on_event(self._real, event)
        except Exception:
            log.exception("an event could not be handled; a scan follows")
            self._watch.requests.add()


@contextmanager
def alarm_on_overflow(watch: FolderWatch) -> Iterator[None]:
    """Have the folder scanned when watchdog logs that the kernel lost events: there is no other sign."""
    alarm, watchdog = _OverflowAlarm(watch), logging.getLogger("watchdog")
    watchdog.addHandler(alarm)
    try:
        yield
    finally:
        watchdog.removeHandler(alarm)


class _OverflowAlarm(logging.Handler):
    def __init__(self, watch: FolderWatch) -> None:
        super().__init__(logging.WARNING)
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage():
            self._watch.requests.add()


def _is_silent(path: str) -> bool:
    """Tell whether a path lies on a file system whose changes by others go unreported."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            rows = [line.split(" - ") for line in mounts]
    except OSError:  # not Linux: the native observer of that system knows
        return False
    best, kind = "", ""
    for left, right in rows:
        point = left.split(" ")[4].replace("\\040", " ")
        if len(point) >= len(best) and (path + "/").startswith(point.rstrip("/") + "/"):
            best, kind = point, right.split(" ")[0]
    return kind.startswith(_SILENT_FILE_SYSTEMS)
