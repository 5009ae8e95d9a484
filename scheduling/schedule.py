"""Which stream is next, and when: lanes, a heap of later turns, one worker a path. No I/O."""

import heapq
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from recording.stream import Signature

DEBOUNCE_SECONDS = 0.1
"""A recorder writes up to 25 times a MB; one look at the source in this time is enough."""


class Lane(IntEnum):
    """Lanes are served in turn, so none of them starves another."""

    LIVE = 0  # a source was seen to grow: its newest chunk should be safe at once
    FINISHING = 1  # finalizations that have begun
    BULK = 2  # everything else: backlogs and finalizations that have not begun


class Job(NamedTuple):
    """One turn for one path. `idle` and `gone` are the monitor's orders, see `ChunkUploader.advance`."""

    path: str
    idle: Signature | None = None
    gone: bool = False


class Schedule:
    """The paths that wait for a worker. Safe for any thread.

    A path is in at most one place: a lane, parked, the heap, or with a worker. A notice for a path that a
    worker has is kept until that turn ends.

    Parameters:
        max_finishing: finalizations that may be under way at once; each holds a lease, and other
            daemons want some of the work. One that was put off after a failure does not count: bad
            files must not keep the others from being finished.
        clock: monotonic seconds.
    """

    def __init__(self, *, max_finishing: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._most_finishing = max_finishing
        self._changed = threading.Condition()
        # All below is guarded by _changed.
        self._lanes: tuple[OrderedDict[str, None], ...] = tuple(OrderedDict() for _ in Lane)
        self._parked: OrderedDict[str, None] = OrderedDict()  # came too early to be finalized
        self._later: list[tuple[float, int, str, Lane]] = []
        self._waiting: set[str] = set()  # the paths of _later
        self._running: set[str] = set()
        self._finishing: set[str] = set()  # those of _running and of a lane that are being finalized
        self._noticed: dict[str, Lane] = {}  # those of _running that shall have another turn
        self._pending: dict[str, Job] = {}
        self._next_lane = 0
        self._sequence = itertools.count()
        self._closed = False
        self.turns = 0
        """How many were handed out; written with _changed held."""

    def notice(self, path: str, *, lane: Lane, delay: float = 0.0) -> None:
        """Ask for a turn; nothing changes when one is already due or put off.

        Parameters:
            path: relative to the watched folder.
            lane: where it waits; a path that waits in bulk moves up when it is seen to grow.
            delay: seconds until it is due; lets a burst of events end in one turn.
        """
        with self._changed:
            self._notice(path, lane, delay)

    def touched(self, path: str) -> None:
        """A source may have changed: an event said so. A burst of them ends in one turn."""
        self.notice(path, lane=Lane.LIVE, delay=DEBOUNCE_SECONDS)

    def grown(self, path: str) -> None:
        """A source has a new chunk or is another one: the monitor saw it."""
        self.notice(path, lane=Lane.LIVE)

    def idle(self, path: str, signature: Signature) -> None:
        """A source has not changed for the timeout: order its finalization."""
        self._set_pending(Job(path, idle=signature))

    def gone(self, path: str) -> None:
        """A source has been missing for the timeout: order that its stream be closed."""
        self._set_pending(Job(path, gone=True))

    def _set_pending(self, job: Job) -> None:
        with self._changed:
            self._pending[job.path] = job
            self._notice(job.path, Lane.BULK, 0.0)

    def take(self, timeout: float) -> Job | None:
        """Hand the next turn to a worker, which must end it with `done` or `again`.

        Parameters:
            timeout: seconds to wait for one.
        """
        deadline = self._clock() + timeout
        with self._changed:
            while not self._closed:
                now = self._clock()
                self._bring_forward(now)
                job = self._pop()
                if job or now >= deadline:
                    return job
                due = self._later[0][0] if self._later else deadline
                self._changed.wait(max(min(due, deadline) - now, 0.001))
        return None

    def done(self, path: str) -> None:
        """End a turn; the path gets another one only if it was noticed meanwhile."""
        with self._changed:
            self._running.remove(path)
            self._finishing.discard(path)
            if self._parked:
                self._changed.notify()
            noticed = self._noticed.pop(path, None)
            if noticed is not None:
                self._put(path, noticed, DEBOUNCE_SECONDS)
            elif path in self._pending:
                self._put(path, Lane.BULK, 0.0)

    def again(self, job: Job, *, lane: Lane, delay: float = 0.0, keep_job: bool = False) -> None:
        """End a turn and ask for another one.

        Parameters:
            job: as it was taken.
            lane: where it waits; in the live lane instead of bulk if it was seen to grow meanwhile.
            delay: seconds until it is due.
            keep_job: the turn did not carry out its orders: give them again.
        """
        with self._changed:
            self._running.remove(job.path)
            if lane is Lane.FINISHING:
                self._finishing.add(job.path)
            else:
                self._finishing.discard(job.path)
            if self._noticed.pop(job.path, None) is Lane.LIVE and lane is Lane.BULK:
                lane = Lane.LIVE
            if keep_job and (job.idle or job.gone):
                self._pending.setdefault(job.path, job)
            self._put(job.path, lane, delay)

    def close(self) -> None:
        """Hand out no more turns."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        """Count the paths that wait."""
        with self._changed:
            return len(self._waiting) + len(self._parked) + sum(map(len, self._lanes))

    def undone(self) -> int:
        """Count the paths that wait, and those that a worker has now."""
        with self._changed:
            return len(self) + len(self._running)

    # ------------------------------------------------------------------ with _changed held

    def _notice(self, path: str, lane: Lane, delay: float) -> None:
        if path in self._running:
            self._noticed[path] = min(lane, self._noticed.get(path, lane))
            return
        if lane is Lane.LIVE:
            for slower in (self._lanes[Lane.BULK], self._parked):
                slower.pop(path, None)
        places = (self._waiting, self._parked, *self._lanes)
        if not any(path in place for place in places):
            self._put(path, lane, delay)

    def _put(self, path: str, lane: Lane, delay: float) -> None:
        if delay > 0:
            heapq.heappush(self._later, (self._clock() + delay, next(self._sequence), path, lane))
            self._waiting.add(path)
        else:
            self._lanes[lane][path] = None
        self._changed.notify()

    def _bring_forward(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            _, _, path, lane = heapq.heappop(self._later)
            self._waiting.discard(path)
            self._lanes[lane][path] = None

    def _pop(self) -> Job | None:
        for step in range(len(Lane)):
            lane = Lane((self._next_lane + step) % len(Lane))
            path = self._first(lane)
            if path is not None:
                self._next_lane = (lane + 1) % len(Lane)
                return self._handed_out(path)
        return None

    def _first(self, lane: Lane) -> str | None:
        """Take the first path out of a lane; finalizations in bulk for which it is too early are parked.

        One that was seen to grow is not idle any more, so its turn does not wait for that.
        """
        full = len(self._finishing) >= self._most_finishing
        if lane is Lane.BULK and self._parked and not full:
            return self._parked.popitem(last=False)[0]
        while self._lanes[lane]:
            path, _ = self._lanes[lane].popitem(last=False)
            order = self._pending.get(path)
            if not (lane is Lane.BULK and full and order and order.idle):
                return path
            self._parked[path] = None
        return None

    def _handed_out(self, path: str) -> Job:
        job = self._pending.pop(path, Job(path))
        self._running.add(path)
        if job.idle:
            self._finishing.add(path)
        self.turns += 1
        return job
