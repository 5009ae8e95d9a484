"""Scans of the watched folder: every source below it, found without following a link."""

import fnmatch
import os
import stat
from collections.abc import Iterator

import logs
import metrics
from stream import Signature

log = logs.get_logger(__name__)

MOST_SKIPPED_NAMES = 10_000
"""Entries of which it is remembered that their skipping was logged; more are only counted."""


def is_source_name(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a file name is that of a source; case does not matter.

    Names that begin with a dot are temporary files of others, unless a pattern begins with one too.
    """
    lowered = name.lower()
    return any(
        fnmatch.fnmatchcase(lowered, pattern.lower())
        and (not name.startswith(".") or pattern.startswith("."))
        for pattern in patterns
    )


def is_hidden(folder: str) -> bool:
    """Tell whether a relative folder is, or lies in, one with a leading dot: those hold no sources."""
    return folder.startswith(".") or "/." in folder


class FolderScan:
    """Finds the sources below a folder. Owned by one thread.

    Parameters:
        root: the watched folder.
        patterns: of file names.
    """

    def __init__(self, root: str, patterns: tuple[str, ...]) -> None:
        self._root = root
        self._patterns = patterns
        self._logged: set[str] = set()  # entries whose skipping was logged
        self._skipped: set[str] = set()  # those that the scan under way met again
        self._count = 0

    def everything(self) -> Iterator[tuple[str, Signature]]:
        """Find every source; counts what is skipped, and forgets what is not there any more."""
        self._skipped, self._count = set(), 0
        yield from self.below("")
        metrics.SKIPPED.set(self._count)
        self._logged &= self._skipped

    def below(self, folder: str) -> Iterator[tuple[str, Signature]]:
        """Find every source below a folder.

        Parameters:
            folder: relative to the root; "" for all of it.
        """
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            for entry in self._entries(here):
                path = f"{here}/{entry.name}" if here else entry.name
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith("."):
                            waiting.append(path)
                        continue
                    signature = self._signature(entry, path)
                except FileNotFoundError:
                    continue  # deleted while we looked
                except OSError as error:
                    self._skip(path, f"it cannot be looked at: {error.strerror}")
                    continue
                if signature:
                    yield path, signature

    def _entries(self, folder: str) -> Iterator["os.DirEntry[str]"]:
        try:
            with os.scandir(os.path.join(self._root, folder)) as entries:
                yield from entries
        except (FileNotFoundError, NotADirectoryError):
            return  # deleted or exchanged while we looked
        except OSError as error:
            self._skip(folder or ".", f"the folder cannot be read: {error.strerror}")

    def _signature(self, entry: "os.DirEntry[str]", path: str) -> Signature | None:
        if not is_source_name(entry.name, self._patterns):
            return None
        found = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            return Signature.of(found)
        self._skip(path, "a link" if stat.S_ISLNK(found.st_mode) else "no regular file")
        return None

    def _skip(self, path: str, reason: str) -> None:
        self._count += 1
        if len(self._skipped) < MOST_SKIPPED_NAMES:
            self._skipped.add(path)
        if path not in self._logged and len(self._logged) < MOST_SKIPPED_NAMES:
            self._logged.add(path)
            log.warning("skipped", path=path, reason=reason)
