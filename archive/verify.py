"""Whether S3 holds a recording as its manifest says: nothing missing, nothing changed."""

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Literal, NamedTuple

from archive.chunks import ChunkReader
from archive.generation import Recording, Status, open_recording
from archive.listing import Archive
from errors import PermanentError
from recording.layout import RecordingId, chunk_hash_start
from recording.manifest import ManifestError
from recording.playback import UNKNOWN_PLAYBACK, Playback
from recording.stream import Chunk, StoredObject

AT_ONCE_BYTES = 8 * 1024**3
"""Up to here the chunk folder is listed in one go. rclone hashes what it lists, 0.86 GB/s measured, and
must answer within the read timeout of 30 s; beyond, a hundred indexes are listed at a time."""

MAX_LOOKS = 3
"""At a recording that is being committed while we look."""

_MD5_HEX = re.compile(r"[0-9a-f]{32}")


class Problem(NamedTuple):
    """One thing that is wrong. `detail` is for people, and says what the object should be."""

    kind: Literal["missing", "corrupt", "manifest"]
    key: str
    detail: str


class Report(NamedTuple):
    """What was found at one generation. `notes` are worth knowing and not wrong.

    `surplus` are objects that no manifest names. They do no harm: repaired chunks stay where the daemon
    may not delete, and strangers may put what they like. `revision` is 0 where no manifest was read;
    `sha256` is what the manifest says of the whole.
    """

    name: str
    status: Status | Literal["damaged"]
    size: int
    chunk_count: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    revision: int = 0
    sha256: str | None = None
    recorded_from: datetime | None = None
    recorded_until: datetime | None = None
    playback: Playback = UNKNOWN_PLAYBACK


def verify(
    archive: Archive, recording: Recording, *, deep: bool, advance: Callable[[int], None] = lambda _: None
) -> Report:
    """Compare the objects of a recording with its manifest.

    Parameters:
        archive: where it lies.
        recording: as it was opened.
        deep: read and hash every byte; otherwise keys, sizes and ETags are compared.
        advance: called with the bytes that were read.

    Raises:
        StoreUnavailable: S3 does not answer, or refuses us.
        ManifestError: it became untrustworthy while we looked.
    """
    for _ in range(MAX_LOOKS):
        report = _Verification(archive, recording, deep=deep, advance=advance).report()
        if not report.problems and not report.surplus:
            break
        # Committed meanwhile? Then the problems may be those of a moment.
        if recording.superseded:
            break
        again = open_recording(archive.store, archive.layout, recording.id)
        if again is None or again == recording:
            break
        recording = again
    return report


def verify_entry(
    archive: Archive,
    entry: RecordingId,
    name: str,
    *,
    deep: bool,
    advance: Callable[[int], None] = lambda _: None,
) -> Report | None:
    """Verify a generation that a walk has found; None when it is gone again.

    Parameters:
        archive: where it lies.
        entry: the generation.
        name: that means it and no other.
        deep: as for `verify`.
        advance: as for `verify`.
    """
    try:
        recording = open_recording(archive.store, archive.layout, entry)
        report = verify(archive, recording, deep=deep, advance=advance) if recording else None
        return report and report._replace(name=name)
    except ManifestError as error:
        problem = Problem("manifest", archive.layout.manifest(entry), str(error))
        return Report(name, "damaged", 0, 0, (problem,))


class _Verification:
    """One look at one recording."""

    def __init__(
        self, archive: Archive, recording: Recording, *, deep: bool, advance: Callable[[int], None]
    ) -> None:
        self._store = archive.store
        self._recording = recording
        self._deep = deep
        self._advance = advance
        self._layout = archive.layout
        self._chunks_under = archive.layout.chunks(recording.id)
        self._under = archive.layout.generation(recording.id)
        self._manifest_key = archive.layout.manifest(recording.id)
        self._problems: list[Problem] = []
        self._notes: list[str] = []
        self._surplus: list[str] = []

    def report(self) -> Report:
        recording = self._recording
        listed = {found.key: found for found in self._list()}
        doubtful = [chunk for chunk in recording.chunks if self._is_doubtful(chunk, listed.get(chunk.key))]
        self._find_unlisted(listed)
        self._read(recording.chunks if self._deep else doubtful)
        if recording.status == "growing":
            self._notes.append("no manifest yet: what was stored so far was looked at")
        if recording.facts.cut_short:
            self._notes.append(f"cut short: {recording.facts.cut_short}")
        if recording.facts.playback.unplayable:
            self._notes.append(f"no player can open it: {recording.facts.playback.unplayable}")
        self._problems.sort(key=lambda problem: problem.key)
        return Report(
            recording.name,
            recording.status,
            recording.size,
            len(recording.chunks),
            tuple(self._problems),
            tuple(self._notes),
            tuple(sorted(self._surplus)),
            recording.revision,
            recording.sha256,
            *recording.facts.recorded,
            recording.facts.playback,
        )

    def _list(self) -> list[StoredObject]:
        if self._recording.size <= AT_ONCE_BYTES:
            return self._store.objects(self._chunks_under)
        return self._store.chunk_objects(self._chunks_under)

    def _is_doubtful(self, chunk: Chunk, found: StoredObject | None) -> bool:
        """Note what the list shows to be wrong; tell whether only reading can settle it."""
        if found is None:
            self._problems.append(Problem("missing", chunk.key, f"chunk {chunk.index} is not there"))
        elif found.size != chunk.size:
            detail = f"chunk {chunk.index} has {found.size} bytes instead of {chunk.size}"
            self._problems.append(Problem("corrupt", chunk.key, detail))
        else:
            # Another ETag of the same form mostly means other bytes, but a bucket that was copied into
            # one with encryption has others too.
            both = _MD5_HEX.fullmatch(found.etag) and _MD5_HEX.fullmatch(chunk.etag)
            return bool(both) and found.etag != chunk.etag
        return False

    def _read(self, chunks: tuple[Chunk, ...] | list[Chunk]) -> None:
        """Read and hash chunks, and the whole when all of them are read."""
        wrong = {problem.key for problem in self._problems}
        wanted = {chunk.index for chunk in chunks if chunk.key not in wrong}
        skip = {chunk.index for chunk in self._recording.chunks} - wanted
        whole = hashlib.sha256()
        damaged: set[int] = set()
        for block in ChunkReader(self._store, self._recording.chunks).blocks(skip=skip):
            self._advance(len(block.body))
            whole.update(block.body)
            if block.damage and block.chunk.index not in damaged:
                damaged.add(block.chunk.index)
                self._problems.append(_damage(block.chunk, block.damage))
        sha256 = self._recording.sha256
        if self._deep and not damaged and not skip and sha256 not in (None, whole.hexdigest()):
            detail = f"the whole file's SHA-256 is {whole.hexdigest()}, the manifest says {sha256}"
            self._problems.append(Problem("manifest", self._manifest_key, detail))

    # ------------------------------------------------------------------ what no manifest names

    def _find_unlisted(self, listed: dict[str, StoredObject]) -> None:
        named = {chunk.key for chunk in self._recording.chunks}
        extra = {key: found for key, found in listed.items() if key not in named}
        recording = self._recording
        if recording.status == "growing":
            explained = self._explained_by_growing(extra)
        else:
            explained = set(self._continuation(extra))
            if explained:
                count = len(explained)
                self._notes.append(f"it grows again: {count} full chunks more than the manifest names")
        _, beside = self._store.level(self._under)
        former = [
            found.key for found in beside if self._layout.former_revision(self._recording.id, found.key)
        ]
        explained |= self._explained_by([*former, self._manifest_key] if recording.superseded else former)
        if recording.superseded:
            self._notes.append(f"this is revision {recording.revision}, which was superseded")
        elif former:
            self._notes.append(f"{len(former)} former revisions are kept beside it")
        strangers = [found.key for found in beside if found.key not in (self._manifest_key, *former)]
        self._surplus += [*(extra.keys() - explained), *strangers]

    def _explained_by(self, keys: list[str]) -> set[str]:
        """Return the objects that other revisions name; those revisions are not verified here."""
        named: set[str] = set()
        for key in keys:
            try:
                found = self._store.manifest(self._layout, self._recording.id, key=key)
            except (ManifestError, PermanentError) as error:
                self._problems.append(Problem("manifest", key, str(error)))
            else:
                if found is None:
                    self._problems.append(Problem("missing", key, "it is not there any more"))
                    continue
                named |= {chunk.key for chunk in found.manifest.chunks}
        return named

    def _index(self, key: str) -> int | None:
        return self._layout.chunk_index(self._recording.id, key)

    def _explained_by_growing(self, extra: dict[str, StoredObject]) -> set[str]:
        """Return the objects that may be there without a manifest; note a gap in front of the others."""
        indexes = {key: self._index(key) for key in extra}
        chunks = {key for key, index in indexes.items() if index is not None}
        beyond = [index for index in indexes.values() if index is not None]
        first_gap = len(self._recording.chunks)
        if max(beyond, default=-1) > first_gap:
            key = f"{self._chunks_under}{first_gap:06d}-"
            detail = f"chunk {first_gap} is not there, and later ones are"
            self._problems.append(Problem("missing", key, detail))
        return chunks

    def _continuation(self, extra: dict[str, StoredObject]) -> Iterator[str]:
        """Yield the full chunks that continue the recording: it was reopened and grows again.

        The first of them is read, so that a stranger's object does not pass for one.
        """
        recording = self._recording
        index = recording.next_index
        first = True
        by_index = {self._index(key): found for key, found in extra.items()}
        while (found := by_index.get(index)) and found.size == recording.chunk_size:
            start = chunk_hash_start(found.key)
            chunk = Chunk(0, found.size, start, found.etag, found.key, found.uploaded_at)
            if first and any(block.damage for block in ChunkReader(self._store, [chunk]).blocks()):
                return
            first = False
            yield found.key
            index += 1


def _damage(chunk: Chunk, damage: str) -> Problem:
    if damage == "missing":
        return Problem("missing", chunk.key, f"chunk {chunk.index} is not there")
    if damage == "size":
        return Problem("corrupt", chunk.key, f"chunk {chunk.index} has not {chunk.size} bytes")
    return Problem("corrupt", chunk.key, f"chunk {chunk.index} has other bytes than its SHA-256 says")
