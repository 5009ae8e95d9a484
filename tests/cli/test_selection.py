"""Times as people type them."""

from datetime import datetime

import pytest

from archive.names import similar
from cli.selection import moment

NOW = datetime.fromisoformat("2026-11-21T18:30:00").astimezone()


@pytest.mark.parametrize(
    ("typed", "begin", "end"),
    [
        ("2026-11-20", "2026-11-20T00:00", "2026-11-20T23:59:59.999999"),
        ("yesterday", "2026-11-20T00:00", "2026-11-20T23:59:59.999999"),
        ("today", "2026-11-21T00:00", "2026-11-21T23:59:59.999999"),
        ("yesterday 14:00", "2026-11-20T14:00", "2026-11-20T14:00"),
        ("2026-11-20T14:00:30", "2026-11-20T14:00:30", "2026-11-20T14:00:30"),
        ("9:05", "2026-11-21T09:05", "2026-11-21T09:05"),
        ("7d", "2026-11-14T18:30", "2026-11-14T18:30"),
        ("2w", "2026-11-07T18:30", "2026-11-07T18:30"),
        ("90m", "2026-11-21T17:00", "2026-11-21T17:00"),
    ],
)
def test_a_time_is_understood(typed: str, begin: str, end: str) -> None:
    assert moment(typed, NOW, end=False) == datetime.fromisoformat(begin).astimezone()
    assert moment(typed, NOW, end=True) == datetime.fromisoformat(end).astimezone()


@pytest.mark.parametrize("typed", ["", "tomorrow", "25:00", "7", "2026-13-01", "d", "999999w"])
def test_what_is_no_time_is_refused(typed: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        moment(typed, NOW, end=False)


def test_what_was_typed_is_not_suggested() -> None:
    assert similar("a.mp4", ["a.mp4", "b/a.mp4"]) == ["b/a.mp4"]
