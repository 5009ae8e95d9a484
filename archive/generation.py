"""One generation as S3 alone shows it: by its manifest, or by its chunks while there is none."""

import base64
import binascii
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from archive.retrying_bucket import ArchiveStore
from recording.layout import BucketLayout, RecordingId, chunk_hash_start
from recording.stream import Chunk, State, StoredObject

Status = Literal["complete", "incomplete", "growing"]


class Facts(NamedTuple):
    """What is known of a recording beside its bytes; None: not known. Times are in UTC.

    `path` is the source's, relative to the watched folder, undecodable bytes as surrogates. `estimated` says
    that the duration is that of the upload, because the file tells none. `unplayable` is the reason why no
    player can open it; "" if one can; None: not known, because it is not finished.
    """

    path: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    modified_at: datetime | None = None
    duration_seconds: float | None = None
    estimated: bool = False
    unplayable: str | None = None

    @property
    def recorded(self) -> tuple[datetime | None, datetime | None]:
        """When the recording began and ended: its end is when the file was last written."""
        if self.modified_at is None:
            return self.started_at, self.ended_at
        if self.duration_seconds is None:
            return self.started_at, self.modified_at
        try:
            return self.modified_at - timedelta(seconds=self.duration_seconds), self.modified_at
        except OverflowError:  # no duration that a file could have
            return self.modified_at, self.modified_at


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
        _facts(committed.members),
    )


def chunk_at(store: ArchiveStore, layout: BucketLayout, recording: RecordingId, index: int) -> Chunk | None:
    """Return the newest object that S3 holds for one index, whether a manifest names it or not.

    Asks for that index only: a store that hashes what it lists reads no more than this chunk.
    """
    listed = store.objects(f"{layout.chunks(recording)}{index:06d}-")
    return _newest_by_index(listed, layout, recording).get(index)


def moment(text: Any) -> datetime | None:
    """Read a time that a manifest or the store gives; None when it is none."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


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


def _facts(content: Any) -> Facts:
    """Take what is believable out of a manifest whose chunks are trusted already."""
    source = content.get("source")
    source = source if isinstance(source, dict) else {}
    duration = content.get("duration_seconds")
    usable = type(duration) in (int, float) and math.isfinite(duration) and duration >= 0
    return Facts(
        path=_path(source.get("path_base64")),
        started_at=moment(content.get("started_at")),
        ended_at=moment(content.get("completed_at")),
        modified_at=moment(source.get("modified_at")),
        duration_seconds=float(duration) if usable else None,
        estimated=usable and content.get("duration_source") == "wall_clock",
        unplayable=""
        if content.get("media")
        else str(content.get("media_error") or "it is no MP4 file")[:200],
    )


def _path(encoded: Any) -> str | None:
    try:
        return os.fsdecode(base64.b64decode(encoded, validate=True))
    except (TypeError, binascii.Error, ValueError):
        return None
