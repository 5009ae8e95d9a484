"""How far the end of a recording has come: what one finalization knows between its turns."""

import hashlib
import time
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from checkpoint import Lease
from recording.manifest import Manifest
from recording.stream import Chunk, Signature, Stream
from upload.comparison import Difference

if TYPE_CHECKING:
    from hashlib import _Hash


class Progress(Enum):
    """What one turn of a finalization came to."""

    MORE = auto()  # there is more to read, or to send again
    COMPLETE = auto()  # the manifest is committed and the lease released
    CHANGED = auto()  # somebody wrote to the source: the stream is active again
    ANOTHER = auto()  # the source holds another recording: the stream is as its manifest commits it


@dataclass(slots=True)
class Finalization:
    """How far the final re-read of a stream has come. Owned by the worker whose turn it is.

    `signature` is the source's at the beginning, `repaired` the count for the manifest. `known` are
    the recorded chunks by index. `doubt`: S3 may have the next chunk already, because a turn failed or
    another process worked here. `earlier` is the manifest of the last revision, `difference` how far the
    source is from it. `stored` are the keys that S3 listed for the commit that comes next, `missing` the
    indexes that it did not list, `sent_again` whether one was sent since, `lost` how often each was.
    `closed` says that the recorder has closed the file since: it may have moved every byte.
    """

    lease: Lease
    signature: Signature
    known: dict[int, Chunk]
    repaired: int
    doubt: bool
    earlier: Manifest | None = None
    difference: Difference | None = None
    closed: bool = False
    began_at: float = field(default_factory=time.monotonic)
    whole: "_Hash" = field(default_factory=hashlib.sha256)
    chunks: list[Chunk] = field(default_factory=list)
    stored: set[str] | None = None
    missing: list[int] = field(default_factory=list)
    sent_again: bool = False
    lost: dict[int, int] = field(default_factory=dict)

    def reread_bytes(self, stream: Stream) -> int:
        """Return how many bytes were read again, counted in whole chunks."""
        return len(self.chunks) * stream.chunk_size
