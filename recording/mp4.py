"""The facts of an MP4 recording, from its boxes and without reading its media.

Box and field names are those of ISO/IEC 14496-12.
"""

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from recording.mp4_boxes import (
    HEADER_BYTES,
    MAX_HELD_BYTES,
    Box,
    BoxReader,
    DamagedBoxError,
    MediaError,
    ReadAt,
    UnplayableError,
)

MAX_TRACKS = 100
"""Tracks of one file; cameras write at most about ten."""

_TRACK_PATH = (b"mdia", b"minf", b"stbl")
_FIRST_BOXES = b"ftyp styp moov moof mdat free skip wide uuid pnot pdin sidx".split()
_UNKNOWN = (0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF)


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
    time_table: Box | None = None
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
        UnplayableError: no player can open it, because there is no readable `moov`.
        MediaError: it is no MP4 file, or it exceeds one of the bounds above.
        OSError: from `read_at`.
    """
    reader = BoxReader(read_at, size)
    movie = _Movie()
    _walk(reader, movie)
    if not movie.found:
        raise _no_moov(reader)
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


def _walk(reader: BoxReader, movie: _Movie) -> None:
    """Goes over the top-level boxes until the end of the file or the first damaged one."""
    offset = 0
    while offset < reader.size:
        try:
            box = reader.box(offset, reader.size)
            _visit(reader, movie, box)
        except DamagedBoxError:
            movie.torn = True
            return
        offset = box.end


def _visit(reader: BoxReader, movie: _Movie, box: Box) -> None:
    if box.kind == b"moov" and box.end > reader.size and not movie.found:
        raise UnplayableError(f"the moov box is cut off: {box.end - reader.size} bytes are missing")
    if box.end > reader.size or not _is_printable(box.kind):
        raise DamagedBoxError("no box, or one that is cut off")
    if box.kind == b"moov" and not movie.found:
        try:
            _read_movie(reader, movie, box)
        except DamagedBoxError as error:
            raise UnplayableError(f"the moov box is damaged: {error}") from error
    elif box.kind == b"moof":
        movie.fragmented = True
        movie.data_owed = True
        if not movie.extended_ticks:
            _add_fragment(reader, movie, box)
    elif box.kind == b"mdat":
        reader.media_bytes += box.end - box.body
        # An open end is legal for the last mdat, but in fragments it is what a killed recorder leaves.
        movie.data_owed = box.open_ended and movie.fragmented


def _read_movie(reader: BoxReader, movie: _Movie, moov: Box) -> None:
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


def _read_extends(reader: BoxReader, movie: _Movie, mvex: Box) -> None:
    for box in reader.children(mvex):
        if box.kind == b"mehd":
            (movie.extended_ticks,) = reader.fields(box, "Q" if reader.has_long_times(box) else "I", 4)
        elif box.kind == b"trex":
            track_id, _, ticks = reader.fields(box, "III", 4)
            movie.default_ticks[track_id] = ticks


def _read_track(reader: BoxReader, trak: Box) -> _Track:
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


def _read_clock(reader: BoxReader, box: Box) -> _Clock:
    """Reads `mvhd` or `mdhd`, which begin alike."""
    long = reader.has_long_times(box)
    timescale, ticks = reader.fields(box, "IQ" if long else "II", 20 if long else 12)
    return _Clock(timescale, 0 if ticks == _UNKNOWN[long] else ticks)


def _read_sample_entry(reader: BoxReader, track: _Track, stsd: Box) -> None:
    """Reads the first entry; there may be none, and one for sound may end before a picture's size would."""
    length = stsd.end - stsd.body
    if length >= 8 + 8:
        (kind,) = reader.fields(stsd, "4s", 12)
        track.codec = kind.decode("ascii").strip() or None if _is_printable(kind) else None
    if length >= 8 + 36:
        track.entry_size = reader.fields(stsd, "HH", 40)


def _is_printable(kind: bytes) -> bool:
    return kind.isascii() and kind.decode("ascii").isprintable()


def _add_fragment(reader: BoxReader, movie: _Movie, moof: Box) -> None:
    if moof.end - moof.body > MAX_HELD_BYTES:
        raise MediaError(f"the moof box at byte {moof.body} is longer than {MAX_HELD_BYTES} bytes")
    reader.hold(moof)
    for traf in reader.children(moof):
        if traf.kind == b"traf":
            _add_track_fragment(reader, movie, traf)


def _add_track_fragment(reader: BoxReader, movie: _Movie, traf: Box) -> None:
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


def _read_run(reader: BoxReader, trun: Box) -> tuple[int, int]:
    """The number of samples that last the default, and the ticks of those that say how long they last."""
    flags, samples = reader.fields(trun, "II")
    start = trun.body + 8 + (4 if flags & 0x1 else 0) + (4 if flags & 0x4 else 0)
    entry_bytes = 4 * (flags & 0xF00).bit_count()
    if start + samples * entry_bytes > trun.end:
        raise DamagedBoxError("the trun box is too short for its samples")
    if not flags & 0x100:
        return samples, 0
    entries = reader.read(start, samples * entry_bytes)
    return 0, sum(ticks for (ticks,) in struct.iter_unpack(f">I{entry_bytes - 4}x", entries))


def _duration_seconds(reader: BoxReader, movie: _Movie) -> float | None:
    """The first source that tells; a recorder that does not know writes 0."""
    tracks = movie.tracks.values()
    said = movie.clock.seconds(movie.clock.ticks)
    longest = max((each.clock.seconds(each.clock.ticks) for each in tracks), default=0.0)
    if movie.fragmented:
        extended = movie.clock.seconds(movie.extended_ticks)
        ticks = [(each.clock, _table_ticks(reader, each) + each.fragment_ticks) for each in tracks]
        said = extended or max((clock.seconds(sampled) for clock, sampled in ticks), default=0.0) or said
    return said or longest or None


def _table_ticks(reader: BoxReader, track: _Track) -> int:
    """The ticks in `stts`, where ffmpeg without `empty_moov` keeps the samples before the first `moof`."""
    if track.time_table is None:
        return 0
    (entries,) = reader.fields(track.time_table, "I", 4)
    if entries * 8 > min(track.time_table.end - track.time_table.body - 8, MAX_HELD_BYTES):
        raise MediaError("the moov box is damaged: stts is too short for its entries")
    table = reader.read(track.time_table.body + 8, entries * 8)
    return sum(count * ticks for count, ticks in struct.iter_unpack(">II", table))


def _no_moov(reader: BoxReader) -> MediaError:
    if reader.size == 0:
        return UnplayableError("the file is empty")
    if reader.size < HEADER_BYTES or reader.read(4, 4) not in _FIRST_BOXES:
        return MediaError("not an MP4 file: it does not begin with an MP4 box")
    return UnplayableError("no moov box: the recorder did not close the file")
