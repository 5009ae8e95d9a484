"""Finalizing one stream: read it all again, repair, upload the tail, commit the manifest."""

import hashlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import logs
import metrics
from checkpoint import Checkpoints, Lease
from errors import PermanentError, SourceChanged
from folder.source import Source
from recording.manifest import Media
from recording.mp4 import MediaError, read_media_facts
from recording.stream import (
    Chunk,
    Signature,
    State,
    Stream,
    chunk_key,
    chunks_prefix,
    parse_chunk_key,
)
from s3.bucket import Body, ObjectStore
from upload.crash_points import CrashPoint, Reach, pass_by
from upload.manifests import ManifestStore

if TYPE_CHECKING:
    from hashlib import _Hash

log = logs.get_logger(__name__)


@dataclass(slots=True)
class Finalization:
    """How far the final re-read of a stream has come. Owned by the worker whose turn it is.

    `signature` is the source's at the beginning, `repaired` the count for the manifest. `known` are
    the recorded chunks by index. `doubt`: S3 may have the next chunk already, because a turn failed or
    another process worked here. `stored` are the keys that S3 listed for the commit that comes next,
    `missing` the indexes that it did not list.
    """

    lease: Lease
    signature: Signature
    known: dict[int, Chunk]
    repaired: int
    doubt: bool
    began_at: float = field(default_factory=time.monotonic)
    whole: "_Hash" = field(default_factory=hashlib.sha256)
    chunks: list[Chunk] = field(default_factory=list)
    stored: set[str] | None = None
    missing: list[int] = field(default_factory=list)


class Finalizer:
    """Takes one stream at a time from `active` to `complete`, one chunk a turn.

    Parameters:
        checkpoints: the records.
        store: the bucket.
        manifests: in that bucket.
        prefix: `S3_PREFIX`.
        reach: called at each crash point.
    """

    def __init__(
        self,
        *,
        checkpoints: Checkpoints,
        store: ObjectStore,
        manifests: ManifestStore,
        prefix: str,
        reach: Reach = pass_by,
    ) -> None:
        self._checkpoints = checkpoints
        self._store = store
        self._prefix = prefix
        self._manifests = manifests
        self._reach = reach

    # ------------------------------------------------------------------ a source that is there

    def begin(self, lease: Lease, stream: Stream, signature: Signature, *, ask: bool) -> Finalization:
        """Move a stream to `finalizing`; the lease stays held until `turn` or `abandon` ends it.

        Parameters:
            lease: of the stream.
            stream: as it is under that lease.
            signature: of the source now.
            ask: whether S3 may hold more chunks than the records say.
        """
        self._checkpoints.set_state(
            lease, State.ACTIVE, State.FINALIZING, signature, revision=stream.revision
        )
        self._reach(CrashPoint.FINALIZING)
        log.info("finalizing", stream=stream.stream_id, size_bytes=signature.size)
        known = {chunk.index: chunk for chunk in self._checkpoints.chunks(stream.stream_id)}
        return Finalization(lease, signature, known, stream.repaired, doubt=ask)

    def turn(self, work: Finalization, stream: Stream, source: Source) -> bool:
        """Read the next chunk again and repair it; after the last one commit.

        Before the commit S3 is asked what it holds: an object may be gone that it confirmed long ago.
        A chunk that it lost is sent again, one a turn.

        Returns:
            True when the manifest is committed and the lease released.

        Raises:
            SourceChanged: somebody wrote to the source meanwhile; nothing was committed.
        """
        if len(work.chunks) * stream.chunk_size < work.signature.size:
            self._reread_next(work, stream, source)
        elif work.missing:
            self._send_missing(work, stream, source)
        if source.signature() != work.signature:
            raise SourceChanged(stream.stream_id)
        if len(work.chunks) * stream.chunk_size < work.signature.size:
            return False
        if work.stored is None:
            work.stored = self._compare_with_store(work, stream)
        if work.missing:
            return False
        stored, work.stored = work.stored, None  # a commit that fails is tried again with another list
        self._reach(CrashPoint.REREAD)
        self._commit(work, stream, source, stored)
        return True

    def _reread_next(self, work: Finalization, stream: Stream, source: Source) -> None:
        body = self._read(work, stream, source, len(work.chunks))
        digest = hashlib.sha256(body)
        chunk = self._settle(work, stream, body, digest.hexdigest())
        if work.chunks:
            work.whole.update(body)
        else:
            work.whole = digest  # the first chunk is the whole file so far
        work.chunks.append(chunk)

    @staticmethod
    def _read(work: Finalization, stream: Stream, source: Source, index: int) -> Body:
        offset = index * stream.chunk_size
        length = min(stream.chunk_size, work.signature.size - offset)
        body = source.read_chunk(offset, length)
        if len(body) < length:
            raise SourceChanged(stream.stream_id)
        return body

    def _compare_with_store(self, work: Finalization, stream: Stream) -> set[str]:
        """Give the keys that S3 holds, and note the chunks that are gone or are not what it confirmed."""
        under = chunks_prefix(self._prefix, stream.key_path, stream.generation)
        listed = self._store.chunk_objects(under)
        # A folder may once have had the name of this source: what is not a chunk is not ours.
        stored = {found.key: found for found in listed if parse_chunk_key(found.key, under) is not None}
        for chunk in work.chunks:
            found = stored.get(chunk.key)
            if found is None or (found.size, found.etag) != (chunk.size, chunk.etag):
                work.missing.append(chunk.index)
        return set(stored)

    def _send_missing(self, work: Finalization, stream: Stream, source: Source) -> None:
        """Send a chunk again that S3 lost since it confirmed it; a list that is behind is no loss."""
        chunk = work.chunks[work.missing[0]]
        body = self._read(work, stream, source, chunk.index)
        if hashlib.sha256(body).hexdigest() != chunk.sha256:
            raise SourceChanged(stream.stream_id)
        work.lease.check()
        found = self._store.find(chunk.key, body)
        if found is None:
            log.warning("chunk was missing in S3", stream=stream.stream_id, index=chunk.index)
            found = self._store.ensure(chunk.key, body, ask=False)
        self._reach(CrashPoint.SETTLING_PUT)
        again = replace(chunk, etag=found.etag, uploaded_at=found.uploaded_at)
        self._checkpoints.replace(work.lease, again)
        self._reach(CrashPoint.SETTLING_RECORDED)
        work.chunks[chunk.index] = again
        work.missing.pop(0)

    def abandon(self, work: Finalization, stream: Stream, signature: Signature) -> None:
        """Go back to `active` because the source changed; the tail's record is dropped."""
        self._checkpoints.set_state(
            work.lease, State.FINALIZING, State.ACTIVE, signature, revision=stream.revision
        )
        self._reach(CrashPoint.ABANDONED)
        self._checkpoints.release(work.lease)
        log.info("growing again", stream=stream.stream_id, size_bytes=signature.size)

    def _settle(self, work: Finalization, stream: Stream, body: Body, sha256: str) -> Chunk:
        """Make sure that S3 and the record hold this content at the next index."""
        index = len(work.chunks)
        key = chunk_key(chunks_prefix(self._prefix, stream.key_path, stream.generation), index, sha256)
        known = work.known.get(index)
        if known and (known.sha256, known.size) == (sha256, len(body)):
            return known
        work.lease.check()
        stored = self._store.ensure(key, body, ask=work.doubt)
        self._reach(CrashPoint.SETTLING_PUT)
        chunk = Chunk(index, len(body), sha256, stored.etag, key, stored.uploaded_at)
        if known is None:
            self._checkpoints.checkpoint(work.lease, chunk, work.signature)
            log.info("chunk stored", stream=stream.stream_id, index=index, size_bytes=len(body))
        else:
            self._checkpoints.replace(work.lease, chunk)
            work.repaired += 1
            metrics.CHUNKS_REPAIRED.inc()
            log.info("chunk repaired", stream=stream.stream_id, index=index, size_bytes=len(body))
        self._reach(CrashPoint.SETTLING_RECORDED)
        return chunk

    # ------------------------------------------------------------------ the commit

    def _commit(self, work: Finalization, stream: Stream, source: Source, stored: set[str]) -> None:
        earlier = self._manifests.read(stream.key_path, stream.generation)
        if earlier and earlier.status is State.COMPLETE and earlier.covers(work.chunks):
            revision = earlier.revision
        else:
            revision = self._manifests.commit(
                work.lease,
                replace(stream, repaired=work.repaired),
                work.chunks,
                status=State.COMPLETE,
                sha256=work.whole.hexdigest(),
                signature=work.signature,
                media=_media(source, work.signature.size),
                earlier=earlier,
            )
        # Before the state: a crash in between makes the next start finalize, and so clean up, again.
        self._remove_unnamed(work, stream, stored)
        self._reach(CrashPoint.CLEANED_UP)
        self._checkpoints.set_state(
            work.lease, State.FINALIZING, State.COMPLETE, work.signature, revision=revision
        )
        self._reach(CrashPoint.COMPLETED)
        self._checkpoints.release(work.lease)
        seconds = time.monotonic() - work.began_at
        metrics.FINALIZED.labels("complete").inc()
        metrics.FINALIZE_SECONDS.observe(seconds)
        log.info(
            "complete",
            stream=stream.stream_id,
            revision=revision,
            size_bytes=work.signature.size,
            chunks=len(work.chunks),
            sha256=work.whole.hexdigest(),
            seconds=round(seconds, 3),
        )

    def _remove_unnamed(self, work: Finalization, stream: Stream, stored: set[str]) -> None:
        unnamed = sorted(stored - {chunk.key for chunk in work.chunks})
        work.lease.check()
        try:
            self._store.delete(unnamed)
        except PermanentError as error:
            log.warning("superseded chunks stay in the bucket", stream=stream.stream_id, reason=str(error))


def _media(source: Source, size: int) -> Media:
    try:
        return Media(read_media_facts(source.read, size), None)
    except MediaError as error:
        return Media(None, str(error))
