"""What operators request for streams of running daemons, and which of it this process knows to stand."""

import json
import threading
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from recording.bounded_json import members_of


class Action(StrEnum):
    """What can be requested."""

    CANCEL = "cancel"
    RETRY = "retry"


class OperatorRequest(NamedTuple):
    """One request for one stream, as it stands in Redis until a daemon has carried it out.

    `token` tells it from every other request, `by` says who gave it, `asked_at` is ISO 8601 UTC.
    """

    action: Action
    token: str
    by: str
    asked_at: str


class Outcome(NamedTuple):
    """What a daemon did about the request with this token. `done` is false when it could not be done."""

    token: str
    done: bool
    said: str


def request_json(request: OperatorRequest) -> str:
    """Write a request down."""
    return json.dumps(request._asdict(), separators=(",", ":"))


def request_of(text: str | None) -> OperatorRequest | None:
    """Undo `request_json`; None for what no version of ours wrote."""
    fields = members_of(text)
    try:
        return OperatorRequest(**{**fields, "action": Action(fields["action"])})
    except (KeyError, TypeError, ValueError):
        return None


def outcome_json(outcome: Outcome) -> str:
    """Write an outcome down."""
    return json.dumps(outcome._asdict(), separators=(",", ":"))


def outcome_of(text: str | None) -> Outcome | None:
    """Undo `outcome_json`; None when there is none."""
    try:
        return Outcome(**members_of(text))
    except TypeError:
        return None


class PendingRequests:
    """The streams for which a request is known to stand, by path. Safe to use from any thread.

    Only a hint where to look: what is to be done, and whether it still is, the lease says.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: dict[str, str] = {}  # guarded by _lock

    def replace(self, found: Mapping[str, str]) -> None:
        """Take note of all that stand, as Redis has just told.

        Parameters:
            found: stream ids by path.
        """
        with self._lock:
            self._streams = dict(found)

    def add(self, path: str, stream_id: str) -> None:
        """Take note of one that was met with the lease of its stream."""
        with self._lock:
            self._streams[path] = stream_id

    def at(self, path: str) -> str | None:
        """Return the stream at a path for which a request stands."""
        with self._lock:
            return self._streams.get(path)

    def discard(self, path: str) -> None:
        """Forget what was carried out, or stands no more."""
        with self._lock:
            self._streams.pop(path, None)
