"""How the page and its API spell sizes, times, and texts from outside. Pure."""

import math
import re
from datetime import UTC, datetime

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MINUTE_SECONDS = 60
_HOUR_SECONDS = 3600
_DAY_SECONDS = 86_400
_UNIT = 1000


def size(number: float) -> str:
    """Return bytes in units of a thousand, such as `16.7 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < _UNIT:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= _UNIT
    return f"{number:.1f} TB"


def duration(seconds: float) -> str:
    """Return seconds, minutes, hours or days, such as `4 min`."""
    if seconds < 2 * _MINUTE_SECONDS:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR_SECONDS:
        return f"{seconds / _MINUTE_SECONDS:.0f} min"
    if seconds < 2 * _DAY_SECONDS:
        return f"{seconds / _HOUR_SECONDS:.0f} h"
    return f"{seconds / _DAY_SECONDS:.0f} days"


def rounded(number: float | None) -> float | None:
    """Return a number as the API shows it; None for what is none."""
    return round(number, 1) if number is not None and math.isfinite(number) else None


def iso(seconds: float) -> str:
    """Return seconds since the epoch as ISO 8601 UTC, to the millisecond."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clean(text: str) -> str:
    """Make a text valid Unicode: bytes of a name that were none are shown as U+FFFD."""
    return _LONE_SURROGATE.sub("\ufffd", text)
