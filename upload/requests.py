"""Carrying out what an operator ordered for a stream: cancel it, or try a failed or cancelled one again."""

import logs
import metrics
from errors import LeaseLost, PermanentError, SourceGone
from folder.source import open_source
from recording.stream import UNFINISHED, RecordedError, Signature, State, Stream
from redis_store.requests import Deed, Order, Outcome, StandingOrders
from upload.close import Closer
from upload.identify import ResolvedStream, StreamResolver
from upload.site import Site

log = logs.get_logger(__name__)

_SUCCEEDED = "a newer recording is at its path"


class RequestHandler:
    """Carries out orders, by the worker that has the path of the stream. Safe for several on different paths.

    The order is taken away last: whoever is killed before that, or loses the lease, leaves it to the
    next one, and carrying it out twice changes nothing.

    Parameters:
        site: where recordings come from and go to.
        closer: ends what is cancelled.
        resolver: goes on with what is tried again.
        standing: where orders are known to stand.
    """

    def __init__(
        self, site: Site, closer: Closer, resolver: StreamResolver, standing: StandingOrders
    ) -> None:
        self._site = site
        self._closer = closer
        self._resolver = resolver
        self._standing = standing

    def pending(self, path: str) -> bool:
        """Return whether an order is known to stand for the stream at a path."""
        return self._standing.at(path) is not None

    def meet(self, stream: Stream) -> None:
        """Take note of an order that was met with the lease of a stream."""
        self._standing.add(stream.path, stream.stream_id)

    def carry_out(self, path: str) -> ResolvedStream | None:
        """Do what stands for the stream at a path; gives the stream that goes on because of it.

        Raises:
            LeaseLost: somebody else works on the stream now; the order still stands.
        """
        stream_id = self._standing.at(path)
        if stream_id is None:
            return None
        try:
            with self._site.checkpoints.leased(stream_id) as (lease, stream):
                order = lease.order
        except LeaseLost as error:
            if error.reason == "gone":
                self._standing.discard(path)
            raise
        if order is None or stream.path != path:
            self._standing.discard(path)
            return None
        deed = self._cancel if order.deed is Deed.CANCEL else self._retry
        try:
            outcome, resolved = deed(stream, order)
        except PermanentError as error:
            self._end(path, stream, order, Outcome(order.token, done=False, said=str(error)))
            raise
        self._end(path, stream, order, outcome)
        return resolved

    def _end(self, path: str, stream: Stream, order: Order, outcome: Outcome) -> None:
        with self._site.checkpoints.leased(stream.stream_id) as (lease, _):
            first = self._site.checkpoints.carried_out(lease, outcome)
        self._standing.discard(path)
        if not first:
            return  # another daemon met it as well: it has said so
        metrics.ORDERS.labels(str(order.deed)).inc()
        log.warning(
            "ordered by an operator",
            stream=stream.stream_id,
            deed=str(order.deed),
            by=order.by,
            asked_at=order.asked_at,
            done=outcome.done,
            outcome=outcome.said,
        )

    def _cancel(self, stream: Stream, order: Order) -> tuple[Outcome, None]:
        if stream.state is State.FAILED and not self._is_newest(stream):
            return Outcome(order.token, done=False, said=_SUCCEEDED), None
        said = f"by an operator ({order.by})"
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
            raise LeaseLost(stream.stream_id, "conflict")  # it moved that very moment: the order still stands
        if after.cancelled:
            return Outcome(order.token, done=True, said="cancelled"), None
        return Outcome(order.token, done=False, said=f"it is {after.state}: nothing to cancel"), None

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

    def _retry(self, stream: Stream, order: Order) -> tuple[Outcome, ResolvedStream | None]:
        def refused(why: str) -> tuple[Outcome, None]:
            return Outcome(order.token, done=False, said=why), None

        if stream.state in UNFINISHED:  # perhaps because of this very order, and we were killed
            return Outcome(order.token, done=True, said="it is being uploaded"), None
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
        return Outcome(order.token, done=True, said=said), again
