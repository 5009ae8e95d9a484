"""The recordings in a bucket, from S3 alone: found by the names that people type, and listed."""

import difflib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

from archive_store import ArchiveStore
from errors import PermanentError, UploaderError
from manifest import ManifestError
from recording import Facts, Recording, Status, chunk_at, moment, open_committed, open_recording
from stream import chunk_key, chunks_prefix, key_path, manifest_key, parse_generation, stream_id

LISTS_AT_A_TIME = 8
"""Requests in flight while the bucket is walked: each takes a round trip and hardly any work."""

MOST_LISTS_FOR_A_TYPO = 2000
"""A few seconds: after that a suggestion is not worth waiting for."""

SUGGESTIONS = 3
_SIMILARITY = 0.7
_NAMED_GENERATION = re.compile(r"(.+)@([1-9][0-9]{0,8})", re.DOTALL)


class UnknownRecording(UploaderError):
    """No recording has the name that was typed.

    Parameters:
        typed: the name.
        suggestions: names that resemble it, the nearest first.
    """

    def __init__(self, typed: str, suggestions: list[str]) -> None:
        super().__init__(f"no recording {typed!r} in the bucket")
        self.suggestions = suggestions


class Entry(NamedTuple):
    """A generation that was found in the bucket, not yet looked into."""

    key_path: str
    generation: int

    @property
    def name(self) -> str:
        """The stream id, which is also a name that people can type."""
        return stream_id(self.key_path, self.generation)


class Summary(NamedTuple):
    """One generation for a list. `problem` says why its manifest cannot be trusted; "" if it can."""

    entry: Entry
    status: Status | Literal["damaged"]
    size: int
    chunk_count: int
    facts: Facts
    problem: str = ""


class Archive:
    """The recordings under one prefix of one bucket. Safe to use from any thread.

    Every method raises `StoreUnavailable` when S3 does not answer or refuses us.

    Parameters:
        store: the bucket.
        prefix: `S3_PREFIX`.
        watch_dir: people also type names with the watched folder in front; it need not exist.
    """

    def __init__(self, store: ArchiveStore, *, prefix: str, watch_dir: str) -> None:
        self.store = store
        self.prefix = prefix
        self._watch_dir = os.path.abspath(watch_dir)

    # ------------------------------------------------------------------ by name

    def find(self, typed: str, generation: int | None = None) -> Recording:
        """Open the recording that a person means.

        Parameters:
            typed: the path relative to the watched folder or with it, as it is or as its key; `@2` at
                the end means the second generation; without it the newest one is meant.
            generation: the same, as a number.

        Raises:
            UnknownRecording: there is none.
            ManifestError: its manifest cannot be trusted.
        """
        for keys, number in self._meanings(typed, generation):
            for candidate in [number] if number else self._generations(keys):
                recording = open_recording(self.store, self.prefix, keys, candidate)
                if recording:
                    return recording
        raise UnknownRecording(typed, self._similar(typed))

    def spellings(self, typed: str) -> list[str]:
        """Give the key paths that a typed path may mean, the likeliest first."""
        paths = [os.path.normpath(typed)]
        absolute = os.path.abspath(typed)
        if absolute.startswith(self._watch_dir + "/"):
            paths.append(os.path.relpath(absolute, self._watch_dir))
        keys = [spelled for path in paths for spelled in (path, key_path(path))]
        return [spelled for spelled in dict.fromkeys(keys) if self._can_be_key(spelled)]

    def _meanings(self, typed: str, generation: int | None) -> Iterator[tuple[str, int | None]]:
        """Give what a typed name may mean. A file may also be called `a@2`, so that comes last."""
        named = _NAMED_GENERATION.fullmatch(typed) if generation is None else None
        if named:
            for keys in self.spellings(named[1]):
                yield keys, int(named[2])
        for keys in self.spellings(typed):
            yield keys, generation

    def _can_be_key(self, keys: str) -> bool:
        try:
            chunk_key(chunks_prefix(self.prefix, keys, 1), 0, "")
        except (PermanentError, UnicodeEncodeError):
            return False
        return "\0" not in keys and not {"", ".", ".."} & {*keys.split("/")}

    def _generations(self, keys: str) -> list[int]:
        """Give the numbers that S3 seems to hold, the newest first."""
        folders, _ = self.store.level(f"{self.prefix}{keys}/g")
        numbers = (parse_generation(folder.rstrip("/").rpartition("/")[2]) for folder in folders)
        return sorted((number for number in numbers if number), reverse=True)

    def _similar(self, typed: str) -> list[str]:
        known = list(dict.fromkeys(entry.key_path for entry in self.entries(most=MOST_LISTS_FOR_A_TYPO)))
        wanted = os.path.normpath(typed)
        by_name: dict[str, list[str]] = {}
        for keys in known:
            by_name.setdefault(keys.rpartition("/")[2], []).append(keys)
        near = difflib.get_close_matches(wanted, known, SUGGESTIONS, _SIMILARITY)
        same_name = difflib.get_close_matches(wanted.rpartition("/")[2], by_name, SUGGESTIONS, _SIMILARITY)
        found = [*near, *(keys for name in same_name for keys in by_name[name])]
        return list(dict.fromkeys(found))[:SUGGESTIONS]

    # ------------------------------------------------------------------ all of them

    def entries(self, start: str = "", *, most: int | None = None) -> list[Entry]:
        """Find all generations, in order of name.

        The bucket is walked folder by folder and no chunk folder is listed: a store that hashes what
        it lists would read every recording.

        Parameters:
            start: only key paths that begin so.
            most: give up after so many folders and be content with what was found.
        """
        found: list[Entry] = []
        folders = [self.prefix + start]
        looked = 0
        with ThreadPoolExecutor(LISTS_AT_A_TIME, thread_name_prefix="vcu-list") as pool:
            while folders and (most is None or looked < most):
                batch = folders if most is None else folders[: most - looked]
                looked += len(batch)
                folders = []
                for entry, deeper in pool.map(self._look, batch):
                    found += [entry] if entry else []
                    folders += deeper
        return sorted(found)

    def _look(self, prefix: str) -> tuple[Entry | None, list[str]]:
        """Look into one folder: the generation that it is, and the folders in it to be looked into."""
        folders, objects = self.store.level(prefix)
        keys, _, name = prefix[len(self.prefix) :].rstrip("/").rpartition("/")
        generation = parse_generation(name)
        if not prefix.endswith("/") or not keys or not generation:
            return None, folders
        committed = manifest_key(self.prefix, keys, generation) in {found.key for found in objects}
        if committed or chunk_at(self.store, self.prefix, keys, generation, 0):
            own = chunks_prefix(self.prefix, keys, generation)
            return Entry(keys, generation), [folder for folder in folders if folder != own]
        return None, folders  # a folder of the recorder's own that is called like one of ours

    def summaries(self, typed: str = "") -> Iterator[Summary]:
        """Tell about all generations, in order of name.

        Parameters:
            typed: only those whose path begins so, spelled as for `find`.
        """
        entries = next(filter(None, map(self.entries, self._starts(typed))), [])
        batch = 8 * LISTS_AT_A_TIME
        with ThreadPoolExecutor(LISTS_AT_A_TIME, thread_name_prefix="vcu-list") as pool:
            for at in range(0, len(entries), batch):
                yield from filter(None, pool.map(self._summary, entries[at : at + batch]))

    def _starts(self, typed: str) -> list[str]:
        if not typed or os.path.abspath(typed) == self._watch_dir:
            return [""]
        return [keys + "/" * typed.endswith("/") for keys in self.spellings(typed)]

    def _summary(self, entry: Entry) -> Summary | None:
        try:
            found = open_committed(self.store, self.prefix, *entry)
        except ManifestError as error:
            return Summary(entry, "damaged", 0, 0, Facts(), str(error))
        if found:
            return Summary(entry, found.status, found.size, len(found.chunks), found.facts)
        return self._growing(entry)

    def _growing(self, entry: Entry) -> Summary | None:
        """Count the chunks of a recording without a manifest by halving: they have no gap."""
        first = last = chunk_at(self.store, self.prefix, *entry, 0)
        if first is None or last is None:
            return None
        known, beyond = 0, 1
        while found := chunk_at(self.store, self.prefix, *entry, beyond):
            known, beyond, last = beyond, 2 * beyond, found
        while beyond - known > 1:
            middle = (known + beyond) // 2
            if found := chunk_at(self.store, self.prefix, *entry, middle):
                known, last = middle, found
            else:
                beyond = middle
        facts = Facts(started_at=moment(first.uploaded_at), ended_at=moment(last.uploaded_at))
        return Summary(entry, "growing", known * first.size + last.size, known + 1, facts)
