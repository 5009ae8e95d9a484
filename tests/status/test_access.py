"""Who may see the status page: by password, by network, by the name that was asked for."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from status.access import GUESSES_AT_ONCE, MAX_GUESSERS, SECONDS_PER_GUESS, Access
from tests.support.harness import Clock

LOOPBACK = ("127.0.0.0/8", "::1/128")
PASSWORD = "correct: horse bättery"


def basic(password: str, user: str = "anybody") -> dict[str, str]:
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"authorization": f"Basic {encoded}"}


class Door:
    def __init__(
        self,
        password: str | None = None,
        networks: tuple[str, ...] = LOOPBACK,
        names: tuple[str, ...] = ("127.0.0.1",),
    ) -> None:
        self.clock = Clock()
        self.access = Access(password=password, networks=networks, names=names, clock=self.clock)

    def status(self, address: str = "127.0.0.1", headers: Mapping[str, str] = {}) -> int:
        """The status of a refusal; 200 when there is none."""
        refusal = self.access.refusal(address, headers)
        return refusal.status if refusal else 200


# ---------------------------------------------------------------------- without a password


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("127.0.0.1", 200),
        ("127.8.8.8", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("192.168.1.5", 403),
        ("::ffff:192.168.1.5", 403),
        ("::2", 403),
        ("fe80::1%eth0", 403),
        ("", 403),
        ("no address", 403),
    ],
)
def test_only_the_networks_see_the_page_without_a_password(address: str, status: int) -> None:
    assert Door().status(address) == status


def test_the_networks_are_a_setting() -> None:
    door = Door(networks=("172.16.0.0/12", "fd00::/8"))
    addresses = ("172.18.0.1", "::ffff:172.18.0.1", "fd12::5", "127.0.0.1", "172.32.0.1")
    assert [door.status(address) for address in addresses] == [200, 200, 200, 403, 403]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LOCALHOST.",
        "my.localhost",
        "127.0.0.1:8000",
        "[::1]:8000",
        "nas:8000",
        "192.168.1.5",
        "uploader.example.net:8000",
        "UPLOADER.example.net",
        "",
    ],
)
def test_names_of_this_machine_are_answered(host: str) -> None:
    assert Door(names=("uploader.example.net", "NAS")).status(headers={"host": host}) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "evil",
        "app:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example, localhost",
        "evil.example:8000@localhost",
        "[evil.example]",
        "ev\nil",
        "[::1",
    ],
)
def test_a_name_of_a_stranger_that_leads_here_is_refused(host: str) -> None:
    assert Door().status(headers={"host": host}) == 403


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-host"])
def test_a_proxy_on_this_machine_lets_nobody_in_by_its_own_address(header: str) -> None:
    assert Door().status(headers={header: "127.0.0.1"}) == 403
    assert Door(PASSWORD).status(headers={header: "203.0.113.5", **basic(PASSWORD)}) == 200


# ---------------------------------------------------------------------- with a password


@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.5", "2001:db8::1"])
@pytest.mark.parametrize("user", ["", "anybody"])
def test_the_password_opens_from_everywhere_with_any_name(address: str, user: str) -> None:
    assert Door(PASSWORD).status(address, basic(PASSWORD, user)) == 200
    assert Door(PASSWORD).status(address, {"host": "page.example.net", **basic(PASSWORD, user)}) == 200


def test_the_password_is_asked_for_on_this_machine_too() -> None:
    refusal = Door(PASSWORD).access.refusal("127.0.0.1", {})
    assert refusal
    assert refusal.status == 401
    assert refusal.headers["WWW-Authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize(
    "headers",
    [basic("wrong"), basic(PASSWORD + "x"), basic(""), basic(PASSWORD.upper())]
    + [{"authorization": text} for text in ("Basic", "Basic !!", "Bearer x", f"Basic {PASSWORD}", "Basic é")],
)
def test_anything_else_does_not_open(headers: Mapping[str, str]) -> None:
    assert Door(PASSWORD).status(headers=headers) == 401


def test_who_guesses_must_wait_and_all_others_need_not() -> None:
    door = Door(PASSWORD)
    guesses = [door.status("203.0.113.5", basic(f"guess {number}")) for number in range(GUESSES_AT_ONCE)]
    assert guesses == [401] * GUESSES_AT_ONCE
    refusal = door.access.refusal("203.0.113.5", basic(PASSWORD))  # even that: else guessing would go on
    assert refusal
    assert refusal.status == 429
    assert 0 < int(refusal.headers["Retry-After"]) <= SECONDS_PER_GUESS + 1
    assert door.status("203.0.113.6", basic(PASSWORD)) == 200
    door.clock.now += SECONDS_PER_GUESS
    assert door.status("203.0.113.5", basic(PASSWORD)) == 200
    assert door.status("203.0.113.5", basic("wrong")) == 401
    assert door.status("203.0.113.5", basic(PASSWORD)) == 429


def test_the_addresses_of_one_customer_guess_together() -> None:
    door = Door(PASSWORD)
    for number in range(GUESSES_AT_ONCE):
        assert door.status(f"2001:db8:0:1::{number:x}", basic("wrong")) == 401
    assert door.status("2001:db8:0:1::ffff", basic("wrong")) == 429
    assert door.status("2001:db8:0:2::1", basic("wrong")) == 401


def test_asking_without_a_password_is_no_guess() -> None:
    door = Door(PASSWORD)
    assert {door.status() for _ in range(5 * GUESSES_AT_ONCE)} == {401}
    assert door.status(headers=basic(PASSWORD)) == 200


def test_many_addresses_neither_fill_the_memory_nor_have_a_guesser_forgotten() -> None:
    door = Door(PASSWORD)
    for number in range(GUESSES_AT_ONCE):
        door.status("203.0.113.5", basic(f"guess {number}"))
    for number in range(MAX_GUESSERS + 50):
        door.status(f"10.0.{number // 256}.{number % 256}", basic("wrong"))
    assert len(door.access._waits) <= MAX_GUESSERS + 1
    assert door.status("203.0.113.5", basic(PASSWORD)) == 429
    assert (
        door.status("198.51.100.1", basic("wrong")) == 429
    )  # one of those beyond the table, who count as one
    assert door.status("10.0.0.1", basic(PASSWORD)) == 200
    door.clock.now += 60 * SECONDS_PER_GUESS
    assert door.status("198.51.100.1", basic(PASSWORD)) == 200


# ---------------------------------------------------------------------- other sites

OWN_HOST = {"host": "localhost:8000"}


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "https://evil.example"},
        {"origin": "http://localhost:8001"},
        {"origin": "null"},
    ],
)
def test_what_another_site_asks_for_is_refused_before_any_password(headers: Mapping[str, str]) -> None:
    assert Door().status(headers={**OWN_HOST, **headers}) == 403
    assert Door(PASSWORD).status(headers={**OWN_HOST, **headers, **basic(PASSWORD)}) == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-site": "same-origin", "sec-fetch-dest": "video"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        {"origin": "http://localhost:8000"},
        {"origin": "https://LOCALHOST:8000"},
    ],
)
def test_the_page_itself_and_links_to_it_are_answered(headers: Mapping[str, str]) -> None:
    assert Door().status(headers={**OWN_HOST, **headers}) == 200


def test_the_log_says_who_may_look() -> None:
    assert Door(PASSWORD).access.who == "whoever knows STATUS_PASSWORD"
    assert Door().access.who == "without a password, from 127.0.0.0/8, ::1/128"
    assert PASSWORD not in Door(PASSWORD).access.who


def test_the_proxy_that_the_documents_show_is_one_that_is_noticed() -> None:
    text = (Path(__file__).parents[2] / "docs/status-page.md").read_text()
    (snippet,) = re.findall("```nginx\n(.*?)```", text, re.DOTALL)
    sent = [name.lower() for name in re.findall(r"proxy_set_header (\S+)", snippet)]
    assert Door().status(headers={**OWN_HOST, **dict.fromkeys(sent, "localhost")}) == 403
