"""`metadata.json`, the commit point of a generation: built, written down, read back. Pure: no I/O."""

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from errors import PermanentError, UploaderError
from recording.bounded_json import read_object
from recording.layout import MAX_CHUNKS, MAX_REVISION, BucketLayout, RecordingId
from recording.mp4 import MediaFacts
from recording.playback import MAX_REASON, UNKNOWN_PLAYBACK, Playback, read_playback
from recording.stream import MAX_CHUNK_BYTES, Chunk, Signature, State, Stream, proof_of
from recording.timestamps import iso_of_ns, moment

SCHEMA_VERSION = 2

MAX_MANIFEST_BYTES = 256 * 1024 * 1024
"""What is read back at the most: 800,000 chunks of about 325 bytes each, or 8 TB in chunks of 10 MiB."""

BYTES_A_CHUNK = 1536
"""That the entry of one may have: ours have about 325, of which the key can be `MAX_KEY_BYTES`."""

SPARE_BYTES = 64 * 1024
"""For all that a manifest says beside its chunks; ours with the longest names have 25 kB."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class ManifestError(UploaderError):
    """A `metadata.json` that this version cannot trust; the message says what is wrong with it."""


class Media(NamedTuple):
    """What `mp4.py` said of the source: facts, or the reason why there are none.

    `unplayable`: for that reason no player can open it. Without that and without facts nobody knows.
    """

    facts: MediaFacts | None
    error: str | None
    unplayable: bool = False

    @property
    def playable(self) -> bool | None:
        """Whether a player can open it; None: nobody knows."""
        return True if self.facts else False if self.unplayable else None


class Uploader(NamedTuple):
    """Who commits."""

    version: str
    host: str


class Facts(NamedTuple):
    """What is known of a recording beside its bytes; None: not known. Times are in UTC.

    `path` is the source's, relative to the watched folder, undecodable bytes as surrogates. `source_id` tells
    its file from every other one of that machine, see `source_id`; "" is none. `cut_short` is why an
    incomplete one ended before all of it was stored; "" of others. `finished`: its media facts say that the
    recorder ended it.
    """

    path: str | None = None
    source_id: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    modified_at: datetime | None = None
    playback: Playback = UNKNOWN_PLAYBACK
    cut_short: str = ""
    finished: bool = False

    @property
    def recorded(self) -> tuple[datetime | None, datetime | None]:
        """When the recording began and ended: its end is when the file was last written."""
        if self.modified_at is None:
            return self.started_at, self.ended_at
        if self.playback.duration_seconds is None:
            return self.started_at, self.modified_at
        try:
            return self.modified_at - timedelta(seconds=self.playback.duration_seconds), self.modified_at
        except OverflowError:  # no duration that a file could have
            return self.modified_at, self.modified_at


@dataclass(frozen=True, slots=True)
class Manifest:
    """A committed manifest: all that the daemon, the archive and the steering commands need of it.

    `digest` is the SHA-256 of the manifest's own bytes, `cancelled` whether an operator ended the recording
    before its source did.
    """

    status: State
    revision: int
    chunk_size: int
    total_size: int
    sha256: str | None
    chunks: tuple[Chunk, ...]
    facts: Facts
    cancelled: bool = False
    digest: str = ""

    def covers(self, chunks: Sequence[Chunk]) -> bool:
        """Return whether it lists exactly the content of these chunks."""
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
        "started_at": iso_of_ns(stream.started_at_ms * 1_000_000),
        "completed_at": completed_at,
        "first_chunk_uploaded_at": min((chunk.uploaded_at for chunk in chunks), default=None),
        "last_chunk_uploaded_at": max((chunk.uploaded_at for chunk in chunks), default=None),
        **_duration(stream, signature, media),
        "media": asdict(media.facts) if media.facts else None,
        "media_error": media.error,
        "playable": media.playable,
        "cancelled": status is State.INCOMPLETE and stream.error.kind == "cancelled",
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
        "id": source_id(signature, stream.born_ns),
        "size_bytes": signature.size,
        "modified_at": iso_of_ns(signature.mtime_ns),
    }


def source_id(signature: Signature, born_ns: int) -> str:
    """Return what a file keeps while it is written and renamed, and a copy of it has not.

    Parameters:
        signature: of the file.
        born_ns: when it was created; 0 if the file system does not say.
    """
    return f"{signature.ino}:{born_ns}"


def _row(chunk: Chunk, chunk_size: int) -> dict[str, Any]:
    return {
        "index": chunk.index,
        "offset": chunk.index * chunk_size,
        "size_bytes": chunk.size,
        "sha256": chunk.sha256,
        "etag": chunk.etag,
        "key": chunk.key,
        "uploaded_at": chunk.uploaded_at,
        "confirmed_by": chunk.confirmed_by or None,
    }


def _duration(stream: Stream, signature: Signature, media: Media) -> dict[str, Any]:
    known = playback(stream, signature, media)
    return {"duration_seconds": known.duration_seconds, "duration_source": known.duration_source}


def playback(stream: Stream, signature: Signature, media: Media) -> Playback:
    """Return what a recording is to a player, as its manifest says it.

    Parameters:
        stream: its checkpoint.
        signature: of the source when it was read, or when it was last seen.
        media: facts of the recording, or why there are none.
    """
    unplayable = None if media.playable is None else "" if media.playable else media.error
    if media.facts and media.facts.duration_seconds is not None:
        return Playback(round(media.facts.duration_seconds, 3), unplayable=unplayable)
    recorded_ms = signature.mtime_ns // 1_000_000 - stream.started_at_ms
    return Playback(max(recorded_ms, 0) / 1000, estimated=True, unplayable=unplayable)


def max_bytes(chunks: int) -> int:
    """Return the bytes that the manifest of so many chunks can have."""
    return min(SPARE_BYTES + BYTES_A_CHUNK * chunks, MAX_MANIFEST_BYTES)


def parse(raw: bytes, layout: BucketLayout, recording: RecordingId) -> Manifest:
    """Read a manifest that lies in the store, trusting nothing in it.

    Each entry is checked, and made a chunk, before the next is looked at; the first that cannot be one of
    this generation ends it. Measured, memory at the peak beside the text: 94,000 sound chunks (29 MiB) take
    54 MiB, and 102 MiB when `json.loads` reads them; 32 MiB of numbers or texts in their place take none, and
    289 to 494 MiB.

    Parameters:
        raw: the object's bytes.
        layout: of the bucket.
        recording: that it must belong to.

    Raises:
        ManifestError: it is damaged, of a newer layout, or names objects of another stream. A fact beside
            the chunks that is unbelievable is none, and no reason to doubt the chunks.
    """
    rows = _Rows(layout, recording)
    try:
        content = read_object(
            raw, list_name="chunks", take=rows.take, item_bytes=BYTES_A_CHUNK, spare_bytes=SPARE_BYTES
        )
        _check_identity(content, recording)
        return replace(_checked(content, tuple(rows.chunks)), digest=hashlib.sha256(raw).hexdigest())
    except (ValueError, KeyError, TypeError, RecursionError, PermanentError) as error:
        raise ManifestError(f"metadata.json is damaged: {type(error).__name__}: {error}"[:300]) from error


class _Rows:
    """The entries of `chunks`, each checked when it is taken."""

    def __init__(self, layout: BucketLayout, recording: RecordingId) -> None:
        self._layout = layout
        self._recording = recording
        self._end = 0  # of the last chunk in the source
        self.chunks: list[Chunk] = []

    def take(self, row: Any, before: dict[str, Any]) -> None:
        """Check the next entry. `before` are the members before them: whose it is, if we wrote it."""
        if not self.chunks and before.keys() >= _IDENTITY:
            _check_identity(before, self._recording)
        index = len(self.chunks)
        if index >= MAX_CHUNKS:
            raise ManifestError(f"metadata.json lists more than {MAX_CHUNKS} chunks")
        size, key, sha256 = _whole(row["size_bytes"], MAX_CHUNK_BYTES), row["key"], row["sha256"]
        if row["index"] != index or row["offset"] != self._end:
            raise ManifestError(f"chunk {index} is out of order")
        if not _is_sha256(sha256) or key != self._layout.chunk(self._recording, index, sha256):
            raise ManifestError(f"chunk {index} names an object that is not its own")
        etag, uploaded_at = _text(row["etag"]), _text(row["uploaded_at"])
        proof = proof_of(row.get("confirmed_by"))
        self.chunks.append(Chunk(index, size, sha256, etag, key, uploaded_at, proof))
        self._end += size


_IDENTITY = {"schema_version", "key_path", "generation", "owner"}


def _check_identity(content: dict[str, Any], recording: RecordingId) -> None:
    if content["schema_version"] != SCHEMA_VERSION:
        raise ManifestError(
            f"metadata.json has layout {content['schema_version']!r:.50}, this version knows {SCHEMA_VERSION}"
        )
    if (content["key_path"], content["generation"], content["owner"]) != tuple(recording):
        raise ManifestError(f"it is not the manifest of {recording.full_name}"[:300])


def _checked(content: dict[str, Any], chunks: tuple[Chunk, ...]) -> Manifest:
    chunk_size = _whole(content["chunk_size_bytes"], MAX_CHUNK_BYTES)
    for chunk in chunks:
        last = chunk.index == len(chunks) - 1
        if not (0 < chunk.size <= chunk_size if last else chunk.size == chunk_size > 0):
            raise ManifestError(f"chunk {chunk.index} has an impossible size")
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
    cancelled = status is State.INCOMPLETE and content.get("cancelled") is True
    return Manifest(status, revision, chunk_size, total, sha256, chunks, _facts(content), cancelled)


def _facts(content: dict[str, Any]) -> Facts:
    """Take what is believable beside the chunks."""
    source, media, cut = content["source"], content["media"], content["status"] == State.INCOMPLETE
    source = source if isinstance(source, dict) else {}
    return Facts(
        path=_path(source.get("path_base64")),
        source_id=_text(source.get("id", "")),
        started_at=moment(content.get("started_at")),
        ended_at=moment(content.get("completed_at")),
        modified_at=moment(source.get("modified_at")),
        playback=read_playback(content),
        cut_short=str(content.get("media_error") or "it ended too soon")[:MAX_REASON] if cut else "",
        finished=isinstance(media, dict) and media.get("complete") is True,
    )


def _path(encoded: Any) -> str | None:
    try:
        return os.fsdecode(base64.b64decode(encoded, validate=True))
    except (TypeError, binascii.Error, ValueError):
        return None


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
