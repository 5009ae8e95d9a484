"""What is not in S3 yet: how much it is, and since when it has been waiting. Pure."""

from typing import NamedTuple

from recording.stream import Signature, Stream

MAX_SAMPLES = 64  # even: all but the last are merged in pairs
"""Of how a source grew, kept to tell the age of its oldest byte that is not in S3."""

Growth = list[tuple[float, int]]
"""(when, size) as a source grew beyond what S3 has: the first of the bytes from the size before up to this
one were seen at `when`. A list: an empty deque takes 600 bytes."""


class Backlog(NamedTuple):
    """What is not in S3 yet, as far as this process knows, without a word from Redis or S3.

    `sources` counts the unfinished ones; `behind` those of which more waits than a chunk that has just
    become full, or that ended long ago; `away` those whose volume is not mounted, like `away_path`. The
    first three count failed recordings, too.
    """

    sources: int = 0
    bytes: int = 0
    oldest_seconds: float = 0.0
    behind: int = 0
    away: int = 0
    away_path: str = ""


def note_size(growth: Growth, now: float, size: int) -> None:
    """Take note of the size of a source (bytes) that was seen now (seconds)."""
    if growth and size < growth[-1][1]:  # cut: what is left is as old as before
        growth[:] = [(when, min(grown, size)) for when, grown in growth]
    growth.append((now, size))
    if len(growth) > MAX_SAMPLES:
        # Of each two the earlier time with the later size: an age is never told too low.
        pairs = zip(growth[0:-1:2], growth[1:-1:2], strict=True)
        growth[:] = [*((early[0], late[1]) for early, late in pairs), growth[-1]]


def note_stored(growth: Growth, offset: int) -> None:
    """Drop what says nothing of the bytes behind an offset."""
    while growth and growth[0][1] <= offset:
        del growth[0]


class _Moment(NamedTuple):
    """How long a source was at a time: seconds since the epoch, bytes."""

    at: float
    size: int


def written_at(stream: Stream, known: Signature) -> float:
    """Return when the first byte that is not in S3 was written, in seconds since the epoch.

    As if the source had grown evenly between two looks: when it was found, at the last checkpoint, and now. A
    file that was there before it was found tells only its last change: its bytes are at least so old.

    Parameters:
        stream: its record.
        known: the signature of the source now; more than the record's offset.
    """
    recorded = _Moment(stream.signature.mtime_ns / 1e9, stream.signature.size)
    before = _Moment(min(stream.started_at_ms / 1e3, recorded.at), 0)
    after = recorded
    if recorded.size <= stream.offset:
        before, after = recorded, _Moment(max(known.mtime_ns / 1e9, recorded.at), known.size)
    grown = (stream.offset - before.size) / (after.size - before.size)
    return before.at + (after.at - before.at) * grown
