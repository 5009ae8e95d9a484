"""The work on one stream: which turn it needs now, the next chunk, finalizing, closing, failing."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import logs
import metrics
from checkpoint import Lease
from errors import LeaseLost, PermanentError, SourceChanged, SourceGone, TransientError, UploaderError
from folder.source import Source, open_source
from recording.layout import MAX_CHUNKS
from recording.stream import UNFINISHED, RecordedError, Signature, State, Stream
from redis_store.requests import StandingOrders
from upload.chunk_writer import ChunkWriter
from upload.close import Closer
from upload.comparison import Unresolved
from upload.crash_points import CrashPoint
from upload.finalize import AnotherRecording, Finalization, Finalizer
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
    `identity` are device and inode of the source, `born_ns` when it was created, 0 if unknown.
    """

    stream: Stream
    ask: bool
    identity: tuple[int, int]
    epoch: str
    born_ns: int = 0
    refused_puts: int = 0
    finalization: Finalization | None = None


class ChunkUploader:
    """Does one turn at a time for any stream. Safe for several threads on different paths.

    Parameters:
        site: where recordings come from and go to.
        standing: where orders of operators are known to stand.
        left_behind: recordings whose volume was exchanged for another.
    """

    def __init__(self, site: Site, standing: StandingOrders, left_behind: LeftBehind) -> None:
        self._site = site
        self._volumes = left_behind.volumes
        self._chunks = ChunkWriter(site)
        self._finalizer = Finalizer(site)
        self._closer = Closer(site, left_behind)
        self._resolver = StreamResolver(site, self._closer)
        self._requests = RequestHandler(site, self._closer, self._resolver, standing)
        self._unopened = UnopenedSources(site)
        self._sessions: dict[str, _Session] = {}  # each entry owned by the worker that has the path

    def step(self, path: str, idle: Signature | None = None, *, gone: bool = False) -> Turn:
        """Do the next piece of work for a path: at most one chunk is read and sent.

        Parameters:
            path: relative to the watched folder.
            idle: the signature at which the source was found idle; orders its finalization.
            gone: the source has been missing for long enough: close its stream as it stands.

        Raises:
            StoreUnavailable: S3 or Redis cannot work for anybody now.
            TransientError: this turn failed; the same turn may succeed later.
            LeaseLost: another process has the stream; unless it is `busy`, what was remembered is forgotten.
        """
        try:
            if self._requests.stands(path):
                # Whatever is under way here ends; an order is carried out on what is recorded.
                self.forget(path)
                if resolved := self._requests.carry_out(path):
                    self._sessions[path] = _Session(*resolved)
                return Turn(Outcome.MORE)
            return self._open_and_step(path, idle, gone=gone)
        except LeaseLost as error:
            session = self._sessions.get(path)
            if session and error.reason == "gone":
                self._resolver.remember(path, session.stream, session.identity)
            if error.reason != "busy":  # while we wait for a lease, nothing says that we are wrong
                self.forget(path)
            raise
        except TransientError as error:
            if self._doubt(path, error):
                raise
            return self._fail(path, PermanentError(error.message, kind=error.kind, hint=error.hint))
        except PermanentError as error:
            return self._fail(path, error)

    def forget(self, path: str) -> None:
        """Drop what is remembered of a path; the next turn asks Redis and S3 again."""
        session = self._sessions.pop(path, None)
        if session and session.finalization:
            self._site.checkpoints.drop(session.finalization.lease)

    def _doubt(self, path: str, error: TransientError) -> bool:
        """Note a failed turn; False when the same turn will never succeed.

        S3 may hold a chunk that nobody recorded: ask before sending from now on.
        """
        session = self._sessions.get(path)
        if session is None:
            return True
        session.ask = True
        if session.finalization:
            session.finalization.doubt = True
        session.refused_puts = session.refused_puts + 1 if error.kind in ("corrupt", "conflict") else 0
        return session.refused_puts < MAX_REFUSED_PUTS

    # ------------------------------------------------------------------ turns

    def _open_and_step(self, path: str, idle: Signature | None, *, gone: bool) -> Turn:
        try:
            with open_source(self._site.root, path) as source:
                return self._step(path, source, source.signature(), idle)
        except SourceGone:
            return self._missing(path, close=gone)

    def _step(self, path: str, source: Source, signature: Signature, idle: Signature | None) -> Turn:
        session = self._sessions.get(path)
        if session is None:
            resolved = self._resolver.resolve(path, source, signature, idle)
            if isinstance(resolved, Unresolved):
                return Turn(_UNRESOLVED[resolved], None, signature)
            session = self._sessions[path] = _Session(*resolved, born_ns=source.born_ns())
            self._volumes.refresh()
        stream = session.stream
        if signature.size > MAX_CHUNKS * stream.chunk_size:
            raise PermanentError(f"it needs more than {MAX_CHUNKS} chunks", kind="too_large")
        if signature.size < stream.offset or self._is_another(path, session, source, signature):
            return self._replaced(path, session, signature)
        self._note_volume(path, session)
        if session.finalization or (idle is not None and idle == signature):
            if session.finalization is None and _is_only_reserved(source, signature):
                return Turn(Outcome.WAITING, stream, signature)
            return self._finalize(path, session, source, signature)
        if self._next_chunk_is_there(stream, source, signature):
            with self._lease(session, path) as lease:
                self._upload_next(lease, session, source, signature)
        more = self._next_chunk_is_there(session.stream, source, signature)
        return Turn(Outcome.MORE if more else Outcome.WAITING, session.stream, signature)

    def _is_another(self, path: str, session: _Session, source: Source, signature: Signature) -> bool:
        """Return whether another file took the source's place.

        Volumes that are exchanged for each other give their files the same numbers. Then only a birth time,
        or the stored bytes that were found in it, say that it is the same one.
        """
        if (signature.dev, signature.ino) != session.identity:
            return True
        stream, born_ns = session.stream, source.born_ns()
        if born_ns and session.born_ns and born_ns != session.born_ns:
            return True
        if not stream.volume or self._volumes.holds(path, stream.volume):
            return False
        found_by_content = stream.offset > 0 and session.identity != stream.signature[3:]
        return not found_by_content and (not born_ns or born_ns != stream.born_ns)

    def _note_volume(self, path: str, session: _Session) -> None:
        """Let the record say on which volume the source is, so that whoever misses it looks for that one."""
        here, known = self._volumes.of(path), session.stream.volume
        if here and not (known and self._volumes.holds(path, known)):
            session.stream = self._site.checkpoints.set_volume(session.stream, here)

    @staticmethod
    def _next_chunk_is_there(stream: Stream, source: Source, signature: Signature) -> bool:
        start = stream.next_index * stream.chunk_size
        end = start + stream.chunk_size
        return end <= signature.size and not source.hole_before(start, end)

    def _upload_next(self, lease: Lease, session: _Session, source: Source, signature: Signature) -> None:
        stream = session.stream
        if not self._next_chunk_is_there(stream, source, signature):
            return  # another process stored it since our last turn
        body = source.read_chunk(stream.offset, stream.chunk_size)
        if len(body) < stream.chunk_size:
            return  # truncated this very moment: the next turn sees it
        sha256 = hashlib.sha256(body).hexdigest()
        self._site.at(CrashPoint.CHUNK_READ)
        lease.check()
        chunk = self._chunks.ensure(stream, stream.next_index, body, sha256, ask=session.ask)
        session.refused_puts = 0
        self._site.at(CrashPoint.CHUNK_PUT)
        self._site.checkpoints.checkpoint(lease, chunk, signature)
        self._site.at(CrashPoint.CHUNK_RECORDED)
        session.stream = replace(
            stream, next_index=chunk.index + 1, offset=stream.offset + chunk.size, signature=signature
        )
        log.info("chunk stored", stream=stream.stream_id, index=chunk.index, size_bytes=chunk.size)

    def _finalize(self, path: str, session: _Session, source: Source, signature: Signature) -> Turn:
        work = session.finalization
        if work is None:
            with self._lease(session, path, keep=True) as lease:
                work = self._finalizer.begin(lease, session.stream, signature, ask=session.ask)
            session.finalization = work
        try:
            finished = self._finalizer.turn(work, session.stream, source)
        except SourceChanged:
            self._finalizer.abandon(work, session.stream, signature)
            self._sessions.pop(path)
            return Turn(Outcome.MORE, None, signature)
        except AnotherRecording:
            self._sessions.pop(path)
            self._finalizer.give_back(work, session.stream)
            begun = self._resolver.succeed(session.stream, path, source, signature)
            if isinstance(begun, ResolvedStream):
                self._sessions[path] = _Session(*begun, born_ns=source.born_ns())
            return Turn(Outcome.MORE, None, signature)
        session.refused_puts = 0
        if not finished:
            return Turn(Outcome.MORE, session.stream, signature, finalizing=True)
        self._sessions.pop(path)
        return Turn(Outcome.SETTLED, session.stream, signature)

    # ------------------------------------------------------------------ endings

    def _replaced(self, path: str, session: _Session, signature: Signature) -> Turn:
        """Close the generation of a source that was truncated or exchanged; the next turn begins anew."""
        stream, cut = session.stream, signature.size < session.stream.offset
        same = (signature.dev, signature.ino) == session.identity
        reason = "the source was truncated" if cut and same else "another file took the source's place"
        self.forget(path)
        self._closer.close(stream, reason)
        log.warning("replaced", stream=stream.stream_id, reason=reason, size_bytes=signature.size)
        return Turn(Outcome.MORE, None, signature)

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
        self._closer.close(stream, "the source vanished before its end")
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
            if lease.order:
                self._requests.meet(fresh)
                raise LeaseLost(fresh.stream_id, "ordered")
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


def _is_only_reserved(source: Source, signature: Signature) -> bool:
    """Return whether a recorder has reserved space and recorded nothing yet."""
    return signature.size > 0 and next(source.data_ranges(), None) is None
