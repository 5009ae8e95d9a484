"""What a stream is: its states, its chunks, its signature. Pure: no I/O."""

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from errors import ErrorKind, UploaderError, hint_of
from recording.layout import RecordingId
from recording.playback import UNKNOWN_PLAYBACK, Playback

MENDABLE_FAILURES = ("unreadable",)
"""Kinds of failure that a change outside the file's bytes mends: tried again at every scan."""

MAX_CHUNK_BYTES = 512 * 1024 * 1024
"""The largest chunk that can be set; more than that is never read at once because a record says so."""


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
        """Return whether nobody wrote in between.

        The device number is left out: it changes when a volume is mounted again, the bytes do not.
        """
        return self._replace(dev=0) == other._replace(dev=0)

    def same_file(self, other: "Signature") -> bool:
        """Return whether both are of one file.

        The inode decides. A device number may change when a volume is mounted again; then an
        unchanged size and modification time vouch for the file.
        """
        if self.ino != other.ino:
            return False
        return self.dev == other.dev or (self.size, self.mtime_ns) == (other.size, other.mtime_ns)


NOBODYS = Signature(0, 0, 0, 0, 0)
"""Of no source: a record that has it is true of a recording in S3, and of no file any more."""


class RecordedError(NamedTuple):
    """Why a stream failed, waits, was cancelled or was left behind, as its record says; false if nothing."""

    kind: ErrorKind | Literal[""] = ""
    message: str = ""

    @classmethod
    def of(cls, error: UploaderError) -> "RecordedError":
        """Return what a record keeps of an error."""
        return cls(error.kind, error.message)

    def __bool__(self) -> bool:
        return bool(self.kind or self.message)

    @property
    def hint(self) -> str:
        """What to do about it; "" when nothing is known to help."""
        return hint_of(self.kind)


NO_ERROR = RecordedError()


Proof = Literal["sha256", "md5", ""]
"""By which hash the store was seen to hold the very bytes; "" where nobody knows."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk that S3 has confirmed. `uploaded_at` is ISO 8601 UTC."""

    index: int
    size: int
    sha256: str
    etag: str
    key: str
    uploaded_at: str
    confirmed_by: Proof = ""


class StoredObject(NamedTuple):
    """What the store says of one object. `uploaded_at` is ISO 8601 UTC."""

    key: str
    size: int
    etag: str
    uploaded_at: str
    confirmed_by: Proof = ""


def proof_of(value: object) -> Proof:
    """Read what a record says; what it cannot be counts as unknown, for nothing depends on it."""
    return "sha256" if value == "sha256" else "md5" if value == "md5" else ""


@dataclass(frozen=True, slots=True)
class Stream:
    """The checkpoint of a stream as Redis holds it.

    `owner` is the random id in the name of its folder in S3: whoever has this record may put there.
    `path` is relative to the watched folder (undecodable bytes as surrogates, see `os.fsdecode`).
    `next_index` and `offset` (bytes) say what is durably stored without a gap. `revision` counts the
    completions that have been committed, `repaired` the chunks that were sent again. `signature` is the
    source's at the last checkpoint, `born_ns` when the file system says that it was created, 0 when it does
    not say. Times are milliseconds since the epoch by Redis's clock.

    `adopted`: the generation is complete in S3 and another stream's, and the source holds the same bytes;
    nothing is ever put there. `base` is the key prefix of a generation that may hold chunks of this one
    already: the store copies them. "" is none.

    `volume`: on which its source was, as `folder.volumes` names it; "" if nobody knows.
    """

    stream_id: str
    path: str
    generation: int
    owner: str
    revision: int
    state: State
    signature: Signature
    chunk_size: int
    next_index: int
    offset: int
    started_at_ms: int
    updated_at_ms: int
    repaired: int = 0
    error: RecordedError = NO_ERROR
    born_ns: int = 0
    adopted: bool = False
    base: str = ""
    volume: str = ""
    playback: Playback = UNKNOWN_PLAYBACK

    @property
    def key_path(self) -> str:
        """The part of the stream id that keys begin with."""
        return self.stream_id.rpartition("@")[0]

    @property
    def recording(self) -> RecordingId:
        """What its folder in S3 is named after."""
        return RecordingId(self.key_path, self.generation, self.owner)

    @property
    def cancelled(self) -> bool:
        """Whether an operator ended it: nobody goes on with it until it is asked for."""
        return self.state is State.INCOMPLETE and self.error.kind == "cancelled"

    @property
    def left_behind(self) -> bool:
        """Whether it was closed because another volume took the place of the one on which its source is."""
        return self.state is State.INCOMPLETE and self.error.kind == "away"

    def settled(self, signature: Signature) -> bool:
        """Return whether a source with this signature needs no work.

        An incomplete stream whose source is there is not settled, because the source came back: unless it
        is there because an operator ended the stream before its source did.
        """
        if not self.signature.unchanged(signature):
            return False
        if self.state is State.FAILED:
            return self.error.kind not in MENDABLE_FAILURES
        # The state alone is a claim: what is complete has every byte of its source recorded.
        return (self.state is State.COMPLETE and self.offset == signature.size) or self.cancelled
