"""Who may see the status page and the player: by password, or by address while there is none. No I/O."""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

GUESSES_AT_ONCE = 10
"""Wrong passwords of one address before it must wait: people mistype, and browsers repeat."""

SECONDS_PER_GUESS = 5.0
"""After those: 17,000 guesses a day."""

MAX_GUESSERS = 1000
"""Addresses whose wrong passwords are remembered; about 200 kB. While all of them have some, everybody else
counts as one: whoever has more addresses than these gains nothing by them."""

_EVERYBODY_ELSE = ""
_IPV6_SITE_BITS = 64  # one customer has that many addresses
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]*))(?::[0-9]*)?")
_CHALLENGE = 'Basic realm="Video Chunk Uploader", charset="UTF-8"'


class Refusal(NamedTuple):
    """Why somebody may not see the page: a status of HTTP, a sentence, and headers that go with it."""

    status: int
    reason: str
    headers: Mapping[str, str] = {}


class Access:
    """Decides about each request. Safe to use from any thread; nothing here waits.

    Parameters:
        password: None lets the networks in without one.
        networks: of addresses; they count only while there is no password.
        names: under which the page may be asked for, beside `localhost` and any address: `HTTP_HOST` and
            the name of the machine.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        password: str | None,
        networks: Sequence[str],
        names: Iterable[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._password = None if password is None else _digest(password.encode())
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self._names = {"", "localhost", *(name.lower() for name in names)}
        self._clock = clock
        self._lock = threading.Lock()
        self._waits: dict[str, float] = {}  # until when, by address; guarded by _lock

    @property
    def who(self) -> str:
        """Return who may see the page, for the log at the start."""
        if self._password is not None:
            return "whoever knows STATUS_PASSWORD"
        return "without a password, from " + ", ".join(map(str, self._networks))

    def refusal(self, address: str, headers: Mapping[str, str]) -> Refusal | None:
        """Return why a request is refused; None when it is not.

        Parameters:
            address: of the other end of the connection; what a proxy says of its client is not believed.
            headers: of the request.
        """
        if _is_cross_site(headers):
            return Refusal(
                403, "Another site asked for this in your browser: open this page by its own address."
            )
        if self._password is not None:
            return self._refused_password(address, headers.get("authorization", ""), self._password)
        client = _address(address)
        if client is None or not any(client in network for network in self._networks):
            reason = f"{address} is not in STATUS_NETWORKS, and there is no STATUS_PASSWORD to ask for."
            return Refusal(403, reason)
        if any(name in headers for name in _FORWARDED):
            return Refusal(403, "This came through a proxy: set STATUS_PASSWORD to let people in by one.")
        if not self._is_ours(headers.get("host", "")):
            # A site of a stranger may have its name lead to this machine: DNS rebinding.
            return Refusal(
                403, "This name is not one of this machine's: ask by address, or set STATUS_PASSWORD."
            )
        return None

    def _refused_password(self, address: str, authorization: str, wanted: bytes) -> Refusal | None:
        if not authorization:
            return Refusal(401, "This page asks for STATUS_PASSWORD.", {"WWW-Authenticate": _CHALLENGE})
        now = self._clock()
        with self._lock:
            guesser = self._guesser(address, now)
            wait = self._waits.get(guesser, 0.0) - now - (GUESSES_AT_ONCE - 1) * SECONDS_PER_GUESS
        if wait > 0:
            reason = "Too many wrong passwords from this address: wait a little."
            return Refusal(429, reason, {"Retry-After": str(int(wait) + 1)})
        if hmac.compare_digest(_digest(_given(authorization)), wanted):
            return None
        self._note_wrong(guesser, now)
        return Refusal(401, "This is not the password.", {"WWW-Authenticate": _CHALLENGE})

    def _note_wrong(self, guesser: str, now: float) -> None:
        """Each wrong password costs seconds; an address may be some of them ahead."""
        with self._lock:
            self._waits[guesser] = max(self._waits.get(guesser, now), now) + SECONDS_PER_GUESS

    def _guesser(self, address: str, now: float) -> str:
        """Return whom the wrong passwords of an address count for; under the lock."""
        guesser = site_of(address)
        if guesser not in self._waits and len(self._waits) >= MAX_GUESSERS:
            self._waits = {each: until for each, until in self._waits.items() if until > now}
            if len(self._waits) >= MAX_GUESSERS:
                return _EVERYBODY_ELSE
        return guesser

    def _is_ours(self, host: str) -> bool:
        """Return whether nobody but us, or whoever sits at this machine, can have given it this name."""
        match = _HOST.fullmatch(host.lower())
        if not match:
            return False
        name = (match[1] or match[2]).removesuffix(".")
        return name in self._names or name.endswith(".localhost") or _address(name) is not None


def _is_cross_site(headers: Mapping[str, str]) -> bool:
    """Whether another site has a browser ask this, which would send the password along.

    A link on another site that a person clicks is none. Browsers tell of the site only to addresses that they
    trust (this machine, HTTPS); to others they send the origin with whatever a script may read.
    """
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) != ("navigate", "document")
    origin = headers.get("origin")
    return origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower()


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address; an IPv4 one that came by IPv6 counts as what it is."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def site_of(address: str) -> str:
    """Return whom an address counts for: itself; by IPv6 the 2^64 addresses that one customer has."""
    client = _address(address)
    if isinstance(client, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(client), _IPV6_SITE_BITS), strict=False))
    return str(client or address)


def _given(authorization: str) -> bytes:
    """Take the password out of an `Authorization` header; b"" when it has none."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def _digest(text: bytes) -> bytes:
    """Make texts of all lengths equally long, so that a comparison takes as long for each."""
    return hashlib.sha256(text).digest()
