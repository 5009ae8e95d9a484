"""The recordings in a bucket, from S3 alone: found by the names that people type, and listed."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

from archive.generation import Facts, Recording, Status, chunk_at, moment, open_committed, open_recording
from archive.names import Names, UnknownRecording, similar
from archive.retrying_bucket import ArchiveStore
from recording.manifest import ManifestError
from recording.service_keys import service_folder
from recording.stream import chunks_prefix, manifest_key, parse_generation, stream_id

LISTS_AT_A_TIME = 8
"""Requests in flight while the bucket is walked: each takes a round trip and hardly any work."""

MOST_LISTS_FOR_A_TYPO = 2000
"""A few seconds: after that a suggestion is not worth waiting for."""


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


def summary_of(recording: Recording) -> Summary:
    """Return what a list shows of a recording that was opened."""
    entry = Entry(*recording.place)
    return Summary(entry, recording.status, recording.size, len(recording.chunks), recording.facts)


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
        self.watch_dir = watch_dir
        self.prefix = prefix
        self._names = Names(prefix=prefix, watch_dir=watch_dir)

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
        for keys, number in self._names.meanings(typed, generation):
            for candidate in [number] if number else self._generations(keys):
                recording = open_recording(self.store, self.prefix, keys, candidate)
                if recording:
                    return recording
        raise UnknownRecording(typed, lambda: self._similar(typed))

    def _generations(self, keys: str) -> list[int]:
        """Give the numbers that S3 seems to hold, the newest first."""
        folders, _ = self.store.level(f"{self.prefix}{keys}/g")
        numbers = (parse_generation(folder.rstrip("/").rpartition("/")[2]) for folder in folders)
        return sorted((number for number in numbers if number), reverse=True)

    def _similar(self, typed: str) -> list[str]:
        return similar(typed, (entry.key_path for entry in self.entries(most=MOST_LISTS_FOR_A_TYPO)))

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
        folders = [folder for folder in folders if folder != service_folder(self.prefix)]
        keys, _, name = prefix[len(self.prefix) :].rstrip("/").rpartition("/")
        generation = parse_generation(name)
        if not prefix.endswith("/") or not keys or not generation:
            return None, folders
        committed = manifest_key(self.prefix, keys, generation) in {found.key for found in objects}
        if committed or chunk_at(self.store, self.prefix, keys, generation, 0):
            own = chunks_prefix(self.prefix, keys, generation)
            return Entry(keys, generation), [folder for folder in folders if folder != own]
        return None, folders  # a folder of the recorder's own that is called like one of ours

    def summaries(self, typed: str = "") -> Generator[Summary, None, None]:
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
        if not typed or self._names.is_watch_dir(typed):
            return [""]
        return [keys + "/" * typed.endswith("/") for keys in self._names.spellings(typed)]

    def _summary(self, entry: Entry) -> Summary | None:
        try:
            found = open_committed(self.store, self.prefix, *entry)
        except ManifestError as error:
            return Summary(entry, "damaged", 0, 0, Facts(), str(error))
        return summary_of(found) if found else self._growing(entry)

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
