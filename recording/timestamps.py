"""Times as records, manifests and logs spell them."""

from datetime import UTC, datetime


def utc_now() -> str:
    """Return the time as ISO 8601 UTC with milliseconds."""
    return iso(datetime.now(UTC))


def iso(moment: datetime) -> str:
    """Spell a time as ISO 8601 UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
