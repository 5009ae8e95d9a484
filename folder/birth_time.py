"""When a file or a folder was made, which Python's `os.stat` does not say on Linux."""

import ctypes
import os

# statx(2), <linux/stat.h>
_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800


class _Statx(ctypes.Structure):
    """`struct statx` up to the birth time; the kernel fills all of its 256 bytes."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("up_to_the_birth_time", ctypes.c_uint8 * 76),
        ("birth_seconds", ctypes.c_int64),
        ("birth_nanoseconds", ctypes.c_uint32),
        ("after_it", ctypes.c_uint8 * 164),
    )


_statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
if _statx is not None:
    _statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Statx))


def born_ns(fd: int) -> int:
    """Return the birth time of an open file or folder; 0 where the system or the file system keeps none.

    Unlike every other time of a file, no program can set it. ext4, XFS, Btrfs and tmpfs keep it to the
    nanosecond; FAT and exFAT, and many shares, do not keep it or keep it coarsely.

    Raises:
        OSError: the file system failed.
    """
    if _statx is None:  # not Linux, or a C library before 2018
        return 0
    answer = _Statx()
    if _statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, ctypes.byref(answer)) < 0:
        os.fstat(fd)  # raises if the file system fails; else statx alone is refused (old seccomp filters)
        return 0
    if not answer.mask & _STATX_BTIME:
        return 0
    return int(answer.birth_seconds) * 1_000_000_000 + int(answer.birth_nanoseconds)
