"""Where everything lies in the bucket: keys are computed, and one that is read is believed only whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import PermanentError
from recording.layout import (
    MAX_CHUNKS,
    MAX_KEY_BYTES,
    BucketLayout,
    RecordingId,
    chunk_hash_start,
    is_owner,
    new_owner,
    stream_id,
)

SHA256 = "0123456789abcdef" * 4
LAYOUT = BucketLayout("cams/")
FRONT = RecordingId("camera1/front.mp4", 2, "7f3a91c2")
FOLDER = "cams/camera1/front.mp4/g0002-7f3a91c2/"


def test_keys_are_laid_out_as_the_design_says() -> None:
    assert stream_id("camera1/front.mp4", 2) == FRONT.stream_id == "camera1/front.mp4@2"
    assert FRONT.full_name == "camera1/front.mp4@2-7f3a91c2"
    assert LAYOUT.path(FRONT.key_path) == "cams/camera1/front.mp4/"
    assert LAYOUT.generation(FRONT) == FOLDER
    assert LAYOUT.manifest(FRONT) == FOLDER + "metadata.json"
    assert LAYOUT.former_manifest(FRONT, 3) == FOLDER + "metadata.r0003.json"
    assert LAYOUT.chunk(FRONT, 42, SHA256) == FOLDER + "chunks/000042-0123456789ab.part"
    assert chunk_hash_start(LAYOUT.chunk(FRONT, 42, SHA256)) == "0123456789ab"


@given(st.integers(0, MAX_CHUNKS - 1))
def test_the_index_of_a_chunk_is_read_back_from_its_key(index: int) -> None:
    assert LAYOUT.chunk_index(FRONT, LAYOUT.chunk(FRONT, index, SHA256)) == index


def test_keys_lie_in_the_order_of_their_chunks() -> None:
    indexes = [0, 1, 9, 10, 99_999, 100_000, MAX_CHUNKS - 1]
    keys = [LAYOUT.chunk(FRONT, index, SHA256) for index in indexes]
    assert sorted(keys) == keys


@pytest.mark.parametrize(
    "name",
    [
        "00001-0123456789ab.part",
        "1000000-0123456789ab.part",
        "\u0660\u0660\u0660\u0660\u0660\u0661-0123456789ab.part",
        "000001-0123456789AB.part",
        "000001-0123456789ab.part/x",
        "x/000001-0123456789ab.part",
        "000001-0123456789ab.part\n",
        "metadata.json",
        "",
    ],
)
def test_what_is_no_chunk_has_no_index(name: str) -> None:
    assert LAYOUT.chunk_index(FRONT, FOLDER + "chunks/" + name) is None


@pytest.mark.parametrize("other", [FRONT._replace(generation=1), FRONT._replace(owner="00000000")])
def test_a_chunk_of_another_generation_or_owner_has_no_index(other: RecordingId) -> None:
    assert LAYOUT.chunk_index(FRONT, LAYOUT.chunk(other, 1, SHA256)) is None


def test_a_former_manifest_is_known_by_its_key() -> None:
    assert LAYOUT.former_revision(FRONT, LAYOUT.former_manifest(FRONT, 12)) == 12
    for name in ("metadata.json", "metadata.r1.json", "metadata.r0001.json.bak", "x/metadata.r0001.json"):
        assert LAYOUT.former_revision(FRONT, FOLDER + name) is None


@given(st.integers(1, 10**9 - 1), st.binary(min_size=4, max_size=4))
def test_a_recording_is_read_back_from_its_folder(generation: int, owner: bytes) -> None:
    recording = RecordingId("a b/ü.mp4", generation, owner.hex())
    assert LAYOUT.recording(LAYOUT.generation(recording)) == recording


@pytest.mark.parametrize(
    "name",
    [
        "g0001/",
        "g0001-/",
        "g001-7f3a91c2/",
        "g0000-7f3a91c2/",
        "g00001-7f3a91c2/",
        "g0001-7F3A91C2/",
        "g0001-7f3a91c2x/",
        "h0001-7f3a91c2/",
        "g\u0660\u0660\u0660\u0661-7f3a91c2/",
        "",
    ],
)
def test_another_folder_is_no_recording(name: str) -> None:
    assert LAYOUT.recording("cams/a.mp4/" + name) is None


@pytest.mark.parametrize("folder", ["a.mp4/g0001-7f3a91c2/", "cams/g0001-7f3a91c2/", FOLDER[:-1]])
def test_a_folder_elsewhere_is_no_recording(folder: str) -> None:
    assert LAYOUT.recording(folder) is None


def test_owners_are_random_and_known_by_their_form() -> None:
    owners = {new_owner() for _ in range(100)}
    assert len(owners) == 100
    assert all(map(is_owner, owners))
    assert not any(map(is_owner, ("", "7f3a91c", "7F3A91C2", "7f3a91c2/", "7f3a91c2\n", "../../..")))


def test_a_key_that_s3_does_not_take_is_refused() -> None:
    layout = BucketLayout("")
    longest = "k" * (MAX_KEY_BYTES - len("/g0001-7f3a91c2/chunks/000000-0123456789ab.part"))
    assert layout.takes(longest)
    assert layout.chunk(RecordingId(longest, 1, "7f3a91c2"), 0, SHA256)
    assert not layout.takes(longest + "k")
    with pytest.raises(PermanentError, match="shorten S3_PREFIX") as caught:
        layout.chunk(RecordingId(longest + "k", 1, "7f3a91c2"), 0, SHA256)
    assert caught.value.kind == "key_too_long"


def test_a_chunk_too_many_is_refused() -> None:
    with pytest.raises(PermanentError, match="raise CHUNK_SIZE"):
        LAYOUT.chunk(FRONT, MAX_CHUNKS, SHA256)
