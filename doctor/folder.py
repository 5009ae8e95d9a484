"""What `doctor` finds out about the watched folder: there, readable, watched, nothing left out."""

import logging
import os
import resource
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from doctor.finding import Finding
from errors import UploaderError
from folder.file_systems import is_silent, max_watches, watch_limit_reached
from folder.other_videos import is_video_name
from folder.scan import is_source_name
from folder.source import open_source

EVENT_SECONDS = 3.0
"""For the events of the probe; they come within milliseconds where they come at all."""

MAX_ENTRIES = 50_000
"""That are looked at, and"""
MAX_SECONDS = 5.0
"""that it may take: the folder may hold millions of files, or lie on a slow network."""

MAX_WATCHED = 0.8
"""Of the kernel's limit, which all programs of one user share."""

DESCRIPTORS = 100
"""That the daemon needs open beside its workers': web server, clients of S3 and Redis, libraries."""
DESCRIPTORS_A_WORKER = 4

_WANTED = {"created", "modified", "moved"}


def check_folder(root: str, *, patterns: tuple[str, ...], mode: str) -> list[Finding]:
    """Look at the watched folder; where it may, it writes a probe there that no daemon takes for a source.

    Parameters:
        root: absolute.
        patterns: of file names.
        mode: `native`, `polling` or `auto`.
    """
    real = os.path.realpath(root)
    try:
        with os.scandir(real):
            pass
    except OSError as error:
        hint = "create it, mount it, let the daemon's user read it, or correct WATCH_DIR"
        return [
            Finding("folder", "problem", f"{root}: {error.strerror}", hint),
            Finding("file events", "unchecked", "the folder cannot be watched"),
        ]
    seen = _look_around(real, patterns)
    counted = f"{'more than ' if seen.cut else ''}{seen.folders} folders, {seen.sources} recordings"
    return [
        Finding("folder", "ok", f"{root}: {counted}"),
        _watching(real, mode, patterns),
        _limit(real, mode, seen),
        _links(seen),
        _unreadable(seen),
        _other_videos(seen),
    ]


# ---------------------------------------------------------------------- what lies there


@dataclass
class _Seen:
    """What a scan met, and how far it is."""

    root: str
    patterns: tuple[str, ...]
    waiting: list[str] = field(default_factory=lambda: [""])
    folders: int = 1
    sources: int = 0
    links: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    cut: bool = False
    other_videos: list[str] = field(default_factory=list)

    def look_at(self, path: str, entry: "os.DirEntry[str]") -> None:
        may_hold = not entry.name.startswith(".")
        is_source = is_source_name(entry.name, self.patterns)
        if entry.is_dir(follow_symlinks=False):
            if may_hold:
                self.folders += 1
                self.waiting.append(path)
        elif entry.is_symlink():
            if is_source or (may_hold and os.path.isdir(entry.path)):
                self.links.append(path)
        elif not is_source:
            if is_video_name(entry.name):
                self.other_videos.append(path)
        elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            self.sources += 1
            try:
                with open_source(self.root, path):
                    pass
            except UploaderError:
                if os.path.lexists(entry.path):
                    self.unreadable.append(path)


def _look_around(root: str, patterns: tuple[str, ...]) -> _Seen:
    seen, entries = _Seen(root, patterns), 0
    ends_at = time.monotonic() + MAX_SECONDS
    while seen.waiting and not seen.cut:
        here = seen.waiting.pop()
        try:
            with os.scandir(os.path.join(root, here)) as found:
                for entry in found:
                    entries += 1
                    seen.cut = entries > MAX_ENTRIES or time.monotonic() > ends_at
                    if seen.cut:
                        break
                    with suppress(FileNotFoundError):  # deleted while we looked
                        seen.look_at(os.path.join(here, entry.name), entry)
        except FileNotFoundError:
            continue
        except OSError:
            seen.unreadable.append(here)
    return seen


def _some(paths: list[str]) -> str:
    return f"{len(paths)}, such as {paths[0]}"


def _links(seen: _Seen) -> Finding:
    if not seen.links:
        return Finding("links", "ok", "none")
    hint = "record into the watched folder itself, or mount (--bind) there what the link leads to"
    return Finding("links", "warning", f"links are not followed: {_some(seen.links)}", hint)


def _unreadable(seen: _Seen) -> Finding:
    if not seen.unreadable:
        return Finding("reading", "ok", f"all {seen.sources} recordings that are there can be read")
    hint = "give the daemon's user the right to read them: chmod -R a+rX, or a common group"
    said = f"files or folders that cannot be read: {_some(seen.unreadable)}"
    return Finding("reading", "problem", said, hint)


def _other_videos(seen: _Seen) -> Finding:
    if not seen.other_videos:
        return Finding("patterns", "ok", f"FILE_PATTERNS={','.join(seen.patterns)} leaves no video out")
    said = f"videos that match no pattern are not uploaded: {_some(seen.other_videos)}"
    return Finding("patterns", "warning", said, "if they are recordings, add their ending to FILE_PATTERNS")


# ---------------------------------------------------------------------- being told of changes


def _watching(real: str, mode: str, patterns: tuple[str, ...]) -> Finding:
    check = "file events"
    if mode == "polling":
        return Finding(check, "ok", "not needed: WATCH_MODE=polling")
    if is_silent(real):
        said = "other machines' changes are not told on this file system"
        if mode == "auto":
            return Finding(check, "ok", f"{said}: the daemon polls")
        return Finding(check, "warning", f"{said}, only scans find them", "set WATCH_MODE=auto or polling")
    probe = f".doctor-{secrets.token_hex(6)}"
    if any(is_source_name(probe + end, patterns) for end in _ENDS):
        return _not_written("FILE_PATTERNS takes hidden files too, so the daemon would upload it")
    return _told_of_probe(real, probe)


def _told_of_probe(real: str, probe: str) -> Finding:
    try:
        missing = _WANTED - _events_of_a_probe(real, probe)
    except OSError as error:
        if error.filename and os.path.basename(os.fsdecode(error.filename)).startswith(probe):
            return _not_written(f"{error.strerror}; the daemon itself never writes")
        return _not_watched(str(error))
    if missing:
        return _not_watched(f"nobody was told that a file was {', '.join(sorted(missing))}")
    return Finding("file events", "ok", "a file that was created, modified and moved was told of")


def _not_written(reason: str) -> Finding:
    hint = "run doctor as the recorder's user, or copy a recording there and look for `found` in the log"
    return Finding("file events", "unchecked", f"no probe was written here: {reason}", hint)


def _not_watched(reason: str) -> Finding:
    hint = "set WATCH_MODE=polling, or raise fs.inotify.max_user_watches and fs.inotify.max_user_instances"
    return Finding("file events", "warning", f"only scans and polling will find recordings: {reason}", hint)


_ENDS = ("", "~")


class _Listener(FileSystemEventHandler):
    """Notes what is told of one file."""

    def __init__(self, path: str) -> None:
        self._paths = {path + end for end in _ENDS}
        self.told: set[str] = set()
        self.all_told = threading.Event()

    def on_any_event(self, event: FileSystemEvent) -> None:
        if {os.fsdecode(event.src_path), os.fsdecode(event.dest_path)} & self._paths:
            self.told.add(event.event_type)
            if self.told >= _WANTED:
                self.all_told.set()


def _events_of_a_probe(folder: str, name: str) -> set[str]:
    """Create, rename and extend a file; gives the kinds of events that came.

    Raises:
        OSError: with the file's name when it could not be written, else the folder cannot be watched.
    """
    path = os.path.join(folder, name)
    listener = _Listener(path)
    observer = Observer()
    observer.schedule(listener, folder)
    observer.start()
    try:
        _write_probe(path)
        listener.all_told.wait(EVENT_SECONDS)
    finally:
        for end in _ENDS:
            with suppress(OSError):
                os.unlink(path + end)
        with _quiet():
            observer.stop()
            observer.join()
    return listener.told


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep watchdog from logging an error about the last events of an observer that is being stopped."""
    reader = logging.getLogger("watchdog.observers.inotify")
    before, reader.disabled = reader.disabled, True
    try:
        yield
    finally:
        reader.disabled = before


def _write_probe(path: str) -> None:
    first, second = (path + end for end in _ENDS)
    with open(first, "xb") as file:
        file.write(b"written by `doctor`, which deletes it at once\n")
    os.rename(first, second)
    with open(second, "ab") as file:
        file.write(b"and extended\n")


def _limit(real: str, mode: str, seen: _Seen) -> Finding:
    check, most = "watch limit", max_watches()
    if mode == "polling" or most is None or is_silent(real):
        return Finding(check, "ok", "none: no folder needs to be watched by the kernel")
    said = f"{'more than ' if seen.cut else ''}{seen.folders} of {most} folders that the kernel watches"
    if watch_limit_reached(real) or seen.folders > MAX_WATCHED * most:
        hint = "raise fs.inotify.max_user_watches (sysctl), or set WATCH_MODE=polling"
        return Finding(check, "warning", f"{said} for one user: the rest is polled", hint)
    return Finding(check, "ok", said)


# ---------------------------------------------------------------------- the process


def check_descriptors(*, upload_workers: int) -> Finding:
    """Compare what the daemon may open at once with what it needs.

    Parameters:
        upload_workers: `UPLOAD_WORKERS`.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = DESCRIPTORS + DESCRIPTORS_A_WORKER * upload_workers
    if soft == resource.RLIM_INFINITY:
        return Finding("open files", "ok", "no limit")
    if soft < need:
        hint = "ulimit -n 4096 before the start, LimitNOFILE=4096 for systemd, ulimits for compose"
        return Finding("open files", "problem", f"{soft} at once are allowed, {need} may be needed", hint)
    return Finding("open files", "ok", f"{soft} at once are allowed, {need} may be needed")
