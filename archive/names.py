"""The names that people type for recordings: what they may mean, and what resembles them."""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from errors import UploaderError
from recording.layout import BucketLayout, key_path

SUGGESTIONS = 3
_SIMILARITY = 0.7
_NAMED_GENERATION = re.compile(r"(.+)@([1-9][0-9]{0,8})(?:-([0-9a-f]{8}))?", re.DOTALL)


class UnknownRecording(UploaderError):
    """No recording has the name that was typed.

    Parameters:
        typed: the name.
        resembling: looks for names that resemble it, the nearest first; asked only when they are wanted.
        where: it was looked for.
        all_shown_by: the command that shows all there are.
    """

    def __init__(
        self,
        typed: str,
        resembling: Callable[[], list[str]],
        *,
        where: str = "in the bucket",
        all_shown_by: str = "list",
    ) -> None:
        super().__init__(f"no recording {typed!r} {where}")
        self._resembling: Callable[[], list[str]] = resembling
        self.all_shown_by = all_shown_by
        self.suggestions: list[str] = []
        """Names that resemble the typed one, the nearest first; empty until they were looked for."""

    def look_for_suggestions(self) -> None:
        """Look for names that resemble the typed one, while the store is open; if it fails there are none."""
        resembling, self._resembling = self._resembling, list
        with suppress(UploaderError):
            self.suggestions = self.suggestions or resembling()


class AmbiguousRecording(UploaderError):
    """Several recordings have the name that was typed: sites that knew nothing of each other began them.

    Parameters:
        typed: the name.
        names: of the recordings, each with its owner's id.
    """

    def __init__(self, typed: str, names: list[str]) -> None:
        super().__init__(f"{typed!r} is the name of {len(names)} recordings: say which, {' or '.join(names)}")
        self.names = names


class UnknownRevision(UploaderError):
    """A recording is there, and the revision of it that was asked for is not.

    Parameters:
        name: of the recording.
        revision: that was asked for.
        kept: those that are there.
    """

    def __init__(self, name: str, revision: int, kept: list[int]) -> None:
        there = f"there is {' and '.join(map(str, kept))}" if kept else "none was committed yet"
        super().__init__(f"no revision {revision} of {name!r} in the bucket: {there}")


class Meaning(NamedTuple):
    """What a typed name may mean. Without a generation the newest is meant, without an owner any."""

    key_path: str
    generation: int | None = None
    owner: str | None = None


class Names:
    """What typed names may mean in one bucket, for one watched folder.

    Parameters:
        layout: of the bucket.
        watch_dir: people also type names with the watched folder in front; it need not exist.
    """

    def __init__(self, layout: BucketLayout, *, watch_dir: str) -> None:
        self._layout = layout
        self._watch_dir = os.path.abspath(watch_dir)

    def paths(self, typed: str) -> list[str]:
        """Return the paths relative to the watched folder that a typed one may mean, the likeliest first."""
        paths = [os.path.normpath(typed)]
        absolute = os.path.abspath(typed)
        if absolute.startswith(self._watch_dir + "/"):
            paths.append(os.path.relpath(absolute, self._watch_dir))
        return paths

    def spellings(self, typed: str) -> list[str]:
        """Return the key paths that a typed path may mean, the likeliest first."""
        keys = [spelled for path in self.paths(typed) for spelled in (path, key_path(path))]
        return [spelled for spelled in dict.fromkeys(keys) if self._can_be_key(spelled)]

    def meanings(self, typed: str, generation: int | None) -> Iterator[Meaning]:
        """Find what a typed name may mean. A file may also be called `a@2`, so that comes last.

        Parameters:
            typed: the path relative to the watched folder or with it, as it is or as its key; `@2` at
                the end means the second generation, `@2-7f3a91c2` that of one owner.
            generation: the same, as a number.
        """
        named = _NAMED_GENERATION.fullmatch(typed) if generation is None else None
        if named:
            for keys in self.spellings(named[1]):
                yield Meaning(keys, int(named[2]), named[3])
        for keys in self.spellings(typed):
            yield Meaning(keys, generation)

    def is_watch_dir(self, typed: str) -> bool:
        """Return whether the watched folder itself was typed."""
        return os.path.abspath(typed) == self._watch_dir

    def _can_be_key(self, keys: str) -> bool:
        plain = "\0" not in keys and not {"", ".", ".."} & {*keys.split("/")}
        return plain and self._layout.takes(keys)


def similar(typed: str, known: Iterable[str]) -> list[str]:
    """Return the names that have a typed one in them, then those that resemble it, in any folder.

    Parameters:
        typed: what was typed.
        known: key paths.
    """
    wanted = os.path.normpath(typed)
    # Not itself: it may have come since it was looked for.
    all_keys = [keys for keys in dict.fromkeys(known) if keys != wanted]
    parts = [keys for keys in all_keys if wanted.lower() in keys.lower()]
    by_name: dict[str, list[str]] = {}
    for keys in all_keys:
        by_name.setdefault(keys.rpartition("/")[2], []).append(keys)
    near = difflib.get_close_matches(wanted, all_keys, SUGGESTIONS, _SIMILARITY)
    same_name = difflib.get_close_matches(wanted.rpartition("/")[2], by_name, SUGGESTIONS, _SIMILARITY)
    found = [*parts, *near, *(keys for name in same_name for keys in by_name[name])]
    return list(dict.fromkeys(found))[:SUGGESTIONS]
