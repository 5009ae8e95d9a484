"""Closing a stream whose source is gone or replaced: an `incomplete` manifest of what S3 holds."""

import hashlib
from collections import defaultdict
from dataclasses import replace

import logs
import metrics
from checkpoint import Lease
from recording.manifest import Manifest, Media, playback
from recording.playback import UNKNOWN_PLAYBACK
from recording.stream import (
    NO_ERROR,
    UNFINISHED,
    Chunk,
    RecordedError,
    Signature,
    State,
    StoredObject,
    Stream,
)
from upload.crash_points import CrashPoint
from upload.left_behind import EXCHANGED, LeftBehind
from upload.site import Site

log = logs.get_logger(__name__)

_Stored = dict[int, list[StoredObject]]
"""What S3 lists of a generation, by index."""


class Closer:
    """Commits what is stored of a recording that nobody can read any more. Nothing in S3 is deleted here.

    Parameters:
        site: where recordings come from and go to.
        left_behind: takes note of those whose volume was exchanged for another.
    """

    def __init__(self, site: Site, left_behind: LeftBehind) -> None:
        self._site = site
        self._left_behind = left_behind

    def close(
        self,
        stream: Stream,
        reason: str,
        *,
        error: RecordedError = NO_ERROR,
        signature: Signature | None = None,
    ) -> None:
        """Close a stream as it stands; nothing happens when it has moved on to another path or is finished.

        If another volume took the place of its own, its record says from then on that it was left behind.

        Parameters:
            stream: as it was at the path whose source is gone.
            reason: why, for the log and the manifest.
            error: for the record, when somebody wanted it so: then it ends `incomplete` even if an
                earlier manifest, which stays, covers all that is stored.
            signature: of the source as it was seen last, if anybody saw it since its record was written.
        """
        with self._site.checkpoints.leased(stream.stream_id) as (lease, found):
            fresh = replace(found, signature=signature or found.signature)
            if fresh.path != stream.path or fresh.state not in UNFINISHED | {State.FAILED}:
                return
            if fresh.state is State.FAILED:
                self._move(lease, fresh, State.FAILED, State.ACTIVE)
            if fresh.state is not State.FINALIZING:
                self._move(lease, fresh, State.ACTIVE, State.FINALIZING)
            self._site.at(CrashPoint.CLOSING)
            if left := not error and self._left_behind.is_on_another(fresh):
                error = EXCHANGED
            closed, stays = self._commit(lease, replace(fresh, error=error or fresh.error), reason)
            if error:
                closed = replace(closed, state=State.INCOMPLETE)
            elif closed.state is State.INCOMPLETE:
                error = RecordedError("cut_short", reason)
            closed = replace(closed, error=error)
            self._move(lease, closed, State.FINALIZING, closed.state)
            if left:
                self._left_behind.add(closed)
            if stays:
                self._site.checkpoints.set_extent(lease, stays)
            self._site.at(CrashPoint.CLOSED)
        metrics.FINALIZED.labels(str(closed.state)).inc()
        log.warning(
            "closed incomplete",
            stream=closed.stream_id,
            reason=reason,
            status=str(closed.state),
            stored_bytes=closed.offset,
        )

    def _move(self, lease: Lease, stream: Stream, old: State, new: State) -> None:
        self._site.checkpoints.set_state(
            lease,
            old,
            new,
            stream.signature,
            revision=stream.revision,
            error=stream.error if new is State.INCOMPLETE else NO_ERROR,
            playback=UNKNOWN_PLAYBACK if new in UNFINISHED else stream.playback,
        )

    def _commit(self, lease: Lease, stream: Stream, reason: str) -> tuple[Stream, Manifest | None]:
        """Commit a manifest of all that is stored; gives the state and revision that hold then.

        A manifest that covers as much already stays as it is, and is given, too: the records may be older
        than S3.
        """
        if stream.state is State.FAILED and stream.offset == 0:
            # Nothing of it is stored, and perhaps nothing can be: its keys may be too long.
            return replace(stream, state=State.INCOMPLETE), None
        stored = self._stored(stream)
        chunks = self._all_chunks(lease, stream, stored)
        stored_bytes = sum(chunk.size for chunk in chunks)
        earlier = self._site.manifests.latest(stream)
        if earlier and earlier.chunks and earlier.total_size >= stored_bytes:
            state, revision = earlier.status, earlier.revision
            covered = replace(stream, state=state, revision=revision, offset=earlier.total_size)
            return replace(covered, playback=earlier.facts.playback), earlier
        if earlier:
            self._site.manifests.keep(lease, stream.recording, earlier.revision)
        media = Media(None, reason)
        revision = self._site.manifests.commit(
            lease,
            stream,
            chunks,
            status=State.INCOMPLETE,
            sha256=None,
            signature=stream.signature,
            media=media,
            earlier=earlier,
        )
        self._site.at(CrashPoint.CLOSING_MANIFEST_PUT)
        closed = replace(stream, state=State.INCOMPLETE, revision=revision, offset=stored_bytes)
        return replace(closed, playback=playback(stream, stream.signature, media)), None

    # ------------------------------------------------------------------ chunks that only S3 knows of

    def _stored(self, stream: Stream) -> _Stored:
        stored: _Stored = defaultdict(list)
        for found in self._site.store.chunk_objects(self._site.layout.chunks(stream.recording)):
            index = self._site.layout.chunk_index(stream.recording, found.key)
            if index is not None:
                stored[index].append(found)
        return stored

    def _all_chunks(self, lease: Lease, stream: Stream, stored: _Stored) -> list[Chunk]:
        """Return the recorded chunks and those that were put but not recorded before a crash.

        The source is gone, so those objects are the only copies of their bytes. A record alone proves
        nothing: it may be older than S3, or somebody may have deleted its object. Nor does a list: it
        may be behind.
        """
        known = self._site.checkpoints.checked_chunks(lease, stream, self._site.layout)
        recorded = {chunk.index: chunk for chunk in known}
        chunks: list[Chunk] = []
        while not chunks or chunks[-1].size == stream.chunk_size:
            index = len(chunks)
            chunk = recorded.get(index)
            if chunk is None or not any(_is(found, chunk) for found in stored[index]):
                found = self._unrecorded(stream, index, [*stored[index], *_as_recorded(chunk)])
                if chunk and (found is None or found.key != chunk.key):
                    log.warning("chunk was missing in S3", stream=stream.stream_id, index=index)
                if found is None:
                    break
                if chunk is None:
                    self._site.checkpoints.checkpoint(lease, found, stream.signature)
                log.info("chunk found in S3", stream=stream.stream_id, index=index)
                chunk = found
            chunks.append(chunk)
        return chunks

    def _unrecorded(self, stream: Stream, index: int, candidates: list[StoredObject]) -> Chunk | None:
        """Return the whole chunk at an index; of several the longest, then the newest."""
        possible = [found for found in candidates if found.size <= stream.chunk_size]
        for found in sorted(possible, key=lambda one: (one.size, one.uploaded_at), reverse=True):
            body = self._site.store.get(found.key, at_most=stream.chunk_size)
            if body is None:
                continue
            sha256 = hashlib.sha256(body).hexdigest()
            if body and found.key == self._site.layout.chunk(stream.recording, index, sha256):
                return Chunk(index, len(body), sha256, found.etag, found.key, found.uploaded_at, "sha256")
        return None


def _is(found: StoredObject, chunk: Chunk) -> bool:
    return (found.key, found.size) == (chunk.key, chunk.size)


def _as_recorded(chunk: Chunk | None) -> list[StoredObject]:
    return [StoredObject(chunk.key, chunk.size, chunk.etag, chunk.uploaded_at)] if chunk else []
