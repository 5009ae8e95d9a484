"""What an ordinary user may do, also when root runs the tests."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION_3 = 0x20080522  # linux/capability.h
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1 << 1, 1 << 2
_EFFECTIVE = 0  # of the six words: effective, permitted, inheritable, and the same again for the upper half


@contextmanager
def bound_by_file_modes() -> Iterator[None]:
    """Obey file modes, as everybody but root must, in this thread and those that it starts.

    The user stays the same: code, libraries and pytest's private folders stay readable, wherever they are.
    """
    header = ctypes.create_string_buffer(struct.pack("<Ii", _VERSION_3, 0), 8)
    words = (ctypes.c_uint32 * 6)()
    _call("capget", header, words)
    before = words[_EFFECTIVE]
    words[_EFFECTIVE] = before & ~(_CAP_DAC_OVERRIDE | _CAP_DAC_READ_SEARCH)
    _call("capset", header, words)
    try:
        yield
    finally:
        words[_EFFECTIVE] = before
        _call("capset", header, words)


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
