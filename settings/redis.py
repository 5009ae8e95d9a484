"""Redis: where it is, as one URL for a server, a Sentinel's primary or a cluster, and whose keys are ours."""

import re
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field

from settings import rules
from settings.group import Secret, SettingsGroup

# Timeouts and retries are the daemon's own, so that every wait is bounded: a URL must not change them.
_OPTIONS = re.compile(r"db|protocol|client_name|ssl_\w+")
_NODE = r"[A-Za-z0-9._-]+(:[1-9][0-9]{0,4})?"


def _url(value: str) -> str:
    if value.startswith("redis+sentinel://"):
        return _sentinel_url(value)
    if value.partition("://")[0] in {"redis+cluster", "rediss+cluster"}:
        return _cluster_url(value)
    try:
        parts = urlsplit(value)
        database = re.fullmatch("/?|/[0-9]{1,5}", parts.path)
        good = parts.path if parts.scheme == "unix" else parts.hostname and database and parts.port != 0
        known = parts.scheme in {"redis", "rediss", "unix"}
    except ValueError:
        good = known = False
    if not good or not known or not value.isprintable() or re.search(r"[\s#]", value):
        raise ValueError(
            "must look like redis://[user:password@]host[:port][/number], rediss://… or unix:///path;"
            " write / ? # @ in a password as %2F %3F %23 %40, or put it into REDIS_PASSWORD"
        )
    return _with_known_options(value, parts.query)


def _with_known_options(value: str, query: str) -> str:
    if not all(_OPTIONS.fullmatch(name) for name, _ in parse_qsl(query, keep_blank_values=True)):
        raise ValueError("must have no options after '?' but db, protocol, client_name and ssl_…")
    return value


def _cluster_url(value: str) -> str:
    pattern = rf"rediss?\+cluster://([^/?#@\s]*@)?{_NODE}(,{_NODE})*(/0?)?(\?[^\s#]*)?"
    if not re.fullmatch(pattern, value) or not value.isprintable():
        raise ValueError(
            "must look like redis+cluster://[user:password@]host[:port][,host[:port]…], or rediss+cluster://…"
            " for TLS; a cluster has no database but 0"
        )
    if re.search(r"[?&]db=(?!0(&|$))", value):
        raise ValueError("must have no other database than 0: a cluster has no more")
    return _with_known_options(value, value.partition("?")[2])


def _sentinel_url(value: str) -> str:
    pattern = rf"redis\+sentinel://([^/?#@\s]*@)?{_NODE}(,{_NODE})*/[A-Za-z0-9._-]+(/[0-9]{{1,5}})?"
    if not re.fullmatch(pattern, value) or not value.isprintable():
        raise ValueError(
            "must look like redis+sentinel://[user:password@]host[:port][,host[:port]…]/name[/number], with"
            " the name that the Sentinels know the primary by, and user and password of Redis itself"
        )
    return value


Url = Annotated[Secret, rules.secret(_url)]
Password = Annotated[Secret, rules.secret(str)]
Namespace = Annotated[
    str, rules.matching(r"[^\s{}]{1,64}", "must be at most 64 characters without spaces and braces")
]


class RedisSettings(SettingsGroup, title="Redis"):
    """Where the records are."""

    url: Url = Field(default=Secret(), alias="REDIS_URL")
    """Redis or Valkey, for example redis://localhost:6379/0; rediss:// for TLS, unix:// for a socket,
    redis+sentinel://host,host/name for the primary that Sentinel names, redis+cluster://host,host for a
    cluster, rediss+cluster:// for one with TLS."""
    password: Password = Field(default=Secret(), alias="REDIS_PASSWORD")
    """The password, if REDIS_URL has none; any characters, no escaping."""
    namespace: Namespace = Field(default="video-uploader", alias="REDIS_NAMESPACE")
    """Start of every Redis key; daemons share work if and only if they share it."""
