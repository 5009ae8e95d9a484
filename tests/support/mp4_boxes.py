"""Builds MP4 boxes by hand, finds those of real files independently of `mp4.py`, and calls it on both."""

import struct

from hypothesis import settings

from recording.mp4 import MediaFacts, read_media_facts
from recording.mp4_boxes import MediaError

FUZZ = settings(max_examples=300, deadline=None, database=None)

UNKNOWN = 0xFFFF_FFFF
UNKNOWN_LONG = 0xFFFF_FFFF_FFFF_FFFF


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def large_box(kind: bytes, *content: bytes) -> bytes:
    """A box whose size is a 64-bit field, as writers of big files use it."""
    body = b"".join(content)
    return struct.pack(">I4sQ", 1, kind, 16 + len(body)) + body


def open_box(kind: bytes, *content: bytes) -> bytes:
    """A box of size 0: it reaches to the end of the file."""
    return struct.pack(">I4s", 0, kind) + b"".join(content)


def full_box(kind: bytes, version: int, flags: int, *content: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *content)


def _clock(kind: bytes, timescale: int, ticks: int, version: int, rest: bytes) -> bytes:
    layout = ">QQIQ" if version else ">IIII"
    return full_box(kind, version, 0, struct.pack(layout, 0, 0, timescale, ticks), rest)


def mvhd(timescale: int, ticks: int, version: int = 0) -> bytes:
    return _clock(b"mvhd", timescale, ticks, version, bytes(80))


def mdhd(timescale: int, ticks: int, version: int = 0) -> bytes:
    return _clock(b"mdhd", timescale, ticks, version, bytes(4))


def tkhd(track_id: int, width: int = 0, height: int = 0, version: int = 0) -> bytes:
    times = struct.pack(">QQIIQ" if version else ">IIIII", 0, 0, track_id, 0, 0)
    return full_box(b"tkhd", version, 3, times, bytes(52), struct.pack(">II", width << 16, height << 16))


def hdlr(handler: bytes) -> bytes:
    return full_box(b"hdlr", 0, 0, bytes(4), handler, bytes(13))


def stsd(*entries: bytes) -> bytes:
    return full_box(b"stsd", 0, 0, struct.pack(">I", len(entries)), *entries)


def visual_entry(codec: bytes, width: int, height: int) -> bytes:
    return box(codec, bytes(24), struct.pack(">HH", width, height), bytes(50))


def stts(*runs: tuple[int, int]) -> bytes:
    entries = b"".join(struct.pack(">II", count, ticks) for count, ticks in runs)
    return full_box(b"stts", 0, 0, struct.pack(">I", len(runs)), entries)


def trak(header: bytes, media_header: bytes, handler: bytes, *tables: bytes) -> bytes:
    stbl = box(b"stbl", *tables)
    return box(b"trak", header, box(b"mdia", media_header, hdlr(handler), box(b"minf", stbl)))


def video_trak(track_id: int = 1, timescale: int = 1000, ticks: int = 0, *tables: bytes) -> bytes:
    tables = (stsd(visual_entry(b"avc1", 64, 48)), *tables)
    return trak(tkhd(track_id, 64, 48), mdhd(timescale, ticks), b"vide", *tables)


def trex(track_id: int, default_ticks: int) -> bytes:
    return full_box(b"trex", 0, 0, struct.pack(">IIIII", track_id, 1, default_ticks, 0, 0))


def mehd(ticks: int, version: int = 0) -> bytes:
    return full_box(b"mehd", version, 0, struct.pack(">Q" if version else ">I", ticks))


def tfhd(track_id: int, flags: int = 0, fields: bytes = b"") -> bytes:
    return full_box(b"tfhd", 0, flags, struct.pack(">I", track_id), fields)


def trun(samples: int, flags: int = 0, fields: bytes = b"") -> bytes:
    return full_box(b"trun", 0, flags, struct.pack(">I", samples), fields)


def moof(*trafs: bytes) -> bytes:
    return box(b"moof", full_box(b"mfhd", 0, 0, bytes(4)), *trafs)


def traf(*content: bytes) -> bytes:
    return box(b"traf", *content)


def mdat(length: int = 16) -> bytes:
    return box(b"mdat", b"\xee" * length)


def top_level(content: bytes) -> list[tuple[bytes, int, int]]:
    """The kind, start and end of each top-level box of a whole file."""
    boxes = []
    start = 0
    while start < len(content):
        size, kind = struct.unpack_from(">I4s", content, start)
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, start + 8)
        boxes.append((kind, start, start + size if size else len(content)))
        start = boxes[-1][2]
    return boxes


class CountingFile:
    """A file in memory that notes what is read of it.

    Parameters:
        content: its bytes.
        size: the size it claims; the length of the content unless told.
    """

    def __init__(self, content: bytes, size: int | None = None) -> None:
        self.content = content
        self.size = len(content) if size is None else size
        self.ranges: list[tuple[int, int]] = []

    def read_at(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert length >= 0
        assert offset + length <= self.size
        self.ranges.append((offset, offset + length))
        return self.content[offset : offset + length]

    @property
    def bytes_read(self) -> int:
        return sum(end - start for start, end in self.ranges)


def facts_of(content: bytes) -> MediaFacts:
    return read_media_facts(CountingFile(content).read_at, len(content))


def facts_or_reason(content: bytes) -> MediaFacts | str:
    """Checks what must hold for any bytes: facts or a MediaError, and few reads."""
    file = CountingFile(content)
    result: MediaFacts | str
    try:
        result = read_media_facts(file.read_at, file.size)
        assert result.duration_seconds is None or result.duration_seconds > 0
    except MediaError as refused:
        result = str(refused)
    assert result
    assert file.bytes_read <= 2 * file.size + 64
    return result
