"""A bounded MP4 (ISO base media file format) box reader: the facts of a recording, without reading its media.

Box and field names are those of ISO/IEC 14496-12.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import errors

ReadAt = Callable[[int, int], bytes]

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

MAX_TRACKS = 100
"""Tracks of one file; cameras write at most about ten."""

_TRACK_PATH = (b"mdia", b"minf", b"stbl")
_FIRST_BOXES = b"ftyp styp moov moof mdat free skip wide uuid pnot pdin sidx".split()
_HEADER_BYTES = 8
_UNKNOWN = (0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF)


class MediaError(errors.UploaderError):
    """The file gives no media facts; the message says why, in one line."""


class _DamagedBoxError(MediaError):
    """A box contradicts itself, its parent or the file. In a fragment it ends the walk, not the facts."""


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """What a recording says about itself.

    Parameters:
        duration_seconds: of the presentation; None when the file does not tell.
        video_codec: sample entry of the first video track, such as `avc1` or `hvc1`; None without one.
        audio_codec: the same for sound, such as `mp4a`.
        width: pixels of the first video track; None without one.
        height: the same.
        fragmented: the file has an `mvex` or a `moof` box.
        complete: the recorder closed the file and nothing was cut off, as far as the boxes tell: a fragmented
            file that was cut exactly between two fragments looks complete.
    """

    duration_seconds: float | None
    video_codec: str | None
    audio_codec: str | None
    width: int | None
    height: int | None
    fragmented: bool
    complete: bool


class _Box(NamedTuple):
    """A box whose content is the bytes of the file from `body` to `end`."""

    kind: bytes
    body: int
    end: int
    open_ended: bool


class _Clock(NamedTuple):
    """Ticks a second, and a duration in ticks; 0 when unknown."""

    timescale: int = 0
    ticks: int = 0

    def seconds(self, ticks: int) -> float:
        return ticks / self.timescale if self.timescale else 0.0


_NO_CLOCK = _Clock()


@dataclass(slots=True)
class _Track:
    track_id: int = 0
    handler: bytes = b""
    codec: str | None = None
    entry_size: tuple[int, int] = (0, 0)
    header_size: tuple[int, int] = (0, 0)
    clock: _Clock = _NO_CLOCK
    time_table: _Box | None = None
    fragment_ticks: int = 0


@dataclass(slots=True)
class _Movie:
    """What the walk over a file found so far; `data_owed` while an `mdat` is still to come."""

    found: bool = False
    clock: _Clock = _NO_CLOCK
    extended_ticks: int = 0
    tracks: dict[int, _Track] = field(default_factory=dict)
    default_ticks: dict[int, int] = field(default_factory=dict)
    fragmented: bool = False
    data_owed: bool = True
    torn: bool = False

    def first_track(self, handler: bytes) -> _Track:
        return next((track for track in self.tracks.values() if track.handler == handler), _Track())


def read_media_facts(read_at: ReadAt, size: int) -> MediaFacts:
    """Reads the facts of an MP4 file from its boxes.

    Media and sample tables are skipped: a `moov` may have any size. Time, memory and bytes read are bounded.

    Parameters:
        read_at: returns `length` bytes from `offset`, fewer only at the end of the file, like `os.pread`.
        size: bytes of the file.

    Raises:
        MediaError: there is no readable `moov`, or the file exceeds one of the bounds above.
        OSError: from `read_at`.
    """
    reader = _Reader(read_at, size)
    movie = _Movie()
    _walk(reader, movie)
    if not movie.found:
        raise MediaError(_why_no_moov(reader))
    video = movie.first_track(b"vide")
    return MediaFacts(
        duration_seconds=_duration_seconds(reader, movie),
        video_codec=video.codec,
        audio_codec=movie.first_track(b"soun").codec,
        width=video.entry_size[0] or video.header_size[0] or None,
        height=video.entry_size[1] or video.header_size[1] or None,
        fragmented=movie.fragmented,
        complete=not movie.torn and not movie.data_owed,
    )


class _Reader:
    """Checked reads and box headers, all counted against the bounds."""

    def __init__(self, read_at: ReadAt, size: int) -> None:
        self.size = size
        self.media_bytes = self._boxes = 0
        self._bytes_left = MAX_READ_BYTES
        self._read_at = read_at
        self._held = b""
        self._held_from = 0

    def hold(self, box: _Box) -> None:
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

    def box(self, offset: int, limit: int) -> _Box:
        """The box at `offset`, inside a parent that ends at `limit`; its own end may lie behind that."""
        self._boxes += 1
        if self._boxes > min(MAX_BOXES + self.media_bytes // MEDIA_BYTES_PER_BOX, MAX_FRAGMENTED_BOXES):
            raise MediaError("the file has more boxes than any recorder writes")
        body = offset + _HEADER_BYTES
        if body > limit:
            raise _DamagedBoxError(f"the header of the box at byte {offset} is cut off")
        size, kind = struct.unpack(">I4s", self.read(offset, _HEADER_BYTES))
        if size == 0:
            return _Box(kind, body, limit, open_ended=True)
        if size == 1 and body + 8 <= limit:
            (size,) = struct.unpack(">Q", self.read(body, 8))
            body += 8
        if offset + size < body:
            raise _DamagedBoxError(f"the box at byte {offset} claims {size} bytes")
        return _Box(kind, body, offset + size, open_ended=False)

    def children(self, parent: _Box) -> Iterator[_Box]:
        """The boxes in a container; QuickTime may pad it with fewer bytes than a header."""
        offset = parent.body
        while parent.end - offset >= _HEADER_BYTES:
            child = self.box(offset, parent.end)
            if child.end > parent.end:
                raise _DamagedBoxError(f"the box at byte {offset} is longer than its parent")
            yield child
            offset = child.end

    def leaves(self, parent: _Box, path: tuple[bytes, ...]) -> Iterator[_Box]:
        """The boxes in a container and, in place of the one that `path` names next, those in that one."""
        for child in self.children(parent):
            if path and child.kind == path[0]:
                yield from self.leaves(child, path[1:])
            else:
                yield child

    def fields(self, box: _Box, layout: str, skip: int = 0) -> tuple[Any, ...]:
        """Unpacks big-endian fields that begin `skip` bytes into the content."""
        start = box.body + skip
        length = struct.calcsize(">" + layout)
        if start + length > box.end:
            raise _DamagedBoxError(f"the box with content at byte {box.body} is too short")
        return struct.unpack(">" + layout, self.read(start, length))

    def has_long_times(self, box: _Box) -> bool:
        """Whether a full box has version 1, with 64-bit times."""
        return bool(self.fields(box, "B")[0] == 1)


def _walk(reader: _Reader, movie: _Movie) -> None:
    """Goes over the top-level boxes until the end of the file or the first damaged one."""
    offset = 0
    while offset < reader.size:
        try:
            box = reader.box(offset, reader.size)
            _visit(reader, movie, box)
        except _DamagedBoxError:
            movie.torn = True
            return
        offset = box.end


def _visit(reader: _Reader, movie: _Movie, box: _Box) -> None:
    if box.kind == b"moov" and box.end > reader.size and not movie.found:
        raise MediaError(f"the moov box is cut off: {box.end - reader.size} bytes are missing")
    if box.end > reader.size or not _is_printable(box.kind):
        raise _DamagedBoxError("no box, or one that is cut off")
    if box.kind == b"moov" and not movie.found:
        try:
            _read_movie(reader, movie, box)
        except _DamagedBoxError as error:
            raise MediaError(f"the moov box is damaged: {error}") from error
    elif box.kind == b"moof":
        movie.fragmented = True
        movie.data_owed = True
        if not movie.extended_ticks:
            _add_fragment(reader, movie, box)
    elif box.kind == b"mdat":
        reader.media_bytes += box.end - box.body
        # An open end is legal for the last mdat, but in fragments it is what a killed recorder leaves.
        movie.data_owed = box.open_ended and movie.fragmented


def _read_movie(reader: _Reader, movie: _Movie, moov: _Box) -> None:
    for box in reader.children(moov):
        match box.kind:
            case b"mvhd":
                movie.clock = _read_clock(reader, box)
            case b"mvex" if not movie.fragmented:
                _read_extends(reader, movie, box)
                movie.fragmented = True
            case b"trak":
                track = _read_track(reader, box)
                movie.tracks.setdefault(track.track_id, track)
        if max(len(movie.tracks), len(movie.default_ticks)) > MAX_TRACKS:
            raise MediaError(f"the file has more than {MAX_TRACKS} tracks")
    movie.found = True


def _read_extends(reader: _Reader, movie: _Movie, mvex: _Box) -> None:
    for box in reader.children(mvex):
        if box.kind == b"mehd":
            (movie.extended_ticks,) = reader.fields(box, "Q" if reader.has_long_times(box) else "I", 4)
        elif box.kind == b"trex":
            track_id, _, ticks = reader.fields(box, "III", 4)
            movie.default_ticks[track_id] = ticks


def _read_track(reader: _Reader, trak: _Box) -> _Track:
    track = _Track()
    for box in reader.leaves(trak, _TRACK_PATH):
        match box.kind:
            case b"tkhd":
                long = reader.has_long_times(box)
                (track.track_id,) = reader.fields(box, "I", 20 if long else 12)
                width, height = reader.fields(box, "II", 88 if long else 76)
                track.header_size = (width >> 16, height >> 16)
            case b"mdhd":
                track.clock = _read_clock(reader, box)
            case b"hdlr":
                # QuickTime writes a second one, for the data, into minf.
                track.handler = track.handler or reader.fields(box, "4s", 8)[0]
            case b"stsd":
                _read_sample_entry(reader, track, box)
            case b"stts":
                track.time_table = box
    return track


def _read_clock(reader: _Reader, box: _Box) -> _Clock:
    """Reads `mvhd` or `mdhd`, which begin alike."""
    long = reader.has_long_times(box)
    timescale, ticks = reader.fields(box, "IQ" if long else "II", 20 if long else 12)
    return _Clock(timescale, 0 if ticks == _UNKNOWN[long] else ticks)


def _read_sample_entry(reader: _Reader, track: _Track, stsd: _Box) -> None:
    """Reads the first entry; there may be none, and one for sound may end before a picture's size would."""
    length = stsd.end - stsd.body
    if length >= 8 + 8:
        (kind,) = reader.fields(stsd, "4s", 12)
        track.codec = kind.decode("ascii").strip() or None if _is_printable(kind) else None
    if length >= 8 + 36:
        track.entry_size = reader.fields(stsd, "HH", 40)


def _is_printable(kind: bytes) -> bool:
    return kind.isascii() and kind.decode("ascii").isprintable()


def _add_fragment(reader: _Reader, movie: _Movie, moof: _Box) -> None:
    if moof.end - moof.body > MAX_HELD_BYTES:
        raise MediaError(f"the moof box at byte {moof.body} is longer than {MAX_HELD_BYTES} bytes")
    reader.hold(moof)
    for traf in reader.children(moof):
        if traf.kind == b"traf":
            _add_track_fragment(reader, movie, traf)


def _add_track_fragment(reader: _Reader, movie: _Movie, traf: _Box) -> None:
    track_id = default_ticks = samples = ticks = 0
    for box in reader.children(traf):
        if box.kind == b"tfhd":
            flags, track_id = reader.fields(box, "II")
            default_ticks = movie.default_ticks.get(track_id, 0)
            if flags & 0x8:
                skip = 8 + (8 if flags & 0x1 else 0) + (4 if flags & 0x2 else 0)
                (default_ticks,) = reader.fields(box, "I", skip)
        elif box.kind == b"trun":
            run_samples, run_ticks = _read_run(reader, box)
            samples += run_samples
            ticks += run_ticks
    if track_id in movie.tracks:
        movie.tracks[track_id].fragment_ticks += ticks + samples * default_ticks


def _read_run(reader: _Reader, trun: _Box) -> tuple[int, int]:
    """The number of samples that last the default, and the ticks of those that say how long they last."""
    flags, samples = reader.fields(trun, "II")
    start = trun.body + 8 + (4 if flags & 0x1 else 0) + (4 if flags & 0x4 else 0)
    entry_bytes = 4 * (flags & 0xF00).bit_count()
    if start + samples * entry_bytes > trun.end:
        raise _DamagedBoxError("the trun box is too short for its samples")
    if not flags & 0x100:
        return samples, 0
    entries = reader.read(start, samples * entry_bytes)
    return 0, sum(ticks for (ticks,) in struct.iter_unpack(f">I{entry_bytes - 4}x", entries))


def _duration_seconds(reader: _Reader, movie: _Movie) -> float | None:
    """The first source that tells; a recorder that does not know writes 0."""
    tracks = movie.tracks.values()
    said = movie.clock.seconds(movie.clock.ticks)
    longest = max((each.clock.seconds(each.clock.ticks) for each in tracks), default=0.0)
    if movie.fragmented:
        extended = movie.clock.seconds(movie.extended_ticks)
        ticks = [(each.clock, _table_ticks(reader, each) + each.fragment_ticks) for each in tracks]
        said = extended or max((clock.seconds(sampled) for clock, sampled in ticks), default=0.0) or said
    return said or longest or None


def _table_ticks(reader: _Reader, track: _Track) -> int:
    """The ticks in `stts`, where ffmpeg without `empty_moov` keeps the samples before the first `moof`."""
    if track.time_table is None:
        return 0
    (entries,) = reader.fields(track.time_table, "I", 4)
    if entries * 8 > min(track.time_table.end - track.time_table.body - 8, MAX_HELD_BYTES):
        raise MediaError("the moov box is damaged: stts is too short for its entries")
    table = reader.read(track.time_table.body + 8, entries * 8)
    return sum(count * ticks for count, ticks in struct.iter_unpack(">II", table))


def _why_no_moov(reader: _Reader) -> str:
    if reader.size == 0:
        return "the file is empty"
    if reader.size < _HEADER_BYTES or reader.read(4, 4) not in _FIRST_BOXES:
        return "not an MP4 file: it does not begin with an MP4 box"
    return "no moov box: the recorder did not close the file"
