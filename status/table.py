"""The streams as the page shows them: read when somebody asks, by one request at a time."""

import threading
import time
from collections.abc import Callable

from errors import StoreUnavailable
from status.overview import Overview

FRESH_SECONDS = 2.0
"""A list as old as that is shown to whoever asks: the page asks that often."""

REST = 4
"""Times as long as a read took is the rest before the next: thousands of streams take a second of Redis."""

MAX_REST_SECONDS = 8.0
"""The rest is no longer than that, so that the list stays younger than what the report believes."""

WAIT_SECONDS = 1.0
"""For another request that reads the list at this moment; after that the last one is shown."""

MAX_WAITING = 1
"""Requests that do so; all others are shown the last list at once. Each holds a thread of the server."""


class StatusTable:
    """The last overview of the streams. Safe for any thread.

    Parameters:
        take: makes an overview; asks Redis and the folder.
        works: returns whether Redis may be asked.
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
        self._asking = threading.BoundedSemaphore(1 + MAX_WAITING)  # the one that reads, and who waits for it
        self._reading = threading.Lock()  # held by the one request that asks Redis; guards all below
        self._table: Overview | None = None
        self._due_at = -float("inf")

    def look(self) -> Overview | None:
        """Return the streams as they are now; None when they were never read.

        An older list only while Redis cannot be asked or is slow, or within the rest after a read that
        took long: its `taken_at` says how old it is.
        """
        if self._is_due() and self._asking.acquire(blocking=False):
            try:
                self._share()
            finally:
                self._asking.release()
        return self._table

    def _share(self) -> None:
        """Read the list, or wait for the request that does."""
        if self._reading.acquire(timeout=WAIT_SECONDS):
            try:
                if self._is_due():  # still, after another request ended its read
                    self._read()
            finally:
                self._reading.release()

    def _is_due(self) -> bool:
        return self._clock() >= self._due_at and self._works()

    def _read(self) -> None:
        began = self._clock()
        try:
            self._table = self._take()
        except StoreUnavailable as error:
            self._failed(error)
        took = self._clock() - began
        self._due_at = self._clock() + max(FRESH_SECONDS - took, min(REST * took, MAX_REST_SECONDS))
