"""What a stream is: its states, its chunks, and how its keys and ids are spelled. Pure: no I/O."""

import hashlib
import os
import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from errors import PermanentError

MAX_KEY_BYTES = 1024
"""S3 refuses longer object keys (Amazon S3 user guide, "Naming objects")."""

MAX_SEGMENT_BYTES = 100
"""Of one `/`-separated part of a key path; keeps deep paths below `MAX_KEY_BYTES` and names readable."""

MENDABLE_FAILURES = ("unreadable",)
"""Kinds of failure that a change outside the file's bytes mends: tried again at every scan."""

CANCELLED = "cancelled"
"""The kind of error in the record of an incomplete stream that an operator ended."""

MAX_CHUNKS = 1_000_000
"""Of one stream: six digits keep keys in the order of their chunks; 5 TB in chunks of 5 MiB."""

_NOT_PLAIN = re.compile(r"[^\w ().,@=!'-]")
_CHUNK_NAME = re.compile(r"([0-9]{6})-[0-9a-f]{12}\.part")
_GENERATION_NAME = re.compile(r"g([0-9]{4,9})")


class State(StrEnum):
    """Where a stream stands. The legal moves are in `LEGAL_MOVES`."""

    ACTIVE = "active"
    FINALIZING = "finalizing"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


LEGAL_MOVES: frozenset[tuple[State, State]] = frozenset(
    {
        (State.ACTIVE, State.FINALIZING),
        (State.FINALIZING, State.ACTIVE),
        (State.FINALIZING, State.COMPLETE),
        (State.FINALIZING, State.INCOMPLETE),
        (State.COMPLETE, State.ACTIVE),  # reopened: the source grew or was patched
        (State.INCOMPLETE, State.ACTIVE),  # its source came back
        (State.FAILED, State.ACTIVE),  # retried, or the source changed
        (State.ACTIVE, State.FAILED),
        (State.FINALIZING, State.FAILED),
    }
)

UNFINISHED = frozenset({State.ACTIVE, State.FINALIZING})
"""States in which the daemon still owes work to the source."""


class IllegalMoveError(AssertionError):
    """A state change that the table does not know: a bug."""


def check_move(old: State, new: State) -> None:
    """Refuse a state change that `LEGAL_MOVES` does not list.

    Raises:
        IllegalMoveError: the move is a bug.
    """
    if (old, new) not in LEGAL_MOVES:
        raise IllegalMoveError(f"a stream cannot go from {old} to {new}")


class Signature(NamedTuple):
    """What `fstat` says of a source. Two equal signatures: nobody wrote in between."""

    size: int
    mtime_ns: int
    ctime_ns: int
    dev: int
    ino: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "Signature":
        """Take the signature out of a stat result."""
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev, stat.st_ino)

    def unchanged(self, other: "Signature") -> bool:
        """Tell whether nobody wrote in between.

        The device number is left out: it changes when a volume is mounted again, the bytes do not.
        """
        return self._replace(dev=0) == other._replace(dev=0)

    def same_file(self, other: "Signature") -> bool:
        """Tell whether both are of one file.

        The inode decides. A device number may change when a volume is mounted again; then an
        unchanged size and modification time vouch for the file.
        """
        if self.ino != other.ino:
            return False
        return self.dev == other.dev or (self.size, self.mtime_ns) == (other.size, other.mtime_ns)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk that S3 has confirmed. `uploaded_at` is ISO 8601 UTC."""

    index: int
    size: int
    sha256: str
    etag: str
    key: str
    uploaded_at: str


class StoredObject(NamedTuple):
    """What the store says of one object. `uploaded_at` is ISO 8601 UTC."""

    key: str
    size: int
    etag: str
    uploaded_at: str


@dataclass(frozen=True, slots=True)
class Stream:
    """The checkpoint of a stream as Redis holds it.

    `path` is relative to the watched folder (undecodable bytes as surrogates, see `os.fsdecode`).
    `next_index` and `offset` (bytes) say what is durably stored without a gap. `revision` counts the
    completions that have been committed, `repaired` the chunks that were sent again. `signature` is the
    source's at the last checkpoint. Times are milliseconds since the epoch by Redis's clock.
    """

    stream_id: str
    path: str
    generation: int
    revision: int
    state: State
    signature: Signature
    chunk_size: int
    next_index: int
    offset: int
    started_at_ms: int
    updated_at_ms: int
    repaired: int = 0
    error: str = ""

    @property
    def key_path(self) -> str:
        """The part of the stream id that keys begin with."""
        return self.stream_id.rpartition("@")[0]

    @property
    def cancelled(self) -> bool:
        """Whether an operator ended it: nobody goes on with it until it is asked for."""
        return self.state is State.INCOMPLETE and self.error.partition(":")[0] == CANCELLED

    def settled(self, signature: Signature) -> bool:
        """Tell whether a source with this signature needs no work.

        An incomplete stream whose source is there is not settled, because the source came back: unless it
        is there because an operator ended the stream before its source did.
        """
        if not self.signature.unchanged(signature):
            return False
        if self.state is State.FAILED:
            return self.error.partition(":")[0] not in MENDABLE_FAILURES
        return self.state is State.COMPLETE or self.cancelled


def key_path(path: str) -> str:
    """Spell a relative path so that it can stand in S3 keys: readable, bounded, never colliding.

    Parameters:
        path: relative to the watched folder, `/`-separated, undecodable bytes as surrogates.
    """
    return "/".join(_key_segment(segment) for segment in path.split("/"))


def _key_segment(segment: str) -> str:
    plain = _NOT_PLAIN.sub("_", unicodedata.normalize("NFC", segment))
    kept = bool(segment) and plain == segment and not segment.startswith(".")
    if kept and len(segment.encode()) <= MAX_SEGMENT_BYTES:
        return segment
    mark = "~" + hashlib.sha256(os.fsencode(segment)).hexdigest()[:10]
    head = plain.encode()[: MAX_SEGMENT_BYTES - len(mark)].decode(errors="ignore")
    return head + mark


def stream_id(key_path: str, generation: int) -> str:
    """Name the stream of one generation of a key path."""
    return f"{key_path}@{generation}"


def generation_prefix(prefix: str, key_path: str, generation: int) -> str:
    """Give the key prefix, ending in `/`, under which everything of one generation lies."""
    return f"{prefix}{key_path}/g{generation:04d}/"


def manifest_key(prefix: str, key_path: str, generation: int) -> str:
    """Give the key of a generation's manifest.

    Raises:
        PermanentError: the key would be longer than S3 takes.
    """
    return _bounded(generation_prefix(prefix, key_path, generation) + "metadata.json")


def chunks_prefix(prefix: str, key_path: str, generation: int) -> str:
    """Give the key prefix, ending in `/`, of a generation's chunk objects."""
    return generation_prefix(prefix, key_path, generation) + "chunks/"


def chunk_key(chunks_prefix: str, index: int, sha256: str) -> str:
    """Give the key of a chunk; the same content always gets the same key.

    Raises:
        PermanentError: the key would be longer than S3 takes, or the stream has too many chunks.
    """
    if index >= MAX_CHUNKS:
        raise PermanentError(
            f"it has more than {MAX_CHUNKS} chunks: raise CHUNK_SIZE before it is recorded", kind="too_large"
        )
    return _bounded(f"{chunks_prefix}{index:06d}-{sha256[:12]}.part")


def _bounded(key: str) -> str:
    if len(key.encode()) > MAX_KEY_BYTES:
        raise PermanentError(
            f"its S3 keys would have {len(key.encode())} bytes and S3 takes {MAX_KEY_BYTES}: "
            "move it to a folder less deep or shorten S3_PREFIX",
            kind="key_too_long",
        )
    return key


def parse_chunk_key(key: str, chunks_prefix: str) -> int | None:
    """Read the index out of a chunk's key; None when the key is no chunk right under the prefix."""
    if not key.startswith(chunks_prefix):
        return None
    match = _CHUNK_NAME.fullmatch(key[len(chunks_prefix) :])
    return int(match[1]) if match else None


def parse_generation(name: str) -> int | None:
    """Read the number out of a generation's folder name such as `g0001`; None when it is none."""
    match = _GENERATION_NAME.fullmatch(name)
    return int(match[1]) if match else None
