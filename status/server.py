"""HTTP by flask on waitress: `/metrics`, `/healthz` and `/readyz`, and the pages for people beside them."""

import socket
import threading
from collections.abc import Callable, Sequence

import flask
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

import metrics
from errors import ConfigError
from status.connections import ConnectionServer

STOP_SECONDS = 1
"""For requests under way when the server stops; no page takes longer."""

HTTP_THREADS = 12
"""Eight for the player (`player.AT_ONCE` and `IN_LINE`), one that reads the table and one that waits for it
(`table.MAX_WAITING`), and two that are always free for Prometheus and health checks."""

BUFFER_BYTES = 1024 * 1024
"""Of an answer that waits for its client: as much as a player gets at once, so that none holds a thread."""

MAX_BODY_BYTES = 64 * 1024
"""Of a request: no page takes a body, and waitress alone writes up to 1 GB of one into /tmp."""

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; media-src 'self' blob:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def create_app(
    *,
    unhealthy: Callable[[], dict[str, str]],
    unready: Callable[[], dict[str, str]],
    pages: Sequence[flask.Blueprint] = (),
) -> flask.Flask:
    """Make the pages.

    Parameters:
        unhealthy: what is wrong with the process itself, by part; empty when nothing is.
        unready: what keeps recordings from being stored now, by part; empty when nothing does.
        pages: those for people; they decide themselves who may see them.
    """
    app = flask.Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # no answer leads elsewhere
    for each in pages:
        app.register_blueprint(each)

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
        response.headers.update(_HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
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
            listener = socket.create_server((host, port), family=family, backlog=128)
        except (OSError, UnicodeError) as error:  # UnicodeError: no host name at all
            raise ConfigError(
                [f"HTTP_HOST and HTTP_PORT: cannot listen on {host}:{port} ({error}); choose another port"]
            ) from error
        self.port = int(listener.getsockname()[1])
        self._server = ConnectionServer(
            app,
            listener,
            threads=HTTP_THREADS,
            # Never believed: `access` refuses what comes through a proxy without a password.
            clear_untrusted_proxy_headers=False,
            max_request_body_size=MAX_BODY_BYTES,
            outbuf_high_watermark=BUFFER_BYTES,
            outbuf_overflow=2 * BUFFER_BYTES,  # never into a file: /tmp is memory, too
        )
        self._thread = threading.Thread(target=self._serve, name="vcu-http", daemon=True)
        self._stopped = False

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering; requests under way have `STOP_SECONDS` to end."""
        if self._stopped:
            return
        self._stopped = True
        if self._thread.is_alive():
            self._server.stop()
            self._thread.join(2 * STOP_SECONDS)
        else:
            self._server.close_all()
            self._server.end_workers(STOP_SECONDS)
        self._server.release()

    def _serve(self) -> None:
        self._server.run()
        self._server.end_workers(STOP_SECONDS)
