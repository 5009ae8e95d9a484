"""The places between two writes. Tests kill the process there; in production nothing happens at them."""

from collections.abc import Callable
from enum import StrEnum


class CrashPoint(StrEnum):
    """What has just been done when the process might end. `docs/design.md` says what the next start does."""

    CREATED = "a new stream was recorded"
    ADOPTED = "a complete recording found in S3 was recorded"
    CHUNK_READ = "a full chunk was read"
    CHUNK_PUT = "a full chunk was put"
    CHUNK_RECORDED = "a full chunk was recorded"
    FINALIZING = "a stream was recorded as finalizing"
    SETTLING_PUT = "a changed chunk or the tail was put while finalizing"
    SETTLING_RECORDED = "a changed chunk or the tail was recorded while finalizing"
    REREAD = "the whole source was read again and did not change"
    FORMER_KEPT = "the manifest of the former revision was put aside"
    MANIFEST_PUT = "the manifest was put"
    MANIFEST_CONFIRMED = "the manifest was read back"
    CLEANED_UP = "chunks that the manifest does not name were removed"
    COMPLETED = "a stream was recorded as complete"
    ABANDONED = "a finalization was given up because the source changed"
    DISOWNED = "a stream was given back because its source holds another recording"
    RESTORED = "the chunk records of a finished stream were put back"
    REOPENED = "a finished stream was recorded as active"
    CLOSING = "a stream without its source was recorded as finalizing"
    CLOSING_MANIFEST_PUT = "the manifest of an incomplete stream was put"
    CLOSED = "a stream was recorded as incomplete"
    MOVED = "a stream was recorded at its new path"
    FAILED = "a stream was recorded as failed"


Hook = Callable[[CrashPoint], None]
"""Called at each place."""


def no_op(_point: CrashPoint) -> None:
    """Do nothing: what production does at every crash point."""
