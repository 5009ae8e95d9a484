"""`metadata.json`: what is written down, that it is read back, and that a hostile one is refused."""

import base64
import copy
import hashlib
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording import manifest
from recording.layout import BucketLayout, RecordingId
from recording.manifest import Facts, Manifest, ManifestError, Media, Uploader
from recording.mp4 import MediaFacts
from recording.playback import Playback
from recording.stream import MAX_CHUNK_BYTES, Chunk, Proof, Signature, State, Stream
from recording.timestamps import moment

CHUNK = 1000
PREFIX = "cams/"
KEY_PATH = "camera1/a.mp4"
OWNER = "7f3a91c2"
LAYOUT = BucketLayout(PREFIX)
RECORDING = RecordingId(KEY_PATH, 1, OWNER)
FACTS = MediaFacts(12.3456, "avc1", "mp4a", 1920, 1080, fragmented=True, complete=False)
STARTED_MS = 1_700_000_000_000

shas = st.text("0123456789abcdef", min_size=64, max_size=64)


PROOFS: tuple[Proof, ...] = ("sha256", "md5", "")


def chunks_of(sizes: list[int], sha256: str = "ab" * 32) -> list[Chunk]:
    return [
        Chunk(
            index,
            size,
            sha256,
            "cd" * 16,
            LAYOUT.chunk(RECORDING, index, sha256),
            f"2026-01-01T00:00:0{index}.000Z",
            PROOFS[index % len(PROOFS)],
        )
        for index, size in enumerate(sizes)
    ]


def stream_at(path: str = KEY_PATH) -> Stream:
    return Stream(
        stream_id=f"{KEY_PATH}@1",
        path=path,
        generation=1,
        owner=OWNER,
        revision=2,
        state=State.FINALIZING,
        signature=Signature(0, 0, 0, 0, 0),
        chunk_size=CHUNK,
        next_index=0,
        offset=0,
        started_at_ms=STARTED_MS,
        updated_at_ms=STARTED_MS,
        repaired=3,
    )


def built(
    chunks: list[Chunk],
    *,
    stream: Stream | None = None,
    status: State = State.COMPLETE,
    sha256: str | None = "ef" * 32,
    mtime_ns: int = (STARTED_MS + 2500) * 1_000_000,
    media: Media = Media(FACTS, None),  # noqa: B008 - a value
) -> bytes:
    size = sum(chunk.size for chunk in chunks)
    return manifest.build(
        stream or stream_at(),
        chunks,
        status=status,
        sha256=sha256,
        signature=Signature(size, mtime_ns, 0, 0, 7),
        media=media,
        bucket="videos",
        layout=LAYOUT,
        uploader=Uploader("1.2.3", "host1"),
        completed_at="2026-01-01T00:01:00.000Z",
    )


def parsed(raw: bytes) -> Manifest:
    return manifest.parse(raw, LAYOUT, RECORDING)


# ---------------------------------------------------------------------- what is written down


def test_it_holds_every_field_of_the_design() -> None:
    chunks = chunks_of([CHUNK, 7])
    assert json.loads(built(chunks)) == {
        "schema_version": 2,
        "stream_id": "camera1/a.mp4@1",
        "key_path": "camera1/a.mp4",
        "generation": 1,
        "owner": OWNER,
        "revision": 2,
        "former": None,
        "status": "complete",
        "source": {
            "path": "camera1/a.mp4",
            "path_base64": base64.b64encode(b"camera1/a.mp4").decode(),
            "size_bytes": 1007,
            "id": "7:0",
            "modified_at": "2023-11-14T22:13:22.500Z",
        },
        "bucket": "videos",
        "prefix": "cams/camera1/a.mp4/g0001-7f3a91c2/",
        "chunk_size_bytes": 1000,
        "chunk_count": 2,
        "total_size_bytes": 1007,
        "sha256": "ef" * 32,
        "started_at": "2023-11-14T22:13:20.000Z",
        "completed_at": "2026-01-01T00:01:00.000Z",
        "first_chunk_uploaded_at": "2026-01-01T00:00:00.000Z",
        "last_chunk_uploaded_at": "2026-01-01T00:00:01.000Z",
        "duration_seconds": 12.346,
        "duration_source": "media",
        "media": {
            "duration_seconds": 12.3456,
            "video_codec": "avc1",
            "audio_codec": "mp4a",
            "width": 1920,
            "height": 1080,
            "fragmented": True,
            "complete": False,
        },
        "media_error": None,
        "playable": True,
        "cancelled": False,
        "chunks": [
            {
                "index": index,
                "offset": index * CHUNK,
                "size_bytes": chunk.size,
                "sha256": chunk.sha256,
                "etag": chunk.etag,
                "key": chunk.key,
                "uploaded_at": chunk.uploaded_at,
                "confirmed_by": chunk.confirmed_by or None,
            }
            for index, chunk in enumerate(chunks)
        ],
        "repaired_chunks": 3,
        "uploader": {"version": "1.2.3", "host": "host1"},
    }


def test_a_recording_without_bytes_has_no_chunks_and_no_upload_times() -> None:
    content = json.loads(built([]))
    assert (content["chunk_count"], content["total_size_bytes"], content["chunks"]) == (0, 0, [])
    assert (content["first_chunk_uploaded_at"], content["last_chunk_uploaded_at"]) == (None, None)


def test_the_reason_stands_where_media_facts_are_missing() -> None:
    content = json.loads(built([], media=Media(None, "no moov box")))
    assert (content["media"], content["media_error"]) == (None, "no moov box")


@pytest.mark.parametrize("facts", [None, replace(FACTS, duration_seconds=None)])
def test_without_a_duration_in_the_media_the_clock_tells_it(facts: MediaFacts | None) -> None:
    content = json.loads(built([], media=Media(facts, None)))
    assert (content["duration_seconds"], content["duration_source"]) == (2.5, "wall_clock")


def test_a_source_older_than_its_stream_took_no_time() -> None:
    content = json.loads(built([], mtime_ns=0, media=Media(None, "")))
    assert content["duration_seconds"] == 0


@pytest.mark.parametrize(
    ("mtime_ns", "spelled"),
    [
        (-1, "1969-12-31T23:59:59.999Z"),
        (-60_000_000_000 * 10**9, "0068-09-03T13:20:00.000Z"),
        (2**63 - 1, "2262-04-11T23:47:16.854Z"),
        (10**40, "1970-01-01T00:00:00.000Z"),
        (-(10**40), "1970-01-01T00:00:00.000Z"),
    ],
)
def test_any_time_of_a_file_can_be_written_down(mtime_ns: int, spelled: str) -> None:
    assert json.loads(built([], mtime_ns=mtime_ns))["source"]["modified_at"] == spelled


@given(st.binary(min_size=1, max_size=50))
def test_a_name_that_is_no_text_is_kept_byte_for_byte(name: bytes) -> None:
    source = json.loads(built([], stream=stream_at(path=name.decode(errors="surrogateescape"))))["source"]
    assert base64.b64decode(source["path_base64"]) == name
    assert source["path"] == name.decode(errors="replace")


def test_a_lone_surrogate_anywhere_does_not_stop_a_commit() -> None:
    assert json.loads(built([], media=Media(None, "\udc80")))["media_error"] == "\udc80"


# ---------------------------------------------------------------------- what is read back


@pytest.mark.parametrize("said", ["crc32", 7, None, ["sha256"]])
def test_a_proof_that_cannot_be_counts_as_none(said: object) -> None:
    content = json.loads(built(chunks_of([CHUNK])))
    content["chunks"][0]["confirmed_by"] = said
    (chunk,) = manifest.parse(json.dumps(content).encode(), LAYOUT, RECORDING).chunks
    assert chunk.confirmed_by == ""


@given(
    st.integers(0, 5),
    st.integers(1, CHUNK),
    shas,
    st.one_of(st.none(), shas),
    st.sampled_from([State.COMPLETE, State.INCOMPLETE]),
)
def test_what_was_built_is_read_back(
    full: int, tail: int, sha256: str, whole: str | None, status: State
) -> None:
    chunks = chunks_of([CHUNK] * full + [tail], sha256)
    raw = built(chunks, status=status, sha256=whole)
    found = parsed(raw)
    assert replace(found, digest="") == Manifest(
        status, 2, CHUNK, full * CHUNK + tail, whole, tuple(chunks), found.facts
    )
    assert found.facts == Facts(
        path=KEY_PATH,
        source_id="7:0",
        started_at=moment("2023-11-14T22:13:20.000Z"),
        ended_at=moment("2026-01-01T00:01:00.000Z"),
        modified_at=moment("2023-11-14T22:13:22.500Z"),
        playback=Playback(12.346, unplayable=""),
        cut_short="it ended too soon" if status is State.INCOMPLETE else "",
    )
    assert found.digest == hashlib.sha256(raw).hexdigest()
    assert found.covers(chunks)


@pytest.mark.parametrize(
    "changed", [{"size": 6}, {"sha256": "00" * 32}, {"key": "elsewhere"}], ids=["size", "sha256", "key"]
)
def test_it_does_not_cover_other_chunks(changed: dict[str, Any]) -> None:
    chunks = chunks_of([CHUNK, 7])
    found = parsed(built(chunks))
    assert not found.covers(chunks[:1])
    assert not found.covers([chunks[0], replace(chunks[1], **changed)])


def test_it_covers_the_same_content_uploaded_at_another_time() -> None:
    chunks = chunks_of([CHUNK, 7])
    assert parsed(built(chunks)).covers([replace(chunk, etag="x", uploaded_at="y") for chunk in chunks])


# ---------------------------------------------------------------------- what is refused

Damage = Callable[[dict[str, Any]], object]


def setting(value: object, *place: str | int) -> Damage:
    def damage(content: dict[str, Any]) -> None:
        where: Any = content
        for step in place[:-1]:
            where = where[step]
        where[place[-1]] = value

    return damage


HUGE = 10**4000
OTHER_KEY = LAYOUT.chunk(RecordingId("other.mp4", 1, OWNER), 0, "ab" * 32)

DAMAGES: dict[str, Damage] = {
    "a newer layout": setting(3, "schema_version"),
    "no layout": lambda content: content.pop("schema_version"),
    "chunks that are no list": setting("", "chunks"),
    "a chunk that is no object": setting([1, 2], "chunks"),
    "a chunk that is text": setting("abc", "chunks", 0),
    "chunks of nothing": setting(None, "chunks"),
    "a chunk left out": lambda content: content["chunks"].pop(0),
    "a chunk twice": lambda content: content["chunks"].append(content["chunks"][0]),
    "an index of another chunk": setting(1, "chunks", 0, "index"),
    "an offset of another chunk": setting(1, "chunks", 0, "offset"),
    "a size that is text": setting("1000", "chunks", 0, "size_bytes"),
    "a size that is a fraction": setting(1000.0, "chunks", 0, "size_bytes"),
    "a size that is true": setting(True, "chunks", 1, "size_bytes"),  # noqa: FBT003 - JSON
    "a size that is no number": setting(float("nan"), "chunks", 0, "size_bytes"),
    "a size below zero": setting(-7, "chunks", 1, "size_bytes"),
    "a size of zero": setting(0, "chunks", 1, "size_bytes"),
    "a short chunk before the last": setting(999, "chunks", 0, "size_bytes"),
    "a chunk above the chunk size": setting(1001, "chunks", 1, "size_bytes"),
    "a key of another stream": setting(OTHER_KEY, "chunks", 0, "key"),
    "a key that climbs": setting("cams/camera1/a.mp4/g0001-7f3a91c2/chunks/../x", "chunks", 0, "key"),
    "a key that is a number": setting(5, "chunks", 0, "key"),
    "a key that is nothing": setting(None, "chunks", 0, "key"),
    "a key of other content": setting("cd" * 32, "chunks", 0, "sha256"),
    "a hash that is nothing": setting(None, "chunks", 0, "sha256"),
    "a hash that is too short": setting("ab" * 6, "chunks", 0, "sha256"),
    "an etag that is a list": setting([], "chunks", 0, "etag"),
    "a time that is a number": setting(1, "chunks", 0, "uploaded_at"),
    "no key": lambda content: content["chunks"][0].pop("key"),
    "a chunk size of zero": setting(0, "chunk_size_bytes"),
    "a huge chunk size": setting(HUGE, "chunk_size_bytes"),
    "a huge revision": setting(HUGE, "revision"),
    "a revision that is text": setting("1", "revision"),
    "a huge total": setting(HUGE, "total_size_bytes"),
    "another total": setting(1008, "total_size_bytes"),
    "a whole hash that is a number": setting(1, "sha256"),
    "a whole hash that is text": setting("none", "sha256"),
    "a status that is a state": setting("active", "status"),
    "a status that nobody knows": setting("perfect", "status"),
    "a status that is a list": setting([[]], "status"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_one_is_refused(damage: Damage) -> None:
    content = json.loads(built(chunks_of([CHUNK, 7])))
    damage(content)
    with pytest.raises(ManifestError):
        parsed(json.dumps(content).encode())


@pytest.mark.parametrize(
    "value", [HUGE, -1, float("nan"), float("inf"), True, "\ud800", [[]], {"a": None}, None]
)
@pytest.mark.parametrize(
    "place",
    [
        ("source",),
        ("source", "path_base64"),
        ("source", "modified_at"),
        ("started_at",),
        ("completed_at",),
        ("duration_seconds",),
        ("duration_source",),
        ("media",),
        ("media_error",),
    ],
    ids="/".join,
)
def test_a_fact_that_nobody_can_believe_is_none_and_no_reason_to_doubt_the_chunks(
    place: tuple[str, ...], value: object
) -> None:
    content = json.loads(built(chunks_of([CHUNK, 7]), media=Media(None, "no moov box")))
    setting(value, *place)(content)
    found = parsed(json.dumps(content).encode())
    assert found.chunks == tuple(chunks_of([CHUNK, 7]))
    assert found.facts.recorded  # whatever the times and the duration are
    assert not found.facts.finished
    assert found.facts.playback.duration_seconds is None or found.facts.playback.duration_seconds >= 0


@pytest.mark.parametrize("wrong", [{"key_path": "a.mp4"}, {"generation": 2}, {"owner": "00000000"}], ids=str)
def test_one_of_another_recording_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="not the manifest of"):
        manifest.parse(built(chunks_of([CHUNK, 7])), LAYOUT, RECORDING._replace(**wrong))


def test_one_that_names_objects_under_another_prefix_is_refused() -> None:
    with pytest.raises(ManifestError, match="not its own"):
        manifest.parse(built(chunks_of([CHUNK, 7])), BucketLayout(""), RECORDING)


def test_a_chunk_too_large_to_be_read_is_refused_however_consistent() -> None:
    content = json.loads(built(chunks_of([CHUNK])))
    size = MAX_CHUNK_BYTES + 1
    content["chunk_size_bytes"] = content["total_size_bytes"] = content["chunks"][0]["size_bytes"] = size
    with pytest.raises(ManifestError, match="no number from 0"):
        parsed(json.dumps(content).encode())


def test_more_chunks_than_a_stream_can_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = built(chunks_of([CHUNK] * 3 + [7]))
    monkeypatch.setattr(manifest, "MAX_CHUNKS", 3)
    with pytest.raises(ManifestError, match="lists more than 3 chunks"):
        parsed(raw)


def test_an_entry_is_never_larger_than_it_may_be_and_nor_is_the_rest() -> None:
    keys = "/".join(["\u00e9" * 50] * 9)  # of the most bytes that a key path can have, beside a chunk's name
    recording = RecordingId(keys, 999_999_999, OWNER)
    chunk = replace(chunks_of([CHUNK])[0], key=LAYOUT.chunk(recording, 0, "ab" * 32))
    stream = replace(stream_at("\udcff" * 4096), stream_id=recording.stream_id)
    empty, one, two = (len(built([chunk] * count, stream=stream)) for count in range(3))
    assert len(chunk.key.encode()) > 940
    assert two - one < manifest.BYTES_A_CHUNK
    assert empty < manifest.SPARE_BYTES


@pytest.mark.parametrize("place", [("chunks",), ("media",), ("source", "path"), ("more",)], ids="/".join)
@pytest.mark.parametrize("item", [b"1000,", b'"ab",', b"[[]],", b'{"a":1},', b"1.5,"])
def test_a_hostile_one_takes_no_memory_whatever_it_holds_and_wherever(
    place: tuple[str, ...], item: bytes
) -> None:
    content = json.loads(built(chunks_of([CHUNK, 7])))
    setting("HERE", *place)(content)
    many = b"[" + (item * (4 * 1024**2 // len(item)))[:-1] + b"]"
    raw = json.dumps(content).encode().replace(b'"HERE"', many)
    tracemalloc.start()
    try:
        with pytest.raises(ManifestError):
            parsed(raw)
        assert tracemalloc.get_traced_memory()[1] < 3 * 1024**2
    finally:
        tracemalloc.stop()


def test_its_members_may_come_in_any_order() -> None:
    content = json.loads(built(chunks_of([CHUNK, CHUNK, 7])))
    for names in (sorted(content), sorted(content, reverse=True)):
        again = json.dumps({name: content[name] for name in names}).encode()
        assert parsed(again).chunks == tuple(chunks_of([CHUNK, CHUNK, 7]))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"\xff\xfe\x00",
        b"{" * 200_000,
        b"[" * 200_000,
        b'{"chunks": ' * 100_000,
        b"9" * 10_000,
        b"NaN",
        built([])[:-1],
        built([]) + b"x",
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_what_is_no_manifest_at_all_is_refused(raw: bytes) -> None:
    with pytest.raises(ManifestError) as caught:
        parsed(raw)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "doubled", [b'{"revision": 7, ', b'{"chunks": [], '], ids=["another revision first", "other chunks first"]
)
def test_a_name_that_occurs_twice_is_refused(doubled: bytes) -> None:
    with pytest.raises(ManifestError, match="twice"):
        parsed(doubled + built(chunks_of([7])).lstrip(b"{"))


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=5,
)
SOUND = json.loads(built(chunks_of([CHUNK, 7])))
PLACES: list[tuple[str | int, ...]] = [
    *((name,) for name in SOUND),
    *(("chunks", index, name) for index in (0, 1) for name in SOUND["chunks"][0]),
    ("chunks", 0),
]


@given(st.lists(st.tuples(st.sampled_from(PLACES), json_values), max_size=3))
def test_whatever_stands_anywhere_the_answer_is_sound_or_a_refusal(
    changes: list[tuple[tuple[str | int, ...], object]],
) -> None:
    content = copy.deepcopy(SOUND)
    for place, value in sorted(changes, key=lambda change: -len(change[0])):
        setting(value, *place)(content)
    try:
        found = parsed(json.dumps(content).encode())
    except ManifestError:
        return
    assert found.total_size == sum(chunk.size for chunk in found.chunks)
    assert all(chunk.key.startswith("cams/camera1/a.mp4/g0001-7f3a91c2/chunks/") for chunk in found.chunks)
    assert 0 <= found.chunk_size <= MAX_CHUNK_BYTES
