"""The HTTP server: where it listens, and who may see the status page."""

import ipaddress
from typing import Annotated

from pydantic import BeforeValidator, Field

from settings import rules
from settings.group import Secret, SettingsGroup

# Eight small letters take centuries at the pace that `status/access.py` lets people guess.
_PASSWORD_CHARACTERS = 8


def _password(value: str) -> str:
    if len(value) < _PASSWORD_CHARACTERS or not value.isprintable():
        raise ValueError(
            f"must have at least {_PASSWORD_CHARACTERS} characters, and no control characters among them"
        )
    return value


def _networks(value: object) -> tuple[str, ...]:
    try:
        networks = tuple(str(ipaddress.ip_network(part)) for part in rules.parts(value))
    except ValueError:
        networks = ()
    if not networks:
        raise ValueError(
            "must be networks of addresses, separated by commas: 127.0.0.0/8,::1/128,192.168.1.0/24"
        )
    return tuple(dict.fromkeys(networks))


Host = Annotated[
    str,
    rules.matching(
        "[A-Za-z0-9._:-]{1,253}", "must be an address of this machine, such as 127.0.0.1 or 0.0.0.0"
    ),
]
Port = Annotated[int, rules.whole_number(0, 65_535)]
Password = Annotated[Secret, rules.secret(_password)]
Networks = Annotated[tuple[str, ...], BeforeValidator(_networks)]


class HttpSettings(SettingsGroup, title="Page and metrics"):
    """What others may ask the daemon."""

    host: Host = Field(default="127.0.0.1", alias="HTTP_HOST")
    """Address of page, metrics and health checks; 0.0.0.0 for all addresses of the machine."""
    port: Port = Field(default=8000, alias="HTTP_PORT")
    """Port of page, metrics and health checks; 0 takes a free one."""
    status_page: rules.Switch = Field(default="on", alias="STATUS_PAGE")
    """The status page at / with its API and its player: `on` or `off`."""
    status_password: Password = Field(default=Secret(), alias="STATUS_PASSWORD")
    """Asked for by page, API and player, with any user name. At least 8 characters."""
    status_networks: Networks = Field(default=("127.0.0.0/8", "::1/128"), alias="STATUS_NETWORKS")
    """Who may see the page while there is no password: networks of addresses, separated by commas."""
