"""The one way to Redis, all waits bounded: a server, Sentinel's primary, or our node of a cluster."""

from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ReadOnlyError
from redis.maint_notifications import MaintNotificationsConfig
from redis.sentinel import Sentinel

from redis_store.cluster import our_node
from redis_store.errors import RetryUnlessRefused
from settings.redis import RedisSettings

SENTINEL_SCHEME = "redis+sentinel"
CLUSTER_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}

SENTINEL_PORT = 26379

_BOUNDS: dict[str, Any] = {"socket_connect_timeout": 2, "socket_timeout": 2}


def connect(settings: RedisSettings) -> "redis.Redis":
    """Return a client for the Redis that the settings name; see `connect_url`."""
    return connect_url(settings.url.get_secret_value())


def connect_url(url: str) -> "redis.Redis":
    """Return a client whose every call is bounded: 2 s to connect, 2 s to answer, one more try.

    redis-py repeats inside a repeat: a command, the connect in it, the PING of a health check, each
    with all its tries. Measured with every packet lost: 54 s with 3 more tries and health checks, 6 s
    so. A Sentinel that is silent adds 2 s to each connect. A cluster gets two more tries: one to find
    that a node is gone, one to be sent from another to the next.

    Raises:
        ValueError: the URL is no Redis URL.
    """
    options: dict[str, Any] = {
        **_BOUNDS,
        "retry": RetryUnlessRefused(ExponentialWithJitterBackoff(base=0.1, cap=1), 1),
        "retry_on_error": [ReadOnlyError],
        "decode_responses": True,
        "encoding_errors": "surrogateescape",
        # A server could stretch these timeouts by such a notification.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if url.startswith(f"{SENTINEL_SCHEME}://"):
        return _primary_of(url, options)
    scheme, _, rest = url.partition("://")
    if scheme in CLUSTER_SCHEMES:
        options["retry"].update_retries(2)
        return our_node(f"{CLUSTER_SCHEMES[scheme]}://{rest}", options)
    return redis.Redis.from_url(url, **options)


def _primary_of(url: str, options: dict[str, Any]) -> "redis.Redis":
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    service, _, database = parts.path.strip("/").partition("/")
    made_by: Any = Sentinel  # redis-py gives no types for it
    sentinels = made_by(
        [_address(host) for host in hosts.split(",")],
        sentinel_kwargs={**_BOUNDS, "retry": RetryUnlessRefused(NoBackoff(), 0)},
        **options,
    )
    primary: redis.Redis = sentinels.master_for(
        service,
        username=unquote(user) or None,
        password=unquote(password) or None,
        db=int(database or 0),
    )
    return primary


def _address(host: str) -> tuple[str, int]:
    name, colon, port = host.rpartition(":")
    return (name, int(port)) if colon else (host, SENTINEL_PORT)
