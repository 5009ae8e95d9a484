"""Where the local servers of a running `--embedded` daemon listen: noted for the commands beside it."""

import json
import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from errors import ConfigError

_ASK_SECONDS = 2.0


@dataclass(frozen=True)
class EmbeddedAddresses:
    """Where the two servers listen, and what they ask for; new secrets at every start."""

    redis_url: str = field(repr=False)
    s3_endpoint_url: str
    access_key: str
    secret_key: str = field(repr=False)


def note_addresses(data_dir: Path, addresses: EmbeddedAddresses) -> None:
    """Write the addresses where only this user reads them."""
    path = _path(data_dir)
    forget_addresses(data_dir)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(asdict(addresses), file)


def forget_addresses(data_dir: Path) -> None:
    """Take the addresses away: nobody listens there any more."""
    with suppress(OSError):
        _path(data_dir).unlink()


def running_servers(data_dir: Path) -> EmbeddedAddresses:
    """Return the addresses of the servers that a daemon has running now.

    Parameters:
        data_dir: where it keeps its data.

    Raises:
        ConfigError: no daemon runs there, or it is another user's.
    """
    try:
        addresses = EmbeddedAddresses(**json.loads(_path(data_dir).read_bytes()))
        at = urlsplit(addresses.redis_url)
        socket.create_connection((at.hostname or "", at.port or 0), timeout=_ASK_SECONDS).close()
    except PermissionError as error:
        raise ConfigError([f"the daemon of {data_dir} is another user's: {error}"]) from error
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(
            [f"no daemon runs on {data_dir}: start one with `main.py --embedded`, or name its --data-dir"]
        ) from error
    return addresses


def _path(data_dir: Path) -> Path:
    return data_dir / "valkey" / "addresses.json"
