"""An HTTP server that answers as S3 does when something is wrong; what it lets through a real S3 gets."""

import hashlib
import http.client
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from typing import NamedTuple, Self
from urllib.parse import unquote, urlsplit

from tests.support.servers import free_port

_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_EMPTY_LIST = f"{_XML}<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


class Request(NamedTuple):
    """What a client sent. Header names are lower case; `path` is decoded and has no query."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    size: int


class Answer(NamedTuple):
    """What the server answers; `method` and `containing` say to which requests."""

    status: int
    body: bytes
    headers: dict[str, str]
    method: str
    containing: str
    unread: bool


class FaultServer:
    """Use it in a `with` statement.

    Parameters:
        target_port: of a real S3 server, which gets the requests that have no answer set here. Without
            one they are answered as an S3 server that takes everything and keeps nothing.
    """

    def __init__(self, target_port: int | None = None) -> None:
        self.port = free_port()
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        self.requests: list[Request] = []  # appended to by the handlers' threads
        self._target_port = target_port
        self._lock = threading.Lock()
        self._answers: list[tuple[Answer, float]] = []  # with how often; guarded by _lock
        self._open: set[socket] = set()  # guarded by _lock
        outer = self

        class Handler(_Handler):
            server_of_faults = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="fault-server")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(SHUT_RDWR)
        self._server.server_close()

    # ------------------------------------------------------------------ what it answers

    def fail(self, status: int, code: str = "", *, body: bytes | None = None, **more: object) -> None:
        """Answer with an S3 error, or any other body.

        Parameters:
            status: of HTTP.
            code: S3's word for it; without one the body is empty.
            body: instead of S3's error.
            more: see `answer`.
        """
        error = f"<Error><Code>{code}</Code><Message>said by the test</Message></Error>"
        error_body = (_XML + error).encode() if code else b""
        self.answer(status, error_body if body is None else body, **more)  # type: ignore[arg-type]

    def answer(
        self,
        status: int,
        body: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        method: str = "",
        containing: str = "",
        times: float = float("inf"),
        unread: bool = False,
    ) -> None:
        """Set an answer; the first one that fits a request counts, and is used up after `times`.

        Parameters:
            status: of HTTP.
            body: not sent to a HEAD.
            headers: beside the length.
            method: of the requests that get it, all without one.
            containing: a part of their path.
            times: how many requests get it.
            unread: answer before the request's body was read, and hang up.
        """
        with self._lock:
            self._answers.append((Answer(status, body, headers or {}, method, containing, unread), times))

    def heal(self) -> None:
        """Forget all answers that were set."""
        with self._lock:
            self._answers.clear()

    def count(self, method: str = "") -> int:
        """Count the requests, or those with a method."""
        return sum(method in ("", request.method) for request in self.requests)

    # ------------------------------------------------------------------ for the handlers

    def take(self, request: Request) -> Answer | None:
        """Return the answer that was set for a request."""
        with self._lock:
            self.requests.append(request)
            for position, (answer, times) in enumerate(self._answers):
                if answer.method in ("", request.method) and answer.containing in request.path:
                    self._answers[position : position + 1] = [(answer, times - 1)] if times > 1 else []
                    return answer
        return None

    def opened(self, connection: socket, *, closed: bool = False) -> None:
        """Note a connection, to end it with the server."""
        with self._lock:
            (self._open.discard if closed else self._open.add)(connection)


class _Handler(BaseHTTPRequestHandler):
    server_of_faults: FaultServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server_of_faults.opened(self.connection)

    def finish(self) -> None:
        self.server_of_faults.opened(self.connection, closed=True)
        super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def _any(self) -> None:
        parts, size = urlsplit(self.path), int(self.headers.get("Content-Length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, unquote(parts.path), parts.query, headers, size)
        answer = self.server_of_faults.take(request)
        body = b"" if answer and answer.unread else self.rfile.read(size)
        if answer:
            self.close_connection = self.close_connection or answer.unread
            self._send(answer.status, answer.body, answer.headers)
        elif self.server_of_faults._target_port:
            self._forward(self.server_of_faults._target_port, body)
        else:
            self._imitate(request, body)

    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = _any  # noqa: N815 - http.server's names

    def _imitate(self, request: Request, body: bytes) -> None:
        is_object = "/" in request.path.strip("/")
        if self.command == "PUT":
            etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
            self._send(200, b"", {"ETag": f'"{etag}"'} if is_object else {})
        elif self.command == "DELETE":
            self._send(204, b"", {})
        elif is_object:
            self._send(404, b"", {})
        else:
            self._send(200, b"" if self.command == "HEAD" else _EMPTY_LIST.encode(), {})

    def _forward(self, port: int, body: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            reply = connection.getresponse()
            content = reply.read()
            headers = {
                name: value
                for name, value in reply.getheaders()
                if name.lower() not in ("connection", "date", "server", "transfer-encoding")
            }
            self._send(reply.status, content, headers)
        finally:
            connection.close()

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        if "Content-Length" not in headers and status not in (204, 304):
            headers = headers | {"Content-Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
