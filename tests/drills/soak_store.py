"""What lies in the bucket of a soak, read from the store's own files: whole, named, and still there.

It trusts neither the daemon nor its S3 client. What was hashed once is hashed again only when a file changed.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from embedded.servers import _RCLONE_LEFTOVER
from recording.layout import BucketLayout, RecordingId

_LAYOUT = BucketLayout("")
_NUMBER = re.compile(r"(?:[^/]*/)?(?:before-)?([0-9]{5})-")
Fingerprint = tuple[tuple[int, int, int], ...]


class Verdict(NamedTuple):
    """What is to be said of one generation in the store.

    `late` are chunks that came after the commit: a put that was on its way when its daemon was stopped
    or cut off. `closed` is false where no manifest is. `complete` are the SHA-256 of every revision that
    is complete and whole, `sha256` is what the newest manifest says. `chunk_bytes` is the size of a full
    chunk, None where nothing tells. `committed_at` is when the newest manifest was made, in seconds since
    the epoch.
    """

    problems: list[str]
    late: list[str]
    closed: bool
    sha256: str | None = None
    complete: frozenset[str] = frozenset()
    chunk_bytes: int | None = None
    committed_at: float = 0.0


@dataclass(frozen=True)
class _Revision:
    """One manifest and what was found wrong with the objects that it names."""

    manifest: dict[str, Any]
    problems: list[str]

    @property
    def complete(self) -> str | None:
        return self.manifest["sha256"] if not self.problems else None


class StoreFolder:
    """The objects of a bucket as files. Safe for any thread.

    Parameters:
        objects: the folder that holds them; it may be exchanged for an empty one.
        below: the part of the key paths in which recordings lie, empty or ending in `/`.
        chunk_sizes: of the sites that use the bucket; by its size a chunk tells whose it is.
    """

    def __init__(self, objects: Path, *, below: str = "", chunk_sizes: Collection[int] = ()) -> None:
        self.objects, self._below, self._chunk_sizes = objects, below, frozenset(chunk_sizes)
        self._lock = threading.Lock()
        self._read: dict[Path, tuple[Fingerprint, _Revision]] = {}  # guarded by _lock
        self._complete: dict[tuple[RecordingId, int], tuple[str, int]] = {}  # of note_complete's thread
        self._overwritten: list[str] = []  # likewise

    # ------------------------------------------------------------------ what is there

    def generations(self, number: int | None = None) -> list[RecordingId]:
        """Return every generation of a recording, also under its earlier names; of all for None."""
        return [
            generation
            for name in _names(self.objects / self._below)
            if number is None or number_of(name) == number
            for folder in _names(self.objects / self._below / name)
            if (generation := _LAYOUT.recording(f"{self._below}{name}/{folder}/")) is not None
        ]

    def keys(self, recording: RecordingId) -> list[str]:
        """Return every object of a generation."""
        return [
            str(Path(folder, name).relative_to(self.objects))
            for folder, _, names in os.walk(self.objects / _LAYOUT.generation(recording))
            for name in names
            if not name.startswith(_RCLONE_LEFTOVER)
        ]

    def judge(self, recording: RecordingId) -> Verdict:
        """Compare a generation's manifest, and those of former revisions, with the objects that are there."""
        under = _LAYOUT.chunks(recording)
        there = {
            under + name
            for name in _names(self.objects / under)
            if _LAYOUT.chunk_index(recording, under + name) is not None
        }
        revisions = self._revisions(recording)
        if not revisions:
            return Verdict([], [], closed=not there, chunk_bytes=self._chunk_bytes(there))
        newest = revisions[0]
        problems = [problem for each in revisions for problem in each.problems]
        named = {chunk["key"] for each in revisions for chunk in each.manifest["chunks"]}
        committed_at = datetime.fromisoformat(newest.manifest["completed_at"]).timestamp()
        came = {key: _came_at(self.objects / key) for key in sorted(there - named)}
        # Closing deletes nothing: what was repaired before the source was cut lies beside its successor.
        repaired = (
            {_LAYOUT.chunk_index(recording, key) for key in named} if not newest.manifest["sha256"] else set()
        )
        problems += [
            f"no manifest names {key}"
            for key, at in came.items()
            if 0 < at <= committed_at and _LAYOUT.chunk_index(recording, key) not in repaired
        ]
        return Verdict(
            problems,
            [key for key, at in came.items() if at > committed_at],
            closed=True,
            sha256=newest.manifest["sha256"],
            complete=frozenset(filter(None, (each.complete for each in revisions))),
            chunk_bytes=newest.manifest["chunk_size_bytes"],
            committed_at=committed_at,
        )

    def _chunk_bytes(self, keys: Iterable[str]) -> int | None:
        largest = max((_size(self.objects / key) for key in keys), default=0)
        return largest if largest in self._chunk_sizes else None

    def _revisions(self, recording: RecordingId) -> list[_Revision]:
        """Read the newest manifest of a generation and its former ones; none without a newest one."""
        folder, under = _LAYOUT.generation(recording), _LAYOUT.chunks(recording)
        former = [
            folder + name
            for name in _names(self.objects / folder)
            if _LAYOUT.former_revision(recording, folder + name)
        ]
        try:
            keys = [_LAYOUT.manifest(recording), *former]
            return [self._revision(self.objects / key, under) for key in keys]
        except FileNotFoundError:
            return []

    def _revision(self, path: Path, under: str) -> _Revision:
        """Read a manifest and all that it names, unless none of these files changed."""
        with self._lock:
            known = self._read.get(path)
            if known and known[0] == _fingerprint(self._files(path, known[1].manifest)):
                return known[1]
            manifest: dict[str, Any] = json.loads(path.read_bytes())
            fingerprint = _fingerprint(self._files(path, manifest))
            found = _Revision(manifest, _manifest_problems(self.objects, manifest, under))
            self._read[path] = fingerprint, found
            return found

    def _files(self, path: Path, manifest: dict[str, Any]) -> list[Path]:
        return [path, *(self.objects / chunk["key"] for chunk in manifest["chunks"])]

    # ------------------------------------------------------------------ what was ever complete

    def note_complete(self) -> None:
        """Remember every revision that is complete now; for one thread."""
        for recording in self.generations():
            for each in self._revisions(recording):
                if each.complete:
                    self._note(recording, each.manifest)

    def _note(self, recording: RecordingId, manifest: dict[str, Any]) -> None:
        key = recording, manifest["revision"]
        found = manifest["sha256"], manifest["total_size_bytes"]
        if self._complete.setdefault(key, found) != found:
            self._overwritten.append(f"{_LAYOUT.generation(recording)} revision {key[1]} was overwritten")

    def not_restored(self) -> list[str]:
        """Return what was complete once and cannot be put together from the store any more.

        A revision whose source only grew gives way to the next one, which begins with all its bytes.
        """
        return self._overwritten + [
            f"{_LAYOUT.generation(recording)} revision {revision} was complete and cannot be restored"
            for (recording, revision), (sha256, size) in self._complete.items()
            if sha256 not in self.judge(recording).complete
            and sha256 not in self._beginnings(recording, size)
        ]

    def _beginnings(self, recording: RecordingId, size: int) -> Iterator[str]:
        """Yield the SHA-256 of the first bytes of each revision that is there and whole."""
        for each in self._revisions(recording):
            if each.complete and each.manifest["total_size_bytes"] >= size:
                whole = hashlib.sha256()
                for chunk in each.manifest["chunks"]:
                    body = (self.objects / chunk["key"]).read_bytes()
                    whole.update(body[: max(size - chunk["offset"], 0)])
                yield whole.hexdigest()

    def forget(self, recording: RecordingId | None = None) -> None:
        """Expect a generation not to be there any more, because it was removed on purpose; None for all."""
        gone = [key for key in self._complete if recording in (None, key[0])]
        for key in gone:
            del self._complete[key]
        with self._lock:
            folder = self.objects / (_LAYOUT.generation(recording) if recording else "")
            for path in [path for path in self._read if path.is_relative_to(folder)]:
                del self._read[path]


def _manifest_problems(objects: Path, manifest: dict[str, Any], under: str) -> list[str]:
    """Compare one revision with the objects that it names, which must all lie in its own folder."""
    problems, whole, total = [], hashlib.sha256(), 0
    for chunk in manifest["chunks"]:
        if not chunk["key"].startswith(under):
            problems.append(f"{chunk['key']} is named by a manifest of {under}")
        try:
            body = (objects / chunk["key"]).read_bytes()
        except FileNotFoundError:
            problems.append(f"{chunk['key']} is named by a manifest and not there")
            continue
        if (len(body), hashlib.sha256(body).hexdigest()) != (chunk["size_bytes"], chunk["sha256"]):
            problems.append(f"{chunk['key']} holds other bytes than its manifest says")
        if chunk["offset"] != total:
            problems.append(f"{chunk['key']} does not follow the chunk before it")
        whole.update(body)
        total += len(body)
    prefix = f"{manifest['prefix']} revision {manifest['revision']}"
    if total != manifest["total_size_bytes"]:
        problems.append(f"{prefix} has {total} bytes, its manifest says {manifest['total_size_bytes']}")
    if manifest["sha256"] not in (whole.hexdigest(), None):
        problems.append(f"{prefix} does not have the SHA-256 of its manifest")
    if (manifest["status"] == "complete") != (manifest["sha256"] is not None):
        problems.append(f"{prefix} is {manifest['status']} with SHA-256 {manifest['sha256']}")
    return problems


def lost_chunks(ended: dict[str, list[str]], puts: Iterable[str], kept: Collection[str]) -> list[str]:
    """Return the chunks that S3 had of files whose recording was ended by a action, and has no more.

    One that was followed by a later chunk of its generation was confirmed, or that would not have come.

    Parameters:
        ended: by key path, the chunks as keys begin to spell them.
        puts: the keys of all chunks, in the order in which they were begun.
        kept: the keys of all its objects in the end.
    """
    followed: dict[str, list[tuple[int, str]]] = {}
    lost = []
    for key in puts:
        generation, _, name = key.rpartition("/chunks/")
        chunks = ended.get(generation.rpartition("/")[0])
        if chunks is None:
            continue
        index = int(name[:6])
        before = followed.setdefault(generation, [])
        lost += [old for at, old in before if at < index and old not in kept]
        before[:] = [(at, old) for at, old in before if at >= index]
        if index < len(chunks) and name[7:19] == chunks[index]:
            before.append((index, key))
    return lost


def number_of(name: str) -> int | None:
    """Return which recording a file or key path belongs to."""
    match = _NUMBER.match(name)
    return int(match[1]) if match else None


class FileHashes:
    """SHA-256 of files, each read again only when it changed. For one thread."""

    def __init__(self, sha256: Callable[[Path], str]) -> None:
        self._sha256 = sha256
        self._known: dict[Path, tuple[Fingerprint, str]] = {}

    def of(self, path: Path) -> str:
        """Return the SHA-256 of a file; "" when it changed while it was read, or is not there."""
        before = _fingerprint([path])
        known = self._known.get(path)
        if known and known[0] == before:
            return known[1]
        try:
            sha256 = self._sha256(path)
        except FileNotFoundError:
            return ""
        if _fingerprint([path]) != before:
            return ""
        self._known[path] = before, sha256
        return sha256


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _fingerprint(paths: Iterable[Path]) -> Fingerprint:
    return tuple(map(_times, paths))


def _times(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_ctime_ns


def _size(path: Path) -> int:
    return _times(path)[1]


def _came_at(path: Path) -> float:
    """Return when an object was put; 0 when it was removed meanwhile."""
    return _times(path)[2] / 1e9
