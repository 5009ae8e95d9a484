"""How much room a disk has."""

import os
from typing import NamedTuple

FULL_BYTES = 64 * 1024 * 1024
"""With less than that a local S3 server and Redis cannot work any more: a chunk, its copy and a log."""


class DiskSpace(NamedTuple):
    """Of the file system at a path: bytes that an ordinary user may still use, and all."""

    free: int
    total: int

    @property
    def is_full(self) -> bool:
        """Whether nothing can be stored there any more."""
        return self.free < FULL_BYTES


def disk_space(path: str | os.PathLike[str]) -> DiskSpace | None:
    """Return the room at a path; None where nobody can tell."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return DiskSpace(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
