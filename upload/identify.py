"""Which recording a path holds: known, new, renamed, replaced, grown again, or found again in S3."""

from typing import NamedTuple

import logs
from checkpoint import Checkpoints
from errors import PermanentError, SourceGone, TransientError
from folder.source import Source, open_source
from recording.stream import (
    UNFINISHED,
    Chunk,
    Signature,
    State,
    Stream,
    chunks_prefix,
    key_path,
    stream_id,
)
from s3.bucket import ObjectStore
from upload.cancelled_sources import CancelledSources
from upload.close import Closer
from upload.crash_points import CrashPoint, Reach, pass_by
from upload.manifests import ManifestStore
from upload.stored_pieces import Piece, chunk_size_of, listed_pieces, pieces_of, still_holds

log = logs.get_logger(__name__)

_OWED = UNFINISHED | {State.FAILED}
"""States that a source leaves only by being finalized or closed."""

_NO_INODE = 0
"""No file has this number, so no source is that of a record with it: it can only be closed."""


class Recognized(NamedTuple):
    """A stream that has work to do.

    `ask` says that S3 may hold more than the records do, so ask before sending; `epoch` is that of
    the lease under which we began the stream, "" when somebody else did. `identity` are device and
    inode that the source must have; when it has others, it is not this stream's source any more.
    """

    stream: Stream
    ask: bool
    identity: tuple[int, int]
    epoch: str = ""


class _Found(NamedTuple):
    """A generation in S3 that Redis does not know and that is this recording."""

    generation: int
    revision: int
    chunk_size: int
    full_chunks: list[Chunk]


class Recognizer:
    """Tells which stream a source is, and begins, reopens or moves streams accordingly.

    Parameters:
        root: the watched folder.
        checkpoints: the records.
        store: the bucket.
        manifests: in that bucket.
        closer: for what S3 holds of a recording that nobody else knows.
        prefix: `S3_PREFIX`.
        chunk_size: bytes, for new streams.
        reach: called at each crash point.
    """

    def __init__(
        self,
        *,
        root: str,
        checkpoints: Checkpoints,
        store: ObjectStore,
        manifests: ManifestStore,
        closer: Closer,
        prefix: str,
        chunk_size: int,
        reach: Reach = pass_by,
    ) -> None:
        self._root = root
        self._checkpoints = checkpoints
        self._store = store
        self._manifests = manifests
        self._prefix = prefix
        self._chunk_size = chunk_size
        self._closer = closer
        self._reach = reach
        self._cancelled = CancelledSources(manifests)
        self._lost: dict[str, tuple[Stream, tuple[int, int]]] = {}  # each entry owned by the path's worker

    def recognize(self, path: str, source: Source, signature: Signature) -> Recognized | None:
        """Find the unfinished stream of a source; None when there is nothing to do for it.

        Parameters:
            path: relative to the watched folder.
            source: open.
            signature: of the source.
        """
        known = self._checkpoints.find(path)
        if known is None:
            return self.begin(path, source, signature, None)
        self._lost.pop(path, None)
        if known.settled(signature) or (
            known.cancelled and self._cancelled.include(known, source, signature)
        ):
            return None
        # Not the device: another machine, which finished it, may have another number for the same volume.
        same = signature.ino == known.signature.ino and signature.size >= known.signature.size
        if (same and not known.cancelled) or known.state in _OWED:
            if self._set_back(path, known, source, signature):
                self._closer.close(known, "Redis is older than S3 and the source holds another recording")
            elif recognized := self._go_on(known, source, signature):
                return recognized
        return self.begin(path, source, signature, known)

    def retry(self, known: Stream, source: Source, signature: Signature) -> Recognized | None:
        """Go on with a stream that failed or was cancelled; None when it is neither.

        What was cancelled goes on where it stopped if the source still holds anything of it, else the
        next generation begins.

        Parameters:
            known: its record.
            source: open, at the path of the record.
            signature: of the source.
        """
        if known.state is State.FAILED:
            return self._retry(known, source, signature)
        if not known.cancelled:
            return None
        same = signature.ino == known.signature.ino and signature.size >= known.offset
        reopened = self._reopen(known, source, signature) if same else None
        return reopened or self.begin(known.path, source, signature, known)

    # ------------------------------------------------------------------ known streams

    def _go_on(self, known: Stream, source: Source, signature: Signature) -> Recognized | None:
        if known.state in UNFINISHED:
            return self._resume(known, source, signature)
        if known.state is State.FAILED:
            return self._retry(known, source, signature)
        return self._reopen(known, source, signature)

    def _resume(self, known: Stream, source: Source, signature: Signature) -> Recognized:
        """Go on with a stream. Its device may have another number since the volume was mounted again."""
        here, recorded = (signature.dev, signature.ino), (known.signature.dev, known.signature.ino)
        if here != recorded and signature.ino == known.signature.ino:
            pieces = pieces_of(self._checkpoints.chunks(known.stream_id), known.chunk_size)
            if still_holds(source, pieces):
                return Recognized(known, ask=True, identity=here)
        return Recognized(known, ask=True, identity=recorded)

    def _set_back(self, path: str, known: Stream, source: Source, signature: Signature) -> bool:
        """Tell whether Redis is older than S3, restored from a copy, and the source another recording by now.

        Such a record says nothing of what the source went through since: only the bytes tell. A record
        that is merely behind its manifest, after a crash, is that of the same bytes.
        """
        newer = self._unknown_generation(path, known)
        if newer and self._find_in_store(path, newer, source, signature):
            return True
        if known.state not in _OWED:
            return False  # reopening looks at the bytes
        if self._reached_further(known, source, signature):
            return True
        committed = self._manifests.read(known.key_path, known.generation)
        if not newer and not (committed and committed.revision > known.revision):
            return False
        shorter = committed is not None and signature.size < committed.total_size
        chunks = committed.chunks if committed else self._checkpoints.chunks(known.stream_id)
        if shorter or not chunks:
            return shorter or newer > 0
        chunk_size = committed.chunk_size if committed else known.chunk_size
        return not still_holds(source, pieces_of(chunks, chunk_size))

    def _reached_further(self, known: Stream, source: Source, signature: Signature) -> bool:
        """Tell whether S3 holds a full chunk that ends behind the source, so that this was cut since."""
        index = signature.size // known.chunk_size
        under = chunks_prefix(self._prefix, known.key_path, known.generation)
        listed = self._store.objects(f"{under}{index:06d}-")
        if not any(found.size == known.chunk_size for found in listed):
            return False
        # Another daemon may have stored that chunk since we looked: then the source has it by now.
        return source.signature().size < (index + 1) * known.chunk_size

    def _unknown_generation(self, path: str, known: Stream) -> int:
        """Give the newest generation of which S3 holds something and Redis has no record; 0 for none."""
        keys = key_path(path)
        newest = self._store.newest_generation(f"{self._prefix}{keys}/")
        newest_known = known.generation if known.key_path == keys else 0
        if newest <= newest_known or self._checkpoints.known(stream_id(keys, newest)):
            return 0
        stored = self._stored_pieces(keys, newest) or self._manifests.read(keys, newest)
        return newest if stored else 0

    def _retry(self, known: Stream, source: Source, signature: Signature) -> Recognized:
        """Go on with a failed stream; what is stored of it is not another file's, so that begins anew."""
        with self._checkpoints.leased(known.stream_id) as (lease, fresh):
            if fresh.state is State.FAILED:
                self._checkpoints.set_state(
                    lease, State.FAILED, State.ACTIVE, fresh.signature, revision=fresh.revision
                )
        log.info("retried", stream=known.stream_id, failed_with=known.error)
        retried = self._reloaded(known, signature)
        stored = retried.stream.offset or known.signature.ino == _NO_INODE
        return self._resume(retried.stream, source, signature) if stored else retried

    def _reopen(self, known: Stream, source: Source, signature: Signature) -> Recognized | None:
        """Let a finished stream go on; None when the file holds nothing of it any more."""
        found = self._manifests.read(known.key_path, known.generation)
        if found is None or found.chunk_size != known.chunk_size or signature.size < found.total_size:
            return None
        if not still_holds(source, pieces_of(found.chunks, found.chunk_size)):
            return None
        with self._checkpoints.leased(known.stream_id) as (lease, fresh):
            if fresh.state is known.state:
                full = [chunk for chunk in found.chunks if chunk.size == found.chunk_size]
                self._checkpoints.restore(lease, full)
                self._reach(CrashPoint.RESTORED)
                revision = max(fresh.revision, found.revision)
                self._checkpoints.set_state(lease, fresh.state, State.ACTIVE, signature, revision=revision)
                self._reach(CrashPoint.REOPENED)
        log.info("reopened", stream=known.stream_id, revision=found.revision, size_bytes=signature.size)
        return self._reloaded(known, signature)

    def _reloaded(self, known: Stream, signature: Signature) -> Recognized:
        fresh = self._checkpoints.find(known.path) or known
        return Recognized(fresh, ask=True, identity=(signature.dev, signature.ino))

    # ------------------------------------------------------------------ unknown sources

    def begin(
        self, path: str, source: Source, signature: Signature, replaces: Stream | None
    ) -> Recognized | None:
        """Begin the next recording at a path, or find that it began elsewhere.

        Parameters:
            path: relative to the watched folder.
            source: open.
            signature: of the source.
            replaces: the finished stream that was the newest at this path.

        Raises:
            TransientError: another process was first.
        """
        if self._renamed(path, source, signature, replaces):
            return self.recognize(path, source, signature)
        keys = key_path(path)
        newest = self._store.newest_generation(f"{self._prefix}{keys}/")
        newest_known = replaces.generation if replaces and replaces.key_path == keys else 0
        found = None
        if newest > newest_known and not self._checkpoints.known(stream_id(keys, newest)):
            found = self._find_in_store(path, newest, source, signature)
            if found is None and self._close_orphan(path, keys, newest, signature, replaces):
                return self.recognize(path, source, signature)
        created = self._checkpoints.create(
            path,
            keys,
            signature,
            replaces=replaces.stream_id if replaces else "",
            generation=found.generation if found else newest + 1,
            revision=found.revision if found else 0,
            chunk_size=found.chunk_size if found else self._chunk_size,
        )
        if created is None:
            raise TransientError("another process began this stream first", kind="race")
        lease, stream = created
        self._lost.pop(path, None)
        self._reach(CrashPoint.CREATED)
        adopted = found is not None and stream.generation == found.generation
        if found and adopted and found.full_chunks:
            self._checkpoints.restore(lease, found.full_chunks)
            self._reach(CrashPoint.ADOPTED)
            stream = self._checkpoints.find(path) or stream
        self._checkpoints.release(lease)
        log.info(
            "found again in S3" if adopted else "found",
            stream=stream.stream_id,
            size_bytes=signature.size,
        )
        identity = (signature.dev, signature.ino)
        return Recognized(stream, ask=adopted, identity=identity, epoch=lease.epoch)

    def remember(self, path: str, stream: Stream, identity: tuple[int, int]) -> None:
        """Take note of a stream whose record Redis lost while we worked on it.

        Parameters:
            path: where its source was.
            stream: as we knew it.
            identity: device and inode of the source.
        """
        self._lost[path] = (stream, identity)

    def _find_in_store(
        self, path: str, generation: int, source: Source, signature: Signature
    ) -> _Found | None:
        """Find out whether a generation that only S3 knows is this recording."""
        keys = key_path(path)
        lost, identity = self._lost.get(path, (None, None))
        same_file = identity == (signature.dev, signature.ino) and lost and signature.size >= lost.offset
        if lost and same_file and lost.stream_id == stream_id(keys, generation):
            # We know it better than its bytes do: all that is stored may have been patched meanwhile.
            return _Found(generation, lost.revision, lost.chunk_size, [])
        committed = self._manifests.read(keys, generation)
        if committed:
            if signature.size < committed.total_size:
                return None
            if not still_holds(source, pieces_of(committed.chunks, committed.chunk_size)):
                return None
            full = [chunk for chunk in committed.chunks if chunk.size == committed.chunk_size]
            return _Found(generation, committed.revision, committed.chunk_size, full)
        pieces = self._stored_pieces(keys, generation)
        if any(piece.offset + piece.size > signature.size for piece in pieces) or not still_holds(
            source, pieces
        ):
            return None
        return _Found(generation, 0, chunk_size_of(pieces, self._chunk_size), [])

    def _close_orphan(
        self, path: str, keys: str, generation: int, signature: Signature, replaces: Stream | None
    ) -> bool:
        """Give chunks that no record and no manifest names, and that are another recording's, a manifest."""
        pieces = self._stored_pieces(keys, generation)
        if not pieces or self._manifests.read(keys, generation):
            return False
        created = self._checkpoints.create(
            path,
            keys,
            signature._replace(ino=_NO_INODE),  # else whoever finds this record goes on with it
            replaces=replaces.stream_id if replaces else "",
            generation=generation,
            revision=0,
            chunk_size=chunk_size_of(pieces, self._chunk_size),
        )
        if created is None:
            raise TransientError("another process began this stream first", kind="race")
        lease, orphan = created
        self._reach(CrashPoint.CREATED)
        self._checkpoints.release(lease)
        self._closer.close(orphan, "Redis lost its record and the source holds other bytes")
        return True

    def _stored_pieces(self, keys: str, generation: int) -> list[Piece]:
        under = chunks_prefix(self._prefix, keys, generation)
        return listed_pieces(self._store.chunk_objects(under), under, self._chunk_size)

    # ------------------------------------------------------------------ renamed sources

    def _renamed(self, path: str, source: Source, signature: Signature, replaces: Stream | None) -> bool:
        """Follow a source whose stream is known under another path that does not lead to it any more."""
        other = self._checkpoints.find_inode(signature.dev, signature.ino)
        if other is None or other.path == path or other.state is State.FAILED:
            return False
        # An inode number is used again after a delete, so the bytes must agree as well.
        if signature.size < other.signature.size or self._leads_to(other.path, signature):
            return False
        if not self._holds_recording(source, signature, other):
            return False
        with self._checkpoints.leased(other.stream_id) as (lease, _):
            self._checkpoints.move(lease, path, replaces=replaces.stream_id if replaces else "")
            self._reach(CrashPoint.MOVED)
        log.info("renamed", stream=other.stream_id, old_path=other.path, new_path=path)
        return True

    def _leads_to(self, path: str, signature: Signature) -> bool:
        try:
            with open_source(self._root, path) as there:
                return there.signature().same_file(signature)
        except (SourceGone, PermanentError):
            return False

    def _holds_recording(self, source: Source, signature: Signature, other: Stream) -> bool:
        untouched = (signature.size, signature.mtime_ns) == (other.signature.size, other.signature.mtime_ns)
        if other.state in UNFINISHED:
            pieces = pieces_of(self._checkpoints.chunks(other.stream_id), other.chunk_size)
        elif untouched:
            return True
        else:
            found = self._manifests.read(other.key_path, other.generation)
            pieces = pieces_of(found.chunks, found.chunk_size) if found else []
        # No bytes to compare with: what grew since may as well be another file with that inode number.
        return still_holds(source, pieces) if pieces else untouched
