"""What S3 alone knows of a path: recordings whose records Redis lost, and those of other sites."""

from collections.abc import Iterator
from typing import NamedTuple

import logs
from recording.layout import RecordingId, key_path, next_generation
from recording.manifest import Manifest, source_id
from recording.stream import NO_ERROR, RecordedError, State, Stream
from upload.comparison import Comparisons, SourceView, Unresolved
from upload.content_match import Piece, continues, listed_pieces, pieces_of, shares_content
from upload.crash_points import CrashPoint
from upload.site import Site

log = logs.get_logger(__name__)

MAX_CANDIDATES = 8
"""Generations of one path, the newest ones, that are looked into when Redis knows none of them."""


class Beside(NamedTuple):
    """What lies beside a recording that begins.

    `newest` is the highest generation of its path in S3, 0 for none. `base` is the key prefix of one that
    has chunks of it, so that the store can copy them; "" for none.
    """

    newest: int
    base: str


class Rediscovery:
    """Looks for a source among the generations of its path that S3 has. Nothing is ever put into those.

    Parameters:
        site: where recordings come from and go to.
        comparisons: that are under way.
    """

    def __init__(self, site: Site, comparisons: Comparisons) -> None:
        self._site = site
        self._comparisons = comparisons

    def search(self, view: SourceView, replaces: Stream | None, *, compare: bool) -> Beside | Unresolved:
        """Find out whether S3 has the recording of a source complete, else what lies beside it.

        Parameters:
            view: of the path.
            replaces: the finished stream that was the newest at this path.
            compare: whether it may turn out to be a recording that S3 has complete.
        """
        generations = self._generations(key_path(view.path))
        unknown = list(self._unknown(generations))
        known = [replaces.recording] if replaces and replaces.recording in generations else []
        base = ""
        for recording in [*unknown, *known]:
            committed = self._site.manifests.read(recording)
            if compare and committed and recording in unknown:
                adopted = self._adopted(recording, committed, view, replaces)
                if adopted:
                    return adopted
            if not base and self._shares(recording, committed, view):
                base = self._site.layout.generation(recording)
        return Beside(next_generation(found.generation for found in generations) - 1, base)

    def _generations(self, keys: str) -> list[RecordingId]:
        """Return all generations of a key path that S3 has anything of, the newest first."""
        folders = self._site.store.folders(self._site.layout.path(keys) + "g")
        found = [each for each in map(self._site.layout.recording, folders) if each]
        return sorted(found, key=lambda each: each.generation, reverse=True)

    def _unknown(self, generations: list[RecordingId]) -> Iterator[RecordingId]:
        """Find the newest of those that Redis has no record of: lost ones, or another site's."""
        for recording in generations[:MAX_CANDIDATES]:
            known = self._site.checkpoints.stream(recording.stream_id)
            if known is None or known.owner != recording.owner:
                yield recording

    def _adopted(
        self, recording: RecordingId, committed: Manifest, view: SourceView, replaces: Stream | None
    ) -> Unresolved | None:
        """Take a source for a recording that S3 has, nobody here began, and nobody here will ever change."""
        if committed.cancelled:
            mine = committed.facts.source_id == source_id(view.signature, view.source.born_ns())
            if not (mine and continues(view.source, view.signature, committed)):
                return None  # another site's operator may have ended that one
            error = RecordedError("cancelled", "before Redis lost its record")
            return self._record_adopted(recording, committed, view, replaces, error)
        if not self._may_be(view, recording, committed):
            return None
        work = self._comparisons.turn(view, recording, committed)
        if isinstance(work, Unresolved):
            return work
        if not (work.equal and self.holds(recording, committed)):
            return None
        return self._record_adopted(recording, committed, view, replaces, NO_ERROR)

    def _may_be(self, view: SourceView, recording: RecordingId, committed: Manifest) -> bool:
        """Return whether it is worth the time to compare a source with a recording, or was already."""
        if committed.status is not State.COMPLETE or committed.total_size != view.signature.size:
            return False
        if self._comparisons.has(view, recording, committed):
            return True
        end = pieces_of(committed.chunks[-1:], committed.chunk_size)  # the cheapest look
        return all(piece.is_in(view.source) is not None for piece in end)

    def holds(self, recording: RecordingId, committed: Manifest) -> bool:
        """Return whether S3 lists every chunk that a manifest names, in its size.

        Parameters:
            recording: the generation.
            committed: its manifest.
        """
        listed = self._site.store.chunk_objects(self._site.layout.chunks(recording))
        sizes = {found.key: found.size for found in listed}
        missing = [chunk.key for chunk in committed.chunks if sizes.get(chunk.key) != chunk.size]
        if missing:
            log.warning(
                "not whole in S3, so not taken for it", recording=recording.full_name, missing=missing[:3]
            )
        return not missing

    def _record_adopted(
        self,
        recording: RecordingId,
        committed: Manifest,
        view: SourceView,
        replaces: Stream | None,
        error: RecordedError,
    ) -> Unresolved | None:
        created = self._site.checkpoints.create(
            view.path,
            recording,
            view.signature,
            replaces=replaces.stream_id if replaces else "",
            chunk_size=committed.chunk_size,
            revision=committed.revision,
            born_ns=view.source.born_ns(),
            adopted=committed,
            error=error,
        )
        if created is None:
            return None  # Redis has another recording of that number: this one begins anew beside it
        self._site.at(CrashPoint.ADOPTED)
        self._site.checkpoints.release(created[0])
        log.info("found in S3", stream=recording.stream_id, size_bytes=view.signature.size)
        return Unresolved.SETTLED

    def _shares(self, recording: RecordingId, committed: Manifest | None, view: SourceView) -> bool:
        """Return whether S3 has chunks of this source in another generation, so that it can copy them."""
        if committed:
            same_size = committed.chunk_size == self._site.chunk_size
            return same_size and shares_content(
                view.source, pieces_of(committed.chunks, committed.chunk_size)
            )
        return shares_content(view.source, self._stored_pieces(recording))

    def _stored_pieces(self, recording: RecordingId) -> list[Piece]:
        objects = self._site.store.chunk_objects(self._site.layout.chunks(recording))
        return listed_pieces(objects, self._site.layout, recording, self._site.chunk_size)
