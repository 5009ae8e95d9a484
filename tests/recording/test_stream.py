"""How keys and ids are spelled, which states follow which, and when a source needs no work."""

import os
import re
import unicodedata
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording.layout import MAX_SEGMENT_BYTES, key_path
from recording.stream import (
    LEGAL_MOVES,
    NO_ERROR,
    IllegalMoveError,
    RecordedError,
    Signature,
    State,
    Stream,
    check_move,
)

SIGNATURE = Signature(size=100, mtime_ns=1, ctime_ns=2, dev=3, ino=4)
SHA256 = "0123456789abcdef" * 4

STREAM = Stream(
    stream_id="a.mp4@1",
    path="a.mp4",
    generation=1,
    owner="7f3a91c2",
    revision=0,
    state=State.COMPLETE,
    signature=SIGNATURE,
    chunk_size=10,
    next_index=10,
    offset=100,
    started_at_ms=0,
    updated_at_ms=0,
)

# Whatever Linux takes for a file name: any bytes but / and NUL, 1 to 255 of them, neither . nor ..
any_bytes = st.binary(min_size=1, max_size=255).filter(lambda raw: not {0, 0x2F} & set(raw))
any_text = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60
)
names = st.one_of(any_bytes, any_text.map(str.encode)).filter(lambda raw: raw not in (b".", b".."))
paths = st.lists(names, min_size=1, max_size=5).map(lambda parts: os.fsdecode(b"/".join(parts)))
segments = names.map(os.fsdecode)


# ---------------------------------------------------------------------- key paths


@pytest.mark.parametrize(
    "path",
    [
        "a.mp4",
        "camera1/front.mp4",
        "Straße 7 (2), v=1 @home!.mp4",
        "日本語/動画.mp4",
        "it's-me_ok.MP4",
        "x" * MAX_SEGMENT_BYTES,
    ],
)
def test_a_plain_name_is_its_own_key(path: str) -> None:
    assert key_path(path) == path


@pytest.mark.parametrize(
    ("path", "head"),
    [
        ("a?b.mp4", "a_b.mp4"),
        ("a~b.mp4", "a_b.mp4"),
        ("a\nb.mp4", "a_b.mp4"),
        ("<script>.mp4", "_script_.mp4"),
        (".hidden.mp4", ".hidden.mp4"),
        ("..", ".."),
        ("", ""),
        (os.fsdecode(b"caf\xe9.mp4"), "caf_.mp4"),
        (unicodedata.normalize("NFD", "é.mp4"), "é.mp4"),
        ("é" * 100, "é" * 44),
    ],
)
def test_a_name_that_is_not_plain_stays_readable_and_gets_a_mark(path: str, head: str) -> None:
    assert re.fullmatch(re.escape(head) + "~[0-9a-f]{10}", key_path(path))


@given(paths)
def test_the_key_of_any_path_is_plain_and_bounded(path: str) -> None:
    found = key_path(path).split("/")
    assert len(found) == path.count("/") + 1
    for segment in found:
        assert segment not in ("", ".", "..")
        assert len(segment.encode()) <= MAX_SEGMENT_BYTES
        assert re.fullmatch(r"[\w ().,@=!'~-]+", segment)


@given(st.text("./a", max_size=12))
def test_no_key_climbs_or_has_an_empty_part_whatever_the_path(path: str) -> None:
    assert not {"", ".", ".."} & set(key_path(path).split("/"))


@given(segments, st.data())
def test_two_names_never_share_a_key(name: str, data: st.DataObject) -> None:
    # Only names that lie near can collide: what the rule makes equal, and what it gives out.
    near = [
        key_path(name),
        unicodedata.normalize("NFC", name),
        unicodedata.normalize("NFD", name),
        name.replace("_", "?"),
        name.replace("?", "*"),
        name[:-1],
        name + "_",
        "." + name,
        data.draw(segments),
    ]
    for other in near:
        assert other == name or key_path(other) != key_path(name)


@given(paths)
def test_a_key_of_plain_names_is_spelled_the_same_again(path: str) -> None:
    found = key_path(path)
    assert "~" in found or key_path(found) == found


# ---------------------------------------------------------------------- states

DESIGNED_MOVES = {
    "active": ("finalizing", "failed"),
    "finalizing": ("active", "complete", "incomplete", "failed"),
    "complete": ("active",),
    "incomplete": ("active",),
    "failed": ("active",),
}


@pytest.mark.parametrize(("old", "new"), list(product(State, State)))
def test_only_the_designed_moves_are_legal(old: State, new: State) -> None:
    if new in DESIGNED_MOVES[old]:
        check_move(old, new)
        assert (old, new) in LEGAL_MOVES
    else:
        with pytest.raises(IllegalMoveError):
            check_move(old, new)


# ---------------------------------------------------------------------- signatures


def test_a_signature_is_what_the_kernel_says() -> None:
    with open(os.devnull, "rb") as file:
        found = os.fstat(file.fileno())
    assert Signature.of(found) == (
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_dev,
        found.st_ino,
    )


@pytest.mark.parametrize(
    ("changes", "unchanged", "same_file"),
    [
        ({}, True, True),
        ({"size": 101}, False, True),
        ({"mtime_ns": 9}, False, True),
        ({"ctime_ns": 9}, False, True),
        ({"ino": 9}, False, False),
        ({"dev": 9}, True, True),  # its volume was mounted again
        ({"dev": 9, "ctime_ns": 9}, False, True),
        ({"dev": 9, "size": 101}, False, False),
        ({"dev": 9, "mtime_ns": 9}, False, False),
    ],
)
def test_signatures_tell_writes_and_other_files(
    changes: dict[str, int], *, unchanged: bool, same_file: bool
) -> None:
    other = SIGNATURE._replace(**changes)
    assert SIGNATURE.unchanged(other) is unchanged
    assert SIGNATURE.same_file(other) is same_file


@pytest.mark.parametrize(
    ("state", "error", "settled"),
    [
        (State.COMPLETE, NO_ERROR, True),
        (State.FAILED, RecordedError("key_too_long", "its S3 keys"), True),
        (State.FAILED, RecordedError("unreadable", "the daemon may not read it"), False),
        (State.INCOMPLETE, NO_ERROR, False),
        (State.INCOMPLETE, RecordedError("cancelled", "by anna"), True),
        (State.INCOMPLETE, RecordedError("", "cancelled: by anna"), False),
        (State.ACTIVE, NO_ERROR, False),
        (State.FINALIZING, NO_ERROR, False),
    ],
)
def test_an_unchanged_source_needs_no_work_if_it_is_done_or_hopeless(
    state: State, error: RecordedError, *, settled: bool
) -> None:
    stream = replace(STREAM, state=state, error=error)
    assert stream.settled(SIGNATURE) is settled
    assert not stream.settled(SIGNATURE._replace(mtime_ns=9))
