"""Which recording a path holds: known, new, renamed, replaced, grown again, or complete in S3 already.

Nothing is put into a generation whose owner is not in our record, and nothing into one that S3 has complete
unless the source proves to hold it. What cannot be proven begins a generation of its own: that costs storage,
never footage.
"""

from typing import NamedTuple

import logs
from errors import TransientError
from folder.source import Source
from recording.layout import RecordingId, key_path, new_owner, next_generation
from recording.manifest import Manifest
from recording.stream import UNFINISHED, Signature, State, Stream
from upload.cancelled_sources import CancelledSources
from upload.close import Closer
from upload.comparison import Comparisons, SourceView, Unresolved
from upload.content_match import continues, contradicts, overlaps, pieces_of, shares_content
from upload.crash_points import CrashPoint
from upload.rediscover import Rediscovery
from upload.renames import RenameFollower
from upload.site import Site

log = logs.get_logger(__name__)

OPEN_STATES = UNFINISHED | {State.FAILED}
"""A source leaves these states only by being finalized or closed."""


class ResolvedStream(NamedTuple):
    """A stream that has work to do.

    `ask` says that S3 may hold more than the records do, so ask before sending; `epoch` is that of
    the lease under which we began the stream, "" when somebody else did. `identity` are device and
    inode that the source must have; when it has others, it is not this stream's source any more.
    """

    stream: Stream
    ask: bool
    identity: tuple[int, int]
    epoch: str = ""


class StreamResolver:
    """Finds the stream of a source, and begins, reopens or moves streams accordingly.

    Parameters:
        site: where recordings come from and go to.
        closer: for a recording whose source holds another one.
    """

    def __init__(self, site: Site, closer: Closer) -> None:
        self._site = site
        self._closer = closer
        self._cancelled = CancelledSources(site.manifests)
        self._comparisons = Comparisons()
        self._rediscovery = Rediscovery(site, self._comparisons)
        self._renames = RenameFollower(site)
        self._lost: dict[str, tuple[Stream, tuple[int, int]]] = {}  # each entry owned by the path's worker

    def resolve(self, view: SourceView) -> ResolvedStream | Unresolved:
        """Find the unfinished stream of a source.

        Raises:
            TransientError: another process was first.
        """
        found = self._resolve(view)
        if found not in (Unresolved.COMPARING, Unresolved.UNTIL_IDLE):
            self._comparisons.discard(view.path)
        return found

    def missing(self, path: str) -> None:
        """Forget what a source that is not there any more was compared with."""
        self._comparisons.discard(path)

    def _resolve(self, view: SourceView) -> ResolvedStream | Unresolved:
        known = self._site.checkpoints.find(view.path)
        if (known is None or known.state not in OPEN_STATES) and self._comparisons.go_on(view):
            return Unresolved.COMPARING
        if known is None:
            return self._begin(view, None)
        self._lost.pop(view.path, None)
        if known.settled(view.signature) or (
            known.cancelled and self._cancelled.include(known, view.source, view.signature)
        ):
            return Unresolved.SETTLED
        if known.state in OPEN_STATES:
            if reason := self._why_not_go_on(known, view):
                self._closer.close(known, reason)
                return self._begin(view, known)
            return self._retry(known, view) if known.state is State.FAILED else self._resume(known, view)
        return self._begin(view, known) if known.cancelled else self._revisit(known, view)

    def retry(self, known: Stream, source: Source, signature: Signature) -> ResolvedStream | None:
        """Go on with a stream that failed or was cancelled; None when it is neither.

        What was cancelled goes on where it stopped if the source still holds anything of it, else the
        next generation begins.

        Parameters:
            known: its record.
            source: open, at the path of the record.
            signature: of the source.
        """
        view = SourceView(known.path, source, signature, signature)
        if known.state is State.FAILED:
            return self._retry(known, view)
        if not known.cancelled:
            return None
        committed = self._site.manifests.read(known.recording)
        mine = committed and not known.adopted and signature.ino == known.signature.ino
        if committed and mine and self._is_continued(view, committed):
            return self._reopen(known, committed, view)
        begun = self._begin(view, known, compare=False)
        return begun if isinstance(begun, ResolvedStream) else None

    def succeed(self, known: Stream, view: SourceView) -> ResolvedStream | Unresolved:
        """Begin the next recording at the path of one that is complete, and that the source holds no more.

        Parameters:
            known: the complete stream.
            view: of its path.
        """
        fresh = self._site.checkpoints.find(view.path)
        if fresh is None or fresh.stream_id != known.stream_id:
            raise TransientError("another process began the next recording first", kind="race")
        return self._begin(view._replace(idle=view.signature), fresh, compare=False)

    def remember(self, path: str, stream: Stream, identity: tuple[int, int]) -> None:
        """Take note of a stream whose record Redis lost while we worked on it: we are still its owner.

        Parameters:
            path: where its source was.
            stream: as we knew it.
            identity: device and inode of the source.
        """
        self._lost[path] = (stream, identity)

    # ------------------------------------------------------------------ known and unfinished

    def _why_not_go_on(self, known: Stream, view: SourceView) -> str:
        """Return why the source holds another recording than its path's unfinished one; "" if it may not.

        Redis may have been set back to an older copy, so the record alone says nothing of what the source
        went through since. What S3 has committed of this generation must be in the source.
        """
        born_ns = view.source.born_ns()
        same_inode = view.signature.ino == known.signature.ino
        if same_inode and known.born_ns and born_ns and known.born_ns != born_ns:
            return "a new file took the source's name and inode number"
        committed = self._site.manifests.read(known.recording)
        if (
            committed
            and committed.chunks
            and (committed.status is State.COMPLETE or committed.revision > known.revision)
        ):
            return "" if self._is_continued(view, committed) else "the source holds another recording"
        if self._reached_further(known, view):
            return "S3 has more of it than the source"
        return ""

    def _reached_further(self, known: Stream, view: SourceView) -> bool:
        """Return whether S3 holds a full chunk that ends behind the source, so that this was cut since."""
        index = view.signature.size // known.chunk_size
        listed = self._site.store.objects(f"{self._site.layout.chunks(known.recording)}{index:06d}-")
        if not any(found.size == known.chunk_size for found in listed):
            return False
        # Another daemon may have stored that chunk since we looked: then the source has it by now.
        return view.source.signature().size < (index + 1) * known.chunk_size

    def _resume(self, known: Stream, view: SourceView) -> ResolvedStream:
        """Go on with a stream. Its volume may have been mounted again, with other numbers."""
        recorded = (known.signature.dev, known.signature.ino)
        if view.identity != recorded and view.signature.size >= known.offset:
            pieces = pieces_of(self._site.checkpoints.chunks(known, self._site.layout), known.chunk_size)
            if shares_content(view.source, pieces):
                return ResolvedStream(known, ask=True, identity=view.identity)
            if view.identity[1] == recorded[1] and not pieces:
                return ResolvedStream(known, ask=True, identity=view.identity)
        return ResolvedStream(known, ask=True, identity=recorded)

    def _retry(self, known: Stream, view: SourceView) -> ResolvedStream:
        """Go on with a failed stream; what is stored of it is not another file's, so that begins anew."""
        with self._site.checkpoints.leased(known.stream_id) as (lease, fresh):
            if fresh.state is State.FAILED:
                self._site.checkpoints.set_state(
                    lease, State.FAILED, State.ACTIVE, fresh.signature, revision=fresh.revision
                )
        log.info("retried", stream=known.stream_id, failed_with=known.error.kind, reason=known.error.message)
        retried = self._reloaded(known, view)
        return self._resume(retried.stream, view) if retried.stream.offset else retried

    # ------------------------------------------------------------------ known and finished

    def _revisit(self, known: Stream, view: SourceView) -> ResolvedStream | Unresolved:
        """Look again at a source that changed after its recording was finished."""
        committed = self._site.manifests.read(known.recording)
        if committed is None or committed.chunk_size != known.chunk_size:
            return self._begin(view, known)
        if committed.status is State.COMPLETE and committed.total_size == view.signature.size:
            comparison = self._comparisons.turn(view, known.recording, committed)
            if isinstance(comparison, Unresolved):
                return comparison
            if comparison.equal and (
                not known.adopted or self._rediscovery.holds(known.recording, committed)
            ):
                return self._resign(known, committed, view)
            other = comparison.difference.another(view.source, self._site.manifests.fetch)
        else:
            other = not self._is_continued(view, committed)
        if other or known.adopted:
            return self._begin(view, known)
        return self._reopen(known, committed, view)

    def _is_continued(self, view: SourceView, committed: Manifest) -> bool:
        if view.signature.size < committed.total_size or contradicts(view.source, committed):
            return False
        return continues(view.source, view.signature, committed) or overlaps(
            view.source, committed, self._site.manifests.fetch
        )

    def _resign(self, known: Stream, committed: Manifest, view: SourceView) -> Unresolved:
        """Record that the source of a complete recording has other times or another inode."""
        with self._site.checkpoints.leased(known.stream_id) as (lease, fresh):
            if fresh.state is known.state:
                self._site.checkpoints.resign(lease, view.signature, view.source.born_ns())
                if fresh.offset != committed.total_size:  # a damaged record: it would be compared for ever
                    self._site.checkpoints.set_extent(lease, committed)
        log.info("unchanged", stream=known.stream_id, size_bytes=view.signature.size)
        return Unresolved.SETTLED

    def _reopen(self, known: Stream, committed: Manifest, view: SourceView) -> ResolvedStream:
        """Let a finished stream go on after the full chunks of its manifest."""
        with self._site.checkpoints.leased(known.stream_id) as (lease, fresh):
            if fresh.state is known.state:
                full = [chunk for chunk in committed.chunks if chunk.size == committed.chunk_size]
                self._site.checkpoints.restore(lease, full)
                self._site.at(CrashPoint.RESTORED)
                self._site.checkpoints.resign(lease, view.signature, view.source.born_ns())
                revision = max(fresh.revision, committed.revision)
                self._site.checkpoints.set_state(
                    lease, fresh.state, State.ACTIVE, view.signature, revision=revision
                )
                self._site.at(CrashPoint.REOPENED)
        log.info(
            "reopened", stream=known.stream_id, revision=committed.revision, size_bytes=view.signature.size
        )
        return self._reloaded(known, view)

    def _reloaded(self, known: Stream, view: SourceView) -> ResolvedStream:
        fresh = self._site.checkpoints.find(known.path) or known
        return ResolvedStream(fresh, ask=True, identity=view.identity)

    # ------------------------------------------------------------------ not known

    def _begin(
        self, view: SourceView, replaces: Stream | None, *, compare: bool = True
    ) -> ResolvedStream | Unresolved:
        """Begin the next recording at a path, unless it began elsewhere or is complete in S3.

        Parameters:
            view: of the path.
            replaces: the finished stream that was the newest at this path.
            compare: whether it may turn out to be a recording that S3 has complete.

        Raises:
            TransientError: another process was first.
        """
        if self._renames.follow(view, replaces):
            return self._resolve(view)
        lost = self._lost.pop(view.path, None)
        if lost and lost[1] == view.identity:
            again = self._create(view, lost[0].recording, replaces, lost=lost[0])
            reason = self._why_not_go_on(again.stream, view)
            if not reason:
                return again
            self._closer.close(again.stream, reason)  # it was cut meanwhile: what is stored stays its own
            replaces = again.stream
        found = self._rediscovery.search(view, replaces, compare=compare)
        if isinstance(found, Unresolved):
            return found
        keys = key_path(view.path)
        known = replaces.generation if replaces and replaces.key_path == keys else 0
        wanted = RecordingId(keys, next_generation((found.newest, known)), new_owner())
        return self._create(view, wanted, replaces, base=found.base)

    def _create(
        self,
        view: SourceView,
        recording: RecordingId,
        replaces: Stream | None,
        *,
        lost: Stream | None = None,
        base: str = "",
    ) -> ResolvedStream:
        created = self._site.checkpoints.create(
            view.path,
            recording,
            view.signature,
            replaces=replaces.stream_id if replaces else "",
            chunk_size=lost.chunk_size if lost else self._site.chunk_size,
            revision=lost.revision if lost else 0,
            born_ns=view.source.born_ns(),
            base=lost.base if lost else base,
            exact=lost is not None,
        )
        if created is None:
            raise TransientError("another process began this stream first", kind="race")
        lease, stream = created
        self._site.at(CrashPoint.CREATED)
        self._site.checkpoints.release(lease)
        log.info(
            "recorded again" if lost else "found",
            stream=stream.stream_id,
            folder=self._site.layout.generation(stream.recording),
            size_bytes=view.signature.size,
        )
        return ResolvedStream(stream, ask=lost is not None, identity=view.identity, epoch=lease.epoch)
