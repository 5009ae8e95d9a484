"""Looking after the records in Redis: leases, counts, operators' requests, volumes that are away."""

import time
from collections.abc import Callable

import metrics
from checkpoint import LOOKUP_BATCH
from errors import StoreUnavailable
from recording.stream import NO_ERROR, RecordedError, State, Stream
from redis_store.requests import PendingRequests
from scheduling.outages import CircuitBreakers
from scheduling.schedule import Schedule
from upload.failed_recordings import FailedRecordings
from upload.folder_claim import claim_folder
from upload.left_behind import LeftBehind
from upload.site import Site

RENEWAL_SECONDS = 10.0
"""Between two renewals of the leases: a third of their life."""

COUNT_SECONDS = 5.0
"""Between two looks for requests and counts of the streams by state; one round trip to Redis."""

NOT_MOUNTED = RecordedError(
    "away", "its volume is not mounted; until it is back, nobody can tell whether the recording was deleted"
)
"""What the record of an unfinished stream says meanwhile."""


class RecordUpkeep:
    """Keeps the records in step with this process. Owned by the monitor's thread.

    Parameters:
        site: where recordings come from and go to.
        schedule: gives a turn to each stream that an operator wants something of.
        breakers: Redis is asked only while it works.
        pending: where requests of operators are known to stand.
        left_behind: closed recordings whose volume was exchanged for another.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        site: Site,
        *,
        schedule: Schedule,
        breakers: CircuitBreakers,
        pending: PendingRequests,
        left_behind: LeftBehind,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site = site
        self._schedule = schedule
        self._breakers = breakers
        self._pending = pending
        self._clock = clock
        self.left_behind = left_behind
        self.failed = FailedRecordings(site.checkpoints, site.root)
        self.looked = False
        """Whether Redis was asked what failed and what was left behind."""
        self._renew_at = 0.0
        self._look_at = 0.0
        self._reported_away: set[str] = set()  # paths whose record says that their volume is away

    def tick(self, away: set[str]) -> tuple[bool, list[Stream]]:
        """Do what is due; nothing while Redis does not work.

        Parameters:
            away: the paths of unfinished sources whose volume is away.

        Returns:
            Whether what failed or was left behind changed, and the closed recordings whose volume is back:
            their paths must be looked at.
        """
        news, back = False, list[Stream]()
        if not self._breakers.works("redis"):
            return news, back
        try:
            now = self._clock()
            if now >= self._renew_at:
                self._site.checkpoints.renew_held()
                self._renew_at = now + RENEWAL_SECONDS
            if now >= self._look_at:
                self._look_at = now + COUNT_SECONDS
                news = self._look()
            self._report_away(away)
            back = self.left_behind.end_returned()
        except StoreUnavailable as error:
            self._breakers.fail(error)
        return news, back

    def _look(self) -> bool:
        """Ask Redis what others did; returns whether that changes what is not in S3."""
        claim_folder(self._site.checkpoints, self._site.root)
        counts, requested, left_behind, unplayable = self._site.checkpoints.look()
        for state, number in counts.items():
            metrics.STREAMS.labels(str(state)).set(number)
        metrics.UNPLAYABLE.set(unplayable)
        self._meet_requests(requested)
        failed = self.failed.update(counts[State.FAILED])
        news = self.left_behind.update(left_behind) or failed
        self.looked = True
        return news

    def _meet_requests(self, ids: list[str]) -> None:
        """Give a turn to each stream that an operator wants something of."""
        streams = {each.stream.path: each.stream.stream_id for each in self._site.checkpoints.records(ids)}
        self._pending.replace(streams)
        for path in streams:
            self._schedule.grown(path)

    def _report_away(self, away: set[str]) -> None:
        """Let the record of a stream say that its volume is away, and say no more when it is back."""
        for path in list(away - self._reported_away)[:LOOKUP_BATCH]:
            self._site.checkpoints.set_last_error(path, NOT_MOUNTED)
            self._reported_away.add(path)
        for path in list(self._reported_away - away)[:LOOKUP_BATCH]:
            self._site.checkpoints.set_last_error(path, NO_ERROR)
            self._reported_away.discard(path)
