"""A recording back as one file: only missing chunks are fetched, and every hash is checked."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from archive.chunks import ChunkReader
from archive.generation import Recording, Status, chunk_at, open_recording
from archive.listing import Archive, names_of
from archive.retrying_bucket import Stopped
from archive.saved_manifest import ENDING, SavedManifest
from archive.target_file import Partial, Target, is_plain_name, open_target
from errors import StoreUnavailable, UploaderError
from recording.layout import RecordingId, key_path
from recording.playback import UNKNOWN_PLAYBACK, Playback

if TYPE_CHECKING:
    from hashlib import _Hash

Advance = Callable[[int], None]


class RestoreError(UploaderError):
    """A recording cannot be restored as S3 holds it; the destination was not written."""


class Restored(NamedTuple):
    """A finished restore.

    `kept_bytes` were there already; `sha256` is the manifest's, if it has one; `manifest` the file in which
    that was saved.
    """

    name: str
    status: Status
    to: str
    size: int
    fetched_bytes: int
    kept_bytes: int
    sha256: str | None
    notes: tuple[str, ...]
    manifest: str | None = None
    playback: Playback = UNKNOWN_PLAYBACK


class Failed(NamedTuple):
    """A recording of `restore_all` that could not be restored."""

    name: str
    reason: str


def restore(
    archive: Archive,
    recording: Recording,
    target: Target,
    *,
    force: bool,
    with_manifest: bool = False,
    advance: Advance = lambda _: None,
) -> Restored:
    """Write a recording to its destination: all of it, or nothing under the destination's name.

    A restore that was interrupted goes on with the chunks that it had. A destination that is the
    recording already is left alone.

    Parameters:
        archive: where it lies.
        recording: as it was opened.
        target: the destination.
        force: whether another file there may be replaced.
        with_manifest: save the manifest beside it, once the recording is there.
        advance: called with the bytes that are done.

    Raises:
        RestoreError: a chunk is damaged or missing.
        TargetError: the destination is taken or cannot be written.
        StoreUnavailable: S3 does not answer, or refuses us.
    """
    mark = "/".join((archive.store.bucket, archive.layout.manifest(recording.id)))
    saved = SavedManifest.of(archive, recording, target, fail=RestoreError) if with_manifest else None
    if saved and not force and not saved.is_free():
        raise RestoreError(f"{saved.shown} exists and is another file: --force replaces it")
    done = _restore(archive, recording, target, mark, force=force, advance=advance)
    if saved is None:
        return done
    saved.write(recording, mark, force=force)
    return done._replace(manifest=saved.shown)


def _restore(
    archive: Archive, recording: Recording, target: Target, mark: str, *, force: bool, advance: Advance
) -> Restored:
    if target.exists() and target.holds(recording.chunks):
        target.discard_partial(mark)
        advance(recording.size)
        return _restored(archive, recording, target, fetched=0)
    if target.exists() and not force:
        raise RestoreError(f"{target.shown} exists and is another file: --force replaces it")
    with target.partial(mark) as partial:
        fetched = _fill(archive, recording, partial, advance)
        partial.finish(recording.facts.modified_at)
        target.publish(partial, force=force)
    return _restored(archive, recording, target, fetched=fetched)


def restore_all(
    archive: Archive,
    folder: str,
    *,
    wanted: Mapping[RecordingId, str] | None = None,
    force: bool,
    allow_hidden: bool = False,
    with_manifest: bool = False,
    advance: Advance = lambda _: None,
) -> Iterator[Restored | Failed]:
    """Restore the newest generation of every recording into a folder, each under its original path.

    What fails is told and the others go on.

    Parameters:
        archive: what to restore.
        folder: where to; made if it is missing.
        wanted: only the newest of these, each with the name that means it alone; None means all.
        force: whether other files there may be replaced.
        allow_hidden: whether names that begin with a dot may be used.
        with_manifest: save each one's manifest beside it.
        advance: called with the bytes that are done.

    Raises:
        StoreUnavailable: S3 does not answer, or refuses us.
    """
    names = names_of(archive.entries()) if wanted is None else wanted
    entries = sorted(names)
    newest = {entry.key_path: entry.generation for entry in entries}  # in order: the last one counts
    taken: set[tuple[str, ...]] = set()
    for entry in entries:
        if entry.generation != newest[entry.key_path]:
            continue
        try:
            recording = open_recording(archive.store, archive.layout, entry)
            if recording is None:
                continue
            recording = replace(recording, shared=names[entry] != entry.stream_id)
            segments = destination(recording, known=newest.keys(), taken=taken, allow_hidden=allow_hidden)
            files = {segments, (*segments[:-1], segments[-1] + ENDING)} if with_manifest else {segments}
            if files & taken:
                raise RestoreError(f"another recording has the name {'/'.join(segments)}{ENDING}")
            taken |= files
            with open_target(folder, segments, create=True) as target:
                yield restore(
                    archive, recording, target, force=force, with_manifest=with_manifest, advance=advance
                )
        except UploaderError as error:
            if fatal(error):
                raise
            yield Failed(names[entry], str(error))


def destination(
    recording: Recording,
    *,
    known: Collection[str] = (),
    taken: Collection[tuple[str, ...]] = (),
    allow_hidden: bool = False,
) -> tuple[str, ...]:
    """Return the relative path to restore to: the original one if it is safe and free, else the key path.

    Parameters:
        recording: its manifest is not trusted.
        known: the key paths of all recordings. A renamed file's recording keeps its key path, so its
            original path may be that of another recording, which comes first then.
        taken: paths that are used already.
        allow_hidden: whether a part of the path may begin with a dot. Without it, whoever can write to the
            bucket could have a restore into a home folder make `.bashrc` or `.ssh/config`.
    """
    original = recording.facts.path or ""
    keys = recording.id.key_path
    safe = all(is_plain_name(part) and (allow_hidden or part[0] != ".") for part in original.split("/"))
    own = safe and (key_path(original) == keys or key_path(original) not in known)
    choices = [original.split("/")] if own else []
    shown = (lambda part: part) if allow_hidden else _visible
    choices += [[shown(part) for part in path.split("/")] for path in (keys, recording.id.full_name)]
    return next((tuple(choice) for choice in choices if tuple(choice) not in taken), tuple(choices[-1]))


def _visible(part: str) -> str:
    """Return a part of a key path, with `_` before it if it begins with a dot."""
    return f"_{part}" if part.startswith(".") else part


def fatal(error: UploaderError) -> bool:
    """Return whether an error ends the whole command and not only the work on one recording."""
    return isinstance(error, StoreUnavailable | Stopped)


def _fill(archive: Archive, recording: Recording, partial: Partial, advance: Advance) -> int:
    """Bring everything into the partial file and check the whole; give the bytes that were fetched."""
    held = partial.prepare(recording.chunks)
    whole = hashlib.sha256()
    position = fetched = 0
    with closing(ChunkReader(archive.store, recording.chunks).blocks(skip=held)) as blocks:
        for block in blocks:
            if block.damage:
                raise RestoreError(_damaged(recording, block.chunk.index, block.chunk.key, block.damage))
            _keep(partial, whole, position, block.offset, advance)
            partial.write(block.offset, block.body)
            whole.update(block.body)
            fetched += len(block.body)
            position = block.offset + len(block.body)
            advance(len(block.body))
    _keep(partial, whole, position, recording.size, advance)
    if recording.sha256 not in (None, whole.hexdigest()):
        partial.remove()
        raise RestoreError(
            f"the chunks of {recording.name} are what its manifest says, but their whole has the SHA-256"
            f" {whole.hexdigest()} instead of {recording.sha256}: the manifest was changed"
        )
    return fetched


def _keep(partial: Partial, whole: "_Hash", start: int, end: int, advance: Advance) -> None:
    """Hash what the partial file had already."""
    for piece in partial.read(start, end):
        whole.update(piece)
        advance(len(piece))


def _damaged(recording: Recording, index: int, key: str, damage: str) -> str:
    what = {"missing": "is not in the bucket", "size": "has another size"}.get(damage, "has other bytes")
    return f"chunk {index} of {recording.name} {what} ({key}); `verify --deep` lists all that is wrong"


def _restored(archive: Archive, recording: Recording, target: Target, *, fetched: int) -> Restored:
    return Restored(
        recording.name,
        recording.status,
        target.shown,
        recording.size,
        fetched,
        recording.size - fetched,
        recording.sha256,
        tuple(_notes(archive, recording)),
        playback=recording.facts.playback,
    )


def _notes(archive: Archive, recording: Recording) -> Iterator[str]:
    count = len(recording.chunks)
    if recording.status == "growing":
        yield (
            f"it has no manifest yet: restored as far as it goes, {count} chunks; its end is missing and"
            " its beginning may still change"
        )
        return
    if recording.status == "incomplete":
        yield f"cut short: {recording.facts.cut_short}; this is what was stored"
        kept = [number for number in archive.revisions(recording.id) if number != recording.revision]
        if kept and not recording.superseded:
            yield f"earlier it was stored as --revision {kept[-1]}, which is kept"
    if recording.facts.playback.unplayable:
        yield f"no player can open it: {recording.facts.playback.unplayable}"
    if recording.superseded:
        yield f"this is revision {recording.revision}, which was superseded"
        return
    newer = chunk_at(archive.store, archive.layout, recording.id, recording.next_index)
    if newer and newer.size == recording.chunk_size:
        yield f"it grows again: this is revision {recording.revision}, the last one that was completed"
