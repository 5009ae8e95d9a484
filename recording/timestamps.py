"""Times as records, manifests and logs spell them."""

from datetime import UTC, datetime
from typing import Any


def utc_now() -> str:
    """Return the time as ISO 8601 UTC with milliseconds."""
    return iso(datetime.now(UTC))


def iso(moment: datetime) -> str:
    """Spell a time as ISO 8601 UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_of_ns(nanoseconds: int) -> str:
    """Spell nanoseconds since the epoch; what no date has, and a file may carry any time at all, as 1970."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        return iso(datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000))
    except (OverflowError, ValueError, OSError):
        return iso(datetime.fromtimestamp(0, UTC))


def moment(text: Any) -> datetime | None:
    """Read a time that a manifest or the store gives; None when it is none."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
