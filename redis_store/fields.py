"""How streams and chunks are written down in Redis: field names, numbers as text, paths as base64."""

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from recording.stream import Chunk, Signature, State, Stream

FIELDS = (
    "path_base64",
    "generation",
    "revision",
    "state",
    "size",
    "mtime_ns",
    "ctime_ns",
    "dev",
    "ino",
    "chunk_size",
    "next_index",
    "offset",
    "started_at",
    "updated_at",
    "repaired",
    "error",
)


def encode_path(path: str) -> str:
    """Spell a path so that any bytes can stand in a Redis field."""
    return base64.b64encode(os.fsencode(path)).decode()


def decode_path(encoded: str) -> str:
    """Undo `encode_path`."""
    return os.fsdecode(base64.b64decode(encoded))


def stream_of(stream_id: str, values: Sequence[Any]) -> Stream:
    """Read a record.

    Parameters:
        stream_id: whose record.
        values: of `FIELDS`, as Redis gives them.
    """
    record = dict(zip(FIELDS, values, strict=True))
    signature = Signature(*(int(record[name]) for name in Signature._fields))
    return Stream(
        stream_id=stream_id,
        path=decode_path(record["path_base64"]),
        generation=int(record["generation"]),
        revision=int(record["revision"]),
        state=State(record["state"]),
        signature=signature,
        chunk_size=int(record["chunk_size"]),
        next_index=int(record["next_index"]),
        offset=int(record["offset"]),
        started_at_ms=int(record["started_at"]),
        updated_at_ms=int(record["updated_at"]),
        repaired=int(record["repaired"]),
        error=record["error"],
    )


def chunk_json(chunk: Chunk) -> str:
    """Write a chunk down; its index is the name of the field that it stands in."""
    record = asdict(chunk)
    del record["index"]
    return json.dumps(record, separators=(",", ":"))


def chunk_of(index: int, record: str) -> Chunk:
    """Undo `chunk_json`."""
    return Chunk(index=index, **json.loads(record))
