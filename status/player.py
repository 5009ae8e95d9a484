"""A recording for the browser, straight from its chunks: HTTP Range over S3, also while it grows."""

import hashlib
import re
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import quote

import flask

import logs
from archive.chunks import ChunkReader
from archive.generation import Recording
from archive.retrying_bucket import Stopped
from errors import PermanentError, StoreUnavailable, TransientError
from recording.manifest import ManifestError
from status.byte_range import ByteRange, UnsatisfiableError, parse_range
from status.recording_cache import Recordings

log = logs.get_logger(__name__)

AT_ONCE = 4
"""Requests that read from S3 at a time. All others of the server's threads stay free for health checks."""

DOWNLOADS = 2
"""Of those that may give more than `LONG_BYTES`: they last as long as their client takes."""

LONG_BYTES = 4 * 1024 * 1024
"""Players ask for less with one request."""

IN_LINE = 4
"""Requests that may wait for one of those to end."""

MAX_WAIT_SECONDS = 2.0
"""That they wait; then they are asked to come again."""

WINDOW_BYTES = 1024 * 1024
"""What one request of a video element gets at the most. It asks for all of the file and then reads as it
plays: without this, every paused player would hold a thread. At 8 Mbit/s it asks once a second."""

_PLAIN = re.compile(r"[^A-Za-z0-9 ._()=,@!-]")


class BusyError(Exception):
    """All that may read from S3 at a time do so."""


class _Place:
    """What one request holds among those that read; left once, by whichever thread ends it."""

    def __init__(self) -> None:
        self._held: list[threading.BoundedSemaphore] = []

    def take(self, semaphore: threading.BoundedSemaphore, timeout: float = 0.0) -> bool:
        """Take one more; a request that is repeated holds it already."""
        if semaphore not in self._held:
            if not semaphore.acquire(timeout=timeout):
                return False
            self._held.append(semaphore)
        return True

    def leave(self) -> None:
        """Release all; the second time there is nothing left."""
        with suppress(IndexError):
            while True:
                self._held.pop().release()


class Player:
    """Answers requests for the bytes of recordings.

    Parameters:
        recordings: where they are.
        works: tells whether S3 is known to work; without it nobody is made to wait for a timeout.
    """

    def __init__(self, recordings: Recordings, *, works: Callable[[], bool]) -> None:
        self._recordings = recordings
        self._works = works
        self._line = threading.BoundedSemaphore(AT_ONCE + IN_LINE)
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._downloads = threading.BoundedSemaphore(DOWNLOADS)

    def answer(self, stream_id: str, request: flask.Request) -> flask.Response:
        """Return the bytes that a GET or HEAD asks for."""
        if not self._works():
            return _come_again("S3 does not work now.", seconds=10)
        place = _Place()
        try:
            self._enter(place)
            response = self._open(stream_id, request, place)
        except BusyError as error:
            place.leave()
            return _come_again(str(error), seconds=2)
        except BaseException:
            place.leave()
            raise
        response.call_on_close(place.leave)
        return response

    def _enter(self, place: "_Place") -> None:
        if not place.take(self._line) or not place.take(self._slots, MAX_WAIT_SECONDS):
            raise BusyError(f"{AT_ONCE} recordings are being read already.")

    def _open(self, stream_id: str, request: flask.Request, place: "_Place") -> flask.Response:
        try:
            try:
                return self._respond(stream_id, request, place)
            except PermanentError:  # perhaps a chunk was repaired since we looked
                self._recordings.forget(stream_id)
                return self._respond(stream_id, request, place)
        except (ManifestError, PermanentError) as error:
            return _plain(f"This recording cannot be read: {error}.", HTTPStatus.BAD_GATEWAY)
        except (StoreUnavailable, TransientError, Stopped) as error:
            log.warning("a player was turned away", stream=stream_id, reason=str(error))
            return _come_again(f"S3 does not answer: {error}.", seconds=10)

    def _respond(self, stream_id: str, request: flask.Request, place: "_Place") -> flask.Response:
        recording = self._recordings.find(stream_id)
        if recording is None:
            return _plain(f"Nothing of {stream_id!r} is in S3.", HTTPStatus.NOT_FOUND)
        tag = _etag(recording)
        headers = _headers(recording, tag, attachment="download" in request.args)
        if not _is_still(request, tag):
            return _plain("The recording is another one now.", HTTPStatus.PRECONDITION_FAILED)
        if tag and request.if_none_match.contains_weak(tag):
            return flask.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        wanted = _wanted(recording, request, tag)
        if wanted is None:
            headers["Content-Range"] = f"bytes */{recording.size}"
            return _plain("The recording is shorter.", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers)
        part, status = wanted
        if status == HTTPStatus.PARTIAL_CONTENT:
            size = "*" if recording.status == "growing" else str(recording.size)
            headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{size}"
        headers["Content-Length"] = str(part.end - part.start)
        if request.method == "HEAD":
            return flask.Response(status=status, headers=headers)
        if part.end - part.start > LONG_BYTES and not place.take(self._downloads):
            raise BusyError(f"{DOWNLOADS} recordings are being downloaded already.")
        return flask.Response(self._body(recording, part), status, headers)

    def _body(self, recording: Recording, part: ByteRange) -> Iterator[bytes]:
        """Return the bytes; the first of them is there when this returns, so that a failure can be told."""
        pieces = ChunkReader(self._recordings.store, recording.chunks).pieces(*part)
        first = next(pieces, b"")
        return self._rest(recording, first, pieces)

    def _rest(
        self, recording: Recording, first: bytes, pieces: Generator[bytes, None, None]
    ) -> Iterator[bytes]:
        try:
            yield first
            yield from pieces
        except (PermanentError, TransientError, Stopped) as error:
            # The server closes the connection because bytes are missing, so the client knows.
            for name in (recording.name, recording.id.full_name):
                self._recordings.forget(name)
            log.warning("a player was cut off", stream=recording.name, reason=str(error))
        finally:
            pieces.close()


def _wanted(
    recording: Recording, request: flask.Request, tag: str | None
) -> tuple[ByteRange, HTTPStatus] | None:
    """Return which bytes are wanted and the status that goes with them; None when there are none."""
    whole = ByteRange(0, recording.size)
    header = request.headers.get("Range", "") if request.method == "GET" else ""
    condition = request.headers.get("If-Range")
    if condition is not None and condition != f'"{tag}"':
        header = ""
    try:
        part = parse_range(header, recording.size)
    except UnsatisfiableError:
        return None
    if part is None:
        return whole, HTTPStatus.OK
    if header.rstrip().endswith("-") and _is_video_element(request):
        part = part._replace(end=min(part.end, part.start + WINDOW_BYTES))
    return part, HTTPStatus.PARTIAL_CONTENT


def _is_still(request: flask.Request, tag: str | None) -> bool:
    """Return whether a recording is what `If-Match` wants; Firefox goes on with a download by it."""
    wanted = request.if_match
    return not wanted or wanted.star_tag or (tag is not None and wanted.contains(tag))


def _is_video_element(request: flask.Request) -> bool:
    """Distinguish players, which ask again for what they did not get, from downloads that are resumed.

    Only those that ask for all that follows: one that names an end, as Safari does, may insist on it.
    Browsers name the destination on trusted addresses only (HTTPS, this machine); elsewhere Chromium
    is known by wanting no encoding, and Firefox by the types that it accepts.
    """
    told = request.headers.get("Sec-Fetch-Dest", "") in ("video", "audio")
    no_encoding = request.headers.get("Accept-Encoding", "").startswith("identity;q=1")
    return told or no_encoding or "video/" in request.headers.get("Accept", "")


def _etag(recording: Recording) -> str | None:
    """Name the bytes of a recording; None while they are not final."""
    if recording.status == "growing":
        return None
    named = hashlib.sha256(f"{recording.revision} {recording.size} {recording.sha256}".encode())
    for chunk in recording.chunks:
        named.update(chunk.sha256.encode())
    return named.hexdigest()[:32]


def _headers(recording: Recording, tag: str | None, *, attachment: bool) -> dict[str, str]:
    path = (recording.facts.path or recording.id.key_path).encode(errors="replace").decode()
    name = "".join(letter if letter.isprintable() else "_" for letter in path.rpartition("/")[2])
    plain = _PLAIN.sub("_", name)
    kind = "attachment" if attachment else "inline"
    headers = {
        "Content-Type": "video/mp4",
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
    }
    return headers | ({"ETag": f'"{tag}"'} if tag else {})


def _come_again(reason: str, *, seconds: int) -> flask.Response:
    return _plain(reason, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(seconds)})


def _plain(text: str, status: int, headers: dict[str, str] | None = None) -> flask.Response:
    plain = {"Content-Type": "text/plain; charset=utf-8"}
    return flask.Response(text.encode(errors="replace") + b"\n", status, (headers or {}) | plain)
