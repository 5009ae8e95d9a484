"""Settings that work and should not stay so are told at the start, one line each."""

import pytest

from config import Settings, load_settings

STORES = {"REDIS_URL": "redis://localhost:6379/0", "S3_ENDPOINT_URL": "http://localhost:9000"}
EVERYWHERE = {"HTTP_HOST": "0.0.0.0"}  # noqa: S104 -- what is tested


def settings(**environ: str) -> Settings:
    return load_settings({**STORES, **environ}, None)


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"AWS_ACCESS_KEY_ID": "change-this-key", "AWS_SECRET_ACCESS_KEY": "mine"}, "AWS_ACCESS_KEY_ID"),
        (
            {"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "change-this-secret"},
            "AWS_SECRET_ACCESS_KEY",
        ),
        ({"REDIS_URL": "redis://uploader:change-this-password@host"}, "REDIS_URL"),
        ({"STATUS_PASSWORD": "change-this-too"}, "STATUS_PASSWORD"),
        ({"REDIS_URL": "rediss://host?ssl_cert_reqs=none"}, "REDIS_URL has ssl_cert_reqs=none"),
        ({**EVERYWHERE, "STATUS_PASSWORD": "long enough"}, "STATUS_PASSWORD crosses the network"),
        (
            {"HTTP_HOST": "nas.example", "STATUS_PASSWORD": "long enough"},
            "STATUS_PASSWORD crosses the network",
        ),
        ({"STATUS_NETWORKS": "127.0.0.0/8,172.16.0.0/12"}, "STATUS_NETWORKS lets 172.16.0.0/12 see"),
    ],
)
def test_a_risk_is_one_sentence_that_names_its_setting_and_shows_no_secret(
    environ: dict[str, str], name: str
) -> None:
    (risk,) = settings(**environ).warnings()
    assert risk.startswith(name)
    assert ": " in risk  # what to do
    assert not [value for key, value in environ.items() if key != "HTTP_HOST" and value in risk]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        EVERYWHERE,
        {"STATUS_PASSWORD": "long enough"},
        {"HTTP_HOST": "::1", "STATUS_PASSWORD": "long enough"},
        {"HTTP_HOST": "localhost", "STATUS_PASSWORD": "long enough"},
        {"STATUS_NETWORKS": "127.0.0.0/8,::1/128,172.30.1.1/32"},
        {"STATUS_NETWORKS": "10.0.0.0/8", "STATUS_PASSWORD": "long enough"},
        {"STATUS_NETWORKS": "10.0.0.0/8", "STATUS_PAGE": "off"},
        {**EVERYWHERE, "STATUS_PASSWORD": "long enough", "STATUS_PAGE": "off"},
        {"REDIS_URL": "rediss://host?ssl_cert_reqs=required"},
    ],
)
def test_nobody_is_warned_without_a_reason(environ: dict[str, str]) -> None:
    assert settings(**environ).warnings() == []
