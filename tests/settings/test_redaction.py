"""No password of a URL is ever shown, wherever in the URL it stands and whatever it is made of."""

import string
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import logs
from config import load_settings
from errors import ConfigError
from settings.sources import without_credentials

STORES = {"REDIS_URL": "redis://localhost:6379/0", "S3_ENDPOINT_URL": "http://localhost:9000"}
HEAD, TAIL = "S3cr3tHead", "S3cr3tTail"

# What stands between two marks, so that any part of a password that is left can be found.
passwords = st.text(
    st.sampled_from(string.ascii_letters + string.digits + "/@:?#&=%+;,'\"!~$[] "), max_size=12
)
users = st.sampled_from(["", "user", "user@example.com"])
hosts = st.sampled_from(["host", "host:6379", "[::1]:6379", "10.0.0.1"])
options = st.sampled_from(["ssl_cert_reqs=none", "db=1", "client_name=a%20b"])


def shown_by(environ: dict[str, str]) -> str:
    """All that the log and the error show of settings."""
    try:
        settings = load_settings({**STORES, **environ}, None)
    except ConfigError as error:
        return str(error)
    return str(settings.redacted())


@given(user=users, middle=passwords, host=hosts, encoded=st.booleans())
@example(user="user", middle="/", host="host:9000", encoded=False)
@example(user="user", middle="@x/y?", host="host", encoded=False)
def test_no_password_of_an_endpoint_is_shown(*, user: str, middle: str, host: str, encoded: bool) -> None:
    password = HEAD + middle + TAIL
    written = quote(password, safe="") if encoded else password
    for text in (
        f"http://{user}:{written}@{host}",
        f"{user}:{written}@{host}",
        f"http://{host}/?key={written}",
    ):
        shown = shown_by({"S3_ENDPOINT_URL": text})
        assert HEAD not in shown
        assert TAIL not in shown


@given(user=users, middle=passwords, option=options, encoded=st.booleans())
@example(user="", middle="", option="db=1", encoded=False)
def test_no_password_of_a_redis_url_is_shown(*, user: str, middle: str, option: str, encoded: bool) -> None:
    password = HEAD + middle + TAIL
    written = quote(password, safe="") if encoded else password
    for text in (
        f"rediss://host/0?ssl_password={written}&{option}",
        f"rediss://host/0?{option}&ssl_password={written}",
        f"rediss://{user}:{written}@host/0?{option}",
        f"rediss+cluster://{user}:{written}@host?ssl_password={written}",
    ):
        shown = shown_by({"REDIS_URL": text})
        assert HEAD not in shown
        assert TAIL not in shown


@given(middle=passwords)
def test_the_log_learns_the_password_of_a_key_file(middle: str) -> None:
    password = HEAD + middle + TAIL
    written = quote(password, safe="")
    settings = load_settings({**STORES, "REDIS_URL": f"rediss://host?ssl_password={written}"}, None)
    assert {password, written} <= set(settings.secret_values())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://u:p@host:6379/0", "redis://***@host:6379/0"),
        ("redis://u:p/w@host", "redis://***@host"),
        (
            "rediss://host?ssl_cert_reqs=none&ssl_password=x",
            "rediss://host?ssl_cert_reqs=none&ssl_password=***",
        ),
        ("rediss://host?ssl_certfile=/a/b.pem&db=2", "rediss://host?ssl_certfile=/a/b.pem&db=2"),
        ("rediss://host?ssl_password=a@b", "rediss://***"),
        ("user:pass@host:9000", "***@host:9000"),
        ("http://host?what=ever", "http://host?***"),
    ],
)
def test_what_is_no_secret_stays_readable(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://user:pa/ss@host:9000/x, retry", "at http://***@host:9000/x, retry"),
        ("rediss://h/0?ssl_password=pw&db=1 refused", "rediss://h/0?ssl_password=***&db=1 refused"),
        ("Connection(host=h,ssl_password='pw',db=0)", "Connection(host=h,ssl_password='***',db=0)"),
        ("http://localhost:9000/videos/a.mp4@1", "http://localhost:9000/videos/a.mp4@1"),
        ("http://[::1]:9000/videos/a.mp4@1", "http://[::1]:9000/videos/a.mp4@1"),
        ("wrong password for the page", "wrong password for the page"),
    ],
)
def test_the_log_hides_what_it_was_never_told_of(text: str, shown: str) -> None:
    assert logs.redact(text) == shown
