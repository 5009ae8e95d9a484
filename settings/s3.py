"""The S3 store: the server, the bucket, and the keys, which may be renewed while the daemon runs."""

import re
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

import logs
from errors import StoreUnavailable
from settings import rules, sources
from settings.group import Secret, SettingsGroup

# S3 keys end at 1,024 bytes; as much stays for the recording's own path.
_PREFIX_BYTES = 512
# Renewed keys are noticed within half a minute, and a store that locks accounts out is not provoked.
_CREDENTIALS_PAUSE_SECONDS = 30.0


def _endpoint_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or not re.fullmatch(r"[^\s@?#\\]+", value) or not value.isprintable():
        raise ValueError("must be a URL without user, password or query, for example http://localhost:9000")
    return value.rstrip("/")


def _bucket(value: str) -> str:
    """Check a bucket's name by the rules for general purpose buckets in Amazon's S3 User Guide."""
    reserved = value.startswith(("xn--", "sthree-", "amzn-s3-demo-")) or value.endswith(
        ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
    )
    if not re.fullmatch(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
        raise ValueError(
            "must be 3 to 63 lower-case letters, digits, dots and hyphens,"
            " with a letter or digit at both ends and no two dots together"
        )
    if reserved or re.fullmatch(r"[0-9]+(\.[0-9]+){3}", value):
        raise ValueError("must not look like an IP address or have a start or end that S3 reserves")
    return value


def _prefix(value: str) -> str:
    path = value.strip("/")
    if path and (
        not path.isprintable() or len(path.encode()) > _PREFIX_BYTES or {"", ".", ".."} & {*path.split("/")}
    ):
        raise ValueError(
            "must be folder names separated by single slashes, without '.' or '..' among them,"
            f" without control characters, and at most {_PREFIX_BYTES} bytes long"
        )
    return path and path + "/"


def _key(value: str) -> str:
    if not re.fullmatch("[!-~]+", value):
        raise ValueError("must have no spaces and only ASCII characters")
    return value


EndpointUrl = Annotated[str, AfterValidator(_endpoint_url)]
Bucket = Annotated[str, AfterValidator(_bucket)]
Prefix = Annotated[str, AfterValidator(_prefix)]
StoreChanged = Annotated[Literal["refuse", "rebuild"], rules.in_case(str.lower)]
# What botocore takes as a region name.
Region = Annotated[
    str, rules.matching("(?![0-9]+$)(?!-)[a-zA-Z0-9-]{1,63}(?<!-)", "must be a region such as eu-central-1")
]
AddressingStyle = Annotated[Literal["auto", "path", "virtual"], rules.in_case(str.lower)]
Checksums = Annotated[Literal["auto", "md5"], rules.in_case(str.lower)]
Key = Annotated[Secret, rules.secret(_key)]


class S3Credentials(NamedTuple):
    """One set of S3 keys."""

    access_key: str
    secret_key: str
    session_token: str | None

    def __repr__(self) -> str:
        return "S3Credentials(***)"


class S3Settings(SettingsGroup, title="S3"):
    """Which bucket of which server, and how to speak to it."""

    endpoint_url: EndpointUrl | None = Field(default=None, alias="S3_ENDPOINT_URL")
    """URL of an S3 server such as MinIO or SeaweedFS; unset means Amazon S3."""
    bucket: Bucket = Field(default="videos", alias="S3_BUCKET")
    """The bucket; made if it is missing and the credentials allow it."""
    prefix: Prefix = Field(default="", alias="S3_PREFIX")
    """A folder inside the bucket for everything that the daemon writes."""
    store_changed: StoreChanged = Field(default="refuse", alias="STORE_CHANGED")
    """When S3 is not the store that Redis has records of, or was emptied: `refuse` it, or `rebuild` the
    records by comparing every file in the folder with it."""
    region: Region | None = Field(default=None, alias="S3_REGION")
    """The bucket's region; without it AWS_REGION or AWS_DEFAULT_REGION counts. Amazon S3 needs one."""
    addressing_style: AddressingStyle = Field(
        default_factory=lambda known: "path" if known.get("endpoint_url") else "auto",
        alias="S3_ADDRESSING_STYLE",
    )
    """`path`, `virtual` or `auto`; unset means `path` with S3_ENDPOINT_URL and `auto` without."""
    checksums: Checksums = Field(default="auto", alias="S3_CHECKSUMS")
    """By what a put is confirmed: `auto` takes SHA-256 where the store is seen to refuse a wrong one at the
    start, and MD5 elsewhere; `md5` asks no store for more."""
    access_key_id: Key = Field(default=Secret(), alias="AWS_ACCESS_KEY_ID")
    """S3 access key. Without any key boto3 looks in its own places (profile, instance role)."""
    secret_access_key: Key = Field(default=Secret(), alias="AWS_SECRET_ACCESS_KEY")
    """S3 secret key."""
    session_token: Key = Field(default=Secret(), alias="AWS_SESSION_TOKEN")
    """Session token, only for temporary keys."""

    def credentials(self) -> S3Credentials | None:
        """Return the S3 keys as they are now: those that came from a file are read again.

        Returns:
            None if there are none here and boto3 shall look in its own places.

        Raises:
            StoreUnavailable: a file cannot be read or used now; it may be in the middle of a renewal.
        """
        key = _current("AWS_ACCESS_KEY_ID", self.access_key_id)
        secret = _current("AWS_SECRET_ACCESS_KEY", self.secret_access_key)
        token = _current("AWS_SESSION_TOKEN", self.session_token)
        return S3Credentials(key, secret, token or None) if key and secret else None


def _current(name: str, known: Secret) -> str:
    if known.file is None:
        return known.get_secret_value()
    try:
        text = _key(sources.read_secret(known.file))
    except ValueError as error:
        raise StoreUnavailable(
            f"{name}_FILE: {str(known.file)!r} {error}",
            service="s3",
            kind="credentials",
            refused=True,
            pause_seconds=_CREDENTIALS_PAUSE_SECONDS,
        ) from None
    logs.add_secret(text)  # a renewed one must not be seen either
    return text
