"""Carrying out what an operator requested for a stream: cancel it, or try a failed or cancelled one again."""

import logs
import metrics
from errors import LeaseLost, PermanentError, SourceGone
from folder.source import open_source
from recording.stream import UNFINISHED, RecordedError, Signature, State, Stream
from redis_store.requests import Action, OperatorRequest, Outcome, PendingRequests
from upload.close import Closer
from upload.identify import ResolvedStream, StreamResolver
from upload.site import Site

log = logs.get_logger(__name__)

_SUCCEEDED = "a newer recording is at its path"


class RequestHandler:
    """Carries out requests, by the worker that has the stream's path. Safe for several on different paths.

    The request is taken away last: whoever is killed before that, or loses the lease, leaves it to the
    next one, and carrying it out twice changes nothing.

    Parameters:
        site: where recordings come from and go to.
        closer: ends what is cancelled.
        resolver: goes on with what is tried again.
        pending: where requests are known to stand.
    """

    def __init__(
        self, site: Site, closer: Closer, resolver: StreamResolver, pending: PendingRequests
    ) -> None:
        self._site = site
        self._closer = closer
        self._resolver = resolver
        self._pending = pending

    def pending(self, path: str) -> bool:
        """Return whether a request is known to stand for the stream at a path."""
        return self._pending.at(path) is not None

    def meet(self, stream: Stream) -> None:
        """Take note of a request that was met with the lease of a stream."""
        self._pending.add(stream.path, stream.stream_id)

    def carry_out(self, path: str) -> ResolvedStream | None:
        """Do what stands for the stream at a path; gives the stream that goes on because of it.

        Raises:
            LeaseLost: somebody else works on the stream now; the request still stands.
        """
        stream_id = self._pending.at(path)
        if stream_id is None:
            return None
        try:
            with self._site.checkpoints.leased(stream_id) as (lease, stream):
                request = lease.request
        except LeaseLost as error:
            if error.reason == "gone":
                self._pending.discard(path)
            raise
        if request is None or stream.path != path:
            self._pending.discard(path)
            return None
        action = self._cancel if request.action is Action.CANCEL else self._retry
        try:
            outcome, resolved = action(stream, request)
        except PermanentError as error:
            self._end(path, stream, request, Outcome(request.token, done=False, said=str(error)))
            raise
        self._end(path, stream, request, outcome)
        return resolved

    def _end(self, path: str, stream: Stream, request: OperatorRequest, outcome: Outcome) -> None:
        with self._site.checkpoints.leased(stream.stream_id) as (lease, _):
            first = self._site.checkpoints.complete_request(lease, outcome)
        self._pending.discard(path)
        if not first:
            return  # another daemon met it as well: it has said so
        metrics.OPERATOR_REQUESTS.labels(str(request.action)).inc()
        log.warning(
            "operator request done",
            stream=stream.stream_id,
            action=str(request.action),
            by=request.by,
            asked_at=request.asked_at,
            done=outcome.done,
            outcome=outcome.said,
        )

    def _cancel(self, stream: Stream, request: OperatorRequest) -> tuple[Outcome, None]:
        if stream.state is State.FAILED and not self._is_newest(stream):
            return Outcome(request.token, done=False, said=_SUCCEEDED), None
        said = f"by an operator ({request.by})"
        error = RecordedError("cancelled", said)
        if stream.left_behind:
            self._site.checkpoints.end_left_behind(stream.stream_id, error)
        if stream.state in UNFINISHED | {State.FAILED}:
            self._closer.close(stream, f"cancelled {said}", error=error, signature=self._signature(stream))
        found = self._site.checkpoints.records([stream.stream_id])
        if not found:
            raise LeaseLost(stream.stream_id, "gone")
        after = found[0].stream
        if after.state in UNFINISHED | {State.FAILED}:
            raise LeaseLost(stream.stream_id, "conflict")  # it moved just now: the request still stands
        if after.cancelled:
            return Outcome(request.token, done=True, said="cancelled"), None
        return Outcome(request.token, done=False, said=f"it is {after.state}: nothing to cancel"), None

    def _signature(self, stream: Stream) -> Signature | None:
        """See how far the source is: what it has now is cancelled, too."""
        try:
            with open_source(self._site.root, stream.path) as source:
                found = source.signature()
        except (SourceGone, PermanentError):
            return None
        same = found.ino == stream.signature.ino and found.size >= stream.signature.size
        return found if same else None

    def _is_newest(self, stream: Stream) -> bool:
        newest = self._site.checkpoints.find(stream.path)
        return newest is not None and newest.stream_id == stream.stream_id

    def _retry(self, stream: Stream, request: OperatorRequest) -> tuple[Outcome, ResolvedStream | None]:
        def refused(why: str) -> tuple[Outcome, None]:
            return Outcome(request.token, done=False, said=why), None

        if stream.state in UNFINISHED:  # perhaps because of this very request, and we were killed
            return Outcome(request.token, done=True, said="it is being uploaded"), None
        if stream.state is not State.FAILED and not stream.cancelled:
            return refused(f"it is {stream.state}: nothing to retry")
        if not self._is_newest(stream):
            return refused(_SUCCEEDED)
        try:
            with open_source(self._site.root, stream.path) as source:
                again = self._resolver.retry(stream, source, source.signature())
        except SourceGone:
            return refused("its file is not there any more")
        except PermanentError as error:
            return refused(f"it would fail again: {error}")
        anew = again is not None and again.stream.stream_id != stream.stream_id
        said = f"begun anew as {again.stream.stream_id}" if again and anew else "it goes on"
        return Outcome(request.token, done=True, said=said), again
