"""The boxes of an MP4 file (ISO base media file format): read with distrust, a few bytes at a time."""

import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import errors

ReadAt = Callable[[int, int], bytes]
"""Returns so many bytes (second) from an offset (first) of a file, fewer at its end."""

MAX_BOXES = 50_000
"""Boxes of a file that has no media yet: recorders write under 100."""

MEDIA_BYTES_PER_BOX = 100
"""Media that pays for one more box: empty ones would cost 20 s of CPU. The shortest parts in common use
(low-latency HLS, 0.2 s) have 11 boxes for two tracks, and 1,250 bytes at 50 kbit/s."""

MAX_FRAGMENTED_BOXES = 5_000_000
"""Boxes of any file: 24 h of such parts are 432,000 fragments."""

MAX_READ_BYTES = 256 * 1024 * 1024
"""Bytes read of one file: 24 h of 60 frames/s and AAC are 150 MB of `trun`, and the fragments 100 MB."""

MAX_HELD_BYTES = 16 * 1024 * 1024
"""Bytes held in memory at once, one `moof`: two hours of those samples in a single fragment are 13 MB."""

HEADER_BYTES = 8


class MediaError(errors.UploaderError):
    """The file gives no media facts; the message says why, in one line."""


class UnplayableError(MediaError):
    """The file is an MP4 file that no player can open, because its head is missing or damaged."""


class DamagedBoxError(MediaError):
    """A box contradicts itself, its parent or the file. In a fragment it ends the walk, not the facts."""


class Box(NamedTuple):
    """A box whose content is the bytes of the file from `body` to `end`."""

    kind: bytes
    body: int
    end: int
    open_ended: bool


class BoxReader:
    """Checked reads and box headers of one file, all counted against the bounds.

    Every method raises `MediaError` when a bound is reached or the file became shorter.

    Parameters:
        read_at: of the file.
        size: of the file, in bytes.
    """

    def __init__(self, read_at: ReadAt, size: int) -> None:
        self.size = size
        self.media_bytes = self._boxes = 0
        self._bytes_left = MAX_READ_BYTES
        self._read_at = read_at
        self._held = b""
        self._held_from = 0

    def hold(self, box: Box) -> None:
        """Keeps the content of a box in memory, instead of what was held before."""
        self._held = b""
        self._held = self.read(box.body, box.end - box.body)
        self._held_from = box.body

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes."""
        start = offset - self._held_from
        if start >= 0 and start + length <= len(self._held):
            return self._held[start : start + length]
        self._bytes_left -= length
        if self._bytes_left < 0:
            raise MediaError(f"the boxes of the file are longer than {MAX_READ_BYTES} bytes")
        content = self._read_at(offset, length)
        if len(content) != length:
            raise MediaError("the file became shorter while it was read")
        return content

    def box(self, offset: int, limit: int) -> Box:
        """The box at `offset`, inside a parent that ends at `limit`; its own end may lie behind that."""
        self._boxes += 1
        if self._boxes > min(MAX_BOXES + self.media_bytes // MEDIA_BYTES_PER_BOX, MAX_FRAGMENTED_BOXES):
            raise MediaError("the file has more boxes than any recorder writes")
        body = offset + HEADER_BYTES
        if body > limit:
            raise DamagedBoxError(f"the header of the box at byte {offset} is cut off")
        size, kind = struct.unpack(">I4s", self.read(offset, HEADER_BYTES))
        if size == 0:
            return Box(kind, body, limit, open_ended=True)
        if size == 1 and body + 8 <= limit:
            (size,) = struct.unpack(">Q", self.read(body, 8))
            body += 8
        if offset + size < body:
            raise DamagedBoxError(f"the box at byte {offset} claims {size} bytes")
        return Box(kind, body, offset + size, open_ended=False)

    def children(self, parent: Box) -> Iterator[Box]:
        """The boxes in a container; QuickTime may pad it with fewer bytes than a header."""
        offset = parent.body
        while parent.end - offset >= HEADER_BYTES:
            child = self.box(offset, parent.end)
            if child.end > parent.end:
                raise DamagedBoxError(f"the box at byte {offset} is longer than its parent")
            yield child
            offset = child.end

    def leaves(self, parent: Box, path: tuple[bytes, ...]) -> Iterator[Box]:
        """The boxes in a container and, in place of the one that `path` names next, those in that one."""
        for child in self.children(parent):
            if path and child.kind == path[0]:
                yield from self.leaves(child, path[1:])
            else:
                yield child

    def fields(self, box: Box, layout: str, skip: int = 0) -> tuple[Any, ...]:
        """Unpacks big-endian fields that begin `skip` bytes into the content."""
        start = box.body + skip
        length = struct.calcsize(">" + layout)
        if start + length > box.end:
            raise DamagedBoxError(f"the box with content at byte {box.body} is too short")
        return struct.unpack(">" + layout, self.read(start, length))

    def has_long_times(self, box: Box) -> bool:
        """Whether a full box has version 1, with 64-bit times."""
        return bool(self.fields(box, "B")[0] == 1)
