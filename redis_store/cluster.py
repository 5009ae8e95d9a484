"""Our node of a Redis Cluster: all our keys lie in one slot, so it takes no more than following that slot."""

import threading
import time
from typing import Any

import redis
from redis.connection import Connection, ConnectionPool, SSLConnection, parse_url
from redis.exceptions import ClusterDownError, MovedError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from redis_store.errors import is_refusal

PORT = 6379

CONNECT_SECONDS = 2.0
"""Then no other node is tried: a node that is silent takes 2 s, and the caller has a bound."""

MAX_TOLD = 4
"""Nodes to remember beside those that the settings name: in containers their addresses change for ever."""

Address = tuple[str, int]


def our_node(url: str, options: dict[str, Any]) -> "redis.Redis":
    """Make a client that talks to whichever node has our slot; nothing is contacted yet.

    redis-py's own client for clusters connects when it is made, and repeats inside repeats.

    Parameters:
        url: `redis://[user:password@]host[:port][,host[:port]…]`, or `rediss://` for TLS.
        options: of each connection.
    """
    scheme, _, rest = url.partition("://")
    login, at, rest = rest.rpartition("@")
    hosts, mark, query = rest.partition("?")
    given: dict[str, Any] = parse_url(f"{scheme}://{login}{at}node{mark}{query}")  # type: ignore[no-untyped-call]
    over_tls = given.pop("connection_class", None) is not None
    del given["host"]
    nodes = _Nodes([_address(host) for host in hosts.rstrip("/").split(",")])
    pool = ConnectionPool(
        connection_class=_NodeConnectionOverTls if over_tls else _NodeConnection,
        nodes=nodes,
        **options,
        **given,
    )
    return redis.Redis.from_pool(pool)


def _address(host: str) -> Address:
    name, colon, port = host.rpartition(":")
    return (name, int(port)) if colon else (host, PORT)


class _Nodes:
    """Which node has our slot, as far as we were told. Safe to use from any thread.

    Parameters:
        given: nodes that the settings name.
    """

    def __init__(self, given: list[Address]) -> None:
        self._lock = threading.Lock()
        # Each with the one that failed last at the end. All below is guarded by _lock.
        self._given = given
        self._told: list[Address] = []
        self._ours: Address | None = None

    def candidates(self) -> list[Address]:
        """Return the nodes to try, those last that we were told: the address may be another's by now."""
        with self._lock:
            likeliest = [self._ours] if self._ours else []
            return list(dict.fromkeys([*likeliest, *self._given, *self._told]))

    def moved(self, address: Address) -> None:
        """Take note of the node that has our slot. It may come back when nobody who named it is left."""
        with self._lock:
            self._ours = address
            if address not in self._told:
                self._told = [*self._told, address][-MAX_TOLD:]

    def failed(self, address: Address) -> None:
        """Take note of a node that cannot be reached."""
        with self._lock:
            if self._ours == address:
                self._ours = None
            for nodes in (self._given, self._told):
                if address in nodes:
                    nodes.remove(address)
                    nodes.append(address)


class _NodeConnection(Connection):
    """A connection to the node that has our slot, or to one that will name it."""

    def __init__(self, *, nodes: _Nodes, **options: Any) -> None:
        self._nodes = nodes
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def connect(self) -> None:
        """Connect to the first node that lets us in. The caller repeats, so nothing is repeated here."""
        self.connect_check_health()

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002 - redis-py's own signature
        """Connect, as redis-py does it also before it repeats a command."""
        if self.is_connected:
            return
        began_at = time.monotonic()
        failure: Exception = RedisConnectionError("no node is known")
        for address in self._nodes.candidates():
            self.host, self.port = address
            try:
                super().connect_check_health(check_health, retry_socket_connect=False)
            except (RedisConnectionError, RedisTimeoutError) as error:
                if is_refusal(error):
                    raise
                self.disconnect()  # type: ignore[no-untyped-call]
                self._nodes.failed(address)
                failure = error
            else:
                return
            if time.monotonic() - began_at >= CONNECT_SECONDS:
                break
        raise failure

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read a reply; one that sends us to another node is a failure that the caller repeats there."""
        try:
            return super().read_response(*arguments, **options)
        except MovedError as error:
            # A node that does not know the name of the other one means that it is its own.
            host = error.host if error.host not in ("", "?") else self.host
            self._nodes.moved((host, error.port))
            self.disconnect()  # type: ignore[no-untyped-call]
            raise RedisConnectionError(f"the slot is at {host}:{error.port} now") from error
        except ClusterDownError as error:
            # It may be cut off from the others, who have put another one in its place.
            self._nodes.failed((self.host, self.port))
            self.disconnect()  # type: ignore[no-untyped-call]
            raise RedisConnectionError(f"{self.host}:{self.port} says: {error}") from error


class _NodeConnectionOverTls(_NodeConnection, SSLConnection):
    """The same with TLS."""
