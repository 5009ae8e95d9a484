"""How many workers put at once: all, until puts time out although bytes leave. No I/O."""

import threading
import time
from collections.abc import Callable

import logs

log = logs.get_logger(__name__)


class PutLimit:
    """Additive increase, multiplicative decrease, as TCP does it. Safe to use from any thread.

    A put that times out while others move says that they are too many for the line: half of the workers wait
    from then on. As many confirmed puts in a row as may be under way let one more go.

    Parameters:
        most: workers that there are.
        clock: monotonic seconds.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._changed = threading.Condition()
        # All below is guarded by _changed.
        self._limit = most
        self._busy = 0
        self._confirmed = 0
        self._lowered_at = clock()

    @property
    def limit(self) -> int:
        """Return how many may work at once now."""
        with self._changed:
            return self._limit

    def enter(self, timeout: float) -> bool:
        """Wait for a place and return whether there was one; the caller gives it back with `leave`.

        Parameters:
            timeout: seconds to wait at the most.
        """
        with self._changed:
            entered = self._changed.wait_for(lambda: self._busy < self._limit, timeout)
            self._busy += entered
            return entered

    def leave(self) -> None:
        """Release a place."""
        with self._changed:
            self._busy -= 1
            self._changed.notify()

    def confirmed(self) -> None:
        """Count a put that went well."""
        with self._changed:
            if self._limit == self._most:
                return
            self._confirmed += 1
            if self._confirmed < self._limit:
                return
            self._confirmed, self._limit = 0, self._limit + 1
            limit = self._limit
            self._changed.notify()
        log.info("more puts at once", limit=limit)

    def timed_out(self, began_at: float) -> None:
        """Halve the limit after a request that timed out while bytes of others left.

        Parameters:
            began_at: when it began, by the clock; of those under way together only the first counts.
        """
        with self._changed:
            if began_at < self._lowered_at or self._limit == 1:
                return
            self._confirmed, self._limit, self._lowered_at = 0, self._limit // 2, self._clock()
            limit = self._limit
        log.warning("fewer puts at once", limit=limit, reason="a request timed out while others moved")
