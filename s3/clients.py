"""The boto3 clients: timeouts, retries, keys, and how requests are signed."""

import threading
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from s3.connections import Line
from settings.s3 import S3Settings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

QUICK_SECONDS = 5.0
"""To connect, and again to answer, when the store is only asked whether it works."""

CONNECT_SECONDS = 10.0

ANSWER_SECONDS = 60.0
"""For an answer, from the last byte that left: as long as a send may stall, see `connections`."""

VIEWER_SECONDS = 15.0
"""For an answer while a person watches: a server that hashes what it lists takes a second for each GB."""

ClientProfile = Literal["upload", "probe", "viewer"]
"""Whether work can wait, S3 is only asked whether it works, or a person watches."""

_ONCE: Any = {"mode": "standard", "total_max_attempts": 1}
_PROFILES: dict[ClientProfile, Config] = {
    "upload": Config(),
    "probe": Config(connect_timeout=QUICK_SECONDS, read_timeout=QUICK_SECONDS, retries=_ONCE),
    "viewer": Config(connect_timeout=QUICK_SECONDS, read_timeout=VIEWER_SECONDS, retries=_ONCE),
}


class S3Clients:
    """The clients for one S3 server with the same keys. Safe to use from any thread.

    Parameters:
        settings: of the server; without a region boto3 looks for one. Keys are read at the start and after
            each refusal.
        connections: size of the connection pool.
    """

    def __init__(self, settings: S3Settings, *, connections: int) -> None:
        self._endpoint_url = settings.endpoint_url
        self._region = settings.region
        self._credentials = settings.credentials
        self._config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=ANSWER_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 2},  # two cover a stale pooled connection
            max_pool_connections=connections,
            tcp_keepalive=True,
            proxies={} if _is_loopback(settings.endpoint_url) else None,  # {}: not those of the environment
            # We give and compare a checksum with every put; botocore would compute one more.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # The signature covers the headers, and the checksum is one of them: it stands for the body,
            # over http as well as over https. Two of the stores in docs/stores.md look at nothing else.
            s3={"addressing_style": settings.addressing_style, "payload_signing_enabled": False},
        )
        self.line = Line()
        self._lock = threading.Lock()
        self._clients: dict[ClientProfile, S3Client] = {}  # guarded by _lock
        self._session: boto3.session.Session | None = None  # of the clients; guarded by _lock
        self._keys: tuple[str, str, str | None] | None = None  # likewise

    def renew(self) -> None:
        """Read the keys again; if they may be others now, connect with them at the next call."""
        keys = self._credentials()
        with self._lock:
            if keys and keys == self._keys:
                return
            old, self._clients, self._session = self._clients, {}, None
        for client in old.values():
            client.close()

    def get(self, profile: ClientProfile = "upload") -> "S3Client":
        """Return the client for one kind of work."""
        with self._lock:
            if profile not in self._clients:
                self._clients[profile] = self._connect(self._config.merge(_PROFILES[profile]))
            return self._clients[profile]

    def _connect(self, config: Config) -> "S3Client":
        if self._session is None:  # the clients share one: each session holds 13 MB of S3's model
            self._keys = self._credentials()
            access_key, secret_key, session_token = self._keys or (None, None, None)
            self._session = boto3.session.Session(
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                aws_session_token=session_token,
                # A server of one's own asks for a region only to check the signature.
                region_name=self._region or ("us-east-1" if self._endpoint_url else None),
            )
        client = self._session.client("s3", endpoint_url=self._endpoint_url, config=config)
        self.line.carry(client)
        if self._endpoint_url:
            client.meta.events.register_last("before-parameter-build.s3", _stay)
        return client


def _is_loopback(endpoint_url: str | None) -> bool:
    return urlsplit(endpoint_url or "").hostname in ("127.0.0.1", "localhost", "::1")


def _stay(context: dict[str, Any], **_: Any) -> None:
    """Keep botocore from following a redirect of a server of one's own: it asked 80 times, in vain."""
    context["s3_redirect"]["redirected"] = True
