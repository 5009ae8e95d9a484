"""What `doctor` asks of S3: rights, clock, whether damage is noticed, and how fast a chunk goes up."""

import base64
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from doctor.finding import Finding
from errors import PermanentError, StoreUnavailable, TransientError, UploaderError, hint_of
from s3.bucket import ObjectStore

SKEW_REFUSED_SECONDS = 15 * 60
"""S3 refuses requests that are older or younger (Amazon S3, `RequestTimeTooSkewed`)."""

SKEW_WARNING_SECONDS = 60

TRIAL_BYTES = 1024 * 1024
"""Sent first: a whole chunk could take hours where the network is very slow."""

MAX_SECONDS = 60.0
"""For the chunk; where the trial says that it takes longer, the trial's speed counts."""

SLOW_BYTES_A_SECOND = 1_000_000
"""8 Mbit/s, what one camera of 1080p gives; below it not even one recording is kept up with."""

_TOO_LARGE_HINT = "see to the network and to room in the store, or set a smaller CHUNK_SIZE"

_NO_PUT_HINT = (
    "see whether the store is full (some then fail only for puts, as SeaweedFS), its log, and the network"
)


class ProbedStore(ObjectStore):
    """One bucket; hears what every answer says of the time, and can send damage on purpose."""

    ahead_seconds: float | None = None
    """How far this machine's clock is ahead of the store's by the last answer; None: it never said."""

    def prepare(self, *, create: bool) -> None:
        """See that the bucket is there, as `ObjectStore` does, and listen to what it answers."""
        with self._translated("connecting"):
            events = self._clients.get("probe").meta.events
        events.register_last("after-call.s3", self._hear, unique_id="doctor")
        super().prepare(create=create)

    def _hear(self, http_response: Any, **_: Any) -> None:
        try:
            told = parsedate_to_datetime(http_response.headers["Date"])
            self.ahead_seconds = (datetime.now(UTC) - told).total_seconds()
        except (KeyError, TypeError, ValueError):
            return  # not every store gives the time, and nothing depends on it

    def put_damaged(self, key: str, body: bytes) -> bool:
        """Put an object with the MD5 of another; tells whether the store noticed."""
        other = base64.b64encode(hashlib.md5(body + b"?", usedforsecurity=False).digest()).decode()
        try:
            with self._translated(f"putting {key}"):
                self._connected().put_object(Bucket=self.bucket, Key=key, Body=body, ContentMD5=other)
        except StoreUnavailable:
            raise
        except (PermanentError, TransientError):  # BadDigest mostly; refused in other words is refused too
            return True
        return False


def check_store(
    store: ProbedStore, *, prefix: str, chunk_size: int, encrypted: bool, checksums: str = "auto"
) -> list[Finding]:
    """Put, list, read and delete a probe, which no recording's key can be: it begins with a dot.

    Parameters:
        store: the bucket, which is not made here.
        prefix: `S3_PREFIX`.
        chunk_size: bytes.
        encrypted: whether TLS protects what is sent.
        checksums: `S3_CHECKSUMS`.
    """
    try:
        store.prepare(create=False)
    except UploaderError as error:
        rest = Finding("S3 rights", "unchecked", "rights, checksum and speed: the bucket cannot be opened")
        return [_failure("S3 bucket", error), _clock(store), rest]
    probe = f"{prefix}.doctor-{secrets.token_hex(6)}"
    found = [Finding("S3 bucket", "ok", f"{store.bucket} is there and lets us in"), _clock(store)]
    try:
        found += _write_and_read(store, probe)
        if found[2].level == "ok":
            found += [
                _checksum(store, probe, encrypted=encrypted, checksums=checksums),
                _speed(store, probe, chunk_size),
            ]
    finally:
        deleted = _delete(store, probe)
    return [*found, deleted]


def _failure(check: str, error: UploaderError, **hints: str) -> Finding:
    """Return an error and what to do about it.

    Parameters:
        check: what was looked at.
        error: what came of it.
        hints: what to do about errors of a kind of which more is known here.
    """
    return Finding(check, "problem", error.message, hints.get(error.kind, error.hint))


def _clock(store: ProbedStore) -> Finding:
    ahead = store.ahead_seconds
    if ahead is None:
        return Finding("clock", "unchecked", "the store does not say what time it is")
    said = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} S3's"
    if abs(ahead) >= SKEW_REFUSED_SECONDS:
        said += f"; S3 refuses requests from {SKEW_REFUSED_SECONDS // 60} minutes on"
        return Finding("clock", "problem", said, hint_of("clock"))
    if abs(ahead) >= SKEW_WARNING_SECONDS:
        return Finding("clock", "warning", said, hint_of("clock"))
    return Finding("clock", "ok", said if abs(ahead) >= 2 else "as S3's")  # noqa: PLR2004 - Date has whole seconds


# ---------------------------------------------------------------------- rights


def _write_and_read(store: ProbedStore, probe: str) -> list[Finding]:
    body = os.urandom(1000)
    put = _right(store, "S3 put", "s3:PutObject", lambda: _stored(store, probe, body))
    if put.level != "ok":
        return [put, Finding("S3 get and list", "unchecked", "nothing could be put to be read")]
    return [
        put,
        _right(store, "S3 list", "s3:ListBucket", lambda: _listed(store, probe)),
        _right(store, "S3 get", "s3:GetObject", lambda: _readable(store, probe, body)),
    ]


def _right(store: ProbedStore, check: str, right: str, do: Callable[[], str]) -> Finding:
    """Do one thing that the daemon must be allowed to do; a text from it says what was wrong."""
    try:
        wrong = do()
    except StoreUnavailable as error:
        hint = f"give the key the right {right} on the bucket {store.bucket} and all beneath S3_PREFIX"
        full = {"unreachable": _NO_PUT_HINT} if right == "s3:PutObject" else {}
        return _failure(check, error, credentials=hint, **full)
    except UploaderError as error:
        return _failure(check, error)
    if wrong:
        return Finding(check, "problem", wrong, "use another store: this one does not keep what it confirmed")
    return Finding(check, "ok", f"{right} is allowed")


def _stored(store: ProbedStore, probe: str, body: bytes) -> str:
    store.put(probe, body)
    return ""


def _listed(store: ProbedStore, probe: str) -> str:
    found = [stored.key for stored in store.objects(probe)]
    return "" if found == [probe] else f"an object that was just put is not in the list: {probe}"


def _readable(store: ProbedStore, probe: str, body: bytes) -> str:
    if store.find(probe, body) and store.get(probe, at_most=len(body)) == body:
        return ""
    return f"an object that was just put is not there or has other bytes: {probe}"


def _delete(store: ProbedStore, probe: str) -> Finding:
    try:
        store.delete([probe])
    except UploaderError as error:
        hint = (
            f"give the key the right s3:DeleteObject beneath S3_PREFIX, or live with chunks that repairs"
            f" leave behind; delete {probe} by hand"
        )
        # Nothing that is recorded is in danger: the clean-up goes without this right.
        return Finding("S3 delete", "warning", error.message, hint)
    return Finding("S3 delete", "ok", "s3:DeleteObject is allowed; the probe is gone")


# ---------------------------------------------------------------------- damage and speed


def _checksum(store: ProbedStore, probe: str, *, encrypted: bool, checksums: str) -> Finding:
    body = os.urandom(1000)
    try:
        if checksums == "auto" and store.checks_sha256(probe):
            return Finding("S3 checksum", "ok", "the store refuses what does not fit its SHA-256")
        if store.put_damaged(probe, body):
            return Finding("S3 checksum", "ok", "the store refuses what does not fit its Content-MD5")
        etag = store.put(probe, body).etag.lower()
    except UploaderError as error:
        return Finding("S3 checksum", "unchecked", error.message, error.hint)
    if etag == hashlib.md5(body, usedforsecurity=False).hexdigest():
        return Finding(
            "S3 checksum", "ok", "the store ignores Content-MD5, but its ETag is one: damage is noticed"
        )
    said = "the store ignores Content-MD5 and its ETag is none: damage on the way "
    if encrypted:
        return Finding(
            "S3 checksum", "warning", said + "is left to TLS", "use a store that checks Content-MD5"
        )
    hint = "use https in S3_ENDPOINT_URL, or a store that checks Content-MD5"
    return Finding("S3 checksum", "problem", said + "would not be noticed", hint)


def _speed(store: ProbedStore, probe: str, chunk_size: int) -> Finding:
    try:
        size, seconds = TRIAL_BYTES, _seconds_to_put(store, probe, TRIAL_BYTES)
        if seconds * chunk_size / size <= MAX_SECONDS:
            size, seconds = chunk_size, _seconds_to_put(store, probe, chunk_size)
    except UploaderError as error:
        return _failure("S3 speed", error, unreachable=_TOO_LARGE_HINT, refused_by_store=_TOO_LARGE_HINT)
    rate = size / seconds
    said = (
        f"{size / 1e6:.1f} MB in {seconds:.2f} s: {rate / 1e6:.3g} MB/s, enough for recordings of"
        f" {rate * 8 / 1e6:.3g} Mbit/s together"
    )
    if rate < SLOW_BYTES_A_SECOND:
        said += f"; a chunk of {chunk_size / 1e6:.1f} MB takes {chunk_size / rate:.0f} s and is waited for"
        hint = "record with a lower bitrate, or use a faster line or a nearer store"
        return Finding("S3 speed", "warning", said, hint)
    return Finding("S3 speed", "ok", said)


def _seconds_to_put(store: ProbedStore, probe: str, size: int) -> float:
    body = os.urandom(size)  # what is random no proxy can shrink
    began = time.monotonic()
    store.put(probe, body)
    return time.monotonic() - began
