"""A running HTTP server for a test, and a client that asks it."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import flask

from status.server import StatusServer

TIMEOUT_SECONDS = 30.0


class Reply(NamedTuple):
    """What came back; `body` as far as it came."""

    status: int
    body: bytes
    headers: http.client.HTTPMessage

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def serving(app: flask.Flask) -> Iterator[StatusServer]:
    """Serve an app on a free port."""
    server = StatusServer(host="127.0.0.1", port=0, app=app)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def ask(port: int, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Reply:
    """Send one request and give the whole answer; an answer that breaks off raises IncompleteRead."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)) as client:
        client.request(method, path, headers=dict(headers or {}))
        reply = client.getresponse()
        return Reply(reply.status, reply.read(), reply.headers)
