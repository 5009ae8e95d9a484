"""Every fault of the network, at every moment, for Redis and S3: said once, bounded, outlived."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from urllib3 import Timeout

import metrics
from errors import Service, StoreUnavailable
from recording.stream import State
from s3 import clients as s3_clients
from s3.bucket import ObjectStore
from s3.clients import ClientProfile
from scheduling.outages import BACKOFF_CAP_SECONDS, NOT_REACHED, TRY_SECONDS
from status.server import create_app
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import RcloneS3, Server, ValkeyServer, s3_settings, wait_until
from tests.support.small_harness import MAX_SECONDS, SMALL_CHUNK, SmallHarness, noise
from upload.crash_points import CrashPoint

IMPATIENT = 0.25
"""Seconds to connect and to answer while a server is silent, in place of 2 to 30: silence is silence."""

OUTAGE_SECONDS, TICK_SECONDS = 120, 40
"""Of the test's clock: how long an outage lasts, and how often a worker comes by meanwhile."""

PATH = "camera.mp4"
SIZE = 2 * SMALL_CHUNK + 150_000


class Fault(NamedTuple):
    """What goes wrong with the connections to one service; `after` is how many bytes pass before, by service.

    `outages` is how often it may be said to begin; 0 when nobody has to notice it. Only a `silent` one is
    noticed by waiting; a late answer of a busy machine is no second fault of the others.
    """

    name: str
    begin: Callable[[FaultProxy, int], None]
    after: tuple[int, int] = (0, 0)
    outages: int = 1
    silent: bool = False

    def __str__(self) -> str:
        return self.name


FAULTS = (
    Fault("refused", lambda proxy, _: proxy.refuse()),
    Fault("black hole", lambda proxy, _: proxy.black_hole(), silent=True),
    Fault("stalled", lambda proxy, after: proxy.stall_after(after), (300, 100_000), silent=True),
    Fault("reset", lambda proxy, after: proxy.reset_after(after), (300, 100_000)),
    Fault("every reply lost", lambda proxy, _: proxy.lose_reply(times=float("inf"))),
    Fault("one reply lost", lambda proxy, _: proxy.lose_reply(), outages=0),
    Fault("throttled to 300 kB/s", lambda proxy, _: proxy.throttle(300_000), outages=0),
)

MOMENTS: dict[str, CrashPoint | None] = {
    "at the start": None,
    "in a put": CrashPoint.CHUNK_READ,
    "in a checkpoint": CrashPoint.CHUNK_PUT,
    "in a finalization": CrashPoint.FINALIZING,
}
"""With what has just been done when the fault begins."""


class World:
    """A daemon, a proxy before each service, and one fault of one service."""

    def __init__(
        self, service: Service, fault: Fault, moment: str, harness: SmallHarness, proxy: FaultProxy
    ) -> None:
        self.service, self.fault, self.proxy = service, fault, proxy
        self.point = MOMENTS[moment]
        self.harness = harness
        self.happened = False

    def hook(self, point: CrashPoint) -> None:
        if point is self.point and not self.happened:
            self.strike()

    def strike(self) -> None:
        self.happened = True
        if self.fault.silent:
            patience(self.harness, IMPATIENT)
        self.fault.begin(self.proxy, self.fault.after[self.service == "s3"])

    @property
    def most_outages(self) -> int:
        """A probe is not repeated, so at the start one lost reply counts."""
        probed = self.service == "s3" and self.point is None
        return max(self.fault.outages, int(self.fault.name == "one reply lost" and probed))

    def heal(self) -> None:
        self.proxy.heal()
        patience(self.harness, 30)

    def readyz(self) -> tuple[int, str]:
        app = create_app(unhealthy=dict, unready=lambda: dict(self.harness.parts.breakers.failures()))  # type: ignore[arg-type]
        reply = app.test_client().get("/readyz")
        return reply.status_code, reply.text


def patience(harness: SmallHarness, seconds: float) -> None:
    """Bound every call of the clients that exist, without ending their connections."""
    pool: Any = harness.parts.checkpoints._redis.connection_pool
    pool.connection_kwargs |= {"socket_timeout": seconds, "socket_connect_timeout": seconds}
    for connection in pool._available_connections:
        connection.socket_timeout = connection.socket_connect_timeout = seconds
        if connection._sock:
            connection._sock.settimeout(seconds)
    for client in connected(harness.parts.store):
        manager = client._endpoint.http_session._manager
        timeout = Timeout(connect=seconds, read=seconds)
        manager.connection_pool_kw["timeout"] = timeout
        for key in manager.pools.keys():  # noqa: SIM118 - urllib3's own container has no iterator
            manager.pools.get(key).timeout = timeout


def connected(store: ObjectStore) -> list[Any]:
    return [store._clients.get(profile) for profile in get_args(ClientProfile)]


@pytest.fixture(autouse=True)
def clients_repeat_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)


@pytest.fixture(autouse=True)
def a_line_that_stands_still_is_not_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3.connections.MOVES_SECONDS", IMPATIENT / 2)
    monkeypatch.setattr("s3.connections.LOOK_SECONDS", IMPATIENT / 4)
    monkeypatch.setattr("redis.backoff.ExponentialWithJitterBackoff.compute", lambda *_: 0)


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    valkey: ValkeyServer,
    rclone: RcloneS3,
    bucket: str,
) -> Iterator[World]:
    service, fault, moment = request.param
    namespace = request.getfixturevalue("redis_namespace")
    server: Server = valkey if service == "redis" else rclone
    with ExitStack() as stack:
        proxy = stack.enter_context(FaultProxy(server.port))
        settings = {
            "redis": {"REDIS_URL": valkey.url.replace(str(valkey.port), str(proxy.port))},
            "s3": {"S3_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"},
        }[service]
        worlds: list[World] = []
        harness = SmallHarness(
            tmp_path / "input",
            valkey,
            rclone,
            bucket,
            namespace,
            at=lambda point: worlds[0].hook(point),  # noqa: PLW0108 - it is not there yet
            **settings,
        )
        worlds.append(World(service, fault, moment, harness, proxy))
        yield worlds[0]


def recovers(harness: SmallHarness) -> bool:
    """Return whether it works again by itself, within its longest wait; a server may still end a half put."""
    try:
        return harness.until_open() <= MAX_SECONDS
    except AssertionError:
        return False


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"video_uploader_{name}", labels) or 0.0


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    return [line for line in lines if line["event"] == event]


CELLS = [
    pytest.param((service, fault, moment), id=f"{service} {fault} {moment}")
    for service in ("redis", "s3")
    for fault in FAULTS
    for moment in MOMENTS
]


@pytest.mark.parametrize("world", CELLS, indirect=True)
def test_a_fault_is_outlived(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    harness, service = world.harness, world.service
    outages = value("outages_total", service=service)
    if world.point is None:
        world.strike()
    harness.write(PATH, noise(SIZE))
    harness.fall_idle()
    assert world.happened
    if world.fault.outages:
        tries = fail_for_a_while(world)
        begun = said(caplog, "outage begins")
        assert {(line["service"], line["kind"]) for line in begun} == {(service, "unreachable")}
        assert all(line["reason"] and line["streams_waiting"] >= 0 for line in begun)
        assert 1 <= tries <= OUTAGE_SECONDS
        world.heal()
        wait_until(lambda: recovers(harness), 30)
    harness.until_finished(PATH)
    assert world.proxy.struck or world.fault.name in ("refused", "black hole")
    world.heal()
    begun, ended = said(caplog, "outage begins"), said(caplog, "outage ends")
    assert not said(caplog, "outage goes on"), "nothing new is to be said of it"
    assert len(begun) == len(ended) == value("outages_total", service=service) - outages
    assert min(world.fault.outages, 1) <= len(begun) <= world.most_outages
    assert world.readyz() == (200, "ok\n")
    assert not harness.refusal, "an outage at the start is no refusal"
    assert harness.holds(PATH)
    assert harness.manifest(PATH)["revision"] == 1
    assert harness.state(PATH) is State.COMPLETE


def fail_for_a_while(world: World) -> float:
    """Let the outage last, and check all the while what is told about it; gives the tries that were made."""
    service, breakers = world.service, world.harness.parts.breakers
    before = value("errors_total", kind="unreachable")
    for _ in range(OUTAGE_SECONDS // TICK_SECONDS):
        world.harness.tick(TICK_SECONDS)
        # At the start S3 is asked only when Redis has said which store it must be.
        failures = {each: why for each, why in breakers.failures().items() if why != NOT_REACHED}
        assert list(failures) == [service], "one service fails, and only that"
        assert failures[service] != "not reached yet"
        status, text = world.readyz()
        assert status == 503
        assert f"{service}: {'S3' if service == 's3' else 'Redis'}: " in text
        assert value("service_up", service=service) == 0
    return value("errors_total", kind="unreachable") - before


# ---------------------------------------------------------------------- how long a call takes


@pytest.mark.parametrize("call", ["put", "probe", "view"])
def test_the_longest_that_s3_can_make_us_wait_is_known(rclone: RcloneS3, bucket: str, call: str) -> None:
    """Attempts are counted at a silent server, timeouts read from the client: together they are the bound."""
    with FaultProxy(rclone.port) as proxy:
        store = ObjectStore(s3_settings(f"http://127.0.0.1:{proxy.port}", bucket), connections=1)
        store.prepare(create=False)
        if call == "view":
            store = store.for_viewers()
        profile: ClientProfile = {"put": "upload", "probe": "probe", "view": "viewer"}[call]  # type: ignore[assignment]
        client: Any = store._clients.get(profile)
        config = client.meta.config
        session = client._endpoint.http_session
        session._manager.connection_pool_kw["timeout"] = Timeout(connect=IMPATIENT, read=IMPATIENT)
        session._manager.clear()
        proxy.stall_after(0, to="client")
        before = proxy.requests
        works: dict[str, Callable[[], object]] = {
            "put": partial(store.put, "a", b""),
            "probe": partial(store.prepare, create=False),
            "view": partial(store.get, "a", at_most=1),
        }
        with pytest.raises(StoreUnavailable, match="Read timeout"):
            works[call]()
        attempts = proxy.requests - before
    longest = attempts * (config.connect_timeout + config.read_timeout)
    viewers = s3_clients.QUICK_SECONDS + s3_clients.VIEWER_SECONDS
    assert attempts == {"put": 2, "probe": 1, "view": 1}[call]
    assert longest == {"put": 140, "probe": 2 * s3_clients.QUICK_SECONDS, "view": viewers}[call]
    assert longest < TRY_SECONDS
    assert BACKOFF_CAP_SECONDS < TRY_SECONDS
