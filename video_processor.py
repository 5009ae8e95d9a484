"""The worker threads: take the next turn from the schedule, do it, decide what comes after."""

import threading
from contextlib import suppress
from typing import get_args

import logs
import metrics
from checkpoint import LOOKUP_BATCH
from chunk_uploader import ChunkUploader
from errors import LeaseLost, Service, StoreUnavailable, TransientError
from recording.stream import NO_ERROR, RecordedError, Signature
from scheduling.outages import CircuitBreakers, backoff
from scheduling.schedule import Job, Lane, Schedule
from stream_monitor import StreamMonitor
from upload.folder_claim import claim_folder
from upload.services import Services
from upload.site import Site
from upload.turn import Outcome, Turn

log = logs.get_logger(__name__)

BUSY_SECONDS = 5.0
"""Until we ask again for a lease that another daemon holds; it holds one for a turn or a finalization."""

LOST_SECONDS = 0.2
"""Until a stream is loaded again whose lease or record was lost; bounds the loop if it is lost each time."""


FAILURES_OF_A_SUSPECT = 2
"""In a row, each of which tripped a breaker: every stream may be hit once or twice by a real outage."""


class Intake:
    """Hands the sources that scans find to the schedule. Owned by the watcher's thread.

    Parameters:
        site: where recordings come from and go to.
        schedule: gives turns.
        breakers: whether Redis can be asked.
        monitor: is told of every unfinished source.
    """

    def __init__(
        self, site: Site, *, schedule: Schedule, breakers: CircuitBreakers, monitor: StreamMonitor
    ) -> None:
        self._site = site
        self._schedule = schedule
        self._breakers = breakers
        self._monitor = monitor
        self._found: list[tuple[str, Signature]] = []

    def folder_appeared(self) -> None:
        """Make sure that the folder is the one that the records are about, before it is watched.

        Raises:
            PermanentError: it is another one.
        """
        if self._breakers.works("redis"):  # else the probe asks
            try:
                claim_folder(self._site.checkpoints, self._site.root)
            except StoreUnavailable as error:
                self._breakers.fail(error)

    def found(self, path: str, signature: Signature) -> None:
        """A scan sees a source; looked up with many others in one round trip."""
        if not self._monitor.watches(path):
            self._found.append((path, signature))
        if len(self._found) >= LOOKUP_BATCH:
            self.look_up()

    def scanned(self) -> None:
        """A full scan ended: whatever Redis holds unfinished and nobody has seen gets a turn, too."""
        self.look_up()
        if not self._breakers.works("redis"):
            return
        try:
            unfinished = self._site.checkpoints.unfinished_paths()
        except StoreUnavailable as error:
            self._breakers.fail(error)
            return
        for path in unfinished:
            if not self._monitor.watches(path):
                self._schedule.notice(path, lane=Lane.BULK)

    def look_up(self) -> None:
        """Schedule a turn for each source found that is not settled. Without Redis a later scan does it."""
        batch, self._found = self._found, []
        if not batch or not self._breakers.works("redis"):
            return
        try:
            streams = self._site.checkpoints.find_all([path for path, _ in batch])
        except StoreUnavailable as error:
            self._breakers.fail(error)
            return
        for (path, signature), stream in zip(batch, streams, strict=True):
            if stream is None or not stream.settled(signature):
                self._monitor.watch(path, signature, stream)
                self._schedule.notice(path, lane=Lane.BULK)


class VideoProcessor:
    """Does the turns that the schedule hands out. `work_once` is called by each worker thread.

    Parameters:
        site: where recordings come from and go to.
        uploader: does the turns.
        schedule: whose turn it is.
        breakers: whether S3 and Redis work.
        services: try one that failed.
        monitor: is told of every unfinished source.
    """

    def __init__(
        self,
        site: Site,
        *,
        uploader: ChunkUploader,
        schedule: Schedule,
        breakers: CircuitBreakers,
        services: Services,
        monitor: StreamMonitor,
    ) -> None:
        self._site = site
        self._uploader = uploader
        self._schedule = schedule
        self._breakers = breakers
        self._services = services
        self._monitor = monitor
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}  # turns in a row that failed, by path; guarded by _lock
        self._tripped_by = ""  # the path whose turn S3 failed last; guarded by _lock
        self._holders: dict[str, str] = {}  # whose lease a path waits for; guarded by _lock

    def work_once(self, timeout: float) -> None:
        """Do one turn, or try a service that failed, or wait.

        Parameters:
            timeout: seconds to wait at the most when there is nothing to do.
        """
        if not self._breakers.works():
            service = self._breakers.claim_trial(timeout)
            if service:
                self._try(service)
            return
        if not self._site.store.puts.enter(timeout):
            return
        try:
            if job := self._schedule.take(timeout):
                self._run_job(job)
        finally:
            self._site.store.puts.leave()

    def _try(self, service: Service) -> None:
        """Ask a failed service whether it works again: its own probe first, then one real turn."""
        try:
            self._services.probe(service)
        except StoreUnavailable as error:
            ends_the_start = error.refused and not self._breakers.reached(service)
            if ends_the_start:
                self._breakers.refuse(error)
            self._breakers.fail(error, logged=ends_the_start)
            if error.service != service:
                self._breakers.inconclusive(service)
            return
        others_work = all(self._breakers.works(other) for other in get_args(Service) if other != service)
        job = self._schedule.take(0) if others_work else None
        if job and self._run_job(job) == service:
            return
        if job and service == "s3" and self._proves_nothing(job.path):
            self._breakers.inconclusive(service)
            return
        self._services.works_again(service)

    def _proves_nothing(self, path: str) -> bool:
        """Return whether a path's turn went well because it sent nothing.

        S3 may answer and take no bodies. What another path could do does count, so that a single
        recording that S3 refuses does not hold up all others.
        """
        with self._lock:
            return path == self._tripped_by and not self._site.store.takes_puts

    def _run_job(self, job: Job) -> Service | None:
        """Do one turn; gives the service that failed in it."""
        try:
            turn = self._uploader.advance(job)
        except StoreUnavailable as error:
            self._wait_for_service(job, error)
            return error.service
        except TransientError as error:
            self._put_off(job, error)
        except LeaseLost as error:
            self._lost(job, error)
        else:
            self._after(job, turn)
        return None

    def _after(self, job: Job, turn: Turn) -> None:
        with self._lock:
            failed = self._failures.pop(job.path, 0)
            self._holders.pop(job.path, None)
        if failed:
            self._tell(job.path, NO_ERROR)
        if turn.outcome is Outcome.SETTLED:
            self._monitor.forget(job.path)
        elif turn.outcome is Outcome.MISSING:
            self._monitor.missing(job.path, turn.stream)
        elif turn.signature and not turn.finalizing:
            self._monitor.watch(job.path, turn.signature, turn.stream)
        if turn.outcome is Outcome.MORE:
            self._schedule.again(job, lane=Lane.FINISHING if turn.finalizing else Lane.BULK)
        else:
            self._schedule.done(job.path)

    def _wait_for_service(self, job: Job, error: StoreUnavailable) -> None:
        """Trip the breaker; the job is what the next try of the service takes.

        A stream that trips a closed breaker again and again may be the only one that fails: it waits
        longer each time, so that the others go on.
        """
        metrics.RETRIES.inc()
        if error.service == "s3":
            with self._lock:
                self._tripped_by = job.path
        tripped_it = self._breakers.works(error.service)
        self._breakers.fail(error)
        if tripped_it and error.service != "redis":
            self._tell(job.path, RecordedError.of(error))
        failures = self._count_failure(job.path) if tripped_it else 0
        delay = backoff(failures) if failures > FAILURES_OF_A_SUSPECT else 0.0
        self._schedule.again(job, lane=Lane.BULK, delay=delay, keep_job=True)

    def _put_off(self, job: Job, error: TransientError) -> None:
        delay = backoff(self._count_failure(job.path))
        metrics.ERRORS.labels(error.kind).inc()
        metrics.RETRIES.inc()
        log.warning("trying again", path=job.path, reason=str(error), in_seconds=round(delay, 1))
        self._tell(job.path, RecordedError.of(error))
        self._schedule.again(job, lane=Lane.BULK, delay=delay, keep_job=True)

    def _tell(self, path: str, error: RecordedError) -> None:
        """Let `status` show what a stream waits for. Redis may be away: its own outage is told elsewhere."""
        if self._breakers.works("redis"):
            with suppress(StoreUnavailable):
                self._site.checkpoints.set_last_error(path, error)

    def _count_failure(self, path: str) -> int:
        with self._lock:
            self._failures[path] = self._failures.get(path, 0) + 1
            return self._failures[path]

    def _lost(self, job: Job, error: LeaseLost) -> None:
        metrics.ERRORS.labels(f"lease_{error.reason}").inc()
        if error.reason != "busy":
            log.info("loading the record again", stream=error.stream_id, reason=error.reason)
            delay = LOST_SECONDS
        else:
            self._tell_holder(job.path, error)
            delay = min(max(error.ends_in_seconds, LOST_SECONDS), BUSY_SECONDS)
        self._schedule.again(job, lane=Lane.BULK, delay=delay, keep_job=True)

    def _tell_holder(self, path: str, error: LeaseLost) -> None:
        """Log whom a stream waits for, once; after kill -9 it is the daemon that ran here before."""
        with self._lock:
            told = self._holders.get(path) == error.holder
            self._holders[path] = error.holder
        if not told and error.holder:
            seconds = round(error.ends_in_seconds, 1)
            log.info(
                "waiting for a lease", stream=error.stream_id, holder=error.holder, ends_in_seconds=seconds
            )
