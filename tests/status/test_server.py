"""The pages over real HTTP: metrics, health, readiness, and that the server stops whatever clients do."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import flask
import pytest
from prometheus_client.parser import text_string_to_metric_families

import metrics
from errors import ConfigError
from status.server import MOST_BODY_BYTES, STALLED_SECONDS, StatusServer, create_app
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
    "size", [f"Content-Length: {MOST_BODY_BYTES}", "Transfer-Encoding: chunked"], ids=["told", "chunked"]
)
def test_what_strangers_send_is_not_stored(pages: Pages, size: str) -> None:
    head = f"POST /healthz HTTP/1.1\r\nHost: x\r\n{size}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", pages.port), timeout=10) as client:
        client.sendall(head.encode())
        if "chunked" in size:
            client.sendall(b"%x\r\n" % MOST_BODY_BYTES + bytes(MOST_BODY_BYTES))
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
        (channel,) = wait_until(lambda: list(server._server.active_channels.values()), 10)
        wait_until(lambda: channel.total_outbufs_len > 1024**2, 10)
        later = time.time() + STALLED_SECONDS
        server._server.trigger.pull_trigger(lambda: server._maintain(int(later) - 2))
        assert not endless.closed.wait(0.2)
        server._server.trigger.pull_trigger(lambda: server._maintain(int(later) + 2))
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
        (channel,) = wait_until(lambda: list(server._server.active_channels.values()), 10)
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
