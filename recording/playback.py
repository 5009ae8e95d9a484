"""What a finished recording is to a player: how long it is, and whether one can open it. Pure."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

MAX_REASON = 200
"""Characters of the reason why no player can open a recording."""


class Playback(NamedTuple):
    """What a finished recording is to a player.

    `estimated`: the file does not tell its duration, so it is the time from when it was found to its last
    change. `unplayable` is the reason why no player can open it, "" if one can, None if nobody knows.
    """

    duration_seconds: float | None = None
    estimated: bool = False
    unplayable: str | None = None

    @property
    def playable(self) -> bool | None:
        """Whether a player can open it; None: nobody knows."""
        return None if self.unplayable is None else not self.unplayable

    @property
    def duration_source(self) -> str | None:
        """`media` or `wall_clock`, as manifests name it; None without a duration."""
        return None if self.duration_seconds is None else "wall_clock" if self.estimated else "media"

    def as_json(self) -> dict[str, float | str | bool | None]:
        """Return it as commands and the API print it."""
        return {
            "duration_seconds": self.duration_seconds,
            "duration_source": self.duration_source,
            "playable": self.playable,
            "unplayable_reason": self.unplayable or None,
        }


UNKNOWN_PLAYBACK = Playback()
"""Of a recording that is not finished."""


def read_playback(manifest: Mapping[str, Any]) -> Playback:
    """Return what a manifest says of a recording to a player, as far as it can be believed."""
    duration = believable_duration(manifest.get("duration_seconds"))
    playable = manifest.get("playable")
    reason = str(manifest.get("media_error") or "it has no head")[:MAX_REASON]
    return Playback(
        duration,
        estimated=duration is not None and manifest.get("duration_source") == "wall_clock",
        unplayable="" if playable is True else reason if playable is False else None,
    )


def believable_duration(value: object) -> float | None:
    """Return a duration in seconds that stood in a manifest or a record; None when it can be none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:  # Python's whole numbers have no end
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
