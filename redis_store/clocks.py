"""Clocks that go on while the machine is suspended, which `time.monotonic` does not on Linux."""

import time

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS: its monotonic clock counts sleep


def boot_seconds() -> float:
    """Return the seconds since the system was started, with those during which it was suspended.

    For whatever the world outside counts as well: a lease in Redis ends while this machine sleeps.
    """
    return time.clock_gettime(_BOOT)


def suspended_seconds() -> float:
    """Return for how long the system was suspended since it was started."""
    return boot_seconds() - time.clock_gettime(time.CLOCK_MONOTONIC)
