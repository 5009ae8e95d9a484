"""Asks S3 whether it works while nobody else does, so that an idle daemon notices an outage, too."""

import math
import time
from collections.abc import Callable

from errors import StoreUnavailable
from s3.bucket import ObjectStore
from scheduling.outages import CircuitBreakers
from upload.store_marker import StoreMarker

SILENCE_SECONDS = 5.0
"""Without a sign of life from S3 until it is asked; one HEAD in this time while nothing is uploaded."""

MARKER_SECONDS = 30.0
"""Between two questions at the most, also while S3 is busy: puts succeed in a bucket that was made again."""

MISSES = 2
"""In a row until it counts as an outage: on a full uplink one answer may come late."""


class Prober:
    """Trips the breaker of S3 when it does not answer. `step` is called each second.

    Parameters:
        store: the bucket.
        marker: asks S3 whether it works, and whether it still is the same store.
        breakers: whether S3 works.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        store: ObjectStore,
        marker: StoreMarker,
        breakers: CircuitBreakers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._marker = marker
        self._breakers = breakers
        self._clock = clock
        self._misses = 0
        self._checked_at = -math.inf

    def step(self) -> None:
        """Ask S3 if it was silent; trying a tripped breaker is a worker's job."""
        now = self._clock()
        silent = now - max(self._store.heard_at, self._checked_at) >= SILENCE_SECONDS
        overdue = now - self._checked_at >= MARKER_SECONDS
        if not self._breakers.works("s3") or not (silent or overdue or self._misses):
            self._misses = 0
            return
        self._checked_at, heard_at = now, self._store.heard_at
        try:
            self._marker.check()
            self._misses = 0
        except StoreUnavailable as error:
            # On a line that is full of chunks an answer may be late, and is no sign of an outage.
            self._misses = 0 if self._store.heard_at > heard_at else self._misses + 1
            if self._misses >= MISSES or error.refused:
                self._misses = 0
                self._breakers.fail(error)
