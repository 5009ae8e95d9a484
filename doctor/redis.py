"""What `doctor` asks of Redis: whether we may write, and whether it keeps what it was told."""

import secrets
import statistics
import time
from collections.abc import Callable
from typing import Any

from checkpoint import Checkpoints, connect
from doctor.finding import Finding
from errors import StoreUnavailable, hint_of
from redis_store.errors import translated
from settings.redis import RedisSettings

PINGS = 10

SLOW_SECONDS = 0.05
"""A chunk costs about five answers of Redis: a quarter of a second then."""

MAX_USED = 0.8
"""Of `maxmemory`."""

PROBE_SECONDS = 60
"""Redis itself forgets the probe then, should we not come to delete it."""

_PROVIDER = "look it up in your provider's console"


def check_redis(settings: RedisSettings, *, store_identity: str, owner: str) -> list[Finding]:
    """Look at one Redis; a probe key is written and deleted, records are only read.

    Parameters:
        settings: which Redis, and whose keys in it.
        store_identity: what the records must be about.
        owner: our name in errors of Redis.
    """
    client, namespace = connect(settings), settings.namespace
    try:
        reached = _reached(client)
        if reached.level == "problem":
            return [
                reached,
                Finding("Redis", "unchecked", "rights, persistence, eviction: it cannot be used"),
            ]
        records = Checkpoints(client, namespace=namespace, owner=owner)
        writing = _writing(client, records, namespace)  # leads to the node that has our keys
        told = _asked(client.info)
        return [
            reached,
            writing,
            _records(records, store_identity, namespace),
            _role(told),
            _persistence(told, _asked(lambda: client.config_get("appendfsync"))),
            _eviction(told),
            _memory(told),
        ]
    finally:
        client.close()


def _failure(check: str, error: StoreUnavailable) -> Finding:
    return Finding(check, "problem", error.message, error.hint)


def _asked(ask: Callable[[], Any]) -> dict[str, Any]:
    """Ask what many providers and users' rights forbid; nothing then."""
    try:
        with translated(at_start=True):
            answer: dict[str, Any] = ask()
    except StoreUnavailable:
        return {}
    return answer


def _reached(client: Any) -> Finding:
    seconds = []
    try:
        with translated(at_start=True):
            client.ping()  # connects
            for _ in range(PINGS):
                began = time.monotonic()
                client.ping()
                seconds.append(time.monotonic() - began)
    except StoreUnavailable as error:
        return _failure("Redis", error)
    middle = statistics.median(seconds)
    said = f"answers within {middle * 1000:.1f} ms"
    if middle > SLOW_SECONDS:
        hint = "use a Redis that is nearer to the daemon; S3 may be far, Redis should not be"
        return Finding("Redis", "warning", said, hint)
    return Finding("Redis", "ok", said)


def _writing(client: Any, records: Checkpoints, namespace: str) -> Finding:
    probe = f"{{{namespace}}}:doctor:{secrets.token_hex(6)}"
    try:
        with translated(at_start=True):
            client.set(probe, "1", ex=PROBE_SECONDS)
            client.delete(probe)
            records.find(probe)  # runs one of the scripts; there is no such record
    except StoreUnavailable as error:
        return _failure("Redis rights", error)
    return Finding("Redis rights", "ok", "writing, deleting and scripts are allowed")


def _records(records: Checkpoints, store_identity: str, namespace: str) -> Finding:
    try:
        incompatible = records.incompatibility(store_identity)
    except StoreUnavailable as error:
        incompatible = error
    if incompatible:
        return _failure("Redis records", incompatible)
    return Finding(
        "Redis records", "ok", f"those in the namespace {namespace} are about {store_identity}, or none yet"
    )


# ---------------------------------------------------------------------- what it says of itself


def _unknown(check: str, what: str, want: str) -> Finding:
    return Finding(check, "unchecked", f"Redis does not tell us {what}", f"{_PROVIDER}: {want}")


def _role(told: dict[str, Any]) -> Finding:
    role = told.get("role")
    if role is None:
        return _unknown("Redis role", "whether it is a replica", "REDIS_URL must name the primary")
    if role == "master":
        return Finding("Redis role", "ok", "the primary")
    return Finding("Redis role", "problem", "a replica: what is written there is lost", hint_of("read_only"))


def _persistence(told: dict[str, Any], config: dict[str, Any]) -> Finding:
    check, lost = (
        "Redis persistence",
        "of what it was told since its last snapshot nothing is left after a crash",
    )
    enabled = told.get("aof_enabled")
    if enabled is None:
        return _unknown(
            check, "whether it keeps an append-only file", "persistence should be on (AOF, everysec)"
        )
    cost = "recordings are then found again in S3, which takes time"
    if not enabled:
        hint = "appendonly yes in its configuration; for now: redis-cli CONFIG SET appendonly yes"
        return Finding(check, "warning", f"no append-only file: {lost}; {cost}", hint)
    if told.get("aof_last_write_status", "ok") != "ok":
        return Finding(check, "warning", "its append-only file cannot be written", hint_of("redis full"))
    flushed = config.get("appendfsync", "as it is set, which Redis does not tell us")
    if flushed == "no":
        said = f"an append-only file that is flushed when the kernel likes: a power cut takes some; {cost}"
        return Finding(check, "warning", said, "appendfsync everysec in its configuration")
    return Finding(check, "ok", f"append-only file, flushed {flushed}")


def _eviction(told: dict[str, Any]) -> Finding:
    check, policy = "Redis eviction", told.get("maxmemory_policy")
    if policy is None:
        return _unknown(check, "its eviction policy", "maxmemory-policy should be noeviction")
    if policy == "noeviction":
        return Finding(check, "ok", "noeviction")
    if not policy.startswith("allkeys"):
        return Finding(check, "ok", f"{policy}: only keys that expire are thrown away, and ours do not")
    hint = "maxmemory-policy noeviction in its configuration, or a Redis of our own"
    if told.get("maxmemory"):
        return Finding(check, "problem", f"{policy}: it throws records away when its memory is full", hint)
    return Finding(check, "warning", f"{policy}, though without a maxmemory yet nothing is thrown away", hint)


def _memory(told: dict[str, Any]) -> Finding:
    check, used, most = "Redis memory", told.get("used_memory"), told.get("maxmemory")
    if used is None or most is None:
        return _unknown(check, "how much memory is left", "a recording takes 1 kB, a chunk in work 250 bytes")
    if not most:
        return Finding(check, "ok", f"{used / 1e6:.1f} MB used, no maxmemory")
    said = f"{used / 1e6:.1f} of {most / 1e6:.1f} MB used"
    if used > MAX_USED * most:
        return Finding(check, "warning", said, "raise maxmemory: when it is reached, uploading pauses")
    return Finding(check, "ok", said)
