"""How streams and chunks are written down in Redis: field names, numbers as text, paths as base64.

A record is a claim, not a fact: Redis may be damaged, set back, or written to by others. What does not
parse or cannot be is no record (`DamagedRecord`), and S3 decides.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, get_args

from errors import ErrorKind, UploaderError
from recording.layout import MAX_CHUNKS, MAX_GENERATION, MAX_REVISION, BucketLayout, is_owner, stream_id
from recording.playback import MAX_REASON, UNKNOWN_PLAYBACK, Playback, believable_duration
from recording.stream import MAX_CHUNK_BYTES, Chunk, RecordedError, Signature, State, Stream, proof_of

FIELDS = (
    "path_base64",
    "generation",
    "generation_owner",
    "revision",
    "state",
    "size",
    "mtime_ns",
    "ctime_ns",
    "dev",
    "ino",
    "born_ns",
    "chunk_size",
    "next_index",
    "offset",
    "started_at",
    "updated_at",
    "repaired",
    "error_kind",
    "error",
    "adopted",
    "base",
    "volume",
    "playback",
)

MAX_PATH_BYTES = 4096
"""Of a relative path; PATH_MAX of Linux."""

MAX_TEXT = 1000
"""Characters of an error that are kept of what a record says."""

LAST_MS = 253_402_300_799_999
"""Milliseconds since the epoch at the end of the year 9999: no later time has a date."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"-?[0-9]{1,20}")


class DamagedRecord(UploaderError):
    """A record in Redis that cannot be one of ours; the message says what is wrong with it."""


def encode_path(path: str) -> str:
    """Spell a path so that any bytes can stand in a Redis field."""
    return base64.b64encode(os.fsencode(path)).decode()


def decode_path(encoded: str) -> str:
    """Undo `encode_path`.

    Raises:
        DamagedRecord: it is no path.
    """
    try:
        path = base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise DamagedRecord("its path is no base64") from error
    if not 0 < len(path) <= MAX_PATH_BYTES:
        raise DamagedRecord(f"its path has {len(path)} bytes")
    return os.fsdecode(path)


def stream_of(identity: str, values: Sequence[Any]) -> Stream:
    """Read a record.

    Parameters:
        identity: the stream id whose record it is.
        values: of `FIELDS`, as Redis gives them.

    Raises:
        DamagedRecord: it cannot be true.
    """
    record = dict(zip(FIELDS, values, strict=True))
    try:
        state = State(record["state"])
    except ValueError as error:
        raise DamagedRecord(f"its state is {record['state']!r:.50}") from error
    stream = Stream(
        stream_id=identity,
        path=decode_path(record["path_base64"]),
        generation=_number(record, "generation", 1, MAX_GENERATION),
        owner=str(record["generation_owner"]),
        revision=_number(record, "revision", 0, MAX_REVISION),
        state=state,
        signature=Signature(*(_number(record, name, -(2**63), 2**64) for name in Signature._fields)),
        chunk_size=_number(record, "chunk_size", 1, MAX_CHUNK_BYTES),
        next_index=_number(record, "next_index", 0, MAX_CHUNKS),
        offset=_number(record, "offset", 0, MAX_CHUNKS * MAX_CHUNK_BYTES),
        started_at_ms=_number(record, "started_at", 0, LAST_MS),
        updated_at_ms=_number(record, "updated_at", 0, LAST_MS),
        repaired=_number(record, "repaired", 0, 10**9),
        error=_error(record["error_kind"], record["error"]),
        born_ns=_number(record, "born_ns", 0, 2**63),
        adopted=record["adopted"] == "1",
        base=str(record["base"] or "")[:MAX_TEXT],
        volume=str(record["volume"] or ""),
        playback=playback_of(record["playback"]),
    )
    if not is_owner(stream.owner) or identity != stream_id(stream.key_path, stream.generation):
        raise DamagedRecord("its id and its generation do not fit")
    full, tail = divmod(stream.offset, stream.chunk_size)
    if stream.next_index != full + (tail > 0):
        raise DamagedRecord(f"{stream.next_index} chunks cannot have {stream.offset} bytes")
    return stream


def _error(kind: Any, message: Any) -> RecordedError:
    """Read why a stream waits or ended; a kind that this version does not know is none."""
    known: dict[Any, ErrorKind] = {each: each for each in get_args(ErrorKind)}
    return RecordedError(known.get(kind, ""), str(message or "")[:MAX_TEXT])


def _number(record: dict[str, Any], name: str, least: int, most: int) -> int:
    text = record[name]
    if not isinstance(text, str) or not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise DamagedRecord(f"{name} is {text!r:.50}")
    return int(text)


def playback_json(playback: Playback) -> str:
    """Write down what a finished recording is to a player; "" while nobody knows."""
    if playback == UNKNOWN_PLAYBACK:
        return ""
    return json.dumps(playback._asdict(), separators=(",", ":"))


def playback_of(record: Any) -> Playback:
    """Undo `playback_json`; nobody knows where it cannot be true: it is for people alone."""
    try:
        fields = json.loads(record or "{}")
        duration = believable_duration(fields.get("duration_seconds"))
        reason = fields.get("unplayable")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return UNKNOWN_PLAYBACK
    return Playback(
        duration,
        estimated=duration is not None and fields.get("estimated") is True,
        unplayable=reason[:MAX_REASON] if isinstance(reason, str) else None,
    )


def chunk_json(chunk: Chunk) -> str:
    """Write a chunk down. Its index names the field that it stands in, and its key is always computed."""
    record = asdict(chunk)
    del record["index"], record["key"]
    return json.dumps(record, separators=(",", ":"))


def chunk_of(stream: Stream, index: str, record: str, layout: BucketLayout) -> Chunk:
    """Undo `chunk_json`.

    Parameters:
        stream: whose chunk it is.
        index: as the name of the field says.
        record: the field's value.
        layout: of the bucket that the key is computed for.

    Raises:
        DamagedRecord: it cannot be true.
    """
    try:
        number, fields = int(index), json.loads(record)
        size, sha256, etag, uploaded_at = (fields[name] for name in ("size", "sha256", "etag", "uploaded_at"))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedRecord(f"chunk {index!r:.20} is unreadable") from error
    fits = (
        type(size) is int
        and 0 < size <= stream.chunk_size
        and isinstance(sha256, str)
        and _SHA256.fullmatch(sha256)
        and isinstance(etag, str)
        and len(etag) <= MAX_TEXT
        and isinstance(uploaded_at, str)
        and len(uploaded_at) <= MAX_TEXT
        and 0 <= number < MAX_CHUNKS
    )
    if not fits:
        raise DamagedRecord(f"chunk {index!r:.20} cannot be: {record!r:.200}")
    key, proof = layout.chunk(stream.recording, number, sha256), proof_of(fields.get("confirmed_by"))
    return Chunk(number, size, sha256, etag, key, uploaded_at, proof)
