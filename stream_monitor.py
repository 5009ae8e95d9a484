"""The monitor thread: which unfinished sources are idle or gone, lease renewal, and the gauges."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import metrics
from checkpoint import Checkpoints
from errors import StoreUnavailable
from stream import Signature, Stream

RENEWAL_SECONDS = 10.0
"""Between two renewals of the leases: a third of their life."""

COUNT_SECONDS = 5.0
"""Between two counts of the streams by state; one round trip to Redis."""

STATS_PER_TICK = 5_000
"""Sources looked at in one tick, about 10 ms; more than that many take turns."""

MAX_SAMPLES = 64
"""Of how a source grew, kept to tell the age of its oldest byte that is not in S3."""


class Orders(NamedTuple):
    """What the monitor may ask of others; none of these blocks.

    `grown(path)`: there is a chunk to upload or the source was replaced; `idle(path, signature)`:
    finalize it; `gone(path)`: close its stream; `scan()`: look where missing sources went;
    `outage(error)`: Redis failed.
    """

    grown: Callable[[str], None]
    idle: Callable[[str, Signature], None]
    gone: Callable[[str], None]
    scan: Callable[[], None]
    outage: Callable[[StoreUnavailable], None]


@dataclass(slots=True)
class _Watched:
    """One unfinished source. Times are monotonic seconds; `ordered` until the order's turn ended.

    `growth` holds (when, size) as the source grew beyond what S3 has.
    """

    signature: Signature
    changed_at: float
    offset: int = 0
    chunk_size: int = 0
    missing_since: float | None = None
    ordered: bool = False
    growth: deque[tuple[float, int]] = field(default_factory=deque)


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
        self._cursor = 0  # below: owned by the monitor's thread
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
        now = self._clock()
        with self._lock:
            known = self._watched.get(path)
            if known is None:
                # A source that was written long ago is idle at first sight.
                age = min(max(time.time() - signature.mtime_ns / 1e9, 0.0), self._timeout)
                known = self._watched[path] = _Watched(signature, now - age)
                self._sample(known, now - max(time.time() - signature.mtime_ns / 1e9, 0.0))
            elif known.signature != signature:
                known.signature, known.changed_at = signature, now
                self._sample(known, now)
            known.missing_since, known.ordered = None, False
            if stream:
                known.offset, known.chunk_size = stream.offset, stream.chunk_size

    def missing(self, path: str, stream: Stream) -> None:
        """Take note that the source of an unfinished stream is not there."""
        with self._lock:
            known = self._watched.setdefault(path, _Watched(stream.signature, self._clock()))
            known.offset, known.chunk_size, known.ordered = stream.offset, stream.chunk_size, False
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
        for path in self._turn():
            self._look(path)
        self._set_gauges()
        if not self._redis_open():
            return
        try:
            self._ask_redis()
        except StoreUnavailable as error:
            self._orders.outage(error)

    def _turn(self) -> list[str]:
        with self._lock:
            paths = list(self._watched)
        if len(paths) <= STATS_PER_TICK:
            return paths
        start = self._cursor % len(paths)
        self._cursor = start + STATS_PER_TICK
        return (paths + paths)[start : start + STATS_PER_TICK]

    def _look(self, path: str) -> None:
        try:
            found = Signature.of(os.stat(os.path.join(self._root, path), follow_symlinks=False))
        except OSError:
            self._look_for_missing(path)
            return
        with self._lock:
            known = self._watched.get(path)
            if known is None:
                return
            now = self._clock()
            before, known.missing_since = known.signature, None
            if found != before:
                known.signature, known.changed_at, known.ordered = found, now, False
                self._sample(known, now)
            grown = found != before and self._needs_turn(known, before)
            idle = not known.ordered and now - known.changed_at >= self._timeout
            known.ordered = known.ordered or idle
        if grown:
            self._orders.grown(path)
        elif idle:
            self._orders.idle(path, found)

    @staticmethod
    def _needs_turn(known: _Watched, before: Signature) -> bool:
        found = known.signature
        chunk_there = found.size >= known.offset + known.chunk_size
        return chunk_there or found.size < known.offset or not found.same_file(before)

    def _look_for_missing(self, path: str) -> None:
        with self._lock:
            known = self._watched.get(path)
            if known is None:
                return
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
            except FileNotFoundError:
                continue
            except OSError:
                return False

    def _ask_redis(self) -> None:
        now = self._clock()
        if now >= self._renew_at:
            self._renew_at = now + RENEWAL_SECONDS
            self._checkpoints.renew_held()
        if now >= self._count_at:
            self._count_at = now + COUNT_SECONDS
            for state, number in self._checkpoints.counts().items():
                metrics.STREAMS.labels(str(state)).set(number)

    # ------------------------------------------------------------------ what is not in S3

    @staticmethod
    def _sample(known: _Watched, now: float) -> None:
        known.growth.append((now, known.signature.size))
        if len(known.growth) > MAX_SAMPLES:
            # Keep the oldest and every other one: the age is then right to one interval.
            kept = list(known.growth)
            known.growth = deque([kept[0], *kept[1::2]])

    def _set_gauges(self) -> None:
        now, backlog, oldest = self._clock(), 0, 0.0
        with self._lock:
            for known in self._watched.values():
                while known.growth and known.growth[0][1] <= known.offset:
                    known.growth.popleft()
                unsafe = known.signature.size - known.offset
                if unsafe > 0 and known.growth:
                    backlog += unsafe
                    oldest = max(oldest, now - known.growth[0][0])
        metrics.BACKLOG_BYTES.set(backlog)
        metrics.OLDEST_UNSAFE_AGE.set(oldest)
