"""A recording for the browser, straight from its chunks: HTTP Range over S3, also while it grows."""

import hashlib
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from urllib.parse import quote

import flask

import logs
from archive_store import ArchiveStore, Stopped
from byte_range import ByteRange, UnsatisfiableError, parse_range
from chunk_reader import ChunkReader
from errors import PermanentError, StoreUnavailable, TransientError
from manifest import ManifestError
from recording import Recording, chunk_at, open_committed, open_recording
from stream import chunk_key, chunks_prefix

log = logs.get_logger(__name__)

AT_ONCE = 4
"""Requests that read from S3 at a time. All others of the server's threads stay free for health checks."""

IN_LINE = 4
"""Requests that may wait for one of those to end."""

LINE_SECONDS = 2.0
"""That they wait; then they are asked to come again."""

WINDOW_BYTES = 1024 * 1024
"""What one request of a video element gets at the most. It asks for all of the file and then reads as it
plays: without this, every paused player would hold a thread. At 8 Mbit/s it asks once a second."""

SETTLED_SECONDS = 30.0
"""How long a manifest is believed: a new revision keeps most chunks, and a missing one is noticed."""

GROWING_SECONDS = 2.0
"""Until the next chunks of a growing recording are looked for: one LIST and one GET."""

MOST_OPEN = 4
"""Recordings whose chunks are remembered; one of 100 GB in chunks of 10 MiB takes 4 MB."""

_STREAM_ID = re.compile(r"(.+)@([1-9][0-9]{0,8})", re.DOTALL)
_PLAIN = re.compile(r"[^A-Za-z0-9 ._()=,@!-]")


class BusyError(Exception):
    """All that may read from S3 at a time do so."""


class Recordings:
    """Recordings opened by their stream ids, each remembered for a while. Safe to use from any thread.

    Parameters:
        store: the bucket.
        prefix: `S3_PREFIX`.
        clock: monotonic seconds.
    """

    def __init__(
        self, store: ArchiveStore, *, prefix: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store = store
        self._prefix = prefix
        self._clock = clock
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[Recording, float]] = OrderedDict()  # guarded by _lock

    def find(self, stream_id: str) -> Recording | None:
        """Open a recording; None when S3 holds nothing of it.

        Raises:
            ManifestError: its manifest cannot be trusted.
            StoreUnavailable: S3 does not answer, or refuses us.
        """
        match = _STREAM_ID.fullmatch(stream_id)
        if not match or not self._can_be_key(match[1]):
            return None
        with self._lock:
            known, opened_at = self._open.get(stream_id, (None, 0.0))
        age = self._clock() - opened_at
        if known and age < (GROWING_SECONDS if known.status == "growing" else SETTLED_SECONDS):
            return known
        found = (
            self._grown(known)
            if known and known.status == "growing"
            else open_recording(self.store, self._prefix, match[1], int(match[2]))
        )
        if found:
            self._remember(stream_id, found)
        return found

    def forget(self, stream_id: str) -> None:
        """Open it anew the next time: a chunk was not what it should be."""
        with self._lock:
            self._open.pop(stream_id, None)

    def _remember(self, stream_id: str, found: Recording) -> None:
        with self._lock:
            self._open[stream_id] = (found, self._clock())
            self._open.move_to_end(stream_id)
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)

    def _grown(self, known: Recording) -> Recording:
        """Look only for what comes behind the chunks that are known: a store may hash all that it lists."""
        committed = open_committed(self.store, self._prefix, *known.place)
        if committed:
            return committed
        chunks = list(known.chunks)
        while not chunks or chunks[-1].size == known.chunk_size:
            upcoming = chunk_at(self.store, self._prefix, *known.place, len(chunks))
            if upcoming is None or upcoming.size > known.chunk_size:
                break
            chunks.append(upcoming)
        return replace(known, chunks=tuple(chunks), size=sum(chunk.size for chunk in chunks))

    def _can_be_key(self, keys: str) -> bool:
        try:
            chunk_key(chunks_prefix(self._prefix, keys, 1), 0, "")
        except (PermanentError, UnicodeEncodeError):
            return False
        return keys.isprintable() and not {"", ".", ".."} & {*keys.split("/")}


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

    def answer(self, stream_id: str, request: flask.Request) -> flask.Response:
        """Give the bytes that a GET or HEAD asks for."""
        if not self._works():
            return _come_again("S3 does not work now.", seconds=10)
        try:
            leave = self._enter()
        except BusyError:
            return _come_again(f"{AT_ONCE} recordings are being read already.", seconds=2)
        try:
            response = self._open(stream_id, request)
        except BaseException:
            leave()
            raise
        response.call_on_close(leave)
        return response

    def _enter(self) -> Callable[[], None]:
        """Take a place among those that read; gives what must be called in the end, once or more often."""
        if not self._line.acquire(blocking=False):
            raise BusyError
        if not self._slots.acquire(timeout=LINE_SECONDS):
            self._line.release()
            raise BusyError
        inside = [self._slots, self._line]

        def leave() -> None:
            with suppress(IndexError):
                while True:
                    inside.pop().release()

        return leave

    def _open(self, stream_id: str, request: flask.Request) -> flask.Response:
        try:
            try:
                return self._respond(stream_id, request)
            except PermanentError:  # perhaps a chunk was repaired since we looked
                self._recordings.forget(stream_id)
                return self._respond(stream_id, request)
        except (ManifestError, PermanentError) as error:
            return _plain(f"This recording cannot be read: {error}.", HTTPStatus.BAD_GATEWAY)
        except (StoreUnavailable, TransientError, Stopped) as error:
            log.warning("a player was turned away", stream=stream_id, reason=str(error))
            return _come_again(f"S3 does not answer: {error}.", seconds=10)

    def _respond(self, stream_id: str, request: flask.Request) -> flask.Response:
        recording = self._recordings.find(stream_id)
        if recording is None:
            return _plain(f"Nothing of {stream_id!r} is in S3.", HTTPStatus.NOT_FOUND)
        tag = _etag(recording)
        headers = _headers(recording, tag, attachment="download" in request.args)
        if tag and tag in request.if_none_match:
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
        body = iter(()) if request.method == "HEAD" else self._body(recording, part)
        return flask.Response(body, status, headers)

    def _body(self, recording: Recording, part: ByteRange) -> Iterator[bytes]:
        """Give the bytes; the first of them is there when this returns, so that a failure can be told."""
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
            self._recordings.forget(recording.name)
            log.warning("a player was cut off", stream=recording.name, reason=str(error))
        finally:
            pieces.close()


def _wanted(
    recording: Recording, request: flask.Request, tag: str | None
) -> tuple[ByteRange, HTTPStatus] | None:
    """Tell which bytes are wanted and the status that goes with them; None when there are none."""
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
    if _is_video_element(request):
        part = part._replace(end=min(part.end, part.start + WINDOW_BYTES))
    return part, HTTPStatus.PARTIAL_CONTENT


def _is_video_element(request: flask.Request) -> bool:
    """Tell players, which ask again for what they did not get, from downloads that are resumed.

    Chromium names the destination on trusted addresses only, but always wants no encoding; Firefox
    and Safari ask for videos or say that they are one.
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
    name = recording.key_path.rpartition("/")[2]
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
