"""What one turn for one path found: the uploader says it, the processor decides what comes after."""

from enum import Enum, auto
from typing import NamedTuple

from recording.stream import Signature, Stream


class Outcome(Enum):
    """What a turn found; `VideoProcessor` decides from it when the next turn is due."""

    MORE = auto()  # there is more to do at once
    WAITING = auto()  # all full chunks are stored: wait until it grows or falls idle
    MISSING = auto()  # the source is not there
    SETTLED = auto()  # finished, or failed for good: nothing to do until it changes


class Turn(NamedTuple):
    """The result of one turn.

    `stream` and `signature` are None when nothing is known of them; `finalizing` while the stream is
    being read again.
    """

    outcome: Outcome
    stream: Stream | None = None
    signature: Signature | None = None
    finalizing: bool = False
