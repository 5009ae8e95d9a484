"""What each setting may be: one type for each kind of value; a `ValueError` says what it must be."""

import errno
import ipaddress
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

MIB = 1024**2
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 1024,
    "MIB": MIB,
    "GIB": 1024 * MIB,
}
# S3 keys end at 1,024 bytes; as much stays for the recording's own path.
_PREFIX_BYTES = 512
# Eight small letters take centuries at the pace that `status/access.py` lets people guess.
_PASSWORD_CHARACTERS = 8
# Timeouts and retries are the daemon's own, so that every wait is bounded: a URL must not change them.
_REDIS_OPTIONS = re.compile(r"db|protocol|client_name|ssl_\w+")
_NODE = r"[A-Za-z0-9._-]+(:[1-9][0-9]{0,4})?"


def whole_number(low: int, high: int) -> BeforeValidator:
    """Accept the whole numbers from `low` to `high`, written in plain digits."""

    def check(value: object) -> int:
        text = str(value)
        if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return BeforeValidator(check)


def seconds(low: int, high: int) -> BeforeValidator:
    """Accept the numbers of seconds from `low` to `high`, with or without decimals."""

    def check(value: object) -> float:
        text = str(value)
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not low <= float(text) <= high:
            raise ValueError(f"must be a number of seconds from {low} to {high}, without a unit")
        return float(text)

    return BeforeValidator(check)


def days(low: float, high: float) -> BeforeValidator:
    """Accept the numbers of days from `low` to `high`, with or without decimals."""

    def check(value: object) -> float:
        text = str(value)
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not low <= float(text) <= high:
            raise ValueError(f"must be a number of days from {low:g} to {high:g}, without a unit")
        return float(text)

    return BeforeValidator(check)


def matching(pattern: str, message: str) -> AfterValidator:
    """Accept the printable texts that `pattern` matches as a whole."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value) or not value.isprintable():
            raise ValueError(message)
        return value

    return AfterValidator(check)


def in_case(change: Callable[[str], str]) -> BeforeValidator:
    """Ignore the case of a word: `change` is `str.lower` or `str.upper`."""
    return BeforeValidator(lambda value: change(value) if isinstance(value, str) else value)


def _secret(check: Callable[[str], str]) -> BeforeValidator:
    def check_inside(value: object) -> SecretStr:
        return SecretStr(check(value.get_secret_value() if isinstance(value, SecretStr) else str(value)))

    return BeforeValidator(check_inside)


def _chunk_size(value: object) -> int:
    match = re.fullmatch(r"([0-9]{1,12})\s*([A-Z]*)", str(value).upper())
    size = int(match[1]) * _SIZE_UNITS.get(match[2], 0) if match else 0
    if not 5 * MIB <= size <= 512 * MIB:
        raise ValueError("must be a size from 5MiB to 512MiB, for example 10MiB, 10MB or 10485760")
    return size


def _watch_dir(value: Path) -> Path:
    try:
        path = value.expanduser()
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}:
            raise ValueError(f"must be the path of a folder: {error.strerror}") from None
        return path  # missing, unmounted or not ours to read yet: the daemon waits for it
    except (ValueError, RuntimeError):  # a zero byte; a ~user that does not exist
        raise ValueError("must be the path of a folder") from None
    if not is_folder:
        raise ValueError("must be a folder, not a file")
    return path


def _file_patterns(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, tuple) else []
    patterns = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if not patterns or not all(pattern.isprintable() and "/" not in pattern for pattern in patterns):
        raise ValueError("must be patterns for file names without a folder, separated by commas: *.mp4,*.m4v")
    return patterns


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


def credential(value: str) -> str:
    """Check one S3 key or token."""
    if not re.fullmatch("[!-~]+", value):
        raise ValueError("must have no spaces and only ASCII characters")
    return value


def _password(value: str) -> str:
    if len(value) < _PASSWORD_CHARACTERS or not value.isprintable():
        raise ValueError(
            f"must have at least {_PASSWORD_CHARACTERS} characters, and no control characters among them"
        )
    return value


def _networks(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, tuple) else []
    try:
        networks = [str(ipaddress.ip_network(part.strip())) for part in parts if part.strip()]
    except ValueError:
        networks = []
    if not networks:
        raise ValueError(
            "must be networks of addresses, separated by commas: 127.0.0.0/8,::1/128,192.168.1.0/24"
        )
    return tuple(dict.fromkeys(networks))


def _redis_url(value: str) -> str:
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
    if not all(_REDIS_OPTIONS.fullmatch(name) for name, _ in parse_qsl(query, keep_blank_values=True)):
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


Credential = Annotated[SecretStr, _secret(credential)]
RedisUrl = Annotated[SecretStr, _secret(_redis_url)]
ChunkSize = Annotated[int, BeforeValidator(_chunk_size)]
FilePatterns = Annotated[tuple[str, ...], BeforeValidator(_file_patterns)]
WatchDir = Annotated[Path, AfterValidator(_watch_dir)]
EndpointUrl = Annotated[str, AfterValidator(_endpoint_url)]
# The rules for general purpose buckets in Amazon's S3 User Guide.
Bucket = Annotated[str, AfterValidator(_bucket)]
Prefix = Annotated[str, AfterValidator(_prefix)]
# What botocore takes as a region name.
Region = Annotated[
    str, matching("(?![0-9]+$)(?!-)[a-zA-Z0-9-]{1,63}(?<!-)", "must be a region such as eu-central-1")
]
Namespace = Annotated[
    str, matching(r"[^\s{}]{1,64}", "must be at most 64 characters without spaces and braces")
]
Host = Annotated[
    str,
    matching("[A-Za-z0-9._:-]{1,253}", "must be an address of this machine, such as 127.0.0.1 or 0.0.0.0"),
]
Password = Annotated[SecretStr, _secret(_password)]
Networks = Annotated[tuple[str, ...], BeforeValidator(_networks)]
Switch = Annotated[Literal["on", "off"], in_case(str.lower)]
StoreChanged = Annotated[Literal["refuse", "rebuild"], in_case(str.lower)]
WatchMode = Annotated[Literal["auto", "native", "polling"], in_case(str.lower)]
AddressingStyle = Annotated[Literal["auto", "path", "virtual"], in_case(str.lower)]
Checksums = Annotated[Literal["when_required", "when_supported"], in_case(str.lower)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], in_case(str.upper)]
LogFormat = Annotated[Literal["text", "json"], in_case(str.lower)]
