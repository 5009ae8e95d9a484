"""The recordings in a bucket, from S3 alone: found by the names that people type, and listed."""

from collections import Counter
from collections.abc import Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Literal, NamedTuple

from archive.generation import Recording, Status, chunk_at, open_committed, open_recording, open_revision
from archive.names import AmbiguousRecording, Meaning, Names, UnknownRecording, UnknownRevision, similar
from archive.retrying_bucket import ArchiveStore
from recording.layout import BucketLayout, RecordingId
from recording.manifest import Facts, ManifestError
from recording.service_keys import service_folder
from recording.timestamps import moment

LISTS_AT_A_TIME = 8
"""Requests in flight while the bucket is walked: each takes a round trip and hardly any work."""

MAX_LISTS_FOR_A_TYPO = 2000
"""A few seconds: after that a suggestion is not worth waiting for."""


class Summary(NamedTuple):
    """One generation for a list.

    `problem` says why its manifest cannot be trusted; "" if it can. `name` is the shortest that means no
    other: with the owner's id only where two sites began the same generation of the same path.
    """

    id: RecordingId
    status: Status | Literal["damaged"]
    size: int
    chunk_count: int
    facts: Facts
    problem: str = ""
    name: str = ""


def summary_of(recording: Recording) -> Summary:
    """Return what a list shows of a recording that was opened."""
    count = len(recording.chunks)
    return Summary(
        recording.id, recording.status, recording.size, count, recording.facts, name=recording.name
    )


def names_of(entries: Collection[RecordingId]) -> dict[RecordingId, str]:
    """Return the shortest name of each that means no other of them.

    Parameters:
        entries: all owners' of each generation that is among them.
    """
    owners = Counter(each.stream_id for each in entries)
    return {each: each.full_name if owners[each.stream_id] > 1 else each.stream_id for each in entries}


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
        self.layout = BucketLayout(prefix)
        self._names = Names(self.layout, watch_dir=watch_dir)

    # ------------------------------------------------------------------ by name

    def find(self, typed: str, generation: int | None = None, revision: int | None = None) -> Recording:
        """Open the recording that a person means.

        Parameters:
            typed: the path relative to the watched folder or with it, as it is or as its key; `@2` at
                the end means the second generation; without it the newest one is meant.
            generation: the same, as a number.
            revision: as that revision committed it, if it is kept; of the newest generation that is meant.

        Raises:
            UnknownRecording: there is none.
            UnknownRevision: there is one, without that revision.
            AmbiguousRecording: several owners have what is meant; it names them all.
            ManifestError: its manifest cannot be trusted.
        """
        for meaning in self._names.meanings(typed, generation):
            at_path = self.generations(meaning._replace(owner=None))
            owners = Counter(each.generation for each in at_path)
            wanted = [each for each in at_path if meaning.owner in (None, each.owner)]
            for number, several in groupby(wanted, key=lambda each: each.generation):
                present = list(several)
                opened = [each for each in map(partial(self._open, revision=revision), present) if each]
                if len(opened) > 1:
                    raise AmbiguousRecording(typed, [each.id.full_name for each in opened])
                if opened:
                    return replace(opened[0], shared=owners[number] > 1)
                if revision is not None and (there := self.revisions(*present)):
                    raise UnknownRevision(present[0].stream_id, revision, there)
        raise UnknownRecording(typed, lambda: self._similar(typed))

    def _open(self, recording: RecordingId, revision: int | None) -> Recording | None:
        if revision is None:
            return open_recording(self.store, self.layout, recording)
        return open_revision(self.store, self.layout, recording, revision)

    def revisions(self, *generations: RecordingId) -> list[int]:
        """Return the revisions that are kept of some generations, the newest ones included."""
        found = [each for each in map(partial(self._open, revision=None), generations) if each]
        kept = {each.revision for each in found if each.revision}
        for each in found:
            _, objects = self.store.level(self.layout.generation(each.id))
            kept |= {self.layout.former_revision(each.id, beside.key) or 0 for beside in objects} - {0}
        return sorted(kept)

    def named(self, typed: str) -> list[RecordingId]:
        """Return all generations that a typed name may mean, the newest first; all owners' of each.

        Parameters:
            typed: as for `find`.

        Raises:
            UnknownRecording: there is none.
        """
        found = filter(None, map(self.generations, self._names.meanings(typed, None)))
        if first := next(found, None):
            return first
        raise UnknownRecording(typed, lambda: self._similar(typed))

    def generations(self, meaning: Meaning) -> list[RecordingId]:
        """Return what S3 seems to hold of what is meant, the newest first."""
        start = self.layout.path(meaning.key_path) + "g"
        if meaning.generation:
            start += f"{meaning.generation:04d}-"
        found = [each for each in map(self.layout.recording, self.store.level(start)[0]) if each]
        wanted = [each for each in found if meaning.owner in (None, each.owner)]
        return sorted(wanted, key=lambda each: (-each.generation, each.owner))

    def _similar(self, typed: str) -> list[str]:
        return similar(typed, (each.key_path for each in self.entries(most=MAX_LISTS_FOR_A_TYPO)))

    # ------------------------------------------------------------------ all of them

    def entries(self, start: str = "", *, most: int | None = None) -> list[RecordingId]:
        """Find all generations, in order of name.

        The bucket is walked folder by folder and no chunk folder is listed: a store that hashes what
        it lists would read every recording.

        Parameters:
            start: only key paths that begin so.
            most: give up after so many folders and be content with what was found.
        """
        found: list[RecordingId] = []
        folders = [self.layout.prefix + start]
        looked = 0
        with ThreadPoolExecutor(LISTS_AT_A_TIME, thread_name_prefix="vcu-list") as pool:
            while folders and (most is None or looked < most):
                batch = folders if most is None else folders[: most - looked]
                looked += len(batch)
                folders = []
                for recording, deeper in pool.map(self._look, batch):
                    found += [recording] if recording else []
                    folders += deeper
        return sorted(found)

    def _look(self, prefix: str) -> tuple[RecordingId | None, list[str]]:
        """Look into one folder: the generation that it is, and the folders in it to be looked into."""
        folders, objects = self.store.level(prefix)
        folders = [folder for folder in folders if folder != service_folder(self.layout.prefix)]
        recording = self.layout.recording(prefix)
        if recording is None:
            return None, folders
        committed = self.layout.manifest(recording) in {found.key for found in objects}
        if committed or chunk_at(self.store, self.layout, recording, 0):
            own = self.layout.chunks(recording)
            return recording, [folder for folder in folders if folder != own]
        return None, folders  # a folder of the recorder's own that is called like one of ours

    def summaries(self, typed: str = "") -> Generator[Summary, None, None]:
        """Return all generations, in order of name.

        Parameters:
            typed: only those whose path begins so, spelled as for `find`.
        """
        entries = next(filter(None, map(self.entries, self._starts(typed))), [])
        names = names_of(entries)
        batch = 8 * LISTS_AT_A_TIME
        with ThreadPoolExecutor(LISTS_AT_A_TIME, thread_name_prefix="vcu-list") as pool:
            for at in range(0, len(entries), batch):
                for found in filter(None, pool.map(self._summary, entries[at : at + batch])):
                    yield found._replace(name=names[found.id])

    def _starts(self, typed: str) -> list[str]:
        if not typed or self._names.is_watch_dir(typed):
            return [""]
        return [keys + "/" * typed.endswith("/") for keys in self._names.spellings(typed)]

    def _summary(self, recording: RecordingId) -> Summary | None:
        try:
            found = open_committed(self.store, self.layout, recording)
        except ManifestError as error:
            return Summary(recording, "damaged", 0, 0, Facts(), str(error))
        return summary_of(found) if found else self._growing(recording)

    def _growing(self, recording: RecordingId) -> Summary | None:
        """Count the chunks of a recording without a manifest by halving: they have no gap."""
        first = last = chunk_at(self.store, self.layout, recording, 0)
        if first is None or last is None:
            return None
        known, beyond = 0, 1
        while found := chunk_at(self.store, self.layout, recording, beyond):
            known, beyond, last = beyond, 2 * beyond, found
        while beyond - known > 1:
            middle = (known + beyond) // 2
            if found := chunk_at(self.store, self.layout, recording, middle):
                known, last = middle, found
            else:
                beyond = middle
        facts = Facts(started_at=moment(first.uploaded_at), ended_at=moment(last.uploaded_at))
        return Summary(recording, "growing", known * first.size + last.size, known + 1, facts)
