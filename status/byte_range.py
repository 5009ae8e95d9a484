"""The `Range` header of HTTP: which bytes a client wants (RFC 9110, section 14). Pure."""

import re
from typing import NamedTuple

# 64 bits, which some send for "all". Longer numbers are of no recording, and Python refuses to read some.
_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,20})-([0-9]{0,20})[ \t]*", re.IGNORECASE)


class ByteRange(NamedTuple):
    """The bytes `[start, end)`."""

    start: int
    end: int


class UnsatisfiableError(ValueError):
    """The range begins behind the last byte."""


def parse_range(header: str, size: int) -> ByteRange | None:
    """Read a `Range` header; None when it is to be ignored, and all is wanted.

    Several ranges, other units and what cannot be read are ignored, as a server may.

    Parameters:
        header: its value; "" when there is none.
        size: bytes that there are.

    Raises:
        UnsatisfiableError: none of the bytes that are wanted is there.
    """
    match = _RANGE.fullmatch(header)
    if not match or match[1] == match[2] == "":
        return None
    if not match[1]:
        wanted = ByteRange(max(size - int(match[2]), 0), size)
    else:
        start = int(match[1])
        end = min(int(match[2]) + 1, size) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
        wanted = ByteRange(start, end)
    if wanted.start >= wanted.end:
        raise UnsatisfiableError
    return wanted
