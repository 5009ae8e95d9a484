"""A JSON object of which one member is a long list, read item by item. Pure: no I/O.

`json.loads` makes objects of all that a text holds before anybody can look at it: of 32 MiB it made 494 MiB.
Here memory holds what the caller keeps of each item, and what `spare_bytes` of the rest can be.
"""

import codecs
import json
import re
from collections.abc import Callable
from typing import Any

_SPACE = re.compile(rb"[ \t\n\r]*")

Members = dict[str, Any]


def read_object(
    raw: bytes,
    *,
    list_name: str,
    take: Callable[[Any, Members], None],
    item_bytes: int,
    spare_bytes: int,
) -> Members:
    """Return all members but the list; its items are handed over one by one, in order.

    Parameters:
        raw: the text, in UTF-8.
        list_name: of the member that is the long list; it must be there.
        take: gets each item, and the members that stand before the list.
        item_bytes: that one item may have.
        spare_bytes: that all other members may have together.

    Raises:
        ValueError: it is no such object, a name occurs twice, or a part of it is larger than it may be.
        RecursionError: it is nested too deep.
    """
    text = _Text(raw)
    members: Members = {}
    names: set[str] = set()
    text.expect(b"{")
    more = not text.sees(b"}")
    while more:
        began = text.at
        name = text.value(spare_bytes)
        text.expect(b":")
        if not isinstance(name, str) or name in names:
            raise ValueError("a name occurs twice in it, or is none")
        names.add(name)
        if name == list_name:
            text.items(lambda item: take(item, members), item_bytes)
        else:
            members[name] = text.value(spare_bytes)
            spare_bytes -= text.at - began
        more = text.goes_on(b"}")
    text.end()
    if list_name not in names:
        raise ValueError(f"it has no {list_name}")
    return members


class _Text:
    """A JSON text and how far it was read."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.at = 0

    def sees(self, letter: bytes) -> bool:
        """Pass a letter if it comes next, whatever space is before it."""
        self._pass_space()
        found = self._raw[self.at : self.at + 1] == letter
        self.at += found
        return found

    def expect(self, letter: bytes) -> None:
        if not self.sees(letter):
            raise ValueError(f"{letter.decode()} was expected at byte {self.at}")

    def goes_on(self, end: bytes) -> bool:
        """Pass what stands behind a member or an item: the end, or the comma before the next."""
        if self.sees(end):
            return False
        self.expect(b",")
        return True

    def value(self, most: int) -> Any:
        """Return the next value; one of more bytes than that is cut off, and so refused."""
        self._pass_space()
        text, _ = codecs.utf_8_decode(self._raw[self.at : self.at + max(most, 0)], "strict", False)  # noqa: FBT003
        value, end = _DECODER.raw_decode(text)
        self.at += len(text[:end].encode())
        return value

    def items(self, take: Callable[[Any], None], most: int) -> None:
        """Hand over each item of a list of values that have at most so many bytes each."""
        self.expect(b"[")
        more = not self.sees(b"]")
        while more:
            take(self.value(most))
            more = self.goes_on(b"]")

    def end(self) -> None:
        self._pass_space()
        if self.at < len(self._raw):
            raise ValueError(f"there is more behind its end, at byte {self.at}")

    def _pass_space(self) -> None:
        found = _SPACE.match(self._raw, self.at)
        self.at = found.end() if found else self.at


def _without_duplicates(pairs: list[tuple[str, Any]]) -> Members:
    """Refuse what two readers could read differently."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name occurs twice in it")
    return members


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates)


def members_of(text: str | bytes | None) -> dict[str, Any]:
    """Return the members of a JSON object; none for a text that is no such object, or nothing.

    Parameters:
        text: short, and written by whoever can write to the store that it is from.
    """
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
