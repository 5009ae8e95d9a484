"""Requests to running daemons, from outside: for which stream, what came of it, the purge."""

import time
import uuid
from collections.abc import Callable

from archive.names import Names, UnknownRecording, similar
from checkpoint import Checkpoints
from errors import LeaseLost, PermanentError, UploaderError
from recording.layout import BucketLayout, stream_id
from recording.manifest import ManifestError
from recording.stream import (
    UNFINISHED,
    State,
    Stream,
)
from recording.timestamps import utc_now
from redis_store.leases import LEASE_TTL_SECONDS
from redis_store.requests import Action, OperatorRequest, Outcome
from s3.bucket import ObjectStore
from s3.manifest_reader import read_manifest

REQUEST_SECONDS = 30.0 + LEASE_TTL_SECONDS
"""For a daemon to look, to end a turn or a wait after a failure, or for the lease of a dead one to end."""

POLL_SECONDS = 0.2

MAX_KNOWN = 2_000
"""Names among which a typing error is looked for."""

RENEWAL_SECONDS = 5.0
"""Between two renewals of the lease of a purge: a recording may have 10,000 objects."""


_LOST = "the request is gone: Redis lost it, or a later one was carried out"


class NotPossible(UploaderError):
    """What was asked for makes no sense for this stream as it is; the message says why."""


class Steering:
    """Steers the daemons that share one namespace.

    Every method raises `StoreUnavailable` when Redis, or S3 where it is needed, does not answer.

    Parameters:
        checkpoints: the records.
        names: what typed names may mean.
        by: who gives requests, for the logs and records.
    """

    def __init__(self, checkpoints: Checkpoints, names: Names, *, by: str) -> None:
        self._checkpoints = checkpoints
        self._names = names
        self._by = by

    # ------------------------------------------------------------------ by name

    def find(self, typed: str, generation: int | None = None) -> Stream:
        """Return the stream that a person means.

        Parameters:
            typed: as for `Names.meanings`; without a generation the newest one is meant.
            generation: the same, as a number.

        Raises:
            UnknownRecording: Redis has no record of it.
        """
        meanings = list(self._names.meanings(typed, generation))
        found = self._first(
            [stream_id(each.key_path, each.generation) for each in meanings if each.generation]
        )
        if found is None and generation is None:
            at_path = filter(None, self._checkpoints.find_all(self._names.paths(typed)))
            newest = self._checkpoints.newest([each.key_path for each in meanings if not each.generation])
            found = next(at_path, None) or self._first([each for each in newest if each])
        if found is None:
            ids = self._checkpoints.ids(unfinished=MAX_KNOWN, finished=MAX_KNOWN)
            near = similar(typed, (each.rpartition("@")[0] for each in ids))
            unknown = UnknownRecording(typed, lambda: near, where="in the records", all_shown_by="status")
            unknown.look_for_suggestions()
            raise unknown
        return found

    def _first(self, ids: list[str]) -> Stream | None:
        return next((record.stream for record in self._checkpoints.records(ids)), None)

    def now(self, stream: Stream) -> Stream:
        """Read the record of a stream again."""
        return self._first([stream.stream_id]) or stream

    # ------------------------------------------------------------------ requests

    def check(self, action: Action, stream: Stream) -> None:
        """See whether a request makes sense.

        Raises:
            NotPossible: it does not.
        """
        ended = stream.state not in UNFINISHED | {State.FAILED} and not stream.left_behind
        if action is Action.CANCEL and ended:
            raise NotPossible(f"{stream.stream_id} is {stream.state}: there is nothing to cancel")
        if action is Action.RETRY and stream.state in UNFINISHED:
            waits = f"; it waits because of this: {stream.error.message}" if stream.error else ""
            raise NotPossible(f"{stream.stream_id} has not failed: it is {stream.state}{waits}")
        if action is Action.RETRY and stream.state is not State.FAILED and not stream.cancelled:
            raise NotPossible(f"{stream.stream_id} is {stream.state}: there is nothing to retry")

    def request(self, action: Action, stream: Stream) -> OperatorRequest:
        """Leave a request for the daemon that has the stream's next turn.

        Raises:
            NotPossible: the record is gone, or too many requests stand.
        """
        request = OperatorRequest(action, uuid.uuid4().hex, self._by, utc_now())
        placed = self._checkpoints.place_request(stream.stream_id, request)
        if placed == "GONE":
            raise NotPossible(f"Redis lost its record of {stream.stream_id} this very moment")
        if placed != "OK":
            raise NotPossible("too many requests stand already: is any daemon running?")
        return request

    def outcome(
        self, request: OperatorRequest, stream: Stream, *, seconds: float, wait: Callable[[float], object]
    ) -> Outcome | None:
        """Wait for what comes of a request; None when it still stands.

        Parameters:
            request: that was left.
            stream: for which.
            seconds: to wait at the most.
            wait: waits for some seconds.
        """
        deadline = time.monotonic() + seconds
        while True:
            stands, came = self._checkpoints.request(stream.stream_id)
            if came and came.token == request.token:
                return came
            if stands is None:
                return Outcome(request.token, done=False, said=_LOST)
            if stands.token != request.token:
                return Outcome(request.token, done=False, said="another request took its place")
            if time.monotonic() >= deadline:
                return None
            wait(POLL_SECONDS)

    # ------------------------------------------------------------------ what is in S3

    def purge(self, stream: Stream, store: ObjectStore, prefix: str) -> int:
        """Delete what S3 has of one cancelled generation, its manifest first; gives the number of objects.

        The lease is held meanwhile, so that no daemon goes on with it.

        Parameters:
            stream: that was cancelled.
            store: the bucket.
            prefix: `S3_PREFIX`.

        Raises:
            NotPossible: it is not cancelled any more, or S3 has a complete recording of it, or may have.
            LeaseLost: somebody else works on it.
        """
        with self._checkpoints.leased(stream.stream_id) as (lease, fresh):
            if not fresh.cancelled:
                raise NotPossible(f"{fresh.stream_id} is {fresh.state}: only what is cancelled is purged")
            self._refuse_complete(fresh, store, prefix)
            if fresh.adopted:
                raise NotPossible(f"{fresh.stream_id} was begun elsewhere: purge it there")
            layout = BucketLayout(prefix)
            found = [each.key for each in store.objects(layout.generation(fresh.recording) + "metadata.")]
            found += [
                each.key
                for each in store.objects(layout.chunks(fresh.recording))
                if layout.chunk_index(fresh.recording, each.key) is not None
            ]
            renew_at = time.monotonic() + RENEWAL_SECONDS
            for key in found:
                if time.monotonic() >= renew_at:
                    self._checkpoints.renew_held()
                    renew_at = time.monotonic() + RENEWAL_SECONDS
                lease.check()
                store.delete([key])
            try:
                self._checkpoints.restore(lease, [])
            except LeaseLost as error:
                if error.reason != "conflict":  # a newer recording has its path: the record stays as it is
                    raise
        return len(found)

    @staticmethod
    def _refuse_complete(stream: Stream, store: ObjectStore, prefix: str) -> None:
        layout = BucketLayout(prefix)
        try:
            found = read_manifest(store, layout, stream.recording)
        except ManifestError as error:  # of a later version, perhaps: nobody knows that it is not complete
            raise NotPossible(
                f"the manifest of {stream.stream_id} cannot be read ({error}): nothing is purged"
            ) from error
        if found and found.manifest.status is State.COMPLETE:
            raise NotPossible(
                f"S3 has a complete recording of {stream.stream_id}, revision {found.manifest.revision}:"
                " that is never purged"
            )


def purge_patiently(
    steering: Steering, stream: Stream, store: ObjectStore, prefix: str, *, wait: Callable[[float], object]
) -> int:
    """Purge, and wait for the lease if a daemon is just looking at the stream.

    Raises:
        NotPossible: likewise, also when the lease does not become free.
    """
    deadline = time.monotonic() + REQUEST_SECONDS
    while True:
        try:
            return steering.purge(stream, store, prefix)
        except LeaseLost as error:
            if error.reason != "busy" or time.monotonic() >= deadline:
                raise NotPossible(f"not purged: {error}") from error
        except PermanentError as error:
            raise NotPossible(f"not purged: {error}") from error
        wait(POLL_SECONDS)
