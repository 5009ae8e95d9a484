"""HTTP: `/metrics`, `/healthz` and `/readyz`, by flask on waitress. Nothing here calls S3 or Redis."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import flask
import waitress.server
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from waitress.wasyncore import close_all

import metrics
from errors import ConfigError

STOP_SECONDS = 1
"""For requests under way when the server stops; no page takes longer."""

HTTP_THREADS = 4
"""Prometheus, a health check and a person at the same time."""


def create_app(
    *, unhealthy: Callable[[], dict[str, str]], unready: Callable[[], dict[str, str]]
) -> flask.Flask:
    """Make the pages.

    Parameters:
        unhealthy: what is wrong with the process itself, by part; empty when nothing is.
        unready: what keeps recordings from being stored now, by part; empty when nothing does.
    """
    app = flask.Flask(__name__, static_folder=None)

    @app.get("/metrics")
    def show_metrics() -> flask.Response:
        return flask.Response(generate_latest(metrics.REGISTRY), content_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz")
    def healthz() -> flask.Response:
        return _verdict(unhealthy())

    @app.get("/readyz")
    def readyz() -> flask.Response:
        return _verdict(unready())

    @app.after_request
    def protect(response: flask.Response) -> flask.Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    return app


def _verdict(problems: dict[str, str]) -> flask.Response:
    lines = "".join(f"{part}: {problem}\n" for part, problem in problems.items()) or "ok\n"
    return flask.Response(
        lines.encode(errors="backslashreplace"),  # a path may hold bytes that are no text
        status=503 if problems else 200,
        content_type="text/plain; charset=utf-8",
    )


class StatusServer:
    """Serves the pages in threads of its own until `stop`.

    Parameters:
        host: address to listen on.
        port: 0 for any free one.
        app: made by `create_app`.

    Raises:
        ConfigError: the address cannot be used.
    """

    def __init__(self, *, host: str, port: int, app: flask.Flask) -> None:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((host, port), family=family, backlog=64)
        except (OSError, UnicodeError) as error:  # UnicodeError: no host name at all
            raise ConfigError(
                [f"HTTP_HOST and HTTP_PORT: cannot listen on {host}:{port} ({error}); choose another port"]
            ) from error
        self.port = int(listener.getsockname()[1])
        self._connections: dict[int, Any] = {}  # owned by the server's thread, once it runs
        self._server: Any = waitress.server.create_server(
            app,
            map=self._connections,
            sockets=[listener],
            threads=HTTP_THREADS,
            ident="",
            clear_untrusted_proxy_headers=True,
        )
        self._thread = threading.Thread(target=self._serve, name="vcu-http", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering; requests under way have `STOP_SECONDS` to end."""
        if self._thread.is_alive():
            # In the server's own thread: it may be waiting for these very sockets.
            self._server.trigger.pull_trigger(self._close)
            self._thread.join(2 * STOP_SECONDS)
        else:
            self._close()
            self._end_workers()

    def _serve(self) -> None:
        self._server.run()
        self._end_workers()

    def _close(self) -> None:
        close_all(self._connections)  # also those that clients keep open

    def _end_workers(self) -> None:
        self._server.task_dispatcher.shutdown(timeout=STOP_SECONDS)
