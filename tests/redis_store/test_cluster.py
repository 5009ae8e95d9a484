"""Redis as a cluster: the daemon finds the node that has its keys, and the next one after a failover."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from checkpoint import Checkpoints
from config import load_settings
from doctor.redis import check_redis
from errors import ConfigError, StoreUnavailable
from redis_store.client import connect, connect_url
from redis_store.cluster import MAX_TOLD, _Nodes
from settings.group import Secret
from settings.redis import RedisSettings
from tests.support.harness import CHUNK, TIMEOUT, Harness
from tests.support.servers import RcloneS3, ValkeyServer, wait_until

NAMESPACE = "cluster"
LAST_SLOT = 16383
PASSWORD = "valkey-password"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Node(ValkeyServer):
    """One node, which calls another one dead after a second."""

    def __init__(self, data_dir: Path) -> None:
        self.bus = free_port()
        more = (
            f"cluster-enabled yes\ncluster-node-timeout 1000\ncluster-port {self.bus}\nmasterauth {PASSWORD}"
        )
        super().__init__(data_dir, password=PASSWORD, extra_config=more)

    def do(self, *command: object) -> Any:
        return self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    def name_of_node(self) -> str:
        return str(self.do("CLUSTER", "MYID").decode())


class Cluster:
    """Three primaries and a replica of the one that has our slot."""

    def __init__(self, base: Path) -> None:
        self.nodes = [Node(base / f"node{number}") for number in range(4)]
        self.primaries, self.replica = self.nodes[:3], self.nodes[3]

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        ranges = ((0, 5000), (5001, 10000), (10001, LAST_SLOT))
        for node, (first, last) in zip(self.primaries, ranges, strict=True):
            node.do("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.do("CLUSTER", "SET-CONFIG-EPOCH", node.port)
        for node in self.nodes[1:]:
            node.do("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, self.nodes[0].bus)
        wait_until(lambda: all(map(self._knows_all, self.nodes)), 30, "the nodes never met")
        slot = self.nodes[0].do("CLUSTER", "KEYSLOT", f"{{{NAMESPACE}}}:")
        number = next(i for i, (first, last) in enumerate(ranges) if first <= slot <= last)
        self.slot, self.ours = slot, self.primaries[number]
        self.others = [node for node in self.primaries if node is not self.ours]
        self.replica.do("CLUSTER", "REPLICATE", self.ours.name_of_node())
        wait_until(lambda: self._link_is_up() and all(map(self._works, self.nodes)), 30, "it never worked")

    def _knows_all(self, node: Node) -> bool:
        return self._told(node, "cluster_known_nodes") == "4"

    def _works(self, node: Node) -> bool:
        return self._told(node, "cluster_state") == "ok"

    @staticmethod
    def _told(node: Node, field: str) -> str:
        lines = dict(line.split(":", 1) for line in node.do("CLUSTER", "INFO").decode().split())
        return str(lines[field])

    def _link_is_up(self) -> bool:
        return bool(self.replica.client.info("replication").get("master_link_status") == "up")

    def url(self, *nodes: Node) -> str:
        """Name nodes that must know the way, after one that nobody listens on."""
        hosts = ",".join(["127.0.0.1:1", *(f"127.0.0.1:{node.port}" for node in nodes)])
        return f"redis+cluster://:{PASSWORD}@{hosts}"

    def fail_over(self, *, freeze: bool) -> None:
        """Take our primary away and wait until its replica has its place."""
        self.ours.client.wait(1, 10_000)
        if freeze:
            self.ours.freeze()
        else:
            self.ours.kill()

    def promoted(self) -> bool:
        return bool(self.replica.client.info("replication")["role"] == "master")

    def heal(self, *, frozen: bool) -> None:
        """Bring the old primary back, as the replica that it is now."""
        if frozen:
            self.ours.thaw()
        else:
            self.ours.start()
        self.ours, self.replica = self.replica, self.ours
        wait_until(lambda: self._link_is_up() and all(map(self._works, self.nodes)), 30, "it never healed")

    def forget_all(self) -> None:
        while keys := self.ours.do("CLUSTER", "GETKEYSINSLOT", self.slot, 1000):
            self.ours.do("DEL", *keys)

    def close(self) -> None:
        for node in self.nodes:
            node.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def daemon(cluster: Cluster, tmp_path: Path, rclone: RcloneS3, bucket: str) -> Harness:
    """Knows only nodes that have none of its keys."""
    cluster.forget_all()
    url = cluster.url(*cluster.others, cluster.replica)
    return Harness(tmp_path / "input", cluster.ours, rclone, bucket, NAMESPACE, REDIS_URL=url)


def completes(daemon: Harness, path: str) -> Callable[[], bool]:
    def complete() -> bool:
        daemon.tick(15)
        return daemon.parts.breakers.works("redis") and daemon.state(path) == "complete"

    return complete


@pytest.mark.parametrize("primary", ["killed", pytest.param("frozen", marks=pytest.mark.drill)])
def test_after_a_failover_recording_goes_on_with_the_promoted_replica(
    daemon: Harness, cluster: Cluster, primary: str
) -> None:
    content = os.urandom(2 * CHUNK + 9)
    source = daemon.write("a.mp4", content[:CHUNK])
    daemon.scan()
    assert daemon.stream("a.mp4").next_index == 1
    key = f"{{{NAMESPACE}}}:stream:a.mp4@1"
    assert cluster.ours.do("EXISTS", key) == 1
    cluster.fail_over(freeze=primary == "frozen")
    try:
        with source.open("ab") as grows:
            grows.write(content[CHUNK:])
        daemon.tick()
        assert not daemon.parts.breakers.works("redis")
        wait_until(cluster.promoted, 60, "there was no failover")
        wait_until(completes(daemon, "a.mp4"), 60)
        assert daemon.holds("a.mp4")
        assert cluster.replica.client.hget(key, "state") == b"complete"
    finally:
        cluster.heal(frozen=primary == "frozen")


def test_a_cluster_that_is_frozen_is_an_outage_within_bounded_time_and_ends(
    daemon: Harness, cluster: Cluster
) -> None:
    daemon.write("a.mp4", os.urandom(CHUNK + 9))
    daemon.scan()
    for node in cluster.nodes:
        node.freeze()
    try:
        began_at = time.monotonic()
        daemon.tick(TIMEOUT)
        assert not daemon.parts.breakers.works("redis")
        assert time.monotonic() - began_at < 20
    finally:
        for node in cluster.nodes:
            node.thaw()
    wait_until(completes(daemon, "a.mp4"), 60)
    assert daemon.holds("a.mp4")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Node]:
    """A node that no other one knows: it says CLUSTERDOWN, as one does that is cut off from the others."""
    node = Node(tmp_path / "alone")
    node.start()
    yield node
    node.close()


def test_a_node_that_is_cut_off_from_its_cluster_does_not_hold_us(cluster: Cluster, alone: Node) -> None:
    with connect_url(cluster.url(alone, cluster.ours)) as client:
        records = Checkpoints(client, namespace=NAMESPACE, owner="me")
        assert records.find("nowhere.mp4") is None


def test_a_cluster_that_is_down_is_an_outage(alone: Node) -> None:
    url = f"redis+cluster://:{PASSWORD}@127.0.0.1:{alone.port}"
    with connect_url(url) as client, pytest.raises(StoreUnavailable, match="Hash slot not served") as outage:
        Checkpoints(client, namespace=NAMESPACE, owner="me").find("a.mp4")
    assert outage.value.kind == "unreachable"


def test_a_node_that_was_away_is_found_again_when_those_who_named_it_are_gone(cluster: Cluster) -> None:
    with connect_url(cluster.url(cluster.replica)) as client:
        records = Checkpoints(client, namespace=NAMESPACE, owner="me")
        records.counts()
        cluster.replica.kill()
        cluster.ours.freeze()
        try:
            with pytest.raises(StoreUnavailable):
                records.counts()
        finally:
            cluster.ours.thaw()
        try:
            wait_until(lambda: works(records), 10)
        finally:
            cluster.replica.start()
            wait_until(lambda: cluster._link_is_up() and all(map(cluster._works, cluster.nodes)), 30)


def works(records: Checkpoints) -> bool:
    try:
        records.counts()
    except StoreUnavailable:
        return False
    return True


def test_a_cluster_whose_addresses_always_change_takes_no_memory() -> None:
    nodes = _Nodes([("given", 1)])
    for number in range(100):
        nodes.moved(("told", number))
    assert nodes.candidates()[:2] == [("told", 99), ("given", 1)]
    assert len(nodes.candidates()) == 1 + MAX_TOLD
    nodes.failed(("told", 99))
    nodes.failed(("given", 1))
    assert nodes.candidates()[0] == ("given", 1), "an address that we were told may be another's by now"


def test_doctor_looks_at_the_node_that_has_our_keys(cluster: Cluster) -> None:
    settings = RedisSettings(REDIS_URL=Secret(cluster.url(cluster.replica)), REDIS_NAMESPACE=NAMESPACE)
    findings = check_redis(settings, store_identity="bucket b, prefix (none)", owner="doctor")
    levels = {finding.check: finding.level for finding in findings}
    assert (levels["Redis"], levels["Redis rights"], levels["Redis role"]) == ("ok", "ok", "ok")


def test_a_node_of_a_cluster_as_the_only_server_is_refused_with_the_url_to_write(cluster: Cluster) -> None:
    with connect_url(cluster.others[0].url) as client:
        records = Checkpoints(client, namespace=NAMESPACE, owner="me")
        with pytest.raises(StoreUnavailable, match=r"write redis\+cluster://") as refusal:
            records.prepare("bucket b, prefix (none)")
    assert refusal.value.refused


def test_a_wrong_password_of_a_cluster_is_refused_at_once(cluster: Cluster) -> None:
    url = cluster.url(*cluster.primaries).replace(PASSWORD, "wrong")
    with connect_url(url) as client, pytest.raises(StoreUnavailable) as refusal:
        Checkpoints(client, namespace=NAMESPACE, owner="me").prepare("bucket b, prefix (none)")
    assert refusal.value.refused
    denied = [node.client.info("stats")["acl_access_denied_auth"] for node in cluster.nodes]
    assert sum(denied) == 1


def test_while_its_slot_goes_to_another_node_recording_waits(daemon: Harness, cluster: Cluster) -> None:
    daemon.write("a.mp4", os.urandom(CHUNK + 9))
    daemon.scan()
    old, new = cluster.ours, cluster.others[0]
    new.do("CLUSTER", "SETSLOT", cluster.slot, "IMPORTING", old.name_of_node())
    old.do("CLUSTER", "SETSLOT", cluster.slot, "MIGRATING", new.name_of_node())
    keys = old.do("CLUSTER", "GETKEYSINSLOT", cluster.slot, 100)
    half = keys[: len(keys) // 2]
    for part in (half, keys[len(half) :]):
        old.do("MIGRATE", "127.0.0.1", new.port, "", 0, 5000, "AUTH", PASSWORD, "KEYS", *part)
        daemon.tick(TIMEOUT)
        assert "on its way to another node" in daemon.parts.breakers.failures().get("redis", "") or (
            "TRYAGAIN" in daemon.parts.breakers.failures()["redis"]
        )
    for node in (new, old, *cluster.others[1:]):
        node.do("CLUSTER", "SETSLOT", cluster.slot, "NODE", new.name_of_node())
    wait_until(completes(daemon, "a.mp4"), 60)
    assert daemon.holds("a.mp4")
    assert new.do("EXISTS", f"{{{NAMESPACE}}}:stream:a.mp4@1") == 1


# ---------------------------------------------------------------------- the URL


@pytest.mark.parametrize(
    ("url", "user", "password", "over_tls"),
    [
        ("redis+cluster://one", None, None, False),
        ("redis+cluster://:p%40ss@one:7000,two/0", None, "p@ss", False),
        ("rediss+cluster://me:secret@one:1,two:2,three:3/?ssl_ca_certs=/ca.pem", "me", "secret", True),
    ],
)
def test_a_cluster_url_names_nodes_and_the_login_of_all(
    url: str,
    user: str | None,
    password: str | None,
    over_tls: bool,  # noqa: FBT001 - a parameter of the case
) -> None:
    settings = load_settings({"REDIS_URL": url, "S3_REGION": "eu-central-1"}, None)
    with connect(settings.redis) as client:
        pool = client.connection_pool
        options = pool.connection_kwargs
    assert (options.get("username"), options.get("password")) == (user, password)
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (2, 2)
    assert issubclass(pool.connection_class, redis.SSLConnection) is over_tls
    assert options.get("ssl_ca_certs") == ("/ca.pem" if over_tls else None)
    assert "p%40ss" not in settings.redacted()["REDIS_URL"]


def test_the_redis_password_may_stand_apart_from_a_cluster_url() -> None:
    url = "redis+cluster://one:1,two:2"
    settings = load_settings({"REDIS_URL": url, "REDIS_PASSWORD": "a/b@c", "S3_REGION": "eu-central-1"}, None)
    with connect(settings.redis) as client:
        assert client.connection_pool.connection_kwargs["password"] == "a/b@c"


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://",
        "redis+cluster://one,",
        "redis+cluster://one:0",
        "redis+cluster://one/1",
        "redis+cluster://one?db=1",
        "redis+cluster://one?socket_timeout=9",
        "rediss+clusters://one",
    ],
)
def test_a_wrong_cluster_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="REDIS_URL must"):
        load_settings({"REDIS_URL": url, "S3_REGION": "eu-central-1"}, None)
