"""The monitor thread: which unfinished sources are idle or gone, lease renewal, and the gauges."""

import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import metrics
from checkpoint import Checkpoints
from errors import StoreUnavailable
from recording.stream import UNFINISHED, Signature, Stream

RENEWAL_SECONDS = 10.0
"""Between two renewals of the leases: a third of their life."""

COUNT_SECONDS = 5.0
"""Between two looks for orders and counts of the streams by state; one round trip to Redis."""

STATS_PER_TICK = 5_000
"""Sources looked at in one tick, about 30 ms; more than that many take turns."""

FIRST_TURN_SECONDS = 5.0
"""For a new source to get its first turn; then it counts as behind."""

LATE_SECONDS = 30.0
"""After the timeout, for the end of a recording to be sent; then it counts as behind."""

MAX_SAMPLES = 64  # even: all but the last are merged in pairs
"""Of how a source grew, kept to tell the age of its oldest byte that is not in S3."""


class Orders(NamedTuple):
    """What the monitor may ask of others; none of these blocks.

    `grown(path)`: there is a chunk to upload or the source was replaced; `idle(path, signature)`:
    finalize it; `gone(path)`: close its stream; `scan()`: look where missing sources went;
    `steered(ids)`: operators ordered something for these streams; `outage(error)`: Redis failed.
    """

    grown: Callable[[str], None]
    idle: Callable[[str, Signature], None]
    gone: Callable[[str], None]
    scan: Callable[[], None]
    steered: Callable[[list[str]], None]
    outage: Callable[[StoreUnavailable], None]


class Unsafe(NamedTuple):
    """What is not in S3 yet, as far as this process knows, without a word from Redis or S3.

    `sources` counts the unfinished ones; `behind` those of which more waits than a chunk that has just
    become full, or that ended long ago.
    """

    sources: int = 0
    bytes: int = 0
    oldest_seconds: float = 0.0
    behind: int = 0


@dataclass(slots=True)
class _Watched:
    """One unfinished source. Times are monotonic seconds; `ordered` until the order's turn ended.

    `denied`: a turn could not open what can be seen here; its folder may have become a link.
    `growth` holds (when, size) as the source grew beyond what S3 has: the first of the bytes from the
    size before up to this one were seen at `when`. A list: an empty deque takes 600 bytes.
    """

    signature: Signature
    changed_at: float
    offset: int = 0
    chunk_size: int = 0
    missing_since: float | None = None
    denied: bool = False
    ordered: bool = False
    growth: list[tuple[float, int]] = field(default_factory=list)


class StreamMonitor:
    """Knows every source that is not finished, and decides when it is. `tick` is called each second.

    Parameters:
        root: the watched folder.
        checkpoints: the records.
        timeout_seconds: without a change until a source counts as idle, or missing as gone.
        orders: what it may ask of others.
        redis_open: tells whether Redis may be asked now.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        root: str,
        checkpoints: Checkpoints,
        timeout_seconds: float,
        orders: Orders,
        redis_open: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._checkpoints = checkpoints
        self._timeout = timeout_seconds
        self._orders = orders
        self._redis_open = redis_open
        self._clock = clock
        self._lock = threading.Lock()
        self._watched: dict[str, _Watched] = {}  # guarded by _lock
        self._round: list[tuple[str, _Watched]] = []  # below: owned by the monitor's thread
        self.unsafe = Unsafe()  # written by the monitor's thread, read by any
        self._renew_at = 0.0
        self._count_at = 0.0

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
                self._sample(known, now - age)
                idle = quiet >= self._timeout
            elif known.signature != signature:
                self._note_change(known, signature, now)
            known.missing_since, known.ordered = None, idle
            if stream:
                known.offset, known.chunk_size = stream.offset, stream.chunk_size
        if idle:
            self._orders.idle(path, signature)  # at once: else its chunks are read twice

    def missing(self, path: str, stream: Stream) -> None:
        """Take note that the source of an unfinished stream is not there."""
        with self._lock:
            known = self._watched.setdefault(path, _Watched(stream.signature, self._clock()))
            known.offset, known.chunk_size, known.ordered = stream.offset, stream.chunk_size, False
            known.denied = True
            if known.missing_since is None:
                known.missing_since = self._clock()

    def forget(self, path: str) -> None:
        """Drop a source that is finished."""
        with self._lock:
            self._watched.pop(path, None)

    def watches(self, path: str) -> bool:
        """Tell whether a source is unfinished as far as this process knows."""
        with self._lock:
            return path in self._watched

    # ------------------------------------------------------------------ the monitor's thread

    def tick(self) -> None:
        """Look at the sources, give orders, renew leases, set the gauges."""
        for path, known in self._turn():
            self._look(path, known)
        self._set_gauges()
        if not self._redis_open():
            return
        try:
            self._ask_redis()
        except StoreUnavailable as error:
            self._orders.outage(error)

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
            self._orders.grown(path)  # a turn finds out what is wrong with it
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
            if found != before:
                self._note_change(known, found, now)
                known.ordered = False
            # One that is back is not trusted before a turn could open it.
            missing, denied = known.missing_since is not None, known.denied
            grown = missing or (found != before and self._needs_turn(known, before))
            idle = not missing and not known.ordered and now - known.changed_at >= self._timeout
            known.ordered = known.ordered or idle
        if grown:
            self._orders.grown(path)
        elif idle:
            self._orders.idle(path, found)
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
            dev, due = known.signature.dev, now - known.missing_since >= self._timeout
            due = due and not known.ordered
        if first:
            self._orders.scan()  # it may only have been renamed
        if due and self._is_gone(path, dev):
            with self._lock:
                known.ordered = True
            self._orders.gone(path)

    def _is_gone(self, path: str, dev: int) -> bool:
        """Tell a deleted source from one whose volume is away: what is left must be on its device."""
        if not os.path.isdir(self._root):
            return False
        folder = os.path.join(self._root, path)
        while True:
            folder = os.path.dirname(folder)
            try:
                return os.stat(folder).st_dev == dev
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError):
                return False

    def _ask_redis(self) -> None:
        now = self._clock()
        if now >= self._renew_at:
            self._checkpoints.renew_held()
            self._renew_at = now + RENEWAL_SECONDS
        if now >= self._count_at:
            self._count_at = now + COUNT_SECONDS
            counts, ordered = self._checkpoints.look()
            for state, number in counts.items():
                metrics.STREAMS.labels(str(state)).set(number)
            self._orders.steered(ordered)

    # ------------------------------------------------------------------ what is not in S3

    def _note_change(self, known: _Watched, signature: Signature, now: float) -> None:
        known.signature, known.changed_at = signature, now
        self._sample(known, now)

    @staticmethod
    def _sample(known: _Watched, now: float) -> None:
        size, growth = known.signature.size, known.growth
        if growth and size < growth[-1][1]:  # cut: what is left is as old as before
            growth[:] = [(when, min(grown, size)) for when, grown in growth]
        growth.append((now, size))
        if len(growth) > MAX_SAMPLES:
            # Of each two the earlier time with the later size: an age is never told too low.
            pairs = zip(growth[0:-1:2], growth[1:-1:2], strict=True)
            growth[:] = [*((early[0], late[1]) for early, late in pairs), growth[-1]]

    def _set_gauges(self) -> None:
        now, backlog, oldest, behind = self._clock(), 0, 0.0, 0
        with self._lock:
            for known in self._watched.values():
                growth, offset = known.growth, known.offset
                while growth and growth[0][1] <= offset:
                    del growth[0]
                if growth and known.signature.size > offset:
                    backlog += known.signature.size - offset
                    oldest = max(oldest, now - growth[0][0])
                    behind += self._is_behind(known, now)
            self.unsafe = Unsafe(len(self._watched), backlog, oldest, behind)
        metrics.BACKLOG_BYTES.set(backlog)
        metrics.OLDEST_UNSAFE_AGE.set(oldest)

    def _is_behind(self, known: _Watched, now: float) -> bool:
        if not known.chunk_size:  # no turn yet: it was just made, or it waits for one
            return now - known.growth[0][0] > FIRST_TURN_SECONDS
        waiting = known.signature.size - known.offset
        late = now - known.changed_at > self._timeout + LATE_SECONDS
        return late or waiting >= 2 * known.chunk_size


def _age(nanoseconds: int) -> float:
    """Give the seconds since a file's time; 0 when it lies in the future."""
    return max(time.time() - nanoseconds / 1e9, 0.0)
