"""The watched folder: watchdog's observer, its supervision, and when to scan for what it missed."""

import errno
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

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
from watchdog.observers.polling import PollingObserverVFS

import logs
import metrics
from errors import OUT_OF_FILES, reason_of
from folder.file_systems import is_mounted, is_silent, watch_limit_reached
from folder.scan import FolderScan, MissedEvents, ScanRequests, is_hidden, is_source_name
from folder.silence import SilentFolders
from folder.unwatched import UnwatchedFolders
from recording.stream import Signature
from scheduling.schedule import Schedule
from settings.folder import FolderSettings

log = logs.get_logger(__name__)

POLLING_SECONDS = 2.0
"""Between two polls of the polling observer; 10,000 files cost it about 76 ms each time."""

SUPERVISION_SECONDS = 1.0

RESTART_SECONDS = 10.0
"""An observer that dies sooner than that after its start waits for the next one: each start costs a scan."""

_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileClosedEvent,
    FileDeletedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]

_READER_LOGGER = "watchdog.observers.inotify_c"
_LIMIT_HINT = "raise fs.inotify.max_user_watches and fs.inotify.max_user_instances, or set WATCH_MODE=polling"


class ScanListener(Protocol):
    """Whoever is told what scans see; all is called by the watcher's thread."""

    def folder_appeared(self) -> None:
        """A folder is there that was not watched before; called first of all."""

    def found(self, path: str, signature: Signature) -> None:
        """A scan sees a source, at a path relative to the folder."""

    def scanned(self) -> None:
        """A scan ended."""


class FolderWatch:
    """Reports every source below a folder, at once by events, and in any case by scans.

    The watcher's thread calls `step` again and again; the observer's threads only call `on_event`.

    Parameters:
        settings: the folder, which may be missing, and come and go, and how it is watched.
        requests: scans that others ask for.
        schedule: is told of each source that may have changed.
        listener: is told what scans see.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: FolderSettings,
        *,
        requests: ScanRequests,
        schedule: Schedule,
        listener: ScanListener,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = settings.root
        self._patterns = settings.file_patterns
        self._mode = settings.watch_mode
        self._interval = settings.scan_interval_seconds
        self._schedule = schedule
        self._listener = listener
        self._clock = clock
        self._missed = MissedEvents()
        self._unwatched = UnwatchedFolders()  # below: owned by the watcher's thread
        self.scanner = FolderScan(self._root, self._patterns, self._unwatched.entered)
        if settings.silent_cameras == "on":
            self.scanner.silences = SilentFolders()
        self._observer: BaseObserver | None = None
        self._identity: tuple[int, int] | None = None  # of the root that is observed
        self._native_folder = ""  # the folder without links while the kernel's events are used
        self._exhaustion_due = False  # whether there may be new folders that the kernel does not watch
        self._started_at = 0.0
        self._was_mounted = False
        self._complaint = ""  # why the folder cannot be watched, as it was logged
        self._scan_at = clock()
        self.scanned_from = -math.inf
        """Monotonic seconds at which the last full scan began; written by the watcher's thread at its end."""
        self.requests = requests
        self.watching = False
        """Whether the folder is there and observed; written by the watcher's thread only."""
        metrics.FOLDER_WATCHED.set_function(lambda: self.watching)

    # ------------------------------------------------------------------ the watcher's thread

    def step(self) -> None:
        """Look after the observer, and scan what is due."""
        supervised = False
        try:
            self._supervise()
            supervised = True
            self._scan_what_is_due()
            self._complaint = ""
        except OSError as error:
            if error.errno in OUT_OF_FILES:
                self._scan_at = self._clock()  # the observer has its descriptors and goes on
            elif supervised:
                raise
            else:
                self.stop()
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        before, self._complaint = self._complaint, reason_of(error)
        if error.errno in OUT_OF_FILES and before != self._complaint:
            log.error("watched folder not looked at", folder=self._root, reason=self._complaint)
        elif before != self._complaint:
            hint = "create it, mount it, let the daemon read it, or set WATCH_DIR"
            log.error("watched folder missing", folder=self._root, reason=self._complaint, hint=hint)

    def _scan_what_is_due(self) -> None:
        wanted = self.requests.take()
        if "" in wanted or self._clock() >= self._scan_at:
            self.scan()
        elif wanted:
            for folder in wanted:
                for path, signature in self.scanner.below(folder):
                    self._missed.reported(path)
                    self._listener.found(path, signature)
            self._listener.scanned()

    def scan(self) -> None:
        """Report every source that is there now."""
        began_at = self._clock()
        self._scan_at = began_at + self._interval
        self._exhaustion_due = True
        started = time.perf_counter()
        if not self._native_folder:
            self._missed.lost()  # it is polled already
        with self._missed.compared():
            for path, signature in self.scanner.everything():
                self._missed.compare(path, signature)
                self._listener.found(path, signature)
        self._listener.scanned()
        self.scanned_from = began_at
        metrics.SCANS.inc()
        metrics.SCAN_SECONDS.observe(time.perf_counter() - started)

    def stop(self) -> None:
        """End the observer."""
        observer, self._observer, self._identity = self._observer, None, None
        self.watching = False
        if observer:
            observer.stop()
            if observer.is_alive():
                observer.join(5)

    def problem(self) -> str:
        """Return why sources may be missed now; "" when none are. For any thread."""
        if not self.watching:
            return "is not there or cannot be watched"
        return self._complaint and f"cannot be looked at: {self._complaint}"

    # ------------------------------------------------------------------ the observer

    def _supervise(self) -> None:
        """Have exactly one live observer on the folder that is at the root's path now."""
        identity = self._identify()
        if not (self.watching and identity == self._identity and self._healthy()):
            self._observe_anew(identity)
        elif self._exhaustion_due:
            self._leave_exhausted(identity)
        elif readable := self._unwatched.readable():
            log.info("observer started anew", reason="it may read a folder now", folder=readable)
            self._observe(self._native_folder, identity, polling=False)

    def _identify(self) -> tuple[int, int]:
        """Return device and inode of the folder.

        Raises:
            OSError: it is not there, cannot be read, or is only the place where its volume was mounted.
        """
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
        mounted = is_mounted(self._root)
        if self._was_mounted and not mounted:
            raise OSError(errno.ENODEV, "its volume is not mounted")
        self._was_mounted = mounted
        return found.st_dev, found.st_ino

    def _healthy(self) -> bool:
        observer = self._observer
        if observer is None or not observer.is_alive():
            return False
        # The thread that reads from the kernel has no public name; when it dies nothing else tells.
        reader = getattr(observer, "_inotify_fd", observer)
        emitters = observer.emitters
        return reader.is_alive() and bool(emitters) and all(emitter.is_alive() for emitter in emitters)

    def _observe_anew(self, identity: tuple[int, int]) -> None:
        if self._observer:
            exchanged = identity != self._identity
            if not exchanged and self._clock() < self._started_at + RESTART_SECONDS:
                self.watching = False
                return
            reason = "the folder was exchanged" if exchanged else "its threads died"
            log.warning("observer started anew", reason=reason, folder=self._root)
            metrics.WATCHER_RESTARTS.inc()
        if identity != self._identity:
            self._listener.folder_appeared()
        # A path that is itself a link yields no events, so watch what it leads to.
        real = os.path.realpath(self._root)
        polling = self._mode == "polling" or (self._mode == "auto" and is_silent(real))
        self._observe(real, identity, polling=polling)

    def _observe(self, real: str, identity: tuple[int, int], *, polling: bool) -> None:
        self.stop()
        if not polling:
            self._observer = self._native(real)
        self._native_folder = real if self._observer else ""
        self._unwatched.observed(self._observer, self._native_folder)
        if not self._observer:
            self._observer = self._started(self._polling_observer(), real)
            log.info("watching", folder=real, by="polling", seconds=POLLING_SECONDS)
        self._identity, self._started_at, self.watching = identity, self._clock(), True
        self.lost_events()

    def _native(self, real: str) -> BaseObserver | None:
        """Start to observe by events; None when the kernel's limits do not allow it."""
        # One for each folder of a tree that appears at once, and each names every folder that is watched.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        try:
            observer = self._started(Observer(), real)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EMFILE):
                raise
            self._complain_of_limit(real, str(error))
            return None
        log.info("watching", folder=real, by="events")
        return observer

    def _leave_exhausted(self, identity: tuple[int, int]) -> None:
        """Poll from now on when there are more folders than the kernel will watch."""
        self._exhaustion_due = False
        if self._native_folder and watch_limit_reached(self._native_folder):
            self._complain_of_limit(self._native_folder, "there are more folders than it will watch")
            self._observe(self._native_folder, identity, polling=True)

    def _complain_of_limit(self, real: str, reason: str) -> None:
        log.error("the kernel cannot watch the folder", folder=real, reason=reason, hint=_LIMIT_HINT)

    def _polling_observer(self) -> BaseObserver:
        # lstat: with links followed, two of them to a folder above would keep it looking for ever.
        return PollingObserverVFS(os.lstat, self._visible, polling_interval=POLLING_SECONDS)  # type: ignore[arg-type]

    def _visible(self, folder: str) -> Iterator["os.DirEntry[str]"]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith("."):
                        yield entry
                elif is_source_name(entry.name, self._patterns):
                    yield entry

    def _started(self, observer: BaseObserver, real: str) -> BaseObserver:
        try:
            observer.schedule(_Handler(self, real), real, recursive=True, event_filter=_EVENTS)
            observer.start()
        except OSError:
            observer.stop()
            raise
        return observer

    # ------------------------------------------------------------------ the observer's threads

    def lost_events(self) -> None:
        """Make up by a full scan for events that did not come, or could not be handled."""
        self._missed.lost()
        self.requests.add()

    def on_event(self, real: str, event: FileSystemEvent) -> None:
        """Turn an event into a notice or a scan; never blocks.

        Parameters:
            real: the observed folder, without links.
            event: about something below it.
        """
        above = real.rstrip("/") + "/"
        for raw in {event.src_path, event.dest_path}:
            path = os.fsdecode(raw)
            if not path.startswith(above):
                continue
            folder, _, name = path[len(above) :].rpartition("/")
            if event.is_directory:
                if not is_hidden(path[len(above) :]):
                    self.requests.add(path[len(above) :])
            elif is_source_name(name, self._patterns) and not is_hidden(folder):
                metrics.WATCHER_EVENTS.labels(event.event_type).inc()
                self._missed.reported(path[len(above) :])
                self._schedule.touched(path[len(above) :])


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
            self._watch.lost_events()


@contextmanager
def alarm_on_overflow(watch: FolderWatch) -> Iterator[None]:
    """Have the folder scanned when watchdog logs that the kernel lost events: there is no other sign."""
    alarm, watchdog = _OverflowAlarm(watch), logging.getLogger(_READER_LOGGER)
    level = watchdog.level
    watchdog.addFilter(alarm)
    watchdog.setLevel(logging.WARNING)  # also when LOG_LEVEL is above it
    try:
        yield
    finally:
        watchdog.setLevel(level)
        watchdog.removeFilter(alarm)


class _OverflowAlarm(logging.Filter):
    """Sees every record of watchdog's reader, and lets pass what shall be logged."""

    def __init__(self, watch: FolderWatch) -> None:
        super().__init__()
        self._watch = watch

    def filter(self, record: logging.LogRecord) -> bool:
        if "overflow" not in record.getMessage():
            return record.levelno >= logging.getLogger().level
        log.warning("file events were lost; a scan follows", hint="raise fs.inotify.max_queued_events")
        metrics.WATCHER_OVERFLOWS.inc()
        self._watch.lost_events()
        return False
