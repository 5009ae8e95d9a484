"""`metadata.json`, the commit point of a generation: built, written down, read back. Pure: no I/O."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from errors import PermanentError, UploaderError
from recording.layout import MAX_CHUNKS, MAX_REVISION, BucketLayout, RecordingId
from recording.mp4 import MediaFacts
from recording.stream import CANCELLED, MAX_CHUNK_BYTES, Chunk, Signature, State, Stream

SCHEMA_VERSION = 2

MAX_MANIFEST_BYTES = 256 * 1024 * 1024
"""What is read back at the most: 800,000 chunks of about 325 bytes each, or 8 TB in chunks of 10 MiB."""

_SHA256 = re.compile(r"[0-9a-f]{64}")

MOST_BRACKETS = 4 * MAX_CHUNKS
"""One for each chunk, and those in names. Counted before they take memory as objects."""


class ManifestError(UploaderError):
    """A `metadata.json` that this version cannot trust; the message says what is wrong with it."""


class Media(NamedTuple):
    """What `mp4.py` said of the source: facts, or the reason why there are none."""

    facts: MediaFacts | None
    error: str | None


class Uploader(NamedTuple):
    """Who commits."""

    version: str
    host: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the daemon itself needs of a committed manifest.

    `digest` is the SHA-256 of the manifest's own bytes, `playable` whether its media facts say so,
    `cancelled` whether an operator ended the recording before its source did.
    """

    status: State
    revision: int
    chunk_size: int
    total_size: int
    sha256: str | None
    chunks: tuple[Chunk, ...]
    playable: bool = False
    cancelled: bool = False
    digest: str = ""

    def covers(self, chunks: Sequence[Chunk]) -> bool:
        """Tell whether it lists exactly the content of these chunks."""
        mine = [(chunk.size, chunk.sha256, chunk.key) for chunk in self.chunks]
        return mine == [(chunk.size, chunk.sha256, chunk.key) for chunk in chunks]


def build(
    stream: Stream,
    chunks: Sequence[Chunk],
    *,
    status: State,
    sha256: str | None,
    signature: Signature,
    media: Media,
    bucket: str,
    layout: BucketLayout,
    uploader: Uploader,
    completed_at: str,
    former: Manifest | None = None,
) -> bytes:
    """Return the manifest of a generation as JSON.

    Parameters:
        stream: its checkpoint; `revision` is the one that this manifest commits.
        chunks: all of them, in order.
        status: `complete` or `incomplete`.
        sha256: of the whole file; None when the source was gone before it could be read again.
        signature: of the source when it was read, or when it was last seen.
        media: facts of the recording, or why there are none.
        bucket: where the objects are.
        layout: of that bucket.
        uploader: who commits.
        completed_at: ISO 8601 UTC.
        former: the manifest that this one takes the place of.
    """
    content = {
        **_identity(stream, former),
        "status": str(status),
        "source": _source(stream, signature),
        "bucket": bucket,
        "prefix": layout.generation(stream.recording),
        "chunk_size_bytes": stream.chunk_size,
        "chunk_count": len(chunks),
        "total_size_bytes": sum(chunk.size for chunk in chunks),
        "sha256": sha256,
        "started_at": _iso_ns(stream.started_at_ms * 1_000_000),
        "completed_at": completed_at,
        "first_chunk_uploaded_at": min((chunk.uploaded_at for chunk in chunks), default=None),
        "last_chunk_uploaded_at": max((chunk.uploaded_at for chunk in chunks), default=None),
        **_duration(stream, signature, media),
        "media": asdict(media.facts) if media.facts else None,
        "media_error": media.error,
        "cancelled": status is State.INCOMPLETE and stream.error.partition(":")[0] == CANCELLED,
        "chunks": [_row(chunk, stream.chunk_size) for chunk in chunks],
        "repaired_chunks": stream.repaired,
        "uploader": uploader._asdict(),
    }
    # A lone surrogate from a damaged name becomes its JSON escape.
    return json.dumps(content, indent=1, ensure_ascii=False).encode(errors="backslashreplace")


def _identity(stream: Stream, former: Manifest | None) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "stream_id": stream.stream_id,
        "key_path": stream.key_path,
        "generation": stream.generation,
        "owner": stream.owner,
        "revision": stream.revision,
        "former": {"revision": former.revision, "sha256": former.digest} if former else None,
    }


def _source(stream: Stream, signature: Signature) -> dict[str, Any]:
    path = os.fsencode(stream.path)
    return {
        "path": path.decode(errors="replace"),
        "path_base64": base64.b64encode(path).decode(),
        "size_bytes": signature.size,
        "modified_at": _iso_ns(signature.mtime_ns),
    }


def _row(chunk: Chunk, chunk_size: int) -> dict[str, Any]:
    return {
        "index": chunk.index,
        "offset": chunk.index * chunk_size,
        "size_bytes": chunk.size,
        "sha256": chunk.sha256,
        "etag": chunk.etag,
        "key": chunk.key,
        "uploaded_at": chunk.uploaded_at,
    }


def _duration(stream: Stream, signature: Signature, media: Media) -> dict[str, Any]:
    if media.facts and media.facts.duration_seconds is not None:
        return {"duration_seconds": round(media.facts.duration_seconds, 3), "duration_source": "media"}
    recorded_ms = signature.mtime_ns // 1_000_000 - stream.started_at_ms
    return {"duration_seconds": max(recorded_ms, 0) / 1000, "duration_source": "wall_clock"}


def _iso_ns(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    except (OverflowError, ValueError, OSError):  # a file may carry any time at all
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse(raw: bytes, layout: BucketLayout, recording: RecordingId) -> Manifest:
    """Read a manifest that lies in the store, trusting nothing in it.

    Parameters:
        raw: the object's bytes.
        layout: of the bucket.
        recording: that it must belong to.

    Raises:
        ManifestError: it is damaged, of a newer layout, or names objects of another stream.
    """
    if raw.count(b"{") + raw.count(b"[") > MOST_BRACKETS:
        raise ManifestError(f"metadata.json lists more than {MAX_CHUNKS} chunks")
    try:
        content = json.loads(raw, object_pairs_hook=_without_duplicates)
        return replace(_checked(content, layout, recording), digest=hashlib.sha256(raw).hexdigest())
    except (ValueError, KeyError, TypeError, RecursionError, PermanentError) as error:
        raise ManifestError(f"metadata.json is damaged: {type(error).__name__}: {error}"[:300]) from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what two readers could read differently."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ManifestError("metadata.json is damaged: a name occurs twice in it")
    return members


def _checked(content: Any, layout: BucketLayout, recording: RecordingId) -> Manifest:
    if content["schema_version"] != SCHEMA_VERSION:
        raise ManifestError(
            f"metadata.json has layout {content['schema_version']!r:.50}, this version knows {SCHEMA_VERSION}"
        )
    if (content["key_path"], content["generation"], content["owner"]) != tuple(recording):
        raise ManifestError(f"it is not the manifest of {recording.full_name}"[:300])
    rows = content["chunks"]
    if not isinstance(rows, list) or len(rows) > MAX_CHUNKS:
        raise ManifestError(f"metadata.json lists no chunks, or more than {MAX_CHUNKS}")
    chunk_size = _whole(content["chunk_size_bytes"], MAX_CHUNK_BYTES)
    chunks = tuple(_chunk(row, index, chunk_size, len(rows)) for index, row in enumerate(rows))
    for chunk in chunks:
        if chunk.key != layout.chunk(recording, chunk.index, chunk.sha256):
            raise ManifestError(f"chunk {chunk.index} names an object that is not its own")
    total = _whole(content["total_size_bytes"], MAX_CHUNKS * MAX_CHUNK_BYTES)
    if total != sum(chunk.size for chunk in chunks):
        raise ManifestError("the sizes of its chunks do not add up to total_size_bytes")
    sha256 = content["sha256"]
    if sha256 is not None and not _is_sha256(sha256):
        raise ManifestError("sha256 is none")
    status = State(content["status"])
    if status not in (State.COMPLETE, State.INCOMPLETE):
        raise ManifestError(f"status {status} is not one a manifest can have")
    revision = _whole(content["revision"], MAX_REVISION)
    media = content["media"]
    playable = isinstance(media, dict) and media.get("complete") is True
    cancelled = status is State.INCOMPLETE and content.get("cancelled") is True
    return Manifest(status, revision, chunk_size, total, sha256, chunks, playable, cancelled)


def _chunk(row: Any, index: int, chunk_size: int, count: int) -> Chunk:
    size, key, sha256 = _whole(row["size_bytes"], chunk_size), row["key"], row["sha256"]
    if row["index"] != index or row["offset"] != index * chunk_size:
        raise ManifestError(f"chunk {index} is out of order")
    if size == 0 or (size < chunk_size and index < count - 1):
        raise ManifestError(f"chunk {index} has an impossible size")
    if not _is_sha256(sha256) or not isinstance(key, str):
        raise ManifestError(f"chunk {index} names an object that is not its own")
    return Chunk(index, size, sha256, _text(row["etag"]), key, _text(row["uploaded_at"]))


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ManifestError(f"{value!r:.50} is no text")
    return value


def _whole(number: Any, at_most: int) -> int:
    if type(number) is not int or not 0 <= number <= at_most:
        raise ManifestError(f"{number!r:.50} is no number from 0 to {at_most}")
    return number
