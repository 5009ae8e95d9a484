"""Finalizing one stream: read it all again, repair, upload the tail, commit the manifest."""

import hashlib
import logging
import time
from dataclasses import replace

import logs
import metrics
from checkpoint import Lease
from errors import PermanentError, SourceChanged, TransientError, UploaderError
from folder.source import Source
from recording.manifest import Media, playback
from recording.mp4 import read_media_facts
from recording.mp4_boxes import MediaError, UnplayableError
from recording.stream import NOBODYS, Chunk, Signature, State, Stream
from s3.bucket import Body
from upload.chunk_writer import ChunkWriter
from upload.comparison import Difference, SourceView
from upload.crash_points import CrashPoint
from upload.finalization import Finalization, Progress
from upload.site import Site

log = logs.get_logger(__name__)

MAX_LOSSES = 3
"""Of one chunk in one commit, each after S3 confirmed it, until it is a failure that waits."""


class AnotherRecording(UploaderError):
    """The source of a stream that was complete before holds another recording by now."""


class Finalizer:
    """Takes one stream at a time from `active` to `complete`, one chunk a turn.

    Parameters:
        site: where recordings come from and go to.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._chunks = ChunkWriter(site)

    # ------------------------------------------------------------------ a source that is there

    def begin(self, lease: Lease, stream: Stream, signature: Signature, *, ask: bool) -> Finalization:
        """Move a stream to `finalizing`; the lease stays held until `continue_finalization` ends it.

        Parameters:
            lease: of the stream.
            stream: as it is under that lease.
            signature: of the source now.
            ask: whether S3 may hold more chunks than the records say.
        """
        self._site.checkpoints.set_state(
            lease, State.ACTIVE, State.FINALIZING, signature, revision=stream.revision
        )
        self._site.at(CrashPoint.FINALIZING)
        log.info("finalizing", stream=stream.stream_id, size_bytes=signature.size)
        known = self._site.checkpoints.checked_chunks(lease, stream, self._site.layout)
        work = Finalization(
            lease, signature, {chunk.index: chunk for chunk in known}, stream.repaired, doubt=ask
        )
        work.earlier = self._site.manifests.latest(stream)
        if work.earlier:
            work.difference = Difference(work.earlier)
        return work

    def continue_finalization(self, work: Finalization, stream: Stream, view: SourceView) -> Progress:
        """Read the next chunk again and repair it; after the last one commit.

        Before the commit S3 is asked what it holds: an object may be gone that it confirmed long ago.
        A chunk that it lost is sent again, one a turn.
        """
        try:
            if work.reread_bytes(stream) < work.signature.size:
                self._settle_next_chunk(work, stream, view.source)
            elif work.missing:
                self._send_missing(work, stream, view.source)
            if view.source.signature() != work.signature:
                raise SourceChanged(stream.stream_id)
            if work.reread_bytes(stream) < work.signature.size:
                return Progress.MORE
            if work.stored is None:
                work.stored = self._compare_with_store(work, stream)
            if work.missing:
                return Progress.MORE
            if self._is_another(work, view.source):
                raise AnotherRecording(stream.stream_id)
            stored, work.stored = work.stored, None  # a commit that fails is tried again with another list
            self._site.at(CrashPoint.REREAD)
            self._commit(work, stream, _media(view.source, work.signature.size), stored)
        except SourceChanged:
            self._abandon(work, stream, view.signature)
            return Progress.CHANGED
        except AnotherRecording:
            self._give_back(work, stream)
            return Progress.ANOTHER
        return Progress.COMPLETE

    def _settle_next_chunk(self, work: Finalization, stream: Stream, source: Source) -> None:
        """Read the next chunk again and make sure that S3 and the record hold what it is now."""
        index = len(work.chunks)
        body = self._read(work, stream, source, index)
        digest = hashlib.sha256(body)
        sha256 = digest.hexdigest()
        self._compare_with_earlier(work, stream, body, sha256)
        if work.difference and work.difference.behind_the_head and self._may_be_another(work, source):
            raise AnotherRecording(stream.stream_id)
        chunk = work.known.get(index)
        if chunk is None or (chunk.sha256, chunk.size) != (sha256, len(body)):
            work.lease.check()
            chunk = self._chunks.ensure(stream, index, body, sha256, ask=work.doubt)
            self._site.at(CrashPoint.SETTLING_PUT)
            self._record(work, stream, chunk)
            self._site.at(CrashPoint.SETTLING_RECORDED)
        if work.chunks:
            work.whole.update(body)
        else:
            work.whole = digest  # the first chunk is the whole file so far
        work.chunks.append(chunk)

    def _record(self, work: Finalization, stream: Stream, chunk: Chunk) -> None:
        if chunk.index not in work.known:
            self._site.checkpoints.checkpoint(work.lease, chunk, work.signature)
            log.info("chunk stored", stream=stream.stream_id, index=chunk.index, size_bytes=chunk.size)
        else:
            self._site.checkpoints.replace(work.lease, chunk)
            work.repaired += 1
            metrics.CHUNKS_REPAIRED.inc()
            log.info("chunk repaired", stream=stream.stream_id, index=chunk.index, size_bytes=chunk.size)

    @staticmethod
    def _compare_with_earlier(work: Finalization, stream: Stream, body: Body, sha256: str) -> None:
        """Compare the next chunk with that of the last revision; a chunk may go on where a tail ended."""
        index = len(work.chunks)
        if work.difference is None or index >= len(work.difference.manifest.chunks):
            return
        before = work.difference.manifest.chunks[index]
        same = before.sha256 == sha256
        if not same and before.size < min(len(body), stream.chunk_size):
            with memoryview(body) as view:
                same = hashlib.sha256(view[: before.size]).hexdigest() == before.sha256
        work.difference.note(before, body, same=same)

    @staticmethod
    def _may_be_another(work: Finalization, source: Source) -> bool:
        """Return whether a source that differs from a complete recording need not be that one, closed since.

        A recorder that closes a file may move every byte of it (`+faststart`).
        """
        if work.earlier is None or work.earlier.status is not State.COMPLETE or work.closed:
            return False
        if not work.earlier.facts.finished:
            facts = _media(source, work.signature.size).facts
            work.closed = facts is not None and facts.complete
        return not work.closed

    def _is_another(self, work: Finalization, source: Source) -> bool:
        if work.difference is None or not self._may_be_another(work, source):
            return False
        cut = work.signature.size < work.difference.manifest.total_size
        return cut or work.difference.another(source, self._site.manifests.fetch)

    @staticmethod
    def _read(work: Finalization, stream: Stream, source: Source, index: int) -> Body:
        offset = index * stream.chunk_size
        length = min(stream.chunk_size, work.signature.size - offset)
        body = source.read_chunk(offset, length)
        if len(body) < length:
            raise SourceChanged(stream.stream_id)
        return body

    def _compare_with_store(self, work: Finalization, stream: Stream) -> set[str]:
        """Return the keys that S3 holds, and note the chunks that are gone or are not what it confirmed."""
        listed = self._site.store.chunk_objects(self._site.layout.chunks(stream.recording))
        stored = {
            each.key: each
            for each in listed
            if self._site.layout.chunk_index(stream.recording, each.key) is not None
        }
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
        again = self._chunks.find(chunk, body)
        if again is None:
            log.warning("chunk was missing in S3", stream=stream.stream_id, index=chunk.index)
            self._count_loss(work, chunk.index)
            again = self._chunks.ensure(stream, chunk.index, body, chunk.sha256, ask=False)
            work.sent_again = True
        self._site.at(CrashPoint.SETTLING_PUT)
        self._site.checkpoints.replace(work.lease, again)
        self._site.at(CrashPoint.SETTLING_RECORDED)
        work.chunks[chunk.index] = again
        work.missing.pop(0)
        if not work.missing and work.sent_again:
            work.stored, work.sent_again = None, False  # list again: what was lost once may be lost twice

    @staticmethod
    def _count_loss(work: Finalization, index: int) -> None:
        work.lost[index] = work.lost.get(index, 0) + 1
        if work.lost[index] > MAX_LOSSES:
            work.lost[index] = 0
            raise TransientError(
                f"S3 confirmed chunk {index} {MAX_LOSSES + 1} times and has not got it", kind="lost"
            )

    def _abandon(self, work: Finalization, stream: Stream, signature: Signature) -> None:
        """Go back to `active` because the source changed; the tail's record is dropped."""
        self._site.checkpoints.set_state(
            work.lease, State.FINALIZING, State.ACTIVE, signature, revision=stream.revision
        )
        self._site.at(CrashPoint.ABANDONED)
        self._site.checkpoints.release(work.lease)
        log.info("source changed, resuming", stream=stream.stream_id, size_bytes=signature.size)

    # ------------------------------------------------------------------ the commit

    def _commit(self, work: Finalization, stream: Stream, media: Media, stored: set[str]) -> None:
        earlier = work.earlier
        if earlier and earlier.status is State.COMPLETE and earlier.covers(work.chunks):
            revision = earlier.revision
        else:
            if earlier and not _only_grew(work):
                self._site.manifests.keep(work.lease, stream.recording, earlier.revision)
            revision = self._site.manifests.commit(
                work.lease,
                replace(stream, repaired=work.repaired),
                work.chunks,
                status=State.COMPLETE,
                sha256=work.whole.hexdigest(),
                signature=work.signature,
                media=media,
                earlier=earlier,
            )
        # Before the state: a crash in between makes the next start finalize, and so clean up, again.
        self._remove_unnamed(work, stream, stored)
        self._site.at(CrashPoint.CLEANED_UP)
        self._site.checkpoints.set_state(
            work.lease,
            State.FINALIZING,
            State.COMPLETE,
            work.signature,
            revision=revision,
            playback=playback(stream, work.signature, media),
        )
        self._site.at(CrashPoint.COMPLETED)
        self._site.checkpoints.release(work.lease)
        self._report(work, stream, media, revision)

    @staticmethod
    def _report(work: Finalization, stream: Stream, media: Media, revision: int) -> None:
        seconds = time.monotonic() - work.began_at
        metrics.FINALIZED.labels("complete").inc()
        metrics.FINALIZE_SECONDS.observe(seconds)
        unplayable = media.playable is False
        log.log(
            logging.WARNING if unplayable else logging.INFO,
            "complete",
            stream=stream.stream_id,
            revision=revision,
            size_bytes=work.signature.size,
            chunks=len(work.chunks),
            sha256=work.whole.hexdigest(),
            seconds=round(seconds, 3),
            **({"playable": "no", "reason": media.error} if unplayable else {}),
        )

    def _remove_unnamed(self, work: Finalization, stream: Stream, stored: set[str]) -> None:
        """Delete the chunks of this generation that no manifest of it ever named.

        And a former tail if its bytes are the beginning of the chunk that took its place: then the former
        manifest was not kept, because the new one holds all of it. What a manifest named that is gone, or
        cannot be read, nobody knows: then everything stays.
        """
        superseded = stored - {chunk.key for chunk in work.chunks}
        if not superseded:
            return
        former = self._site.manifests.named_by_former(stream.recording)
        try:
            if former is None or (stream.revision and not work.earlier):
                raise PermanentError("a manifest that may name them cannot be read", kind="manifest")
            work.lease.check()
            self._site.store.delete(sorted(superseded - former))
        except PermanentError as error:
            log.warning("superseded chunks stay in the bucket", stream=stream.stream_id, reason=str(error))

    # ------------------------------------------------------------------ a source that holds another recording

    def _give_back(self, work: Finalization, stream: Stream) -> None:
        """Leave the recording as its manifest commits it: the source holds another one by now.

        What was put for the source lies in its folder, named by no manifest; `prune` removes it.
        """
        earlier = work.earlier
        assert earlier  # noqa: S101 - without it there is nothing that the source could differ from
        self._site.checkpoints.set_state(
            work.lease,
            State.FINALIZING,
            earlier.status,
            NOBODYS,
            revision=earlier.revision,
            playback=earlier.facts.playback,
        )
        self._site.checkpoints.set_extent(work.lease, earlier)
        self._site.at(CrashPoint.DISOWNED)
        self._site.checkpoints.release(work.lease)
        log.warning("another recording", stream=stream.stream_id, size_bytes=work.signature.size)


def _only_grew(work: Finalization) -> bool:
    """Return whether the source begins with all of the earlier revision, byte for byte."""
    difference = work.difference
    return (
        difference is not None
        and not difference.indexes
        and work.signature.size >= difference.manifest.total_size
    )


def _media(source: Source, size: int) -> Media:
    try:
        return Media(read_media_facts(source.read, size), None)
    except MediaError as error:
        return Media(None, str(error), unplayable=isinstance(error, UnplayableError))
