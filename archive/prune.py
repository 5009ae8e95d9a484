"""What is superseded in the bucket, and its removal.

Former revisions, chunks that no manifest names, and generations without a manifest of which another one has
every byte. `removable` decides from one look, without I/O; `prune` looks, and deletes.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

from archive.generation import Recording, open_committed, open_revision
from archive.listing import Archive
from archive.names import Meaning
from archive.retrying_bucket import ArchiveStore, Remover
from errors import PermanentError
from recording.layout import BucketLayout, RecordingId, chunk_hash_start
from recording.manifest import ManifestError
from recording.stream import StoredObject
from recording.timestamps import moment

Content = tuple[int, str, int]
"""Of a chunk as its key and size tell it: index, beginning of the SHA-256, bytes."""


class Former(NamedTuple):
    """A superseded revision and the object that keeps its manifest, which was put when it was superseded."""

    kept: StoredObject
    recording: Recording

    def older_than(self, before: datetime) -> bool:
        """Return whether it was both committed and superseded before a moment."""
        committed_at = self.recording.facts.ended_at
        return committed_at is not None and committed_at < before and _older(self.kept, before)


@dataclass(frozen=True)
class Generation:
    """One generation as one look showed it.

    `newest` is None while it has no manifest. `chunks` are its chunk objects by key, with their contents;
    `strange` what else lies in its folder. `problem` says why it could not be looked at; "" if it could.
    """

    id: RecordingId
    newest: Recording | None = None
    former: tuple[Former, ...] = ()
    chunks: tuple[tuple[StoredObject, Content], ...] = ()
    strange: tuple[StoredObject, ...] = ()
    problem: str = ""

    @cached_property
    def missing(self) -> str | None:
        """The first key that the newest manifest names and that does not lie there in its size."""
        sizes = {found.key: found.size for found, _ in self.chunks}
        named = self.newest.chunks if self.newest else ()
        return next((chunk.key for chunk in named if sizes.get(chunk.key) != chunk.size), None)

    @property
    def whole(self) -> bool:
        """Whether its newest manifest is complete and everything that it names is there."""
        complete = self.newest is not None and self.newest.status == "complete"
        return complete and not self.problem and self.missing is None

    @cached_property
    def contents(self) -> frozenset[Content]:
        """What the newest manifest names."""
        named = self.newest.chunks if self.newest else ()
        return frozenset((chunk.index, chunk_hash_start(chunk.key), chunk.size) for chunk in named)

    def ends_before(self, content: Content) -> bool:
        """Return whether a chunk has bytes from beyond the end of the newest revision."""
        index, _, size = content
        named = self.newest.chunks if self.newest else ()
        return index >= len(named) or (index == len(named) - 1 and size > named[-1].size)


class Removal(NamedTuple):
    """What may go of one generation, in this order, as long as the manifests it relies on stay as they are.

    `why_not` says what is wrong with a generation that is left alone; "" if nothing is.
    """

    generation: Generation
    former: tuple[Former, ...] = ()
    chunks: tuple[StoredObject, ...] = ()
    relies_on: tuple[Generation, ...] = ()
    why_not: str = ""

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """All that goes: manifests before what only they name."""
        return (*(each.kept for each in self.former), *self.chunks)


class Pruned(NamedTuple):
    """What was, or would be, removed of one generation; `problem` says what went wrong, "" if nothing did."""

    name: str
    revisions: tuple[int, ...]
    keys: tuple[str, ...]
    size: int
    problem: str = ""


def removable(generation: Generation, at_path: Iterable[Generation], *, before: datetime) -> Removal:
    """Decide what may go of a generation. Pure: no I/O.

    Never the newest manifest or what it names; nothing of a generation that is not whole, or of which one
    manifest cannot be read. Bytes that no manifest names may be the only ones of their footage if they lie
    beyond the end of the newest revision, or if there is no manifest: they go only when a whole
    generation of the same path names the same contents.

    Parameters:
        generation: as it was looked at.
        at_path: all generations of the same path.
        before: only what has been superseded, and was put, before this moment.
    """
    holders = [each for each in at_path if each.id != generation.id and each.whole]
    if generation.problem:
        return Removal(generation, why_not=generation.problem)
    if generation.newest is None:
        return _abandoned(generation, holders, before)
    if not generation.whole:
        missing = generation.missing
        return Removal(generation, why_not=f"{missing} is missing or damaged" if missing else "")
    gone = tuple(each for each in generation.former if each.older_than(before))
    stay = [generation.newest, *(each.recording for each in generation.former if each not in gone)]
    named = {chunk.key for recording in stay for chunk in recording.chunks}
    superseded = {chunk.key for each in gone for chunk in each.recording.chunks}
    chunks, relies_on = [], [generation]
    for found, content in generation.chunks:
        if found.key in named or not _older(found, before):
            continue
        if found.key not in superseded and generation.ends_before(content):
            holder = next((each for each in holders if content in each.contents), None)
            if holder is None:
                continue
            relies_on.append(holder)
        chunks.append(found)
    return Removal(generation, gone, tuple(chunks), _each_once(relies_on))


def _abandoned(generation: Generation, holders: Sequence[Generation], before: datetime) -> Removal:
    objects = [*(found for found, _ in generation.chunks), *generation.strange]
    contents = {content for _, content in generation.chunks}
    holder = next((each for each in holders if contents <= each.contents), None)
    if holder is None or generation.former or not all(_older(each, before) for each in objects):
        return Removal(generation)
    # The first chunk last: as long as it is there, a removal that was interrupted is found again.
    chunks = tuple(found for found, _ in reversed(generation.chunks))
    return Removal(generation, (), chunks, (generation, holder))


def _each_once(generations: Iterable[Generation]) -> tuple[Generation, ...]:
    return tuple({each.id: each for each in generations}.values())


def _older(found: StoredObject, before: datetime) -> bool:
    put_at = moment(found.uploaded_at)
    return put_at is not None and put_at < before


# ---------------------------------------------------------------------- looking and deleting


def prune(
    archive: Archive, wanted: Iterable[RecordingId], *, before: datetime, remover: Remover | None
) -> Iterator[Pruned]:
    """Remove what is superseded, one generation after the other; tells only those with something to tell.

    Parameters:
        archive: where they lie.
        wanted: the generations.
        before: only what has been superseded, and was put, before this moment. It should be so long ago
            that no daemon is still at work on it.
        remover: of the same bucket; None: only tell what would go.

    Raises:
        StoreUnavailable: S3 does not answer, or refuses us.
    """
    for key_path, ids in groupby(sorted(set(wanted)), key=lambda each: each.key_path):
        asked = set(ids)
        at_path = [_look(archive.store, archive.layout, each) for each in _ids_at(archive, key_path)]
        for generation in at_path:
            if generation.id not in asked:
                continue
            removal = removable(generation, at_path, before=before)
            if removal.why_not:
                yield _pruned(removal, (), f"left alone: {removal.why_not}")
            elif not removal.objects:
                continue
            elif remover is None:
                yield _pruned(removal, removal.objects)
            else:
                yield _remove(archive, remover, removal)


def _ids_at(archive: Archive, key_path: str) -> list[RecordingId]:
    return sorted(archive.generations(Meaning(key_path)))


def _look(store: ArchiveStore, layout: BucketLayout, recording: RecordingId) -> Generation:
    former: list[Former] = []
    strange: list[StoredObject] = []
    chunks: list[tuple[StoredObject, Content]] = []
    try:
        newest = open_committed(store, layout, recording)
        for found in store.level(layout.generation(recording))[1]:
            revision = layout.former_revision(recording, found.key)
            if revision is not None:
                former.append(Former(found, _former(store, layout, recording, revision)))
            elif found.key != layout.manifest(recording):
                strange.append(found)
    except (ManifestError, PermanentError) as error:
        return Generation(recording, problem=str(error))
    for found in store.chunk_objects(layout.chunks(recording)):
        index = layout.chunk_index(recording, found.key)
        if index is None:
            strange.append(found)
        else:
            chunks.append((found, (index, chunk_hash_start(found.key), found.size)))
    return Generation(recording, newest, tuple(former), tuple(chunks), tuple(strange))


def _former(store: ArchiveStore, layout: BucketLayout, recording: RecordingId, revision: int) -> Recording:
    found = open_revision(store, layout, recording, revision)
    if found is None or found.revision != revision:
        raise ManifestError(
            f"{layout.former_manifest(recording, revision)} is not the manifest of revision {revision}"
        )
    return found


def _remove(archive: Archive, remover: Remover, removal: Removal) -> Pruned:
    """Delete: what names before what is named, so that nothing is ever named and gone."""
    gone: list[StoredObject] = []
    for batch in ([each.kept for each in removal.former], removal.chunks):
        if batch and not all(_unchanged(archive, each) for each in removal.relies_on):
            return _pruned(
                removal, gone, "it was committed again at this very moment: the rest was left alone"
            )
        for each in batch:
            try:
                remover.delete(each.key)
            except PermanentError as error:
                return _pruned(removal, gone, str(error))
            gone.append(each)
    # A daemon may have begun a commit between our look at the manifest and the last delete.
    return _pruned(
        removal, gone, _named_meanwhile(archive, removal.generation.id, {each.key for each in gone})
    )


def _unchanged(archive: Archive, generation: Generation) -> bool:
    try:
        return open_committed(archive.store, archive.layout, generation.id) == generation.newest
    except (ManifestError, PermanentError):
        return False


def _named_meanwhile(archive: Archive, recording: RecordingId, gone: Collection[str]) -> str:
    try:
        newest = open_committed(archive.store, archive.layout, recording)
    except (ManifestError, PermanentError) as error:
        return str(error)
    if newest is None or not any(chunk.key in gone for chunk in newest.chunks):
        return ""
    return (
        f"revision {newest.revision} was committed at this very moment and names what was removed: keep its"
        " file, the audit sends that again"
    )


def _pruned(removal: Removal, gone: Sequence[StoredObject], problem: str = "") -> Pruned:
    keys = tuple(each.key for each in gone)
    revisions = tuple(each.recording.revision for each in removal.former if each.kept in gone)
    return Pruned(removal.generation.id.full_name, revisions, keys, sum(each.size for each in gone), problem)
