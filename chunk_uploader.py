"""The work on one stream: which turn it needs now, the next chunk, finalizing, closing, failing."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import logs
import metrics
from checkpoint import Lease
from errors import LeaseLost, PermanentError, SourceGone, TransientError, UploaderError
from folder.source import open_source
from recording.layout import MAX_CHUNKS
from recording.stream import UNFINISHED, Chunk, RecordedError, Signature, State, Stream
from redis_store.requests import PendingRequests
from s3.bucket import Body
from scheduling.schedule import Job
from upload.chunk_writer import ChunkWriter
from upload.close import Closer
from upload.comparison import SourceView, Unresolved
from upload.crash_points import CrashPoint
from upload.finalization import Finalization, Progress
from upload.finalize import Finalizer
from upload.identify import OPEN_STATES, ResolvedStream, StreamResolver
from upload.left_behind import LeftBehind
from upload.requests import RequestHandler
from upload.site import Site
from upload.turn import Outcome, Turn
from upload.unopened import UnopenedSources

log = logs.get_logger(__name__)


MAX_REFUSED_PUTS = 5
"""Arrived corrupt or met a conflict, in a row for one stream: then it is no accident and the stream fails."""


_UNRESOLVED = {
    Unresolved.SETTLED: Outcome.SETTLED,
    Unresolved.COMPARING: Outcome.MORE,
    Unresolved.UNTIL_IDLE: Outcome.WAITING,
}


@dataclass(slots=True)
class _Session:
    """What this process remembers of an unfinished stream between turns.

    Owned by the worker whose turn it is; the schedule gives a path to one worker at a time. `epoch`
    is that of our last lease: when Redis names another, somebody else has worked meanwhile.
    `identity` are device and inode of the source, `born_ns` when it was created, 0 if unknown. `seen` is
    the source as the last turn saw it: when it vanishes, that tells how much of it was not stored.
    """

    stream: Stream
    ask: bool
    identity: tuple[int, int]
    epoch: str
    born_ns: int = 0
    refused_puts: int = 0
    finalization: Finalization | None = None
    seen: Signature | None = None


class ChunkUploader:
    """Does one turn at a time for any stream. Safe for several threads on different paths.

    Parameters:
        site: where recordings come from and go to.
        pending: where requests of operators are known to stand.
        left_behind: recordings whose volume was exchanged for another.
    """

    def __init__(self, site: Site, pending: PendingRequests, left_behind: LeftBehind) -> None:
        self._site = site
        self._volumes = left_behind.volumes
        self._chunks = ChunkWriter(site)
        self._finalizer = Finalizer(site)
        self._closer = Closer(site, left_behind)
        self._resolver = StreamResolver(site, self._closer)
        self._requests = RequestHandler(site, self._closer, self._resolver, pending)
        self._unopened = UnopenedSources(site)
        self._sessions: dict[str, _Session] = {}  # each entry owned by the worker that has the path

    def advance(self, job: Job) -> Turn:
        """Do the next piece of work for a path: at most one chunk is read and sent.

        Parameters:
            job: the path, with what the monitor requested for it.

        Raises:
            StoreUnavailable: S3 or Redis cannot work for anybody now.
            TransientError: this turn failed; the same turn may succeed later.
            LeaseLost: another process has the stream; unless it is `busy`, what was remembered is forgotten.
        """
        try:
            if self._requests.pending(job.path):
                return self._carry_out_request(job.path)
            try:
                with open_source(self._site.root, job.path) as source:
                    view = SourceView(job.path, source, source.signature(), job.idle)
                    session = self._session(view)
                    if isinstance(session, Turn):
                        return session
                    if work := self._finalization(view, session):
                        progress = self._finalizer.continue_finalization(work, session.stream, view)
                        return self._after_finalizer(view, session, progress)
                    return self._upload_next_chunk(view, session)
            except SourceGone:
                return self._missing(job.path, close=job.gone)
        except (LeaseLost, TransientError, PermanentError) as error:
            return self._after_failure(job.path, error)

    def forget(self, path: str) -> None:
        """Drop what is remembered of a path; the next turn asks Redis and S3 again."""
        session = self._sessions.pop(path, None)
        if session and session.finalization:
            self._site.checkpoints.drop(session.finalization.lease)

    def _after_failure(self, path: str, error: LeaseLost | TransientError | PermanentError) -> Turn:
        """Raise what may pass; what cannot marks the stream failed."""
        session = self._sessions.get(path)
        if isinstance(error, LeaseLost):
            if session and error.reason == "gone":
                self._resolver.remember(path, session.stream, session.identity)
            if error.reason != "busy":  # while we wait for a lease, nothing says that we are wrong
                self.forget(path)
            raise error
        if isinstance(error, TransientError):
            if session is None or self._doubt(session, error):
                raise error
            error = PermanentError(error.message, kind=error.kind, hint=error.hint)
        return self._fail(path, error)

    @staticmethod
    def _doubt(session: _Session, error: TransientError) -> bool:
        """Note a failed turn; False when the same turn will never succeed.

        S3 may hold a chunk that nobody recorded: ask before sending from now on.
        """
        session.ask = True
        if session.finalization:
            session.finalization.doubt = True
        session.refused_puts = session.refused_puts + 1 if error.kind in ("corrupt", "conflict") else 0
        return session.refused_puts < MAX_REFUSED_PUTS

    def _carry_out_request(self, path: str) -> Turn:
        self.forget(path)  # whatever is under way here ends: a request is about what is recorded
        if resolved := self._requests.carry_out(path):
            self._sessions[path] = _Session(*resolved)
        return Turn(Outcome.MORE)

    # ------------------------------------------------------------------ turns

    def _session(self, view: SourceView) -> _Session | Turn:
        """Return what is known of a source's stream, or the turn that ends without work on it."""
        session = self._sessions.get(view.path)
        if session is None:
            resolved = self._resolver.resolve(view)
            if isinstance(resolved, Unresolved):
                return Turn(_UNRESOLVED[resolved], None, view.signature)
            session = self._sessions[view.path] = _Session(*resolved, born_ns=view.source.born_ns())
            self._volumes.refresh()
        if view.signature.size > MAX_CHUNKS * session.stream.chunk_size:
            raise PermanentError(f"it needs more than {MAX_CHUNKS} chunks", kind="too_large")
        if view.signature.size < session.stream.offset or self._is_another(view, session):
            return self._replaced(view, session)
        self._note_volume(view.path, session)
        session.seen = view.signature
        return session

    def _is_another(self, view: SourceView, session: _Session) -> bool:
        """Return whether another file took the source's place.

        Volumes that are exchanged for each other give their files the same numbers. Then only a birth time,
        or the stored bytes that were found in it, say that it is the same one.
        """
        if view.identity != session.identity:
            return True
        stream, born_ns = session.stream, view.source.born_ns()
        if born_ns and session.born_ns and born_ns != session.born_ns:
            return True
        if not stream.volume or self._volumes.holds(view.path, stream.volume):
            return False
        found_by_content = stream.offset > 0 and session.identity != stream.signature[3:]
        return not found_by_content and (not born_ns or born_ns != stream.born_ns)

    def _note_volume(self, path: str, session: _Session) -> None:
        """Let the record say on which volume the source is, so that whoever misses it looks for that one."""
        here, known = self._volumes.of(path), session.stream.volume
        if here and not (known and self._volumes.holds(path, known)):
            session.stream = self._site.checkpoints.set_volume(session.stream, here)

    @staticmethod
    def _has_next_chunk(view: SourceView, stream: Stream) -> bool:
        start = stream.next_index * stream.chunk_size
        end = start + stream.chunk_size
        return end <= view.signature.size and not view.source.hole_before(start, end)

    def _upload_next_chunk(self, view: SourceView, session: _Session) -> Turn:
        """Store and record the next full chunk, if there is one."""
        if self._has_next_chunk(view, session.stream):
            with self._lease(session, view.path) as lease:
                stream = session.stream
                if body := self._read_next_chunk(view, stream):
                    sha256 = hashlib.sha256(body).hexdigest()
                    self._site.at(CrashPoint.CHUNK_READ)
                    lease.check()
                    chunk = self._chunks.ensure(stream, stream.next_index, body, sha256, ask=session.ask)
                    self._site.at(CrashPoint.CHUNK_PUT)
                    self._record(lease, session, chunk, view.signature)
        more = self._has_next_chunk(view, session.stream)
        return Turn(Outcome.MORE if more else Outcome.WAITING, session.stream, view.signature)

    def _read_next_chunk(self, view: SourceView, stream: Stream) -> Body:
        """Return the next full chunk; b"" when another process stored it or the source was cut meanwhile."""
        if not self._has_next_chunk(view, stream):
            return b""
        body = view.source.read_chunk(stream.offset, stream.chunk_size)
        return body if len(body) == stream.chunk_size else b""

    def _record(self, lease: Lease, session: _Session, chunk: Chunk, signature: Signature) -> None:
        session.refused_puts = 0
        self._site.checkpoints.checkpoint(lease, chunk, signature)
        self._site.at(CrashPoint.CHUNK_RECORDED)
        stream = session.stream
        session.stream = replace(
            stream, next_index=chunk.index + 1, offset=stream.offset + chunk.size, signature=signature
        )
        log.info("chunk stored", stream=stream.stream_id, index=chunk.index, size_bytes=chunk.size)

    def _finalization(self, view: SourceView, session: _Session) -> Finalization | None:
        """Return the finalization of a stream; one begins when its source is idle and holds anything."""
        begins = session.finalization is None and view.is_idle and not _is_only_reserved(view)
        if begins:
            with self._lease(session, view.path, keep=True) as lease:
                session.finalization = self._finalizer.begin(
                    lease, session.stream, view.signature, ask=session.ask
                )
        return session.finalization

    def _after_finalizer(self, view: SourceView, session: _Session, progress: Progress) -> Turn:
        session.refused_puts = 0
        if progress is Progress.MORE:
            return Turn(Outcome.MORE, session.stream, view.signature, finalizing=True)
        self._sessions.pop(view.path)
        if progress is Progress.COMPLETE:
            return Turn(Outcome.SETTLED, session.stream, view.signature)
        if progress is Progress.ANOTHER:
            begun = self._resolver.succeed(session.stream, view)
            if isinstance(begun, ResolvedStream):
                self._sessions[view.path] = _Session(*begun, born_ns=view.source.born_ns())
        return Turn(Outcome.MORE, None, view.signature)

    # ------------------------------------------------------------------ endings

    def _replaced(self, view: SourceView, session: _Session) -> Turn:
        """Close the generation of a source that was truncated or exchanged; the next turn begins anew."""
        stream, cut = session.stream, view.signature.size < session.stream.offset
        same = view.identity == session.identity
        reason = "the source was truncated" if cut and same else "another file took the source's place"
        self.forget(view.path)
        self._closer.close(stream, reason, signature=session.seen)
        log.warning("replaced", stream=stream.stream_id, reason=reason, size_bytes=view.signature.size)
        return Turn(Outcome.MORE, None, view.signature)

    def _missing(self, path: str, *, close: bool) -> Turn:
        self._resolver.missing(path)
        session = self._sessions.get(path)
        # Before closing ask the record: the stream may have followed its source to another path.
        stream = session.stream if session and not close else self._site.checkpoints.find(path)
        if stream is None and not close:
            self.forget(path)
            return Turn(Outcome.MISSING)  # Redis may have lost the record of a source whose volume is away
        if stream is None or stream.state not in OPEN_STATES:
            self.forget(path)
            return Turn(Outcome.SETTLED)
        if not close:
            return Turn(Outcome.MISSING, stream)
        self.forget(path)
        log.warning("vanished", stream=stream.stream_id, stored_bytes=stream.offset)
        seen = session.seen if session and session.stream.stream_id == stream.stream_id else None
        self._closer.close(stream, "the source vanished before its end", signature=seen)
        return Turn(Outcome.SETTLED)

    def _fail(self, path: str, error: PermanentError) -> Turn:
        """Mark a stream failed, visibly; a finished one is safe in S3 and stays what it is."""
        metrics.ERRORS.labels(error.kind).inc()
        self.forget(path)
        known = self._site.checkpoints.find(path)
        reason = RecordedError.of(error)
        if error.kind == "not_a_file":
            # Never a source: scans count it and log it once. What was here before is closed.
            if known is None or known.state not in UNFINISHED:
                return Turn(Outcome.SETTLED)
            try:
                self._closer.close(known, "a link or a device took the source's place")
            except PermanentError as refusal:
                reason = RecordedError.of(refusal)
            else:
                return Turn(Outcome.SETTLED)
        if known is None or known.state not in OPEN_STATES:
            known = self._unopened.record(path, known)
        if known is None or known.state not in UNFINISHED:
            log.debug("still failing", path=path, reason=reason.message)
            return Turn(Outcome.SETTLED)
        log.error("failed", stream=known.stream_id, path=path, kind=reason.kind, reason=reason.message)
        with self._site.checkpoints.leased(known.stream_id) as (lease, fresh):
            if fresh.state in UNFINISHED:
                self._site.checkpoints.set_state(
                    lease, fresh.state, State.FAILED, fresh.signature, revision=fresh.revision, error=reason
                )
                self._site.at(CrashPoint.FAILED)
        return Turn(Outcome.SETTLED)

    # ------------------------------------------------------------------ the lease of a turn

    @contextmanager
    def _lease(self, session: _Session, path: str, *, keep: bool = False) -> Iterator[Lease]:
        """Hold a stream's lease and bring the session up to date with its record.

        Parameters:
            session: of the stream.
            path: where the stream must still be.
            keep: hold on to the lease when all went well.
        """
        lease, fresh = self._site.checkpoints.acquire(session.stream.stream_id)
        try:
            if fresh.state not in UNFINISHED or fresh.path != path:
                raise LeaseLost(fresh.stream_id, "conflict")
            if lease.request:
                self._requests.meet(fresh)
                raise LeaseLost(fresh.stream_id, "requested")
            # A lost reply or another holder: S3 may have more than we know of.
            session.ask = session.ask or lease.previous_epoch != session.epoch
            session.epoch, session.stream = lease.epoch, fresh
            if fresh.state is State.FINALIZING:
                session.stream = self._site.checkpoints.make_active(lease, fresh)
            yield lease
        except UploaderError:
            self._site.checkpoints.release_quietly(lease)
            raise
        if not keep:
            self._site.checkpoints.release(lease)


def _is_only_reserved(view: SourceView) -> bool:
    """Return whether a recorder has reserved space and recorded nothing yet."""
    return view.signature.size > 0 and next(view.source.data_ranges(), None) is None
