"""The audit: compares finished recordings with S3, slowly, again and again.

A confirmed put can be lost: by a disk of the store, by a power cut before it synced, by somebody who
deletes. The records in Redis would say for ever that all is complete.
"""

import math
import os
import threading
import time
from collections.abc import Callable

import logs
import metrics
from errors import LeaseLost, PermanentError, StoreUnavailable, TransientError
from recording.stream import NOBODYS, Signature, State, Stream
from recording.timestamps import utc_now
from redis_store.audits import Audits, Finding
from scheduling.outages import CircuitBreakers
from scheduling.schedule import Schedule
from upload.commit_list import CommitList
from upload.site import Site
from upload.store_marker import StoreMarker
from upload.stored_whole import StoredRecordings

log = logs.get_logger(__name__)

REFRESH_SECONDS = 5.0
"""Between two reads of the findings, for the page and the metrics of each daemon."""

HOLD_SECONDS = 900.0
"""For one look: a store that hashes what it lists takes a second for each GB."""

PUT_OFF_SECONDS = 60.0
"""Until the next look when one failed, or met a recording that changed meanwhile."""

AGAIN_SECONDS = 3600.0
"""Until a recording that was found damaged is looked at again: somebody may have restored it."""

ENROL_SECONDS = 3600.0
"""Between two rounds in which finished recordings that the queue has lost are added to it."""

CATCHING_UP = 2.0
"""Times as fast as a round needs it is gone through at the most, but one a second always."""

_FINISHED = (State.COMPLETE, State.INCOMPLETE)


class Auditor:
    """Looks at one recording after another. `step` is called each second, by one thread.

    Parameters:
        site: where recordings come from and go to.
        audits: the queue and the findings, shared by all daemons of a namespace.
        marker: its id is written into Redis again if it was lost there.
        breakers: whether S3 and Redis work; nothing is looked at while one of them does not.
        schedule: takes a recording up again whose file is still here.
        interval_seconds: in which every recording is looked at once.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        site: Site,
        audits: Audits,
        marker: StoreMarker,
        breakers: CircuitBreakers,
        schedule: Schedule,
        *,
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site = site
        self._audits = audits
        hasty = site.store.for_viewers()
        self._stored = StoredRecordings(store=hasty, layout=site.layout)
        self._commits = CommitList(store=hasty, layout=site.layout)
        self._marker = marker
        self._breakers = breakers
        self._schedule = schedule
        self._interval = interval_seconds
        self._stopped = threading.Event()
        self._clock = clock
        self._refresh_at = -math.inf
        self._enrol_at = -math.inf
        self._enrolled = dict.fromkeys(_FINISHED, 0)
        self._finished = 0
        self.findings: list[Finding] | None = None
        """What stands, as it was read last; None before that. Written by one thread, read by any."""

    def stop(self) -> None:
        """Begin no look any more; for any thread."""
        self._stopped.set()

    def step(self) -> None:
        """Look at the recordings that are due, and read what stands."""
        if not self._breakers.works():
            return
        try:
            if self._clock() >= self._refresh_at:
                self._refresh()
                self._refresh_at = self._clock() + REFRESH_SECONDS
            if self._clock() >= self._enrol_at:
                self._enrol()
            for stream_id in self._audits.take(self._at_once(), hold_seconds=HOLD_SECONDS):
                if self._stopped.is_set() or not self._breakers.works():
                    return  # it is due again after the hold
                self._look(stream_id)
        except StoreUnavailable as error:
            self._breakers.fail(error)

    def _at_once(self) -> int:
        """Return how many may be looked at in one step, so that a round ends within its time."""
        return max(1, math.ceil(CATCHING_UP * self._finished / self._interval))

    def _refresh(self) -> None:
        self._marker.keep()
        counts = self._site.checkpoints.counts()
        self._finished = sum(counts[state] for state in _FINISHED)
        self.findings = self._audits.findings()
        metrics.AUDIT_FINDINGS.set(sum(not each.acknowledged_by for each in self.findings))
        metrics.AUDIT_OVERDUE_SECONDS.set(self._audits.overdue_seconds())

    def _enrol(self) -> None:
        """Go on with adding what the queue has lost: a batch of each state a step."""
        went_through = 0
        for state, start in self._enrolled.items():
            number = self._audits.enrol(state, start, spread_seconds=self._interval)
            self._enrolled[state] = start + number
            went_through += number
        if not went_through:
            self._enrolled = dict.fromkeys(_FINISHED, 0)
            self._enrol_at = self._clock() + ENROL_SECONDS

    # ------------------------------------------------------------------ one recording

    def _look(self, stream_id: str) -> None:
        stream = self._record(stream_id)
        if stream is None or stream.state not in _FINISHED:
            if stream is None:
                self._audits.clear(stream_id)
            self._audits.drop(stream_id)  # it enters the queue again when it is completed or closed
            return
        try:
            problems = self._stored.problems(stream)
            if not problems:
                self._commits.after_commit(stream)
        except StoreUnavailable as error:
            self._audits.later(stream_id, PUT_OFF_SECONDS)
            if error.refused:
                raise
            log.info("audit put off", stream=stream_id, reason=str(error))  # a slow list is no outage
            return
        except TransientError as error:
            self._audits.later(stream_id, PUT_OFF_SECONDS)
            log.info("audit put off", stream=stream_id, reason=str(error))
            return
        except PermanentError as error:  # only a line of the list: the recording is whole
            log.warning("not in the list of commits", stream=stream_id, reason=str(error))
            problems = []
        if problems and self._record(stream_id) != stream:
            self._audits.later(stream_id, PUT_OFF_SECONDS)
            return
        metrics.AUDITS.labels("damaged" if problems else "whole").inc()
        if problems:
            self._found(stream, problems)
        else:
            self._is_whole(stream)

    def _record(self, stream_id: str) -> Stream | None:
        found = self._site.checkpoints.records([stream_id])
        return found[0].stream if found else None

    def _is_whole(self, stream: Stream) -> None:
        if self._audits.finding(stream.stream_id):
            self._audits.clear(stream.stream_id)
            self._refresh_at = -math.inf
            log.info("whole again in S3", stream=stream.stream_id)
        self._audits.later(stream.stream_id, self._interval)

    def _found(self, stream: Stream, problems: list[str]) -> None:
        before = self._audits.finding(stream.stream_id)
        finding = Finding(stream.stream_id, stream.path, tuple(problems), len(problems), utc_now())
        known = before is not None and before.same_as(finding)
        if before and known:
            finding = before
        kept = self._audits.note(finding)
        self._refresh_at = -math.inf
        self._audits.later(stream.stream_id, AGAIN_SECONDS)
        again = not finding.acknowledged_by and self._take_up(stream)
        if not known or again:
            log.error(
                "not whole in S3",
                stream=stream.stream_id,
                missing=problems[:3],
                problems=len(problems),
                taken_up_again=again,
                kept=kept,
            )

    def _take_up(self, stream: Stream) -> bool:
        """Have a complete recording stored again if its file is still here as it was then.

        One that was only found in S3 is another one's, so its file begins a recording of its own.
        """
        if stream.state is not State.COMPLETE:
            return False
        try:
            here = Signature.of(os.stat(os.path.join(self._site.root, stream.path), follow_symlinks=False))
        except (OSError, ValueError):
            return False
        if not stream.signature.unchanged(here):
            return False  # it has changed since: the next scan sees to it
        try:
            with self._site.checkpoints.leased(stream.stream_id) as (lease, fresh):
                if fresh.state is not State.COMPLETE:
                    return False
                if fresh.adopted:
                    self._site.checkpoints.resign(lease, NOBODYS, 0)
                else:
                    self._site.checkpoints.set_state(
                        lease, State.COMPLETE, State.ACTIVE, fresh.signature, revision=fresh.revision
                    )
        except LeaseLost:
            return False  # somebody works on it, or a newer recording has its path
        self._schedule.touched(stream.path)
        return True
