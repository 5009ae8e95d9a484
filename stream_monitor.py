"""The monitor thread: which unfinished sources are idle or gone, lease renewal, and the gauges."""

import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import logs
import metrics
from folder.scan import ScanRequests
from recording.stream import UNFINISHED, Signature, Stream
from redis_store.clocks import suspended_seconds
from scheduling.backlog import Backlog, Growth, note_size, note_stored
from scheduling.schedule import Schedule
from upload.upkeep import NOT_MOUNTED, RecordUpkeep

log = logs.get_logger(__name__)

STATS_PER_TICK = 5_000
"""Sources looked at in one tick, about 30 ms; more than that many take turns."""

FIRST_TURN_SECONDS = 5.0
"""For a new source to get its first turn; then it counts as behind."""

LATE_SECONDS = 30.0
"""After the timeout, for the end of a recording to be sent; then it counts as behind."""


@dataclass(slots=True)
class _Watched:
    """One unfinished source. Times are monotonic seconds; `requested` until its turn ended.

    `denied`: a turn could not open what can be seen here; its folder may have become a link.
    `volume` is that of its record, or where it was seen if it has none yet; "" if nobody knows. `away`: it
    is missing, and so is its volume.
    """

    signature: Signature
    changed_at: float
    offset: int = 0
    chunk_size: int = 0
    missing_since: float | None = None
    denied: bool = False
    requested: bool = False
    volume: str = ""
    away: bool = False
    growth: Growth = field(default_factory=list)


class StreamMonitor:
    """Knows every source that is not finished, and decides when it is. `tick` is called each second.

    Parameters:
        root: the watched folder.
        timeout_seconds: without a change until a source counts as idle, or missing as gone.
        schedule: gives turns.
        scans: look where missing sources went.
        upkeep: of the records, once a tick.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        root: str,
        *,
        timeout_seconds: float,
        schedule: Schedule,
        scans: ScanRequests,
        upkeep: RecordUpkeep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._timeout = timeout_seconds
        self._schedule = schedule
        self._scans = scans
        self._upkeep = upkeep
        self._volumes = upkeep.left_behind.volumes
        self._clock = clock
        self._lock = threading.Lock()
        self._watched: dict[str, _Watched] = {}  # guarded by _lock
        self._round: list[tuple[str, _Watched]] = []  # below: owned by the monitor's thread
        self._slept = suspended_seconds()
        self.backlog = Backlog()  # written by the monitor's thread, read by any
        self.looked = False  # whether `backlog` counts what only Redis knows of; written as that

    # ------------------------------------------------------------------ any thread

    def watch(self, path: str, signature: Signature, stream: Stream | None) -> None:
        """Take note of an unfinished source as a scan or a turn has just seen it.

        Parameters:
            path: relative to the watched folder.
            signature: of the source.
            stream: its record; None when it is not known yet.
        """
        now, idle = self._clock(), False
        with self._lock:
            known = self._watched.get(path)
            if known is None:
                # A source that was written long ago is idle at first sight. Its time may have been set
                # (cp -p, rsync); when its bytes came here, only the inode's own time tells.
                quiet, age = _age(signature.mtime_ns), _age(signature.ctime_ns)
                if stream and stream.state in UNFINISHED and stream.signature.ino == signature.ino:
                    # It grew while nobody looked: what is new in it may have come right after the last look.
                    age = max(age, _age(stream.signature.ctime_ns))
                known = self._watched[path] = _Watched(signature, now - min(quiet, self._timeout))
                note_size(known.growth, now - age, signature.size)
                idle = self.is_idle_after(quiet)
            elif known.signature != signature:
                self._note_change(known, signature, now)
            known.missing_since, known.requested = None, idle
            unfinished = stream is not None and stream.state in UNFINISHED
            known.volume = stream.volume if stream and unfinished else self._volumes.of(path)
            if stream:
                known.offset, known.chunk_size = stream.offset, stream.chunk_size
        if idle:
            self._schedule.idle(path, signature)  # at once: else its chunks are read twice

    def missing(self, path: str, stream: Stream | None) -> None:
        """Take note that the source of an unfinished stream, or of one without a record, is not there."""
        with self._lock:
            known = self._watched.get(path)
            if stream:
                known = self._watched[path] = known or _Watched(stream.signature, self._clock())
                known.offset, known.chunk_size, known.volume = stream.offset, stream.chunk_size, stream.volume
            if known is None:
                return
            known.requested, known.denied = False, True
            if known.missing_since is None:
                known.missing_since = self._clock()

    def is_idle_after(self, quiet_seconds: float) -> bool:
        """Return whether a source that did not change for so long has ended."""
        return quiet_seconds >= self._timeout

    def forget(self, path: str) -> None:
        """Drop a source that is finished."""
        with self._lock:
            self._watched.pop(path, None)

    def watches(self, path: str) -> bool:
        """Return whether a source is unfinished as far as this process knows."""
        with self._lock:
            return path in self._watched

    # ------------------------------------------------------------------ the monitor's thread

    def tick(self) -> None:
        """Look at the sources, order what follows, look after the records, set the gauges."""
        self._count_sleep()
        self._volumes.refresh()
        for path, known in self._turn():
            self._look(path, known)
        self._set_gauges()
        news, back = self._upkeep.tick(self._away())
        if news:
            self._set_gauges()
        self.looked = self._upkeep.looked
        for stream in back:
            if not self.watches(stream.path):
                self.missing(stream.path, stream)

    def _away(self) -> set[str]:
        with self._lock:
            return {path for path, known in self._watched.items() if known.away}

    def _turn(self) -> list[tuple[str, _Watched]]:
        if not self._round:
            with self._lock:
                self._round = list(self._watched.items())
        turn, self._round = self._round[:STATS_PER_TICK], self._round[STATS_PER_TICK:]
        return turn

    def _look(self, path: str, known: _Watched) -> None:
        before = known.signature
        try:
            status = os.stat(os.path.join(self._root, path), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no path at all
            self._look_for_missing(path, known, seen=False)
            return
        except OSError:
            self._schedule.grown(path)  # a turn finds out what is wrong with it
            return
        if stat.S_ISREG(status.st_mode):
            self._look_for_change(path, known, before, Signature.of(status))
        else:
            self._look_for_missing(path, known, seen=False)

    def _look_for_change(self, path: str, known: _Watched, before: Signature, found: Signature) -> None:
        with self._lock:
            if self._watched.get(path) is not known or known.signature != before:
                return  # finished, or seen by a turn since we looked
            now = self._clock()
            known.away = False
            if not known.chunk_size:  # no record says more
                known.volume = self._volumes.of(path)
            if found != before:
                self._note_change(known, found, now)
                known.requested = False
            # One that is back is not trusted before a turn could open it.
            missing, denied = known.missing_since is not None, known.denied
            grown = missing or (found != before and self._needs_turn(known, before))
            idle = not missing and not known.requested and self.is_idle_after(now - known.changed_at)
            known.requested = known.requested or idle
        if grown:
            self._schedule.grown(path)
        elif idle:
            self._schedule.idle(path, found)
        if missing and denied:
            self._look_for_missing(path, known, seen=True)

    @staticmethod
    def _needs_turn(known: _Watched, before: Signature) -> bool:
        found = known.signature
        chunk_there = found.size >= known.offset + known.chunk_size
        return chunk_there or found.size < known.offset or not found.same_file(before)

    def _look_for_missing(self, path: str, known: _Watched, *, seen: bool) -> None:
        with self._lock:
            if self._watched.get(path) is not known:
                return
            known.denied = known.denied and seen
            now, first = self._clock(), known.missing_since is None
            if known.missing_since is None:
                known.missing_since = now
            due = now - known.missing_since >= self._timeout and not known.requested
        if first:
            self._scans.add()  # it may only have been renamed
        here = self._volume_is_here(path, known.volume, known.signature.dev)
        with self._lock:
            known.away = not here
            if not here and not known.growth:  # nobody saw it grow: it is as old as its last change
                changed = self._clock() - _age(known.signature.ctime_ns)
                note_size(known.growth, changed, known.signature.size)
            due = due and here
            known.requested = known.requested or due
        if due:
            self._schedule.gone(path)

    def _volume_is_here(self, path: str, volume: str, dev: int) -> bool:
        """Distinguish a deleted source from one whose volume is away; that one is not concluded to be gone.

        Where nobody can know the volume, what is left of the path must be on the source's device; where
        Redis lost it, nothing is concluded.
        """
        if not os.path.isdir(self._root):
            return False
        if volume or self._volumes.of(path):
            return bool(volume) and self._volumes.holds(path, volume)
        folder = os.path.join(self._root, path)
        while True:
            folder = os.path.dirname(folder)
            try:
                return os.stat(folder).st_dev == dev
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError):
                return False

    # ------------------------------------------------------------------ what is not in S3

    def _note_change(self, known: _Watched, signature: Signature, now: float) -> None:
        known.signature, known.changed_at = signature, now
        note_size(known.growth, now, signature.size)

    def _count_sleep(self) -> None:
        """Let bytes age while the machine is suspended. Whether a source is idle is another matter.

        A recorder on this machine could not write either, so its silence is counted from when it woke.
        """
        before, self._slept = self._slept, suspended_seconds()
        if (seconds := self._slept - before) > 1:
            with self._lock:
                for known in self._watched.values():
                    known.growth[:] = [(when - seconds, size) for when, size in known.growth]

    def _set_gauges(self) -> None:
        now, backlog, oldest, behind = self._clock(), 0, 0.0, 0
        before = self.backlog
        with self._lock:
            for known in self._watched.values():
                growth, offset = known.growth, known.offset
                note_stored(growth, offset)
                if growth and known.signature.size > offset:
                    backlog += known.signature.size - offset
                    oldest = max(oldest, now - growth[0][0])
                    behind += self._is_behind(known, now)
            away, sources = [path for path, known in self._watched.items() if known.away], len(self._watched)
        for stream in self._upkeep.left_behind.streams():
            away, sources = [*away, stream.stream_id], sources + 1
            backlog += max(stream.signature.size - stream.offset, 0)
            oldest = max(oldest, _age(stream.signature.ctime_ns))
        example = min(away, default="")
        metrics.BACKLOG_BYTES.set(backlog)
        metrics.OLDEST_WAITING_AGE.set(oldest)
        failed = self._upkeep.failed.backlog(self.watches)
        metrics.FAILED_BYTES.set(failed.bytes)
        sources, backlog = sources + failed.sources, backlog + failed.bytes
        oldest = max(oldest, failed.oldest_seconds)
        metrics.OLDEST_UNSAFE_AGE.set(oldest)
        self.backlog = Backlog(sources, backlog, oldest, behind, len(away), example)
        metrics.SOURCES_AWAY.set(len(away))
        if len(away) > before.away:
            log.error("volume away", unfinished_recordings=len(away), path=example, hint=NOT_MOUNTED.hint)
        elif before.away and not away:
            log.info("volume back", path=before.away_path)

    def _is_behind(self, known: _Watched, now: float) -> bool:
        if not known.chunk_size:  # no turn yet: it was just made, or it waits for one
            return now - known.growth[0][0] > FIRST_TURN_SECONDS
        waiting = known.signature.size - known.offset
        late = now - known.changed_at > self._timeout + LATE_SECONDS
        return late or waiting >= 2 * known.chunk_size


def _age(nanoseconds: int) -> float:
    """Return the seconds since a file's time; 0 when it lies in the future."""
    return max(time.time() - nanoseconds / 1e9, 0.0)
