"""A source beside a recording that S3 has complete: how they differ, compared one chunk a turn."""

import hashlib
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from folder.source import Source
from recording.layout import RecordingId
from recording.manifest import Manifest
from recording.stream import Chunk, Signature
from upload.content_match import HEAD_BYTES, is_evidence, overlaps


class Difference:
    """How a source differs from a committed recording, as its chunks are read one after the other.

    Parameters:
        manifest: of the recording.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.indexes: list[int] = []
        self.evidence = False

    def note(self, chunk: Chunk, body: bytes | bytearray, *, same: bool) -> None:
        """Take note of one chunk of the recording.

        Parameters:
            chunk: as the manifest names it.
            body: what the source has there.
            same: whether that is the chunk, or, behind a tail, goes on with its bytes.
        """
        if not same:
            self.indexes.append(chunk.index)
        elif not self.evidence:
            self.evidence = is_evidence(body)

    @property
    def behind_the_head(self) -> bool:
        """Whether a chunk differs that no recorder patches. The tail is rewritten by all that append."""
        full = self.manifest.total_size // self.manifest.chunk_size
        return any(index * self.manifest.chunk_size >= HEAD_BYTES and index < full for index in self.indexes)

    def another(self, source: Source, fetch: Callable[[Chunk], bytes | None]) -> bool:
        """Return whether the source is another recording, not this one patched. Parameters as `overlaps`."""
        if not self.indexes:
            return False
        return self.behind_the_head or not (self.evidence or overlaps(source, self.manifest, fetch))


class SourceView(NamedTuple):
    """What one turn sees of a path. `idle` is the signature at which the source was found idle."""

    path: str
    source: Source
    signature: Signature
    idle: Signature | None

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.signature.dev, self.signature.ino

    @property
    def is_idle(self) -> bool:
        """Whether the source still is as it was when it was found idle."""
        return self.idle == self.signature


class Unresolved(Enum):
    """Why there is no stream to work on."""

    SETTLED = auto()  # it is in S3: nothing to do until it changes
    COMPARING = auto()  # it is being compared with a complete recording: another turn
    UNTIL_IDLE = auto()  # it will be compared when nobody writes to it


class Comparison:
    """A source beside a complete recording of its size, one chunk a turn. Owned by the path's worker.

    Parameters:
        manifest: of the recording.
        signature: of the source; with another one the comparison is void.
    """

    def __init__(self, manifest: Manifest, signature: Signature) -> None:
        self.signature = signature
        self.difference = Difference(manifest)
        self._next = 0

    @property
    def finished(self) -> bool:
        """Whether every chunk was compared."""
        return self._next == len(self.difference.manifest.chunks)

    @property
    def equal(self) -> bool:
        """Whether the source holds exactly the recording; only once it is finished."""
        return not self.difference.indexes

    def turn(self, source: Source) -> None:
        """Compare the next chunk."""
        manifest = self.difference.manifest
        chunk = manifest.chunks[self._next]
        self._next += 1
        body = source.read_chunk(chunk.index * manifest.chunk_size, chunk.size)
        same = len(body) == chunk.size and hashlib.sha256(body).hexdigest() == chunk.sha256
        self.difference.note(chunk, body, same=same)


class Comparisons:
    """The comparisons that are under way or done. Each entry is owned by the path's worker.

    S3 may have several recordings of one path and size, so what came out of each is kept until the source is
    resolved, changes or vanishes.
    """

    def __init__(self) -> None:
        self._of: dict[str, dict[tuple[RecordingId, int], Comparison]] = {}

    def turn(self, view: SourceView, recording: RecordingId, committed: Manifest) -> Comparison | Unresolved:
        """Compare one more chunk; return the comparison when all are compared.

        A source that somebody writes to is not read for this: the comparison would begin again and again.

        Parameters:
            view: of the path.
            recording: a generation that is complete and has the source's size.
            committed: its manifest.
        """
        of_this_source = self._of_this_source(view)
        work = of_this_source.get((recording, committed.revision))
        if work is None:
            if view.idle != view.signature:
                return Unresolved.UNTIL_IDLE
            work = Comparison(committed, view.signature)
            self._of[view.path] = of_this_source | {(recording, committed.revision): work}
        if not work.finished:
            work.turn(view.source)
        return work if work.finished else Unresolved.COMPARING

    def go_on(self, view: SourceView) -> bool:
        """Compare one more chunk of what is under way for a source; return False when nothing is.

        Asks neither Redis nor S3: a recording of 10,000 chunks takes as many turns.
        """
        for work in self._of_this_source(view).values():
            if not work.finished:
                work.turn(view.source)
                return True
        return False

    def has(self, view: SourceView, recording: RecordingId, committed: Manifest) -> bool:
        """Return whether this source, as it is, is or was compared with a recording. Parameters as above."""
        return (recording, committed.revision) in self._of_this_source(view)

    def discard(self, path: str) -> None:
        """Forget the comparisons of a path."""
        self._of.pop(path, None)

    def _of_this_source(self, view: SourceView) -> dict[tuple[RecordingId, int], Comparison]:
        known = self._of.get(view.path, {})
        return {key: work for key, work in known.items() if work.signature == view.signature}
