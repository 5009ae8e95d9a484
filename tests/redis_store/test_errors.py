"""What each failure of a real Valkey becomes, how long it takes, and what is not tried again."""

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from checkpoint import Checkpoints
from errors import StoreUnavailable
from recording.layout import RecordingId
from recording.stream import Signature
from redis_store.client import connect_url
from redis_store.leases import LEASE_FRESH_SECONDS
from tests.conftest import served
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import BUSY_MACHINE_SECONDS, ValkeyServer, free_port, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Valkey whose configuration the tests change; each puts it back. It cannot write its dump."""
    valkey = ValkeyServer(tmp_path_factory.mktemp("errors") / "valkey", extra_config="dbfilename in-the-way")
    (valkey.data_dir / "in-the-way" / "file").mkdir(parents=True)
    yield from served(valkey)


@contextmanager
def records(url: str) -> Iterator[Checkpoints]:
    with connect_url(url) as client:
        yield Checkpoints(client, namespace="ns", owner="me")


@contextmanager
def configured(server: ValkeyServer, **options: str) -> Iterator[None]:
    before: Any = {name: server.client.config_get(name) for name in options}
    try:
        for name, value in options.items():
            server.client.config_set(name, value)
        yield
    finally:
        for found in before.values():
            for name, value in found.items():
                server.client.config_set(name, value)


def failure(work: Callable[[], object]) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as failed:
        work()
    assert failed.value.service == "redis"
    return failed.value


def kind(work: Callable[[], object]) -> tuple[str, bool]:
    error = failure(work)
    return error.kind, error.refused


def opening(url: str) -> tuple[str, bool]:
    with records(url) as checkpoints:
        return kind(lambda: checkpoints.prepare("bucket videos, prefix (none)"))


# ---------------------------------------------------------------------- refused


def test_a_wrong_password_is_refused_and_tried_once(server: ValkeyServer) -> None:
    with FaultProxy(server.port) as proxy:
        assert opening(f"redis://:wrong@127.0.0.1:{proxy.port}/0") == ("credentials", True)
        assert proxy.connections == 1


def test_a_missing_password_is_refused(server: ValkeyServer) -> None:
    assert opening(f"redis://127.0.0.1:{server.port}/0") == ("credentials", True)


def test_a_password_that_was_changed_while_we_run_is_a_refusal(server: ValkeyServer) -> None:
    with records(server.url) as checkpoints:
        checkpoints.prepare("bucket videos, prefix (none)")
        try:
            server.client.config_set("requirepass", "changed")
            server.client.client_kill_filter(skipme=True, _type="normal")
            assert kind(checkpoints.counts) == ("credentials", True)
        finally:
            server.client.config_set("requirepass", server.password)


@pytest.mark.parametrize("right", ["-evalsha", "-set", "-hget", "resetkeys ~other*"])
def test_a_missing_right_is_refused_at_the_start(right: str, server: ValkeyServer) -> None:
    server.client.execute_command(  # type: ignore[no-untyped-call]
        f"ACL SETUSER somebody on >secret ~* +@all {right}"
    )
    try:
        assert opening(f"redis://somebody:secret@127.0.0.1:{server.port}/0") == ("credentials", True)
    finally:
        server.client.acl_deluser("somebody")


def test_a_user_with_the_rights_of_the_daemon_and_no_more_is_let_in(server: ValkeyServer) -> None:
    rights = "+@read +@write +@scripting +time -@dangerous"
    server.client.execute_command(  # type: ignore[no-untyped-call]
        f"ACL SETUSER daemon on >secret ~{{ns}}:* {rights}"
    )
    try:
        with records(f"redis://daemon:secret@127.0.0.1:{server.port}/0") as checkpoints:
            checkpoints.prepare("bucket videos, prefix (none)")
            checkpoints.counts()
    finally:
        server.client.acl_deluser("daemon")


def test_a_database_that_is_not_there_is_refused(server: ValkeyServer) -> None:
    error = failure(lambda: prepared(server.url.removesuffix("/0") + "/99"))
    assert (error.kind, error.refused) == ("refused", True)
    assert "DB index is out of range; name a Redis 6.2 or Valkey that we may use in REDIS_URL" in str(error)


def prepared(url: str) -> None:
    with records(url) as checkpoints:
        checkpoints.prepare("bucket videos, prefix (none)")


def test_another_program_on_the_port_is_no_redis() -> None:
    with replies(b"", hello=b"-ERR unknown command 'HELLO'") as url:
        assert opening(url) == ("refused", True)


def test_a_key_of_another_kind_ends_no_thread_and_is_named(server: ValkeyServer) -> None:
    with records(server.url) as checkpoints:
        server.client.rpush("{ns}:active", "a list")
        try:
            assert kind(checkpoints.counts) == ("schema", False)
            server.client.rename("{ns}:active", "{ns}:paths")
            assert kind(lambda: checkpoints.prepare("bucket videos, prefix (none)")) == ("schema", False)
        finally:
            server.client.delete("{ns}:active", "{ns}:paths")


# ---------------------------------------------------------------------- it will work again


def test_a_full_memory(server: ValkeyServer) -> None:
    with records(server.url) as checkpoints, configured(server, maxmemory="1"):
        error = failure(lambda: checkpoints.prepare("bucket videos, prefix (none)"))
        assert (error.kind, error.refused, error.pause_seconds) == ("memory", False, 5)
        assert failure(lambda: begin(checkpoints)).kind == "memory"


def begin(checkpoints: Checkpoints) -> None:
    path, signature = uuid.uuid4().hex, Signature(1, 2, 3, 4, 5)
    checkpoints.create(path, RecordingId("a", 1, "7f3a91c2"), signature, replaces="", chunk_size=5)


def test_a_disk_that_cannot_be_written(server: ValkeyServer) -> None:
    with records(server.url) as checkpoints, configured(server, save="3600 1"):
        server.client.bgsave()
        wait_until(lambda: server.client.info("persistence")["rdb_last_bgsave_status"] == "err")
        error = failure(lambda: checkpoints.prepare("bucket videos, prefix (none)"))
        assert (error.kind, error.refused, error.pause_seconds) == ("full", False, 5)
        assert failure(lambda: begin(checkpoints)).kind == "full"


def test_a_read_only_replica(server: ValkeyServer) -> None:
    with records(server.url) as checkpoints:
        server.client.replicaof("127.0.0.1", "1")
        try:
            assert kind(lambda: checkpoints.prepare("bucket videos, prefix (none)")) == ("read_only", False)
            assert kind(lambda: begin(checkpoints)) == ("read_only", False)
            with configured(server, **{"replica-serve-stale-data": "no"}):
                error = failure(checkpoints.counts)
        finally:
            server.client.replicaof("no", "one")
    assert (error.kind, error.refused) == ("unreachable", False)
    assert "MASTERDOWN Link with MASTER is down" in str(error)


def test_too_few_replicas(server: ValkeyServer) -> None:
    with records(server.url) as checkpoints, configured(server, **{"min-replicas-to-write": "1"}):
        assert kind(lambda: begin(checkpoints)) == ("unreachable", False)


def test_a_cluster_without_its_slots(tmp_path: Path) -> None:
    cluster = ValkeyServer(tmp_path / "cluster", extra_config="cluster-enabled yes")
    for _ in served(cluster):
        error = failure(lambda: prepared(cluster.url))
        assert (error.kind, error.refused) == ("unreachable", False)
        assert "CLUSTERDOWN" in str(error)


def test_a_script_of_somebody_else_that_runs_for_long(server: ValkeyServer) -> None:
    def run_for_long() -> None:
        with connect_url(server.url) as client, suppress(ResponseError):
            client.eval("while true do end", 0)

    with records(server.url) as checkpoints, configured(server, **{"busy-reply-threshold": "10"}):
        checkpoints.counts()
        running = threading.Thread(target=run_for_long)
        running.start()
        try:
            wait_until(lambda: busy(server))
            assert kind(checkpoints.counts) == ("unreachable", False)
        finally:
            server.client.script_kill()
            running.join()


def busy(server: ValkeyServer) -> bool:
    try:
        return not server.client.ping()
    except ResponseError:
        return True


@contextmanager
def replies(reply: bytes, *, hello: bytes = b"%1\r\n+proto\r\n:3") -> Iterator[str]:
    """A server that gives one reply to every command after the handshake."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                with closing(listener.accept()[0]) as connection, connection.makefile("rb") as lines:
                    for line in lines:
                        if line.startswith(b"*"):
                            parts = [lines.readline() for _ in range(2 * int(line[1:]))]
                            connection.sendall(answer(parts[1].strip().upper()) + b"\r\n")

    def answer(command: bytes) -> bytes:
        return {b"HELLO": hello, b"CLIENT": b"+OK"}.get(command, reply)

    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        yield f"redis://127.0.0.1:{port}/0"
        listener.shutdown(socket.SHUT_RDWR)
    server.join()


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"-LOADING Redis is loading the dataset in memory", ("loading", False)),
        (b"-TRYAGAIN Multiple keys request during rehashing of slot", ("unreachable", False)),
        (b"-ERR max number of clients reached", ("unreachable", False)),
        (b"-NOSCRIPT No matching script. Please use EVAL.", ("unreachable", False)),
        (b"-MOVED 3999 127.0.0.1:6381", ("refused", True)),
    ],
)
def test_what_one_server_alone_cannot_be_brought_to_say(reply: bytes, expected: tuple[str, bool]) -> None:
    with replies(reply) as url, records(url) as checkpoints:
        assert kind(checkpoints.counts) == expected


# ---------------------------------------------------------------------- how long a call takes

SHORT = 0.2
"""Seconds for connecting and answering, in place of 2."""


@pytest.fixture
def proxy(server: ValkeyServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def hasty(proxy: FaultProxy, server: ValkeyServer) -> Iterator[Checkpoints]:
    """Records behind the proxy, with a connection that has been used."""
    with records(server.url.replace(str(server.port), str(proxy.port))) as checkpoints:
        pool: Any = checkpoints._redis.connection_pool
        pool.connection_kwargs |= {"socket_timeout": SHORT, "socket_connect_timeout": SHORT}
        checkpoints.counts()
        yield checkpoints


def seconds(work: Callable[[], object]) -> float:
    began_at = time.monotonic()
    assert kind(work) == ("unreachable", False)
    return time.monotonic() - began_at


def test_a_call_waits_for_a_silent_server_twice(hasty: Checkpoints, proxy: FaultProxy) -> None:
    proxy.stall_after(0, to="client")
    assert 2 * SHORT <= seconds(hasty.counts) < BUSY_MACHINE_SECONDS


def test_a_call_into_a_black_hole_waits_for_an_answer_and_two_connections(
    hasty: Checkpoints, proxy: FaultProxy
) -> None:
    proxy.black_hole()
    assert 3 * SHORT <= seconds(hasty.counts) < BUSY_MACHINE_SECONDS
    assert 2 * SHORT <= seconds(hasty.counts) < BUSY_MACHINE_SECONDS


def test_the_longest_that_a_call_can_take_is_less_than_a_lease_stays_fresh(
    proxy: FaultProxy, server: ValkeyServer
) -> None:
    with records(server.url.replace(str(server.port), str(proxy.port))) as checkpoints:
        checkpoints.counts()
        proxy.black_hole()
        assert seconds(checkpoints.counts) < LEASE_FRESH_SECONDS


def test_a_call_that_is_refused_a_connection_fails_at_once(hasty: Checkpoints, proxy: FaultProxy) -> None:
    proxy.refuse()
    assert seconds(hasty.counts) < BUSY_MACHINE_SECONDS


def test_a_connection_that_died_unseen_costs_no_failure(hasty: Checkpoints, proxy: FaultProxy) -> None:
    proxy.reset_after(0, times=1)
    hasty.counts()
    assert proxy.struck == 1


def test_a_frozen_valkey_is_an_outage_that_ends(private_valkey: ValkeyServer) -> None:
    with records(private_valkey.url) as checkpoints:
        pool: Any = checkpoints._redis.connection_pool
        pool.connection_kwargs |= {"socket_timeout": SHORT, "socket_connect_timeout": SHORT}
        checkpoints.prepare("bucket videos, prefix (none)")
        private_valkey.freeze()
        assert 2 * SHORT <= seconds(checkpoints.counts) < BUSY_MACHINE_SECONDS
        private_valkey.thaw()
        checkpoints.counts()
