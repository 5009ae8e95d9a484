"""Outages: a circuit breaker for each service, which trips for all streams at once. No I/O."""

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import logs
import metrics
from errors import ErrorKind, Service, StoreUnavailable
from scheduling.schedule import Schedule

log = logs.get_logger(__name__)

BACKOFF_BASE_SECONDS = 0.5
BACKOFF_CAP_SECONDS = 30.0
"""Full jitter between the two: long enough to spare a store that recovers, short enough to notice it."""

TRY_SECONDS = 180.0
"""Then another worker tries: a try may hang in a name lookup or in a file system. A put ends
140 s after its last byte left at the latest: two attempts of 10 s to connect and 60 s without one. One on a
slow line may take longer; then two are tried."""


OUTAGES_KEPT = 20
"""For the status page; what was before is in the log."""


NOT_REACHED = "not reached yet"


class Outage(NamedTuple):
    """A time in which a service did not work; seconds since the epoch, `ended_at` None while it lasts."""

    service: Service
    began_at: float
    ended_at: float | None
    reason: str


class ServiceHealth(NamedTuple):
    """How a service does now. `problem`, `kind` and `hint` are "" while it works, `since` is as in `Outage`.

    Before a service was tried for the first time there is a problem, and no kind.
    """

    service: Service
    problem: str = ""
    kind: ErrorKind | Literal[""] = ""
    since: float | None = None
    hint: str = ""


def _health(service: Service, breaker: "_Breaker", since: float | None) -> ServiceHealth:
    if breaker.failing_since is None:
        return ServiceHealth(service)
    if not (failure := breaker.failure):
        return ServiceHealth(service, NOT_REACHED)
    return ServiceHealth(service, failure.message, failure.kind, since, failure.hint)


def backoff(attempts: int) -> float:
    """Return the seconds to wait after a number of failed attempts in a row, with full jitter."""
    highest = min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2.0 ** min(attempts, 10))
    return random.uniform(BACKOFF_BASE_SECONDS, highest)  # noqa: S311 - jitter is no secret


@dataclass(slots=True)
class _Breaker:
    """`failing_since` is None while the service works; `failure` is None until an outage was announced.

    `tried_by` is the thread that tries the service now; `try_at` is when the next one may.
    """

    failing_since: float | None
    try_at: float
    failure: StoreUnavailable | None = None
    attempts: int = 0
    tried_by: int | None = None
    reached: bool = False
    working_since: float = math.inf


class CircuitBreakers:
    """Whether S3 and Redis work for us. Both breakers are tripped until they were tried once.

    Parameters:
        schedule: counts the streams that wait, for the log.
        clock: monotonic seconds.
        wall_clock: seconds since the epoch, for people.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._schedule = schedule
        self._clock = clock
        self._wall_clock = wall_clock
        self._changed = threading.Condition()
        now = clock()
        # All below is guarded by _changed.
        self._breakers: dict[Service, _Breaker] = {
            service: _Breaker(failing_since=now, try_at=now) for service in get_args(Service)
        }
        self._stopping = False
        self._refusal: StoreUnavailable | None = None
        self._outages: deque[Outage] = deque(maxlen=OUTAGES_KEPT)

    def works(self, service: Service | None = None) -> bool:
        """Return whether a service works, or all of them do."""
        with self._changed:
            chosen = [self._breakers[service]] if service else list(self._breakers.values())
            return all(breaker.failing_since is None for breaker in chosen)

    def reached(self, service: Service) -> bool:
        """Return whether a service has ever worked since the start."""
        with self._changed:
            return self._breakers[service].reached

    def working_since(self, service: Service) -> float:
        """Return the monotonic seconds at which a service last began to work; infinite when it never did."""
        with self._changed:
            return self._breakers[service].working_since

    def failures(self) -> dict[Service, str]:
        """Return the reason for each service that does not work."""
        with self._changed:
            return {
                service: str(breaker.failure or NOT_REACHED)
                for service, breaker in self._breakers.items()
                if breaker.failing_since is not None
            }

    def health(self) -> list[ServiceHealth]:
        """Return how each service does now."""
        with self._changed:
            began_at = {outage.service: outage.began_at for outage in self._outages}
            return [
                _health(service, breaker, began_at.get(service))
                for service, breaker in self._breakers.items()
            ]

    def outages(self) -> list[Outage]:
        """Return the last outages, the newest first."""
        with self._changed:
            return list(reversed(self._outages))

    def claim_trial(self, timeout: float) -> Service | None:
        """Return the service that the caller must try now; wait for one to become due.

        The caller says what came of it with `succeed`, `fail` or `inconclusive`; after `TRY_SECONDS` without
        a word the service is given to the next caller.

        Parameters:
            timeout: seconds to wait at the most; ends early when the last one works.
        """
        deadline = self._clock() + timeout
        with self._changed:
            while True:
                tripped = [
                    (breaker.try_at, service)
                    for service, breaker in self._breakers.items()
                    if breaker.failing_since is not None and not self._must_wait(service)
                ]
                now = self._clock()
                if self._stopping or not tripped:
                    return None
                due, service = min(tripped)
                if self._refusal:
                    due = math.inf
                if due <= now:
                    breaker = self._breakers[service]
                    breaker.tried_by, breaker.try_at = threading.get_ident(), now + TRY_SECONDS
                    return service
                if now >= deadline:
                    return None
                self._changed.wait(max(min(due, deadline) - now, 0.001))

    def _must_wait(self, service: Service) -> bool:
        """Return whether S3 never worked yet, and Redis, which says what store it must be, does not."""
        first = service == "s3" and not self._breakers["s3"].reached
        return first and self._breakers["redis"].failing_since is not None

    def succeed(self, service: Service) -> bool:
        """Close a breaker after its service was tried; True when it was tripped."""
        with self._changed:
            breaker = self._breakers[service]
            if breaker.failing_since is None:
                return False
            seconds, failure = self._clock() - breaker.failing_since, breaker.failure
            breaker.failing_since, breaker.failure, breaker.tried_by = None, None, None
            breaker.attempts, breaker.reached, breaker.working_since = 0, True, self._clock()
            if failure:
                self._note_end(service)
            metrics.SERVICE_UP.labels(service).set(1)
            self._changed.notify_all()
        if failure:
            log.info(
                "outage ends", service=service, seconds=round(seconds, 1), streams_waiting=len(self._schedule)
            )
        return True

    def inconclusive(self, service: Service) -> None:
        """Keep a breaker tripped after a try that proved nothing; the next one may begin at once."""
        with self._changed:
            breaker = self._breakers[service]
            if breaker.tried_by == threading.get_ident():
                breaker.try_at, breaker.tried_by = self._clock(), None
            self._changed.notify_all()

    def fail(self, error: StoreUnavailable, *, logged: bool = False) -> None:
        """Trip a breaker, or keep it tripped after a try that failed.

        Parameters:
            error: what the service answered.
            logged: the caller has logged it.
        """
        with self._changed:
            breaker = self._breakers[error.service]
            before, now = breaker.failure, self._clock()
            if breaker.failing_since is None:
                breaker.failing_since = now
            # Turns that were under way when the outage began fail late; only tries set the pace.
            if before is None or breaker.tried_by == threading.get_ident():
                breaker.try_at = now + max(backoff(breaker.attempts), error.pause_seconds)
                breaker.attempts += 1
                breaker.tried_by = None
            breaker.failure = error
            if before is None:
                self._outages.append(Outage(error.service, self._wall_clock(), None, error.message))
            metrics.SERVICE_UP.labels(error.service).set(0)
            self._changed.notify_all()
        metrics.ERRORS.labels(error.kind).inc()
        if before is None:
            metrics.OUTAGES.labels(error.service).inc()
        if not logged and (before is None or before.kind != error.kind):
            log.error(
                "outage goes on" if before else "outage begins",
                service=error.service,
                kind=error.kind,
                reason=error.message,
                hint=error.hint,
                streams_waiting=len(self._schedule),
            )

    def _note_end(self, service: Service) -> None:
        for index, outage in enumerate(self._outages):
            if outage.service == service and outage.ended_at is None:
                self._outages[index] = outage._replace(ended_at=self._wall_clock())

    def refuse(self, error: StoreUnavailable) -> None:
        """Take note that a service that was never reached refuses us: nothing is tried again."""
        with self._changed:
            first, self._refusal = self._refusal is None, self._refusal or error
        if first:
            log.critical("refused at the start", service=error.service, reason=str(error))

    @property
    def refusal(self) -> StoreUnavailable | None:
        """Why the daemon must end; None while it may go on."""
        with self._changed:
            return self._refusal

    def wake(self) -> None:
        """Let no caller wait any more, because the daemon stops."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
