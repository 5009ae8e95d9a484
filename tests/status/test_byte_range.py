"""The `Range` header, as browsers, players and people with strange ideas send it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from status.byte_range import UnsatisfiableError, parse_range


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("bytes=0-", (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-500", (90, 100)),
        ("bytes=90-18446744073709551615", (90, 100)),
        ("bytes=99-", (99, 100)),
        ("bytes=-5", (95, 100)),
        ("bytes=-500", (0, 100)),
        ("Bytes = 1-2 ", (1, 3)),
    ],
)
def test_a_range_is_read(header: str, wanted: tuple[int, int]) -> None:
    assert parse_range(header, 100) == wanted


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=1-2,5-6",
        "lines=1-2",
        "bytes=--5",
        "bytes=1-2-3",
        "bytes=٣-٤",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_what_is_no_single_range_of_bytes_is_ignored(header: str) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(("header", "size"), [("bytes=100-", 100), ("bytes=-0", 100), ("bytes=0-", 0)])
def test_a_range_without_any_byte_cannot_be_satisfied(header: str, size: int) -> None:
    with pytest.raises(UnsatisfiableError):
        parse_range(header, size)


@given(header=st.from_regex(r"\Abytes=[0-9]{0,20}-[0-9]{0,20}\Z"), size=st.integers(0, 10**15))
def test_every_range_that_is_given_lies_inside(header: str, size: int) -> None:
    try:
        wanted = parse_range(header, size)
    except UnsatisfiableError:
        return
    assert wanted is None or 0 <= wanted.start < wanted.end <= size
