"""What of the last day is not as it should be, although nothing waits: cut short, or unplayable. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from status.overview import Overview, StreamStatus
from status.spelling import size

REPAIR = (
    "Repair a copy of it, for example with untrunc; the file itself is evidence, leave it as it is. Let the"
    " recorder write fragmented MP4: that survives a crash."
)
"""What to do about a recording that no player can open."""


class Attention(NamedTuple):
    """What the headline mentions for a day."""

    title: str
    detail: str


def attention(overview: Overview, silent: Sequence[str] = ()) -> Attention | None:
    """Return what the headline must mention of the recordings of the last day; None for nothing.

    Parameters:
        overview: the streams as they are now.
        silent: a sentence for each camera that went silent.
    """
    parts = []
    if overview.cut_short:
        parts.append(Attention(_cut_title(len(overview.cut_short)), _cut_detail(overview.cut_short)))
    if overview.unplayable:
        first = overview.unplayable[0]
        detail = f"No player can open {first.path}{_more(overview.unplayable)}: {first.playback.unplayable}."
        parts.append(Attention(_unplayable_title(len(overview.unplayable)), detail))
    if silent:
        more = f", and {len(silent) - 1} more" if len(silent) > 1 else ""
        parts.append(Attention(f"Yes, but {silent[0]}{more}", f"{'. '.join(silent)}. Look at the camera."))
    if not parts:
        return None
    return Attention(parts[0].title, " ".join(part.detail for part in parts))


def _cut_title(number: int) -> str:
    if number == 1:
        return "Not quite: a recording of the last day was cut short"
    return f"Not quite: {number} recordings of the last day were cut short"


def _cut_detail(cut: list[StreamStatus]) -> str:
    first, lost = cut[0], sum(each.lost_bytes for each in cut)
    reason = first.error.message or "it ended before it was stored whole"
    known = f" At least {size(lost)} are lost." if lost else " How much is lost is not known."
    return f"{first.path}{_more(cut)}: {reason}.{known}"


def _unplayable_title(number: int) -> str:
    which = "one recording" if number == 1 else f"{number} recordings"
    return f"Yes, but {which} of the last day cannot be played"


def _more(streams: list[StreamStatus]) -> str:
    return f", and {len(streams) - 1} more" if len(streams) > 1 else ""
