"""What is not in S3 yet: how much it is, and since when it has been waiting. Pure."""

from typing import NamedTuple

MAX_SAMPLES = 64  # even: all but the last are merged in pairs
"""Of how a source grew, kept to tell the age of its oldest byte that is not in S3."""

Growth = list[tuple[float, int]]
"""(when, size) as a source grew beyond what S3 has: the first of the bytes from the size before up to this
one were seen at `when`. A list: an empty deque takes 600 bytes."""


class Unsafe(NamedTuple):
    """What is not in S3 yet, as far as this process knows, without a word from Redis or S3.

    `sources` counts the unfinished ones; `behind` those of which more waits than a chunk that has just
    become full, or that ended long ago; `away` those whose volume is not mounted, like `away_path`.
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
