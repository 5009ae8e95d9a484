"""The facts of hand-made boxes: every version and place that the standard allows, and hostile ones."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import errors
from recording import mp4_boxes
from recording.mp4 import read_media_facts
from recording.mp4_boxes import MediaError
from tests.support.mp4_boxes import (
    FUZZ,
    UNKNOWN,
    UNKNOWN_LONG,
    CountingFile,
    box,
    facts_of,
    facts_or_reason,
    full_box,
    hdlr,
    large_box,
    mdat,
    mdhd,
    mehd,
    moof,
    mvhd,
    open_box,
    stsd,
    stts,
    tfhd,
    tkhd,
    traf,
    trak,
    trex,
    trun,
    video_trak,
    visual_entry,
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"abc", "not an MP4 file"),
        (b"just some text in a file", "not an MP4 file"),
        (bytes(4096), "not an MP4 file"),
        (b"\x1aE\xdf\xa3" * 64, "not an MP4 file"),
        (box(b"ftyp", b"isom"), "no moov box"),
        (box(b"ftyp", b"isom") + open_box(b"mdat", bytes(64)), "no moov box"),
        (moof() + mdat(), "no moov box"),
        (box(b"moov", b"\x00\x00\x00\x04mvhd"), "the moov box is damaged: the box at byte 8 claims 4 bytes"),
        (box(b"moov", b"\x00\x00\x01\x00mvhd"), "the moov box is damaged: .* longer than its parent"),
        (box(b"moov", b"\x00\x00\x00\x01mvhd"), "the moov box is damaged"),
        (box(b"moov", box(b"mvhd", bytes(8))), "the moov box is damaged: .* too short"),
        (box(b"moov", box(b"trak", box(b"mdia", box(b"hdlr", b"v")))), "the moov box is damaged"),
    ],
)
def test_a_file_without_a_readable_moov_is_refused_with_its_reason(content: bytes, reason: str) -> None:
    with pytest.raises(MediaError, match=f"^{reason}") as refused:
        facts_of(content)
    assert isinstance(refused.value, errors.UploaderError)
    assert "\n" not in str(refused.value)


def test_a_file_that_becomes_shorter_while_it_is_read_is_refused() -> None:
    content = box(b"moov", mvhd(1000, 5000)) + mdat()
    with pytest.raises(MediaError, match="became shorter"):
        read_media_facts(CountingFile(content[:20], len(content)).read_at, len(content))


def test_an_error_of_the_disk_is_not_hidden() -> None:
    def broken(_offset: int, _length: int) -> bytes:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        read_media_facts(broken, 100)


@pytest.mark.parametrize("version", [0, 1])
def test_both_versions_of_the_headers_are_read(version: int) -> None:
    track = trak(tkhd(1, 640, 360, version), mdhd(1000, 0, version), b"vide", stsd())
    facts = facts_of(box(b"moov", mvhd(600, 9000, version), track) + mdat())
    assert (facts.duration_seconds, facts.width, facts.height) == (15.0, 640, 360)


def test_a_duration_of_64_bits_is_read() -> None:
    facts = facts_of(box(b"moov", mvhd(1_000_000_000, 90_000 * 10**9, 1)) + mdat())
    assert facts.duration_seconds == 90_000.0


@pytest.mark.parametrize(
    ("header", "track_header", "expected"),
    [
        (mvhd(1000, UNKNOWN), mdhd(50, 100), 2.0),
        (mvhd(1000, UNKNOWN_LONG, 1), mdhd(50, 100, 1), 2.0),
        (mvhd(1000, 0), mdhd(50, 100), 2.0),
        (mvhd(0, 7), mdhd(50, 100), 2.0),
        (mvhd(1000, UNKNOWN), mdhd(50, UNKNOWN), None),
        (mvhd(0, 7), mdhd(0, 100), None),
        (mvhd(1000, 3000), mdhd(50, 100), 3.0),
    ],
)
def test_an_unknown_duration_is_taken_from_the_tracks_or_is_none(
    header: bytes, track_header: bytes, expected: float | None
) -> None:
    content = box(b"moov", header, trak(tkhd(1), track_header, b"vide")) + mdat()
    assert facts_of(content).duration_seconds == expected


def test_the_size_of_the_sample_entry_goes_before_that_of_the_track() -> None:
    entry = stsd(visual_entry(b"hvc1", 1920, 1080))
    facts = facts_of(box(b"moov", trak(tkhd(1, 1440, 1080), mdhd(1, 0), b"vide", entry)) + mdat())
    assert (facts.video_codec, facts.width, facts.height) == ("hvc1", 1920, 1080)


def test_the_first_video_track_counts() -> None:
    def video(track_id: int, codec: bytes, width: int) -> bytes:
        return trak(tkhd(track_id), mdhd(1, 0), b"vide", stsd(visual_entry(codec, width, width)))

    subtitles = trak(tkhd(3), mdhd(1, 0), b"text", stsd(box(b"tx3g", bytes(8))))
    facts = facts_of(box(b"moov", subtitles, video(1, b"hvc1", 32), video(2, b"mp4v", 16)) + mdat())
    assert (facts.video_codec, facts.width, facts.audio_codec) == ("hvc1", 32, None)


@pytest.mark.parametrize(
    ("kind", "codec"), [(b"raw ", "raw"), (b"ms\x00\x55", None), (b"\xff\xfe\xfd\xfc", None), (b"    ", None)]
)
def test_a_codec_is_printable_or_none(kind: bytes, codec: str | None) -> None:
    sound = trak(tkhd(1), mdhd(8000, 8000), b"soun", stsd(box(kind, bytes(20))))
    assert facts_of(box(b"moov", sound) + mdat()).audio_codec == codec


def test_the_handler_of_the_data_is_not_taken_for_that_of_the_media() -> None:
    media = box(b"mdia", mdhd(1, 0), hdlr(b"vide"), box(b"minf", hdlr(b"alis"), box(b"stbl")))
    facts = facts_of(box(b"moov", box(b"trak", tkhd(1, 320, 240), media)) + mdat())
    assert facts.width == 320


@pytest.mark.parametrize("wrap", [box, large_box])
def test_boxes_with_64_bit_sizes_are_read(wrap: Callable[..., bytes]) -> None:
    moov = wrap(b"moov", wrap(b"uuid", bytes(40)), mvhd(1000, 4000), wrap(b"what", bytes(9)), video_trak())
    facts = facts_of(wrap(b"uuid", bytes(30)) + wrap(b"mdat", bytes(100)) + moov + wrap(b"free"))
    assert (facts.duration_seconds, facts.width, facts.complete) == (4.0, 64, True)


def test_a_box_of_4_gib_is_skipped() -> None:
    head = box(b"ftyp", b"isom") + struct.pack(">I4sQ", 1, b"mdat", 5 << 30)
    moov = box(b"moov", mvhd(1000, 4000))
    moov_at = len(head) - 16 + (5 << 30)

    def read_at(offset: int, length: int) -> bytes:
        part, start = (head, offset) if offset < moov_at else (moov, offset - moov_at)
        return part[start : start + length]

    facts = read_media_facts(read_at, moov_at + len(moov))
    assert (facts.duration_seconds, facts.complete) == (4.0, True)


def test_an_mdat_without_an_end_is_legal_after_the_moov_of_a_plain_recording() -> None:
    assert facts_of(box(b"moov", mvhd(1000, 4000)) + open_box(b"mdat", bytes(64))).complete


def test_an_mdat_without_an_end_leaves_a_fragmented_recording_incomplete() -> None:
    assert not facts_of(box(b"moov", box(b"mvex")) + moof() + open_box(b"mdat", bytes(64))).complete


def test_a_moov_without_any_media_is_not_complete() -> None:
    facts = facts_of(box(b"ftyp", b"isom") + box(b"moov", mvhd(1000, 4000), video_trak()))
    assert (facts.complete, facts.duration_seconds) == (False, 4.0)


def test_a_moov_without_an_end_is_read_to_the_end_of_the_file() -> None:
    facts = facts_of(mdat() + open_box(b"moov", mvhd(1000, 4000)))
    assert (facts.complete, facts.duration_seconds) == (True, 4.0)


def test_only_the_first_moov_counts() -> None:
    facts = facts_of(box(b"moov", mvhd(1000, 4000)) + mdat() + box(b"moov", mvhd(1000, 9000), video_trak()))
    assert (facts.duration_seconds, facts.video_codec, facts.complete) == (4.0, None, True)


def test_a_moof_without_mvex_makes_a_recording_fragmented() -> None:
    facts = facts_of(box(b"moov", mvhd(1000, 4000), video_trak()) + moof(traf(tfhd(1))) + mdat())
    assert (facts.fragmented, facts.duration_seconds, facts.complete) == (True, 4.0, True)


def test_a_fragmented_recording_without_a_fragment_is_not_complete() -> None:
    facts = facts_of(box(b"moov", mvhd(1000, 0), video_trak(), box(b"mvex", trex(1, 10))))
    assert (facts.fragmented, facts.complete, facts.duration_seconds) == (True, False, None)


def fragmented(extends: bytes, *fragments: bytes, table: bytes = b"", timescale: int = 1000) -> bytes:
    moov = box(b"moov", mvhd(500, 0), video_trak(1, timescale, 0, table), box(b"mvex", extends))
    return moov + b"".join(fragment + mdat() for fragment in fragments)


@pytest.mark.parametrize("version", [0, 1])
def test_the_duration_in_mehd_goes_before_the_fragments(version: int) -> None:
    file = CountingFile(fragmented(mehd(3000, version) + trex(1, 10), moof(traf(tfhd(1), trun(5)))))
    facts = read_media_facts(file.read_at, file.size)
    assert (facts.duration_seconds, facts.complete) == (6.0, True)
    in_moof = file.content.index(b"mfhd")
    assert not [span for span in file.ranges if span[0] <= in_moof < span[1]]


@pytest.mark.parametrize(
    ("fragment", "ticks"),
    [
        (traf(tfhd(1), trun(5)), 5 * 10),
        (traf(tfhd(1, 0x8, struct.pack(">I", 7)), trun(5)), 5 * 7),
        (traf(tfhd(1, 0xB, bytes(12) + struct.pack(">I", 7)), trun(5)), 5 * 7),
        (traf(tfhd(1), trun(3, 0x100, struct.pack(">III", 1, 2, 4))), 7),
        (traf(tfhd(1), trun(2, 0xF05, bytes(8) + struct.pack(">IIIIIIII", 1, 9, 9, 9, 2, 9, 9, 9))), 3),
        (traf(tfhd(1), trun(2, 0x200, struct.pack(">II", 9, 9))), 2 * 10),
        (traf(tfhd(1), trun(5), trun(1)) + traf(tfhd(1), trun(2)), 8 * 10),
        (traf(tfhd(2), trun(5)), 0),
        (traf(tfhd(1)), 0),
    ],
)
def test_the_duration_is_the_sum_of_the_samples_in_the_fragments(fragment: bytes, ticks: int) -> None:
    content = fragmented(mehd(0) + trex(1, 10), moof(fragment), moof(fragment))
    assert facts_of(content).duration_seconds == (2 * ticks / 1000 or None)
    assert facts_of(content).complete


def test_the_longest_track_by_its_own_clock_is_the_duration() -> None:
    tracks = video_trak(1, 1000) + trak(tkhd(2), mdhd(8000, 0), b"soun")
    moov = box(b"moov", mvhd(1, 0), box(b"mvex", trex(1, 100), trex(2, 1024)), tracks)
    content = moov + moof(traf(tfhd(1), trun(19)), traf(tfhd(2), trun(16))) + mdat()
    assert facts_of(content).duration_seconds == 16 * 1024 / 8000


def test_samples_in_the_moov_of_a_fragmented_recording_are_counted() -> None:
    content = fragmented(trex(1, 10), moof(traf(tfhd(1), trun(5))), table=stts((1, 30), (4, 20)))
    assert facts_of(content).duration_seconds == 0.16


def test_a_fragmented_recording_of_24_hours_is_read() -> None:
    head = fragmented(trex(1, 0))
    run = trun(30, 0xF01, bytes(4) + struct.pack(">IIII", 100, 5000, 0, 0) * 30)
    fragment = moof(traf(tfhd(1), full_box(b"tfdt", 1, 0, bytes(8)), run)) + struct.pack(
        ">I4s", 1 << 20, b"mdat"
    )
    length = len(fragment) - 8 + (1 << 20)
    reads: list[int] = []

    def read_at(offset: int, wanted: int) -> bytes:
        reads.append(wanted)
        part, start = (head, offset) if offset < len(head) else (fragment, (offset - len(head)) % length)
        assert start + wanted <= len(part)
        return part[start : start + wanted]

    facts = read_media_facts(read_at, len(head) + 86_400 * length)
    assert (facts.duration_seconds, facts.complete) == (86_400 * 30 * 100 / 1000, True)
    assert sum(reads) < 86_400 * len(fragment) + 1000
    assert len(reads) < 86_400 * 3 + 100


@pytest.mark.parametrize(
    "damaged",
    [
        moof(traf(tfhd(1), trun(4_000_000_000, 0x100, struct.pack(">I", 1)))),
        moof(traf(tfhd(1), trun(4_000_000_000, 0xF00))),
        moof(traf(tfhd(1, 0x8))),
        moof(box(b"traf", b"\x00\x00\x00\x07trun")),
    ],
)
def test_a_damaged_fragment_ends_the_walk_but_keeps_the_facts(damaged: bytes) -> None:
    content = fragmented(trex(1, 10), moof(traf(tfhd(1), trun(5))), damaged)
    facts = facts_of(content)
    assert (facts.duration_seconds, facts.video_codec, facts.complete) == (0.05, "avc1", False)


def test_a_sample_count_without_samples_allocates_nothing() -> None:
    content = fragmented(trex(1, 10), moof(traf(tfhd(1), trun(UNKNOWN))))
    assert facts_of(content).duration_seconds == UNKNOWN / 100


def test_a_time_table_with_too_many_entries_is_refused() -> None:
    table = full_box(b"stts", 0, 0, struct.pack(">III", UNKNOWN, 1, 1))
    with pytest.raises(MediaError, match="stts"):
        facts_of(fragmented(trex(1, 10), table=table))


def test_boxes_nested_without_end_are_not_followed() -> None:
    content = box(b"hdlr", b"too short to read")
    for _ in range(5000):
        content = box(b"mdia", content)
    file = CountingFile(box(b"moov", box(b"trak", content)) + mdat())
    assert read_media_facts(file.read_at, file.size).complete
    assert file.bytes_read < 100


@pytest.mark.parametrize("place", ["top", "moov"])
def test_more_boxes_than_recorders_write_are_refused(place: str) -> None:
    empty = box(b"free") * mp4_boxes.MAX_BOXES
    content = box(b"moov") + mdat() + empty if place == "top" else box(b"moov", empty) + mdat()
    file = CountingFile(content)
    with pytest.raises(MediaError, match="more boxes than any recorder writes"):
        read_media_facts(file.read_at, file.size)
    assert file.bytes_read == 8 * mp4_boxes.MAX_BOXES


def test_media_pays_for_the_boxes_of_its_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp4_boxes, "MAX_BOXES", 60)
    fragment = moof(traf(tfhd(1), trun(1)))
    with pytest.raises(MediaError, match="more boxes than any recorder writes"):
        facts_of(fragmented(trex(1, 10), *[fragment] * 20))
    paid = [fragment, box(b"mdat", bytes(10 * mp4_boxes.MEDIA_BYTES_PER_BOX))]
    assert facts_of(fragmented(trex(1, 10), *paid * 20)).duration_seconds == 0.2
    monkeypatch.setattr(mp4_boxes, "MAX_FRAGMENTED_BOXES", 100)
    with pytest.raises(MediaError, match="more boxes than any recorder writes"):
        facts_of(fragmented(trex(1, 10), *paid * 20))


def test_empty_boxes_cost_little_in_a_fragmented_file_too() -> None:
    file = CountingFile(fragmented(trex(1, 10)) + box(b"free") * 1_000_000)
    with pytest.raises(MediaError, match="more boxes than any recorder writes"):
        read_media_facts(file.read_at, file.size)
    assert file.bytes_read < 10 * mp4_boxes.MAX_BOXES


def test_a_day_of_the_shortest_parts_pays_for_its_boxes() -> None:
    parts, boxes, media_bytes = 5 * 86_400, 11, 1_250
    assert parts * boxes <= min(
        mp4_boxes.MAX_FRAGMENTED_BOXES, parts * media_bytes // mp4_boxes.MEDIA_BYTES_PER_BOX
    )


def test_more_bytes_of_boxes_than_recorders_write_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = fragmented(trex(1, 10), *[moof(traf(tfhd(1), trun(100, 0x100, bytes(400))))] * 20)
    assert facts_of(content).complete
    monkeypatch.setattr(mp4_boxes, "MAX_READ_BYTES", 5000)
    file = CountingFile(content)
    with pytest.raises(MediaError, match="longer than 5000 bytes"):
        read_media_facts(file.read_at, file.size)
    assert file.bytes_read <= 5000


def test_a_moof_too_long_for_memory_is_refused_unread() -> None:
    file = CountingFile(fragmented(trex(1, 10), moof(bytes(mp4_boxes.MAX_HELD_BYTES))))
    with pytest.raises(MediaError, match=r"moof box at byte \d+ is longer than"):
        read_media_facts(file.read_at, file.size)
    assert file.bytes_read < 1000


@pytest.mark.parametrize(
    "boxes",
    [
        b"".join(box(b"trak", tkhd(track_id)) for track_id in range(101)),
        box(b"mvex", *(trex(track_id, 1) for track_id in range(101))),
    ],
)
def test_more_tracks_than_cameras_write_are_refused(boxes: bytes) -> None:
    with pytest.raises(MediaError, match="more than 100 tracks"):
        facts_of(box(b"moov", boxes) + mdat())


KINDS = (
    b"moov mvhd mvex mehd trex trak tkhd mdia mdhd hdlr minf stbl stsd stts moof traf tfhd trun mdat free"
).split()
LEAVES = st.builds(box, st.sampled_from(KINDS), st.binary(max_size=100))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda wrap, kind, boxes: wrap(kind, *boxes),
        st.sampled_from([box, large_box, open_box]),
        st.sampled_from(KINDS),
        st.lists(inner, max_size=6),
    ),
    max_leaves=30,
)


@FUZZ
@given(boxes=st.lists(TREES, max_size=6), tail=st.binary(max_size=20))
@example(boxes=[struct.pack(">I4s", 1, b"moov")], tail=b"")
@example(boxes=[struct.pack(">I4sQ", 1, b"moov", 2**64 - 1)], tail=b"")
def test_random_boxes_give_facts_or_a_media_error(boxes: list[bytes], tail: bytes) -> None:
    facts_or_reason(b"".join(boxes) + tail)


@FUZZ
@given(content=st.binary(max_size=300))
def test_random_bytes_give_a_media_error(content: bytes) -> None:
    assert isinstance(facts_or_reason(content), str)
