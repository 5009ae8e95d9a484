"""The pages over real HTTP: metrics, health, readiness, and that the server stops whatever clients do."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import flask
import pytest
from prometheus_client.parser import text_string_to_metric_families

import metrics
from errors import ConfigError
from status.connections import (
    MAX_CONNECTIONS,
    MAX_HEAD_BYTES,
    REQUEST_SECONDS,
    STALLED_SECONDS,
    ConnectionServer,
)
from status.server import HTTP_THREADS, MAX_BODY_BYTES, StatusServer, create_app
from tests.support.pacing import wait_until
from tests.support.page_client import ask, serving

Problems = dict[str, str]


class Pages:
    """A running server whose problems the test sets."""

    def __init__(self) -> None:
        self.unhealthy: Problems = {}
        self.unready: Problems = {}
        self.app = create_app(unhealthy=lambda: self.unhealthy, unready=lambda: self.unready)
        self.port = 0

    def ask(self, page: str, method: str = "GET") -> tuple[int, str, http.client.HTTPMessage]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as client:
            client.request(method, page)
            reply = client.getresponse()
            return reply.status, reply.read().decode(), reply.headers


@pytest.fixture
def pages() -> Iterator[Pages]:
    found = Pages()
    with serving(found.app) as server:
        found.port = server.port
        yield found


# ---------------------------------------------------------------------- health and readiness


@pytest.mark.parametrize("page", ["/healthz", "/readyz"])
def test_all_is_well(pages: Pages, page: str) -> None:
    status, body, headers = pages.ask(page)
    assert (status, body) == (200, "ok\n")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"


def test_what_is_wrong_is_said_part_by_part_on_its_own_page(pages: Pages) -> None:
    pages.unhealthy = {"vcu-monitor": "dead", "watcher": "no step for 200 s"}
    assert pages.ask("/healthz")[:2] == (503, "vcu-monitor: dead\nwatcher: no step for 200 s\n")
    assert pages.ask("/readyz")[:2] == (200, "ok\n")
    pages.unhealthy, pages.unready = {}, {"s3": "not reached yet"}
    assert pages.ask("/readyz")[:2] == (503, "s3: not reached yet\n")
    assert pages.ask("/healthz")[:2] == (200, "ok\n")


def test_a_folder_whose_name_is_no_text_can_be_shown(pages: Pages) -> None:
    pages.unready = {"folder": "/in/\udcffput is not there"}
    assert pages.ask("/readyz")[:2] == (503, "folder: /in/\\udcffput is not there\n")


@pytest.mark.parametrize("page", ["/healthz", "/readyz", "/metrics", "/nowhere"])
def test_no_page_is_kept_guessed_at_or_signed(pages: Pages, page: str) -> None:
    headers = pages.ask(page)[2]
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Server"] is None
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self';")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 405), ("DELETE", 405)])
def test_pages_can_only_be_read(pages: Pages, method: str, status: int) -> None:
    assert pages.ask("/healthz", method)[0] == status


def test_an_unknown_page_is_not_found(pages: Pages) -> None:
    assert pages.ask("/%2e%2e/etc/passwd")[0] == 404


@pytest.mark.parametrize(
    "size", [f"Content-Length: {MAX_BODY_BYTES}", "Transfer-Encoding: chunked"], ids=["told", "chunked"]
)
def test_what_strangers_send_is_not_stored(pages: Pages, size: str) -> None:
    head = f"POST /healthz HTTP/1.1\r\nHost: x\r\n{size}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", pages.port), timeout=10) as client:
        client.sendall(head.encode())
        if "chunked" in size:
            client.sendall(b"%x\r\n" % MAX_BODY_BYTES + bytes(MAX_BODY_BYTES))
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


# ---------------------------------------------------------------------- metrics


def test_metrics_are_what_prometheus_reads(pages: Pages) -> None:
    metrics.STREAMS.labels("active").set(3)
    metrics.CHUNKS_UPLOADED.inc(0)
    status, body, headers = pages.ask("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    samples = {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    assert samples["video_uploader_streams", ("active",)] == 3
    assert ("video_uploader_chunks_uploaded_total", ()) in samples
    assert ("video_uploader_put_seconds_bucket", ("+Inf",)) in samples
    assert samples["process_resident_memory_bytes", ()] > 0


# ---------------------------------------------------------------------- the server


def test_a_port_in_use_is_a_wrong_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"HTTP_PORT: cannot listen on 127.0.0.1:{port}"):
            StatusServer(host="127.0.0.1", port=port, app=Pages().app)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "a" * 64 + ".example"])
def test_an_address_that_is_not_ours_is_a_wrong_setting(host: str) -> None:
    with pytest.raises(ConfigError, match="HTTP_HOST"):
        StatusServer(host=host, port=0, app=Pages().app)


def test_it_listens_on_ipv6_too() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    server = StatusServer(host="::1", port=0, app=Pages().app)
    server.start()
    with closing(http.client.HTTPConnection("::1", server.port, timeout=10)) as client:
        client.request("GET", "/healthz")
        assert client.getresponse().status == 200
    server.stop()


def test_the_port_is_free_after_the_end() -> None:
    with serving(Pages().app) as server:
        port = server.port
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_it_stops_while_clients_keep_their_connections() -> None:
    with serving(Pages().app) as server:
        quiet = socket.create_connection(("127.0.0.1", server.port), 10)
        served = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        served.request("GET", "/healthz")
        assert served.getresponse().read() == b"ok\n"
        server.stop()
        assert not server._thread.is_alive()
        assert quiet.recv(1) == b""
    quiet.close()
    served.close()


def test_it_stops_while_a_page_is_being_made() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow() -> Problems:
        asked.set()
        go_on.wait(30)
        return {}

    with serving(create_app(unhealthy=slow, unready=dict)) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        client.request("GET", "/healthz")
        assert asked.wait(10)
        server.stop()
        assert not server._thread.is_alive()
        go_on.set()
    client.close()


def test_it_stops_without_having_been_started() -> None:
    server = StatusServer(host="127.0.0.1", port=0, app=Pages().app)
    server.stop()
    with socket.create_server(("127.0.0.1", server.port)):
        pass


def test_stopping_twice_is_stopping_once() -> None:
    with serving(Pages().app) as server:
        server.stop()
        server.stop()


# ---------------------------------------------------------------------- slow clients


class Endless:
    """A page that never ends, and notes when nobody takes it any more."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.given = 0
        self.page = flask.Blueprint("endless", __name__)
        self.page.get("/endless")(self._show)
        self.app = create_app(unhealthy=dict, unready=dict, pages=[self.page])

    def _show(self) -> flask.Response:
        response = flask.Response(self._pieces(), content_type="text/plain")
        response.call_on_close(self.closed.set)
        return response

    def _pieces(self) -> Iterator[bytes]:
        while True:
            self.given += 1
            yield bytes(64 * 1024)


def test_what_a_client_does_not_take_is_not_made() -> None:
    endless = Endless()
    with (
        serving(endless.app) as server,
        closing(socket.create_connection(("127.0.0.1", server.port))) as client,
    ):
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        seen: list[int] = []

        def stands() -> bool:
            seen.append(endless.given)
            return endless.given > 0 and seen[-20:] == [endless.given] * 20

        wait_until(stands, 30)
        assert endless.given * 64 * 1024 < 16 * 1024**2  # what the kernel holds, and 1 MiB of ours
        assert ask(server.port, "/healthz").status == 200
        client.shutdown(socket.SHUT_RDWR)
    assert endless.closed.wait(10)


def test_a_client_that_takes_nothing_for_a_minute_is_cut_off() -> None:
    endless = Endless()
    with (
        serving(endless.app) as server,
        closing(socket.create_connection(("127.0.0.1", server.port))) as client,
    ):
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        (channel,) = wait_until(server._server.held, 10)
        wait_until(lambda: channel.total_outbufs_len > 1024**2, 10)
        later = time.time() + STALLED_SECONDS
        at_once(server._server, lambda: server._server.maintenance(int(later) - 2))
        assert not endless.closed.wait(0.2)
        at_once(server._server, lambda: server._server.maintenance(int(later) + 2))
        assert endless.closed.wait(10)


def test_a_client_that_goes_away_ends_the_making_of_its_page() -> None:
    endless = Endless()
    with serving(endless.app) as server:
        with closing(socket.create_connection(("127.0.0.1", server.port))) as client:
            client.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(1000)
        assert endless.closed.wait(10)


def test_it_stops_while_a_client_takes_nothing() -> None:
    endless = Endless()
    with (
        serving(endless.app) as server,
        closing(socket.create_connection(("127.0.0.1", server.port))) as client,
    ):
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        (channel,) = wait_until(server._server.held, 10)
        wait_until(lambda: channel.total_outbufs_len > 1024**2, 10)
        server.stop()
        assert endless.closed.is_set()
        assert not server._thread.is_alive()


def test_it_stops_in_whatever_moment_requests_end() -> None:
    for _ in range(30):
        with serving(Pages().app) as server:
            askers = [threading.Thread(target=ask, args=(server.port, "/healthz")) for _ in range(4)]
            for asker in askers:
                asker.start()
            for asker in askers:
                asker.join()


# ---------------------------------------------------------------------- hostile clients


def slow_heads(port: int, count: int) -> list[socket.socket]:
    """Connections that begin a request, and do not end it."""
    clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(count)]
    for client in clients:
        client.sendall(b"G")
    return clients


def test_connections_that_never_ask_blind_no_probe() -> None:
    with serving(Pages().app) as server, ExitStack() as stack:
        for client in slow_heads(server.port, MAX_CONNECTIONS + 20):
            stack.enter_context(closing(client))
        for page in ("/healthz", "/readyz", "/metrics"):
            assert ask(server.port, page).status == 200
        assert len(server._server.held()) <= MAX_CONNECTIONS


def test_an_address_with_many_connections_pushes_out_its_own_and_nobody_elses() -> None:
    with serving(Pages().app) as server, ExitStack() as stack:
        quiet = socket.create_connection(
            ("127.0.0.1", server.port), timeout=10, source_address=("127.0.0.9", 0)
        )
        stack.enter_context(closing(quiet))
        wait_until(lambda: len(server._server.held()) == 1, 10)
        crowd = [stack.enter_context(closing(each)) for each in slow_heads(server.port, MAX_CONNECTIONS + 5)]
        assert crowd[0].recv(1) == b""
        quiet.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert quiet.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_request_that_is_not_whole_in_time_ends_however_steadily_it_comes() -> None:
    with serving(Pages().app) as server, closing(slow_heads(server.port, 1)[0]) as client:
        (held,) = wait_until(server._server.held, 10)
        wait_until(lambda: held.request is not None, 10)
        at_once(server._server, lambda: server._server.maintenance(time.time()))
        assert server._server.held() == [held]
        held.waiting_since -= REQUEST_SECONDS + 1
        before = held.last_activity
        client.sendall(b"E")
        wait_until(lambda: held.last_activity > before, 10)
        at_once(server._server, lambda: server._server.maintenance(time.time()))
        assert client.recv(1) == b""


def test_a_page_that_takes_long_is_not_cut_off() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow() -> Problems:
        asked.set()
        go_on.wait(30)
        return {}

    with serving(create_app(unhealthy=slow, unready=dict)) as server, ThreadPoolExecutor(1) as pool:
        reply = pool.submit(ask, server.port, "/healthz")
        assert asked.wait(10)
        at_once(server._server, lambda: server._server.maintenance(time.time() + 2 * REQUEST_SECONDS))
        go_on.set()
        assert reply.result().status == 200


def test_who_asks_for_many_pages_at_once_and_reads_none_holds_no_thread() -> None:
    ask_all = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 150
    with serving(Pages().app) as server, ExitStack() as stack:
        for _ in range(HTTP_THREADS + 2):
            client = stack.enter_context(closing(socket.create_connection(("127.0.0.1", server.port))))
            client.sendall(ask_all)
        assert ask(server.port, "/healthz").status == 200
        wait_until(lambda: not server._server.held(), 10)


def test_a_head_without_an_end_is_refused() -> None:
    with serving(Pages().app) as server, closing(slow_heads(server.port, 1)[0]) as client:
        client.sendall(b"ET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES)
        assert client.recv(100).startswith(b"HTTP/1.0 431 ")


def at_once(server: ConnectionServer, look: Callable[[], None]) -> None:
    """Run something in the server's own thread, and wait for it."""
    ran = threading.Event()

    def run() -> None:
        look()
        ran.set()

    trigger: Any = server.trigger
    trigger.pull_trigger(run)
    assert ran.wait(10)
