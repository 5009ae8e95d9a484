"""The streams as the page shows them: looked at by one thread, and only while somebody looks at the page."""

import threading
import time
from collections.abc import Callable

from errors import StoreUnavailable
from status.overview import Overview

FRESH_SECONDS = 2.0
"""Between two looks: the page asks that often."""

REST = 4
"""Times as long as a look took is the pause after it: thousands of streams take a second of Redis."""

WATCHED_SECONDS = 30.0
"""After somebody asked, looks go on, so that a page that is open is answered at once."""

FIRST_SECONDS = 1.0
"""That the first request waits for a table, so that it is not answered without one."""

MOST_WAITING = 2
"""Requests that wait at a time: the server's threads are for others, too."""


class StatusTable:
    """The last overview of the streams.

    Parameters:
        take: makes an overview; asks Redis and the folder.
        works: tells whether Redis may be asked.
        failed: is told when Redis did not answer.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        take: Callable[[], Overview],
        works: Callable[[], bool],
        failed: Callable[[StoreUnavailable], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._take = take
        self._works = works
        self._failed = failed
        self._clock = clock
        self._waiters = threading.BoundedSemaphore(MOST_WAITING)
        self._changed = threading.Condition()
        # All below is guarded by _changed.
        self._table: Overview | None = None
        self._taken_at = -float("inf")
        self._tried_at = -float("inf")
        self._asked_at = -float("inf")
        self._pause = FRESH_SECONDS
        self._stopped = False

    # ------------------------------------------------------------------ any thread

    def look(self) -> Overview | None:
        """Give the last overview; None when there is none yet."""
        with self._changed:
            self._asked_at = self._clock()
            self._changed.notify_all()
            stale = self._age() > WATCHED_SECONDS
        if stale and self._works() and self._waiters.acquire(blocking=False):
            try:
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._stopped or self._age() <= FRESH_SECONDS, FIRST_SECONDS
                    )
            finally:
                self._waiters.release()
        with self._changed:
            return self._table

    def stop(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    # ------------------------------------------------------------------ its own thread

    def wait(self, timeout: float) -> None:
        """Wait until a look may be due.

        Parameters:
            timeout: seconds to wait at the most.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._due(), timeout)

    def step(self) -> None:
        """Look at the streams if somebody wants to see them and the last look is old."""
        with self._changed:
            if not self._due():
                return
            self._tried_at = self._clock()
        if not self._works():
            return
        try:
            table = self._take()
        except StoreUnavailable as error:
            self._failed(error)
            return
        with self._changed:
            self._table, self._taken_at = table, self._clock()
            self._pause = max(FRESH_SECONDS, (REST + 1) * (self._taken_at - self._tried_at))
            self._changed.notify_all()

    def _due(self) -> bool:
        now = self._clock()
        return now - self._asked_at <= WATCHED_SECONDS and now - self._tried_at >= self._pause

    def _age(self) -> float:
        return self._clock() - self._taken_at
