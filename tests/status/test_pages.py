"""The status page of a real daemon on real servers: what it tells, who may see it, whom it asks."""

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from errors import ConfigError, ErrorKind, StoreUnavailable
from redis_store import client as redis_client
from settings.group import Secret
from status import table as status_table
from status import wiring as page_wiring
from status.pages import read_page
from status.server import HTTP_THREADS, StatusServer, create_app
from status.table import MAX_WAITING
from status.wiring import Page, wire_page
from tests.support.archive_parts import noise
from tests.support.daemon_process import Site
from tests.support.fault_proxy import FaultProxy
from tests.support.harness import CHUNK, Harness
from tests.support.pacing import wait_until
from tests.support.page_client import Reply, ask, serving
from tests.support.servers import RcloneS3, ValkeyServer

ROOT = Path(__file__).parents[2]


class Watched:
    """A daemon that a test steps, with its status page on a running server.

    Parameters:
        harness: the daemon.
        settings: of the page, where they differ.
    """

    def __init__(self, harness: Harness, stack: ExitStack, **settings: Any) -> None:
        self.harness = harness
        self.unhealthy: dict[str, str] = {}
        self.stop = threading.Event()
        page = wire_page(
            harness.settings.replaced(http=settings),
            harness.parts,
            unhealthy=lambda: self.unhealthy,
            stop=self.stop,
        )
        assert page
        self.page: Page = page
        self.server: StatusServer = stack.enter_context(
            serving(create_app(unhealthy=dict, unready=dict, pages=[page.blueprint]))
        )

    def ask(self, path: str, *, method: str = "GET", **headers: str) -> Reply:
        return ask(self.server.port, path, method=method, headers=headers)

    def status(self) -> Any:
        self.harness.parts.auditor.step()  # as its own thread would have it
        reply = self.ask("/api/status")
        assert reply.status == 200
        return reply.json


@pytest.fixture(autouse=True)
def the_list_is_read_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_table, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(status_table, "MAX_REST_SECONDS", 0.0)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def watched(harness: Harness, stack: ExitStack) -> Watched:
    harness.parts.watch.watching = True
    return Watched(harness, stack)


def level(status: Any) -> str:
    found: str = status["answer"]["level"]
    return found


# ---------------------------------------------------------------------- a Redis that hangs


@pytest.fixture
def redis_proxy(valkey: ValkeyServer) -> Iterator[FaultProxy]:
    with FaultProxy(valkey.port) as proxy:
        yield proxy


@pytest.fixture
def behind_proxy(
    harness: Harness, valkey: ValkeyServer, rclone: RcloneS3, redis_proxy: FaultProxy
) -> Harness:
    """A daemon whose Redis is behind the proxy."""
    url = valkey.url.replace(str(valkey.port), str(redis_proxy.port))
    namespace = harness.settings.redis.namespace
    return Harness(harness.folder, valkey, rclone, harness.bucket, namespace, REDIS_URL=url)


def test_many_who_ask_while_redis_hangs_get_the_last_list_at_once_and_leave_the_probes_alone(
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    redis_proxy: FaultProxy,
    stack: ExitStack,
) -> None:
    monkeypatch.setattr(status_table, "WAIT_SECONDS", 60.0)
    monkeypatch.setitem(redis_client._BOUNDS, "socket_timeout", 60)
    harness: Harness = request.getfixturevalue("behind_proxy")
    harness.scan()
    watched = Watched(harness, stack)
    last = watched.status()["taken_at"]
    redis_proxy.stall_after(0, to="client")
    crowd = stack.enter_context(ThreadPoolExecutor(2 * HTTP_THREADS))
    stack.callback(redis_proxy.heal)  # also when the test fails: the crowd goes home
    asked = [crowd.submit(watched.ask, "/api/status") for _ in range(2 * HTTP_THREADS)]
    held_up = 1 + MAX_WAITING
    wait_until(lambda: sum(each.done() for each in asked) == len(asked) - held_up, 20)
    for page in ("/healthz", "/readyz", "/metrics"):
        assert watched.ask(page).status == 200
    answered = [each.result() for each in asked if each.done()]
    assert {reply.json["taken_at"] for reply in answered} == {last}
    assert len(answered) == len(asked) - held_up
    redis_proxy.heal()
    assert {each.result().status for each in asked} == {200}


# ---------------------------------------------------------------------- what it tells


def test_a_recording_is_followed_from_its_first_byte_to_its_last_chunk(watched: Watched) -> None:
    harness = watched.harness
    assert level(watched.status()) == "behind"  # nothing was looked at yet
    harness.scan()
    assert level(watched.status()) == "behind"  # nor what the records say
    harness.tick()
    assert level(watched.status()) == "empty"

    content = noise(2 * CHUNK + 1000)
    harness.write("cam/a.mp4", content[: CHUNK + 1000])
    harness.scan()
    harness.tick()
    status = watched.status()
    assert level(status) == "recording"
    assert status["answer"]["unsafe_bytes"] == 1000
    (stream,) = status["streams"]
    assert (stream["id"], stream["state"], stream["offset_bytes"]) == ("cam/a.mp4@1", "active", CHUNK)
    assert watched.ask("/api/streams/cam/a.mp4%401").json["id"] == "cam/a.mp4@1"
    assert watched.ask(stream["play_url"]).body == content[:CHUNK]

    harness.write("cam/a.mp4", content)
    harness.fall_idle()
    status = watched.status()
    assert level(status) == "safe"
    assert status["counts"] == {"active": 0, "complete": 1, "incomplete": 0, "failed": 0}
    assert status["streams"][0]["state"] == "complete"
    wait_until(lambda: watched.ask(stream["play_url"]).body == content, 30)


def test_a_new_file_is_not_safe_while_a_worker_finds_out_what_it_is(watched: Watched) -> None:
    watched.harness.work()
    watched.harness.parts.watch.scan()
    watched.harness.tick()
    assert level(watched.status()) == "empty"
    watched.harness.parts.schedule.grown("new.mp4")  # an event told of it
    assert level(watched.status()) == "recording"
    assert watched.harness.parts.schedule.take(0), "its first turn may wait for S3, up to a minute"
    assert level(watched.status()) == "recording"
    watched.harness.parts.schedule.done("new.mp4")
    assert level(watched.status()) == "empty"


def test_a_backlog_that_no_worker_has_begun_is_behind(watched: Watched) -> None:
    harness = watched.harness
    harness.scan()
    for number in range(3):
        harness.write(f"{number}.mp4", noise(3 * CHUNK))
    harness.parts.watch.scan()
    harness.clock.now += 6
    harness.parts.monitor.tick()
    status = watched.status()
    assert level(status) == "behind"
    assert status["answer"]["unsafe_bytes"] == 9 * CHUNK
    harness.fall_idle()
    assert level(watched.status()) == "safe"


def test_a_file_that_cannot_be_stored_is_at_risk_and_says_what_to_do(watched: Watched) -> None:
    watched.harness.write("/".join(["d" * 99] * 11) + "/a.mp4", noise(10))
    watched.harness.fall_idle()
    status = watched.status()
    assert (level(status), status["counts"]["failed"]) == ("at_risk", 1)
    (stream,) = status["streams"]
    assert stream["state"] == "failed"
    assert stream["hint"] == "move it to a folder less deep or shorten S3_PREFIX"
    assert stream["play_url"] is None


def test_a_folder_that_is_away_is_at_risk(watched: Watched) -> None:
    watched.harness.scan()
    watched.harness.parts.watch.watching = False
    status = watched.status()
    assert level(status) == "at_risk"
    assert status["services"][2]["problem"].endswith("is not there or cannot be watched")


def test_threads_and_the_stop_are_told(watched: Watched) -> None:
    watched.harness.scan()
    watched.unhealthy = {"monitor": "no step for 130 s"}
    assert watched.status()["services"][3]["problem"] == "monitor: no step for 130 s"
    watched.stop.set()
    assert watched.status()["services"][3]["problem"] == "stopping"


STRANGE = [
    '<script>alert("1")</script>.mp4',
    'it\'s "so".mp4',
    "line\nbreak.mp4",
    "100%25 #1?.mp4",
    "über 影.mp4",
]


@pytest.mark.parametrize("name", [*STRANGE, "no\udcfftext.mp4"])
def test_every_name_is_shown_and_plays(watched: Watched, name: str) -> None:
    content = noise(100)
    watched.harness.write(name, content)
    watched.harness.fall_idle()
    (stream,) = watched.status()["streams"]
    assert stream["path"] == name.replace("\udcff", "\ufffd")
    assert watched.ask(stream["play_url"]).body == content
    assert watched.ask("/api/streams/" + quote(stream["id"])).json["path"] == stream["path"]


def test_an_unknown_stream_is_not_found_in_json(watched: Watched) -> None:
    reply = watched.ask("/api/streams/nowhere%401")
    assert (reply.status, set(reply.json)) == (404, {"error"})
    assert reply.headers["Content-Type"] == "application/json"


# ---------------------------------------------------------------------- in an outage


def test_an_outage_is_told_without_redis_and_s3(
    tmp_path: Path, private_valkey: ValkeyServer, private_rclone: RcloneS3, stack: ExitStack
) -> None:
    harness = Harness(tmp_path / "input", private_valkey, private_rclone, "bucket", "ns")
    harness.parts.watch.watching = True
    watched = Watched(harness, stack)
    harness.scan()
    harness.write("a.mp4", noise(CHUNK + 10))
    harness.scan()
    harness.tick()
    assert level(watched.status()) == "recording"

    private_valkey.stop()
    harness.write("a.mp4", noise(CHUNK + 20_000))
    harness.tick(6)
    private_rclone.stop()
    status = watched.status()
    assert level(status) == "at_risk"
    assert status["answer"]["title"].startswith("Redis has been failing for ")
    assert status["answer"]["unsafe_bytes"] == 20_000
    assert status["streams"][0]["path"] == "a.mp4"  # the last table
    assert status["taken_at"] < status["now"]
    (outage,) = status["outages"]
    assert (outage["service"], outage["ended_at"]) == ("Redis", None)
    assert outage["began_at"] == status["services"][1]["since"]

    private_valkey.start()
    private_rclone.start()
    harness.clock.now += 60
    harness.work()
    assert watched.status()["answer"]["title"] == "Looking through the folder"  # for what came meanwhile
    harness.fall_idle()
    status = watched.status()
    assert (level(status), status["services"][1]["ok"]) == ("safe", True)
    assert status["outages"][0]["ended_at"]


# ---------------------------------------------------------------------- who may see it


PAGES = ["/", "/page.js", "/api/status", "/api/streams/a.mp4%401", "/play/a.mp4%401"]
OPEN = ["/metrics", "/healthz", "/readyz"]


def test_everything_but_metrics_and_health_checks_asks_for_the_password(
    harness: Harness, stack: ExitStack
) -> None:
    watched = Watched(harness, stack, status_password=Secret("correct horse"))
    harness.write("a.mp4", noise(10))
    harness.fall_idle()
    login = "Basic " + base64.b64encode(b"me:correct horse").decode()
    wrong = "Basic " + base64.b64encode(b"me:battery").decode()
    for page in PAGES:
        for headers in ({}, {"Authorization": wrong}):
            reply = watched.ask(page, **headers)
            assert reply.status == 401
            assert reply.headers["WWW-Authenticate"].startswith("Basic ")
            assert b"a.mp4" not in reply.body
    by_script = watched.ask("/api/status", **{"Sec-Fetch-Dest": "empty"})
    assert by_script.status == 401
    assert by_script.headers["WWW-Authenticate"].startswith("X-Basic "), "no window opens every 2 s"
    for page in PAGES:
        assert watched.ask(page, Authorization=login).status == 200
    for page in OPEN:
        assert watched.ask(page).status == 200
    told, _, phone = watched.page.who.partition(", from this machine only: ")
    assert (told, phone) == (
        "whoever knows STATUS_PASSWORD",
        "for a phone in the same network set HTTP_HOST=0.0.0.0",
    )


def test_a_wrong_password_is_in_the_log_and_not_what_was_typed(
    harness: Harness, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(harness, stack, status_password=Secret("correct horse"))
    typed = base64.b64encode(b"me:nearly correct").decode()
    watched.ask("/")
    assert caplog.records == []
    watched.ask("/", Authorization=f"Basic {typed}")
    (record,) = caplog.records
    assert record.msg == {"address": "127.0.0.1", "event": "wrong password for the status page"}


def test_without_a_password_only_the_networks_see_it(harness: Harness, stack: ExitStack) -> None:
    watched = Watched(harness, stack, status_networks=("10.0.0.0/8",))
    for page in PAGES:
        reply = watched.ask(page)
        assert reply.status == 403
        assert b"STATUS_NETWORKS" in reply.body
    assert json.loads(watched.ask("/api/status").body)["error"]
    for page in OPEN:
        assert watched.ask(page).status == 200


def test_a_site_of_a_stranger_cannot_read_it_through_a_browser_here(watched: Watched) -> None:
    for page in PAGES:
        assert watched.ask(page, Host="evil.example").status == 403
        assert watched.ask(page, **{"X-Forwarded-For": "127.0.0.1"}).status == 403
    assert watched.ask("/", Host="localhost:8000").headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert watched.ask("/", Host="localhost:8000").headers["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(watched: Watched, method: str) -> None:
    assert {watched.ask(page, method=method).status for page in PAGES} == {405}


# ---------------------------------------------------------------------- the files of the page


def test_the_page_comes_with_its_files_and_types(watched: Watched) -> None:
    types = {
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
    index = watched.ask("/")
    assert index.headers["Content-Type"] == "text/html; charset=utf-8"
    assert index.body == (ROOT / "status" / "web" / "index.html").read_bytes()
    for path in (ROOT / "status" / "web").iterdir():
        reply = watched.ask(f"/{path.name}")
        assert (reply.status, reply.body) == (200, path.read_bytes())
        assert reply.headers["Content-Type"] == types.get(path.suffix, "text/html; charset=utf-8")
        assert watched.ask(f"/{path.name}", **{"If-None-Match": reply.headers["ETag"]})[:2] == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/main.py",
        "/../config.py",
        "/%2e%2e%2fconfig.py",
        "/web/page.js",
        "/.env",
        "/favicon.ico",
    ],
)
def test_no_other_file_is_served(watched: Watched, path: str) -> None:
    assert watched.ask(path).status == 404


def test_a_page_that_is_not_installed_is_a_problem_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere cannot be read \(No such file or directory\)"):
        read_page(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"has no index\.html.*STATUS_PAGE=off"):
        read_page(str(tmp_path))


def test_only_files_of_a_page_are_taken_from_its_folder(tmp_path: Path) -> None:
    for name in ("index.html", "a.js", "notes.txt", ".hidden.js", "a.js.orig"):
        (tmp_path / name).write_text("x")
    assert list(read_page(str(tmp_path))) == ["a.js", "index.html"]


def test_a_store_that_is_full_still_plays(watched: Watched) -> None:
    watched.harness.write("a.mp4", noise(10))
    watched.harness.fall_idle()
    breakers = watched.harness.parts.breakers
    kinds: list[tuple[ErrorKind, int]] = [("full", 200), ("unreachable", 503)]
    for kind, status in kinds:
        breakers.fail(StoreUnavailable("no", service="s3", kind=kind))
        assert watched.ask("/play/a.mp4%401").status == status


def test_what_is_off_is_not_there(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_wiring, "FOLDER", "/nowhere")
    settings = harness.settings.replaced(http={"status_page": "off"})
    assert wire_page(settings, harness.parts, unhealthy=dict, stop=threading.Event()) is None


# ---------------------------------------------------------------------- the whole daemon


def test_a_daemon_serves_its_page_and_says_to_whom(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str
) -> None:
    site = Site(tmp_path, valkey, rclone, bucket)
    try:
        daemon = site.daemon()
        served = daemon.wait_for("serving")
        assert served["pages"] == "/ /metrics /healthz /readyz"
        assert served["status_page"] == "without a password, from 127.0.0.0/8, ::1/128"
        content = noise(CHUNK + 5)
        (site.folder / "a.mp4").write_bytes(content)
        site.wait_until_stored("a.mp4", timeout_seconds=90)
        wait_until(lambda: level(json.loads(daemon.get("/api/status")[1])) == "safe", 60)
        status = json.loads(daemon.get("/api/status")[1])
        assert [stream["path"] for stream in status["streams"]] == ["a.mp4"]
        assert daemon.get("/")[0] == 200
        assert daemon.terminate() == 0
        closed = site.daemon(STATUS_PAGE="off")
        assert closed.wait_for("serving")["status_page"] == "off"
        assert [closed.get(page)[0] for page in ("/", "/api/status", "/play/a.mp4%401")] == [404] * 3
        assert closed.get("/healthz")[0] == 200
        assert closed.terminate() == 0
        guarded = site.daemon(STATUS_PASSWORD="a-hidden-password")
        assert guarded.wait_for("serving")["status_page"].startswith("whoever knows STATUS_PASSWORD")
        assert guarded.get("/api/status")[0] == 401
        assert "a-hidden-password" not in guarded.output()
        assert guarded.terminate() == 0
    finally:
        site.close()
