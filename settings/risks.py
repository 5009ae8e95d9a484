"""What settings may be and had better not be: warnings for the start, none of them a reason to refuse it."""

import ipaddress
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qs, urlsplit

from settings.http import HttpSettings

_EXAMPLE = "change-this"
"""How the secrets of the example files begin."""


def risks_of(secrets: Mapping[str, str], http: HttpSettings) -> list[str]:
    """Return one sentence for each risk, with the setting and what to do, and nothing of a secret.

    Parameters:
        secrets: those that are set, by the names of their settings.
        http: who may see the status page.
    """
    page = () if http.status_page == "off" else _page(http)
    return [*_examples(secrets), *_unchecked_tls(secrets.get("REDIS_URL", "")), *page]


def _examples(secrets: Mapping[str, str]) -> Iterator[str]:
    for name, secret in secrets.items():
        if secret.startswith(_EXAMPLE) or f":{_EXAMPLE}" in secret:
            yield f"{name} is the one of the example file, which everybody knows: set one of your own."


def _unchecked_tls(redis_url: str) -> Iterator[str]:
    options = parse_qs(urlsplit(redis_url).query)
    if "none" in options.get("ssl_cert_reqs", []):
        yield (
            "REDIS_URL has ssl_cert_reqs=none, so anybody on the way can pose as Redis and read the password:"
            " leave it out, and name your authority with ssl_ca_certs."
        )


def _page(http: HttpSettings) -> Iterator[str]:
    wide = [each for each in http.status_networks if not is_loopback(each) and not _is_one_address(each)]
    if http.status_password and not is_loopback(http.host):
        yield (
            f"STATUS_PASSWORD crosses the network readable for everybody, because HTTP_HOST is {http.host}"
            " and there is no TLS: listen on 127.0.0.1, with a proxy that has TLS before it."
        )
    if wide and not http.status_password:
        yield (
            f"STATUS_NETWORKS lets {', '.join(wide)} see every recording without a password: set"
            " STATUS_PASSWORD, or name single addresses."
        )


def is_loopback(host_or_network: str) -> bool:
    """Return whether an address, a network or a name is of this machine only."""
    try:
        return ipaddress.ip_network(host_or_network).is_loopback
    except ValueError:
        return host_or_network == "localhost"


def _is_one_address(network: str) -> bool:
    return ipaddress.ip_network(network).num_addresses == 1
