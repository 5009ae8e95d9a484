"""One generation as S3 alone shows it: by its manifest, or by its chunks while there is none."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from archive.retrying_bucket import ArchiveStore
from recording.layout import BucketLayout, RecordingId, chunk_hash_start
from recording.manifest import Facts
from recording.stream import Chunk, State, StoredObject
from recording.timestamps import moment

Status = Literal["complete", "incomplete", "growing"]


@dataclass(frozen=True, slots=True)
class Recording:
    """One generation with all its chunks.

    `growing` says that there is no manifest yet: the chunks are those that could be listed, in order
    and without a gap, and their `sha256` is only the beginning that the key holds. `superseded` says
    that a former manifest names them, `shared` that two sites began the same generation of the same path.
    """

    id: RecordingId
    status: Status
    chunks: tuple[Chunk, ...]
    chunk_size: int
    size: int
    sha256: str | None
    revision: int
    facts: Facts
    superseded: bool = False
    shared: bool = field(default=False, compare=False)

    @property
    def name(self) -> str:
        """The shortest name that means no other recording; people can type it."""
        return self.id.full_name if self.shared else self.id.stream_id

    @property
    def next_index(self) -> int:
        """The index of the full chunk that comes next if it grows: a tail is sent again when it is full."""
        if self.chunks and self.chunks[-1].size < self.chunk_size:
            return len(self.chunks) - 1
        return len(self.chunks)


def open_recording(store: ArchiveStore, layout: BucketLayout, recording: RecordingId) -> Recording | None:
    """Open one generation; None when there is neither a manifest nor a first chunk of it.

    Parameters:
        store: the bucket.
        layout: of it.
        recording: the generation.

    Raises:
        ManifestError: its manifest cannot be trusted.
        StoreUnavailable: S3 does not answer, or refuses us.
    """
    committed = open_committed(store, layout, recording)
    if committed:
        return committed
    listed = store.chunk_objects(layout.chunks(recording))
    chunks = _without_gap(_newest_by_index(listed, layout, recording))
    if not chunks:
        return None
    facts = Facts(started_at=moment(chunks[0].uploaded_at), ended_at=moment(chunks[-1].uploaded_at))
    size = sum(chunk.size for chunk in chunks)
    return Recording(recording, "growing", chunks, chunks[0].size, size, None, 0, facts)


def open_committed(store: ArchiveStore, layout: BucketLayout, recording: RecordingId) -> Recording | None:
    """Open one generation by its manifest; None when it has none. Parameters and errors as above."""
    return _opened(store, layout, recording, layout.manifest(recording))


def open_revision(
    store: ArchiveStore, layout: BucketLayout, recording: RecordingId, revision: int
) -> Recording | None:
    """Open one generation as a former revision committed it; None when that is not kept.

    Its manifest is looked for before the newest one, which may be damaged. Parameters and errors as above.
    """
    former = _opened(store, layout, recording, layout.former_manifest(recording, revision))
    if former:
        return replace(former, superseded=True)
    current = open_committed(store, layout, recording)
    return current if current and current.revision == revision else None


def _opened(store: ArchiveStore, layout: BucketLayout, recording: RecordingId, key: str) -> Recording | None:
    committed = store.manifest(layout, recording, key=key)
    if committed is None:
        return None
    found = committed.manifest
    return Recording(
        recording,
        "complete" if found.status is State.COMPLETE else "incomplete",
        found.chunks,
        found.chunk_size,
        found.total_size,
        found.sha256,
        found.revision,
        found.facts,
    )


def chunk_at(store: ArchiveStore, layout: BucketLayout, recording: RecordingId, index: int) -> Chunk | None:
    """Return the newest object that S3 holds for one index, whether a manifest names it or not.

    Asks for that index only: a store that hashes what it lists reads no more than this chunk.
    """
    listed = store.objects(f"{layout.chunks(recording)}{index:06d}-")
    return _newest_by_index(listed, layout, recording).get(index)


def _newest_by_index(
    objects: Iterable[StoredObject], layout: BucketLayout, recording: RecordingId
) -> dict[int, Chunk]:
    """Several objects have one index while a chunk is being repaired, or grows again: the newest counts."""
    newest: dict[int, Chunk] = {}
    for found in objects:
        index = layout.chunk_index(recording, found.key)
        if index is None or found.size == 0:
            continue
        known = newest.get(index)
        if known is None or found.uploaded_at > known.uploaded_at:
            start = chunk_hash_start(found.key)
            newest[index] = Chunk(index, found.size, start, found.etag, found.key, found.uploaded_at)
    return newest


def _without_gap(newest: dict[int, Chunk]) -> tuple[Chunk, ...]:
    chunks: list[Chunk] = []
    while chunk := newest.get(len(chunks)):
        full = chunks[0].size if chunks else chunk.size
        if chunk.size > full:
            break
        chunks.append(chunk)
        if chunk.size < full:
            break  # a tail: nothing comes behind it
    return tuple(chunks)
