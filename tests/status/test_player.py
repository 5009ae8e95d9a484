"""Recordings over real HTTP, straight from their chunks in a real S3 server."""

import http.client
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import quote

import flask
import pytest

from archive.chunks import ChunkReader
from archive.generation import open_recording
from errors import TransientError
from recording.stream import State
from s3 import bucket as object_store
from status import player, recording_cache
from status.player import (
    AT_ONCE,
    DOWNLOADS,
    IN_LINE,
    LONG_BYTES,
    WINDOW_BYTES,
    Player,
)
from status.recording_cache import GROWING_SECONDS, SETTLED_SECONDS, Recordings
from status.server import HTTP_THREADS, StatusServer, create_app
from status.table import MAX_WAITING
from tests.support.archive_parts import CHUNK, OWNER, Shelf, noise, requests_of
from tests.support.fault_proxy import FaultProxy
from tests.support.harness import Clock
from tests.support.pacing import wait_until
from tests.support.page_client import Reply, ask, serving
from tests.support.servers import RcloneS3

CHROMIUM_VIDEO = {"Accept-Encoding": "identity;q=1, *;q=0", "Range": "bytes=0-"}


class Cinema:
    """A player on a bucket, behind a running server.

    Parameters:
        shelf: the bucket.
        port: of a proxy to be asked instead of the server.
    """

    def __init__(self, shelf: Shelf, stack: ExitStack, *, port: int | None = None) -> None:
        self.shelf, self.clock, self.works, self.stop = shelf, Clock(), True, threading.Event()
        self.archive = shelf.archive(port=port, stop=self.stop)
        self.recordings = Recordings(self.archive.store, prefix=shelf.prefix, clock=self.clock)
        self.player = Player(self.recordings, works=lambda: self.works)
        page = flask.Blueprint("play", __name__)
        page.get("/play/<path:stream_id>")(lambda stream_id: self.player.answer(stream_id, flask.request))
        app = create_app(unhealthy=dict, unready=dict, pages=[page])
        self.server: StatusServer = stack.enter_context(serving(app))

    def play(
        self,
        name: str = "a.mp4@1",
        wanted: str = "",
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        query: str = "",
    ) -> Reply:
        """Ask for a recording, or for a range of it such as `0-99`."""
        ranged = {"Range": f"bytes={wanted}"} if wanted else {}
        path = f"/play/{quote(name)}{query}"
        return ask(self.server.port, path, method=method, headers=ranged | dict(headers or {}))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def cinema(rclone: RcloneS3, bucket: str, stack: ExitStack) -> Cinema:
    return Cinema(Shelf(rclone, bucket, prefix="deep/"), stack)


# ---------------------------------------------------------------------- a finished recording


def test_a_whole_recording_is_given(cinema: Cinema) -> None:
    content = noise(7 * CHUNK + 5)
    cinema.shelf.store_complete("a.mp4", content)
    reply = cinema.play()
    assert (reply.status, reply.body) == (200, content)
    assert reply.headers["Content-Type"] == "video/mp4"
    assert reply.headers["Accept-Ranges"] == "bytes"
    assert reply.headers["Content-Length"] == str(len(content))
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("0-", 0, 7005),
        ("0-0", 0, 1),
        ("999-1000", 999, 1001),
        ("500-6500", 500, 6501),
        ("2000-2999", 2000, 3000),
        ("7004-", 7004, 7005),
        ("6000-9999", 6000, 7005),
        ("-5", 7000, 7005),
        ("-1500", 5505, 7005),
    ],
)
def test_a_range_is_given_wherever_the_chunks_end(cinema: Cinema, wanted: str, start: int, end: int) -> None:
    content = noise(7 * CHUNK + 5)
    cinema.shelf.store_complete("a.mp4", content)
    reply = cinema.play(wanted=wanted)
    assert (reply.status, reply.body) == (206, content[start:end])
    assert reply.headers["Content-Range"] == f"bytes {start}-{end - 1}/7005"
    assert reply.headers["Content-Length"] == str(end - start)


@pytest.mark.parametrize("wanted", ["7005-", "8000-9000", "-0"])
def test_a_range_behind_the_end_is_refused_with_the_size(cinema: Cinema, wanted: str) -> None:
    cinema.shelf.store_complete("a.mp4", noise(7 * CHUNK + 5))
    reply = cinema.play(wanted=wanted)
    assert reply.status == 416
    assert reply.headers["Content-Range"] == "bytes */7005"


@pytest.mark.parametrize("wanted", ["0-1,5-6", "9-3", "a-b"])
def test_what_is_no_single_range_gets_all(cinema: Cinema, wanted: str) -> None:
    content = noise(2 * CHUNK)
    cinema.shelf.store_complete("a.mp4", content)
    assert cinema.play(wanted=wanted)[:2] == (200, content)


def test_an_empty_recording_is_empty(cinema: Cinema) -> None:
    cinema.shelf.store_complete("a.mp4", b"")
    assert cinema.play()[:2] == (200, b"")
    assert cinema.play(wanted="0-").status == 416


def test_the_head_of_an_answer_comes_without_its_bytes(cinema: Cinema) -> None:
    cinema.shelf.store_complete("a.mp4", noise(CHUNK + 1))
    with requests_of(cinema.archive, "GetObject") as reads:
        reply = cinema.play(method="HEAD", wanted="0-9")
    assert (reply.status, reply.body, reply.headers["Content-Length"]) == (200, b"", str(CHUNK + 1))
    assert [params["Key"] for params in reads] == [f"deep/a.mp4/g0001-{OWNER}/metadata.json"]
    assert cinema.play(method="POST").status == 405


def test_an_incomplete_recording_plays_as_far_as_it_goes(cinema: Cinema) -> None:
    content = noise(3 * CHUNK)
    chunks = cinema.shelf.record("a.mp4", content)
    cinema.shelf.commit("a.mp4", chunks, None, status=State.INCOMPLETE)
    assert cinema.play()[:2] == (200, content)


def test_a_new_generation_is_another_recording(cinema: Cinema) -> None:
    first, second = noise(CHUNK), noise(CHUNK)
    cinema.shelf.store_complete("a.mp4", first)
    cinema.shelf.store_complete("a.mp4", second, generation=2)
    assert (cinema.play("a.mp4@1").body, cinema.play("a.mp4@2").body) == (first, second)


# ---------------------------------------------------------------------- caches


def test_the_same_bytes_have_the_same_tag_and_others_have_not(cinema: Cinema) -> None:
    content = noise(2 * CHUNK)
    cinema.shelf.store_complete("a.mp4", content)
    tag = cinema.play(wanted="0-9").headers["ETag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
    assert cinema.play().headers["ETag"] == tag
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        assert cinema.play(headers={"If-None-Match": known})[:2] == (304, b"")
    cinema.shelf.store_complete("a.mp4", noise(2 * CHUNK))
    cinema.clock.now += SETTLED_SECONDS
    assert cinema.play().headers["ETag"] != tag
    assert cinema.play(headers={"If-None-Match": tag}).status == 200


def test_a_range_of_other_bytes_than_one_has_is_not_given(cinema: Cinema) -> None:
    content = noise(2 * CHUNK)
    cinema.shelf.store_complete("a.mp4", content)
    tag = cinema.play().headers["ETag"]
    assert cinema.play(wanted="5-9", headers={"If-Range": tag})[:2] == (206, content[5:10])
    for other in ('"other"', tag.strip('"'), f"W/{tag}", "Tue, 14 Nov 2023 22:14:00 GMT"):
        assert cinema.play(wanted="5-9", headers={"If-Range": other})[:2] == (200, content)


def test_who_goes_on_with_another_recording_is_told(cinema: Cinema) -> None:
    content = noise(2 * CHUNK)
    cinema.shelf.store_complete("a.mp4", content)
    tag = cinema.play().headers["ETag"]
    for same in (tag, f'"other", {tag}', "*"):
        assert cinema.play(wanted="5-9", headers={"If-Match": same})[:2] == (206, content[5:10])
    for other in ('"other"', f"W/{tag}"):
        assert cinema.play(wanted="5-9", headers={"If-Match": other}).status == 412


# ---------------------------------------------------------------------- names


def test_a_download_has_a_name_that_is_safe_everywhere(cinema: Cinema) -> None:
    path = 'cam 1/büro "x"; <script>\n.mp4'
    cinema.shelf.store_complete(path, noise(10))
    (key,) = [key for key in cinema.shelf.all_keys() if key.endswith("metadata.json")]
    name = key.removeprefix("deep/").removesuffix(f"/g0001-{OWNER}/metadata.json")
    reply = cinema.play(f"{name}@1", query="?download=1")
    assert reply.status == 200
    disposition = reply.headers["Content-Disposition"]
    match = re.fullmatch(r"attachment; filename=\"([ -~]+)\"; filename\*=UTF-8''([!-~]+)", disposition)
    assert match
    assert not set('"\\;<>/') & set(match[1])
    assert match[1] == "b_ro _x__ _script__.mp4"
    assert match[2] == "b%C3%BCro%20%22x%22%3B%20%3Cscript%3E_.mp4"
    assert cinema.play(f"{name}@1").headers["Content-Disposition"].startswith("inline; ")


@pytest.mark.parametrize(
    "name",
    [
        "a.mp4",
        "a.mp4@0",
        "a.mp4@2",
        "a.mp4@-1",
        "a.mp4@1@1",
        "a.mp4@9999999999",
        "../deep/a.mp4@1",
        "x/../a.mp4@1",
        "/a.mp4@1",
        "a.mp4/@1",
        "./a.mp4@1",
        "a\n.mp4@1",
        "a\0.mp4@1",
        "x" * 2000 + "@1",
        "<script>@1",
    ],
)
def test_what_names_no_recording_is_not_found(cinema: Cinema, name: str) -> None:
    cinema.shelf.store_complete("a.mp4", noise(10))
    assert cinema.play(name).status == 404


def test_a_name_that_is_no_unicode_is_not_found(cinema: Cinema) -> None:
    assert ask(cinema.server.port, "/play/%ff%fe@1").status == 404


def test_a_manifest_that_names_foreign_objects_is_not_followed(cinema: Cinema) -> None:
    chunks = cinema.shelf.record("a.mp4", noise(10))
    cinema.shelf.put("secret", b"0123456789")
    cinema.shelf.commit("a.mp4", chunks, None, spoil=lambda built: built["chunks"][0].update(key="secret"))
    reply = cinema.play()
    assert reply.status == 502
    assert b"0123456789" not in reply.body


# ---------------------------------------------------------------------- while it grows


def test_a_growing_recording_is_given_as_far_as_it_goes_now(cinema: Cinema) -> None:
    content = noise(5 * CHUNK + 5)
    cinema.shelf.record("a.mp4", content[: 2 * CHUNK])
    reply = cinema.play(wanted="100-")
    assert (reply.status, reply.body) == (206, content[100 : 2 * CHUNK])
    assert reply.headers["Content-Range"] == f"bytes 100-{2 * CHUNK - 1}/*"
    assert reply.headers["ETag"] is None
    assert cinema.play()[:2] == (200, content[: 2 * CHUNK])
    behind = cinema.play(wanted=f"{2 * CHUNK}-")
    assert (behind.status, behind.headers["Content-Range"]) == (416, f"bytes */{2 * CHUNK}")

    cinema.shelf.record("a.mp4", content[: 4 * CHUNK])
    cinema.clock.now += GROWING_SECONDS
    assert cinema.play(wanted=f"{2 * CHUNK}-").body == content[2 * CHUNK : 4 * CHUNK]

    cinema.shelf.store_complete("a.mp4", content)
    cinema.clock.now += GROWING_SECONDS
    reply = cinema.play(wanted=f"{4 * CHUNK}-")
    assert (reply.body, reply.headers["Content-Range"]) == (content[4 * CHUNK :], "bytes 4000-5004/5005")
    assert reply.headers["ETag"]


def test_a_growing_recording_is_not_listed_again_and_again(cinema: Cinema) -> None:
    content = noise(9 * CHUNK)
    cinema.shelf.record("a.mp4", content[: 5 * CHUNK])
    cinema.play()
    with requests_of(cinema.archive, "ListObjectsV2") as lists:
        for start in range(10):
            cinema.play(wanted=f"{start}-")
        assert lists == []
        cinema.shelf.record("a.mp4", content[: 6 * CHUNK])
        cinema.clock.now += GROWING_SECONDS
        assert cinema.play().body == content[: 6 * CHUNK]
    under = f"deep/a.mp4/g0001-{OWNER}/chunks/"
    assert [params["Prefix"] for params in lists] == [f"{under}000005-", f"{under}000006-"]


def test_a_chunk_that_was_repaired_meanwhile_is_found_under_its_new_name(cinema: Cinema) -> None:
    content = noise(3 * CHUNK)
    chunks = cinema.shelf.store_complete("a.mp4", content)
    cinema.play()
    patched = noise(CHUNK) + content[CHUNK:]
    cinema.shelf.store_complete("a.mp4", patched)
    cinema.shelf.delete(chunks[0].key)
    assert cinema.play().body == patched


# ---------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("spoil", [Shelf.delete, lambda shelf, key: shelf.put(key, b"short")])
def test_a_damaged_recording_breaks_off_where_the_damage_is(
    cinema: Cinema, spoil: Callable[[Shelf, str], object]
) -> None:
    content = noise(3 * CHUNK)
    chunks = cinema.shelf.store_complete("a.mp4", content)
    spoil(cinema.shelf, chunks[1].key)
    with pytest.raises(http.client.IncompleteRead) as raised:
        cinema.play()
    assert raised.value.partial == content[:CHUNK]
    assert cinema.play(wanted=f"{CHUNK}-").status == 502
    assert cinema.play(wanted=f"{2 * CHUNK}-").body == content[2 * CHUNK :]


def test_an_outage_that_is_known_is_told_at_once(cinema: Cinema) -> None:
    cinema.shelf.store_complete("a.mp4", noise(10))
    cinema.works = False
    with requests_of(cinema.archive, "GetObject") as reads:
        reply = cinema.play()
    assert (reply.status, reply.headers["Retry-After"], reads) == (503, "10", [])


def test_an_outage_in_the_middle_breaks_off_and_is_over_with_it(
    rclone: RcloneS3, bucket: str, stack: ExitStack
) -> None:
    proxy = stack.enter_context(FaultProxy(rclone.port))
    cinema = Cinema(Shelf(rclone, bucket), stack, port=proxy.port)
    content = noise(3_000_000)
    chunks = cinema.shelf.record("a.mp4", content, chunk_size=1_000_000)
    cinema.shelf.commit("a.mp4", chunks, content, chunk_size=1_000_000)
    cinema.play(wanted="0-0")
    proxy.reset_after(1_500_000, to="client")
    with pytest.raises(http.client.IncompleteRead):
        cinema.play()
    proxy.refuse()
    assert cinema.play().status == 503
    proxy.heal()
    assert cinema.play().body == content


# ---------------------------------------------------------------------- many at a time


def test_a_video_element_gets_a_window_and_asks_for_the_next(cinema: Cinema) -> None:
    content = noise(WINDOW_BYTES + 1000)
    chunks = cinema.shelf.record("a.mp4", content, chunk_size=300_000)
    cinema.shelf.commit("a.mp4", chunks, content, chunk_size=300_000)
    for headers in (
        CHROMIUM_VIDEO,
        {"Range": "bytes=0-", "Sec-Fetch-Dest": "video"},
        {"Range": "bytes=0-", "Accept": "video/webm,video/ogg,video/*;q=0.9,*/*;q=0.5"},
    ):
        reply = cinema.play(headers=headers)
        assert (reply.status, reply.body) == (206, content[:WINDOW_BYTES])
        assert reply.headers["Content-Range"] == f"bytes 0-{WINDOW_BYTES - 1}/{len(content)}"
    assert cinema.play(wanted="0-").body == content  # a download that goes on must get all
    named = cinema.play(wanted=f"0-{len(content) - 1}", headers={"Sec-Fetch-Dest": "video"})
    assert named.body == content  # Safari names the end that it wants


def test_the_threads_suffice_for_players_the_page_and_health_checks() -> None:
    assert AT_ONCE + IN_LINE + 1 + MAX_WAITING + 2 <= HTTP_THREADS


@pytest.fixture
def slow(private_rclone: RcloneS3, stack: ExitStack) -> Cinema:
    """A player on a server of its own, with a recording of 40 MB."""
    private_rclone.client.create_bucket(Bucket="bucket")
    cinema = Cinema(Shelf(private_rclone, "bucket"), stack)
    content = noise(40_000_000)
    chunks = cinema.shelf.record("a.mp4", content, chunk_size=10_000_000)
    cinema.shelf.commit("a.mp4", chunks, content, chunk_size=10_000_000)
    return cinema


def test_players_whose_store_is_frozen_hold_up_nobody_else(
    slow: Cinema, private_rclone: RcloneS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(player, "MAX_WAIT_SECONDS", 0.2)
    slow.play(wanted="0-0")
    replies: list[int] = []
    viewers = [
        threading.Thread(target=lambda: replies.append(slow.play(wanted="0-99").status)) for _ in range(10)
    ]
    private_rclone.freeze()
    for viewer in viewers:
        viewer.start()
    wait_until(lambda: len(replies) == len(viewers) - AT_ONCE, 60)
    assert set(replies) == {503}
    for page in ("/metrics", "/healthz", "/readyz"):
        assert ask(slow.server.port, page).status == 200
    private_rclone.thaw()
    for viewer in viewers:
        viewer.join()
    assert replies.count(206) == AT_ONCE
    assert slow.play(wanted="0-9").status == 206


def test_players_that_take_nothing_hold_up_no_other(slow: Cinema, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "MAX_WAIT_SECONDS", 60.0)
    taken: list[int] = []
    pieces = slow.player._rest

    def counted(*arguments: Any) -> Iterator[bytes]:
        for piece in pieces(*arguments):
            taken.append(len(piece))
            yield piece

    slow.player._rest = counted  # type: ignore[assignment,method-assign]
    with ExitStack() as clients:
        for _ in range(2 * AT_ONCE):
            client = http.client.HTTPConnection("127.0.0.1", slow.server.port, timeout=10)
            clients.enter_context(closing(client))
            client.request("GET", "/play/a.mp4%401", headers=CHROMIUM_VIDEO)
        wait_until(lambda: sum(taken) == 2 * AT_ONCE * WINDOW_BYTES, 30)
        wait_until(lambda: slow.player._slots._value == AT_ONCE, 30)


def test_downloads_leave_room_for_players(slow: Cinema) -> None:
    with ExitStack() as clients:
        for _ in range(DOWNLOADS):
            client = clients.enter_context(
                closing(http.client.HTTPConnection("127.0.0.1", slow.server.port, timeout=30))
            )
            client.request("GET", "/play/a.mp4%401")
            assert client.getresponse().status == 200
        reply = slow.play()
        assert (reply.status, reply.headers["Retry-After"]) == (503, "2")
        assert slow.play(wanted="0-").status == 503
        assert slow.play(wanted=f"0-{LONG_BYTES - 1}").status == 206
        assert slow.play(headers=CHROMIUM_VIDEO).status == 206
        assert slow.play(method="HEAD").status == 200
    wait_until(lambda: slow.play(wanted="0-").status == 206, 30)


def test_a_viewer_who_goes_away_ends_the_reading(slow: Cinema) -> None:
    client = http.client.HTTPConnection("127.0.0.1", slow.server.port, timeout=10)
    client.request("GET", "/play/a.mp4%401")
    assert client.getresponse().read(1000)
    assert slow.player._slots._value == AT_ONCE - 1
    client.close()
    wait_until(lambda: slow.player._slots._value == AT_ONCE, 10)


def test_a_large_recording_passes_through_in_pieces(slow: Cinema, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    pieces = ChunkReader.pieces

    def noted(self: ChunkReader, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        for piece in pieces(self, start, end):
            sizes.append(len(piece))
            yield piece

    monkeypatch.setattr(ChunkReader, "pieces", noted)
    assert len(slow.play().body) == 40_000_000
    assert max(sizes) <= object_store.PIECE_BYTES


def test_nothing_is_read_any_more_when_the_daemon_stops(slow: Cinema) -> None:
    slow.play(wanted="0-0")
    slow.stop.set()
    assert slow.play().status == 503


def test_only_one_manifest_is_read_at_a_time(cinema: Cinema, monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on = threading.Event(), threading.Event()
    real = open_recording

    def slow(*args: Any) -> Any:
        began.set()
        assert go_on.wait(30)
        return real(*args)

    cinema.shelf.store_complete("a.mp4", b"a")
    cinema.shelf.store_complete("b.mp4", b"b")
    monkeypatch.setattr(recording_cache, "open_recording", slow)
    monkeypatch.setattr(recording_cache, "OPENING_SECONDS", 0.01)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cinema.recordings.find, "a.mp4@1")
        assert began.wait(30)
        with pytest.raises(TransientError, match="another recording is being opened"):
            cinema.recordings.find("b.mp4@1")
        go_on.set()
        assert first.result()
    assert cinema.recordings.find("b.mp4@1")
