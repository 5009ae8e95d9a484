"""A recording's bytes as they arrive in S3, until its manifest is committed."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import NamedTuple

from archive.chunks import ChunkReader
from archive.generation import Recording, chunk_at, open_committed
from archive.listing import Archive
from archive.retrying_bucket import Stopped
from errors import PermanentError
from recording.stream import Chunk

POLLS_BETWEEN_CHECKS = 10
"""Looks for the next chunk between two looks whether the recording was deleted."""

POLL_SECONDS = 1.0
"""Between two looks for the next chunk: one LIST and one GET of a manifest that is not there yet."""

Write = Callable[[memoryview], None]
Wait = Callable[[float], None]


class Followed(NamedTuple):
    """A recording that was followed to its end.

    `changed` counts the chunks that were written out and then patched by the recorder: what was
    written plays, if it is fragmented, but it is not the finished file byte for byte.
    """

    recording: Recording
    written_bytes: int
    changed: int


def follow(archive: Archive, recording: Recording, *, write: Write, wait: Wait) -> Followed:
    """Write a recording out from its beginning and stay with it until it is complete.

    Parameters:
        archive: where it lies.
        recording: as it was opened; one that is complete already is just written out.
        write: takes the bytes, in order.
        wait: lets so many seconds pass.

    Raises:
        PermanentError: `corrupt` when a chunk has other bytes than its name or the manifest says,
            `missing` when the recording was deleted meanwhile.
        ManifestError: the manifest that was committed cannot be trusted.
        StoreUnavailable: S3 refuses us, or does not answer for as long as the archive waits.
        Stopped: somebody asked us to stop.
    """
    output = _Output(archive, write)
    output.put(recording.chunks)
    polls = 0
    while len(output.written) < len(recording.chunks) or recording.status == "growing":
        if recording.status != "growing":
            missing = recording.chunks[len(output.written)]
            raise PermanentError(f"{missing.key} is not in the bucket", kind="corrupt")
        upcoming = chunk_at(archive.store, archive.layout, recording.id, len(output.written))
        if upcoming and output.put([upcoming]):
            continue
        committed = open_committed(archive.store, archive.layout, recording.id)
        if committed:
            recording = committed
            output.put(recording.chunks[len(output.written) :])
        else:
            polls += 1
            if polls % POLLS_BETWEEN_CHECKS == 0 and not _first_chunk(archive, recording):
                raise PermanentError(
                    f"{recording.name} was deleted from the bucket while it was followed:"
                    f" {output.written_bytes} bytes were written",
                    kind="missing",
                )
            wait(POLL_SECONDS)
            # The signal's own exception is lost when it comes in the middle of a destructor.
            if archive.store.stop.is_set():
                raise Stopped
    return Followed(recording, output.written_bytes, output.changed(recording))


def _first_chunk(archive: Archive, recording: Recording) -> Chunk | None:
    return chunk_at(archive.store, archive.layout, recording.id, 0)


class _Output:
    """What was written out so far."""

    def __init__(self, archive: Archive, write: Write) -> None:
        self._store = archive.store
        self._write = write
        self.written: list[Chunk] = []
        self.written_bytes = 0
        self._of_chunk = 0  # bytes of the chunk that is being written

    def put(self, chunks: Sequence[Chunk]) -> bool:
        """Write out the next chunks, each block of them when it was checked.

        Returns:
            False when a chunk was not there: it was repaired since it was listed, and has another key.
        """
        with closing(ChunkReader(self._store, chunks).blocks()) as blocks:
            for block in blocks:
                if block.damage == "missing" and not self._of_chunk:
                    return False
                if block.damage:
                    raise PermanentError(f"{block.chunk.key} is damaged: {block.damage}", kind="corrupt")
                self._write(block.body)
                self.written_bytes += len(block.body)
                self._of_chunk += len(block.body)
                if self._of_chunk == block.chunk.size:
                    self.written.append(block.chunk)
                    self._of_chunk = 0
        return True

    def changed(self, recording: Recording) -> int:
        """Count the chunks that the finished recording has otherwise, or not at all."""
        final = {chunk.key for chunk in recording.chunks}
        return sum(chunk.key not in final for chunk in self.written)
