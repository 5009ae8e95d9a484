import os
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from redis.connection import parse_url

import logs
from cli.session import with_embedded
from config import SETTINGS, Settings, load_settings
from embedded.data_folder import EmbeddedAddresses
from errors import ConfigError, StoreUnavailable
from settings.group import Secret
from settings.s3 import S3Credentials

ROOT = Path(__file__).parents[2]
STORES = {"REDIS_URL": "redis://localhost:6379/0", "S3_ENDPOINT_URL": "http://localhost:9000"}
KEYS = {"AWS_ACCESS_KEY_ID": "the-access-key", "AWS_SECRET_ACCESS_KEY": "the-secret-key"}
SECRET_NAMES = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "REDIS_URL",
    "REDIS_PASSWORD",
    "STATUS_PASSWORD",
]


def loaded(name: str, text: str) -> object:
    return values(load_settings({**STORES, name: text}, None))[name]


def values(settings: Settings) -> dict[str, object]:
    """Return every setting by its name in the environment."""
    return {name: value for _, group in settings for name, value in group.values()}


def problems(
    environ: Mapping[str, str], env_file: Path | None = None, *, embedded: bool = False
) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_settings(environ, env_file, embedded=embedded)
    assert raised.value.problems
    return raised.value.problems


def only_problem(environ: Mapping[str, str], env_file: Path | None = None, *, embedded: bool = False) -> str:
    (problem,) = problems(environ, env_file, embedded=embedded)
    assert "\n" not in problem
    return problem


def settings_in_env_file(text: str) -> dict[str, tuple[bool, str, str]]:
    """Find the lines NAME=value and #NAME=value: name to (in force, value, the comment above its block)."""
    found, comment, in_comment = {}, "", False
    for line in text.splitlines():
        setting = re.fullmatch(r"(#?)([A-Z][A-Z0-9_]+)=(.*)", line)
        if setting:
            assert setting[2] not in found
            found[setting[2]] = (not setting[1], setting[3], comment)
        elif line.startswith("# "):
            comment = comment + line if in_comment else line
        elif not line:
            comment = ""
        in_comment = line.startswith("# ")
    return found


def test_the_defaults_are_those_of_the_design() -> None:
    settings = load_settings(STORES, None)
    assert (settings.folder.watch_dir, settings.folder.file_patterns) == (Path("input"), ("*.mp4",))
    assert (settings.folder.watch_mode, settings.folder.scan_interval_seconds) == ("auto", 60.0)
    assert (settings.upload.chunk_size, settings.folder.stream_timeout_seconds) == (10 * 1024**2, 30.0)
    assert (settings.upload.workers, settings.upload.shutdown_grace_seconds) == (4, 20.0)
    assert (settings.s3.bucket, settings.s3.prefix, settings.s3.region) == ("videos", "", None)
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 8000)
    assert (settings.log.level, settings.log.format) == ("INFO", "text")
    assert (settings.s3.checksums, settings.redis.namespace) == ("auto", "video-uploader")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("CHUNK_SIZE", "10MiB", 10_485_760),
        ("CHUNK_SIZE", "10 mib", 10_485_760),
        ("CHUNK_SIZE", "10MB", 10_000_000),
        ("CHUNK_SIZE", "10485760", 10_485_760),
        ("CHUNK_SIZE", "5MiB", 5_242_880),
        ("CHUNK_SIZE", "512MiB", 536_870_912),
        ("FILE_PATTERNS", " *.mp4 , *.M4V,,*.mp4", ("*.mp4", "*.M4V")),
        ("WATCH_MODE", "Polling", "polling"),
        ("SCAN_INTERVAL_SECONDS", "1.5", 1.5),
        ("STREAM_TIMEOUT_SECONDS", "86400", 86_400.0),
        ("UPLOAD_WORKERS", "64", 64),
        ("S3_ENDPOINT_URL", "https://s3.example.com/storage/", "https://s3.example.com/storage"),
        ("S3_ENDPOINT_URL", "http://[::1]:9000", "http://[::1]:9000"),
        ("S3_BUCKET", "my.bucket-2", "my.bucket-2"),
        ("S3_PREFIX", "/a/b c//", "a/b c/"),
        ("S3_PREFIX", "/", ""),
        ("S3_REGION", "eu-central-1", "eu-central-1"),
        ("HTTP_HOST", "::1", "::1"),
        ("HTTP_PORT", "0", 0),
        ("STATUS_PAGE", "OFF", "off"),
        ("STATUS_NETWORKS", " 10.0.0.0/8 ,::1,, 10.0.0.0/8", ("10.0.0.0/8", "::1/128")),
        ("LOG_LEVEL", "debug", "DEBUG"),
        ("LOG_FORMAT", "JSON", "json"),
        ("S3_CHECKSUMS", "MD5", "md5"),
    ],
)
def test_a_good_value_is_taken(name: str, text: str, value: object) -> None:
    assert loaded(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CHUNK_SIZE", "4MiB"),
        ("CHUNK_SIZE", "5242879"),
        ("CHUNK_SIZE", "513MiB"),
        ("CHUNK_SIZE", "10M"),
        ("CHUNK_SIZE", "10.5MiB"),
        ("CHUNK_SIZE", "-10MiB"),
        ("CHUNK_SIZE", "much"),
        ("FILE_PATTERNS", " , "),
        ("FILE_PATTERNS", "cam/*.mp4"),
        ("WATCH_MODE", "inotify"),
        ("WATCH_DIR", "zero\0byte"),
        ("WATCH_DIR", "x" * 300),
        ("WATCH_DIR", "~nobody-of-this-name/x"),
        ("SCAN_INTERVAL_SECONDS", "0"),
        ("SCAN_INTERVAL_SECONDS", "nan"),
        ("SCAN_INTERVAL_SECONDS", "60s"),
        ("STREAM_TIMEOUT_SECONDS", "0.5"),
        ("STREAM_TIMEOUT_SECONDS", "86401"),
        ("UPLOAD_WORKERS", "0"),
        ("UPLOAD_WORKERS", "65"),
        ("UPLOAD_WORKERS", "2.0"),
        ("UPLOAD_WORKERS", "\u0664"),
        ("SHUTDOWN_GRACE_SECONDS", "601"),
        ("S3_ENDPOINT_URL", "localhost:9000"),
        ("S3_ENDPOINT_URL", "http://"),
        ("S3_ENDPOINT_URL", "http://host:99999"),
        ("S3_ENDPOINT_URL", "http://[::1"),
        ("S3_ENDPOINT_URL", "http://host/#x"),
        ("S3_ENDPOINT_URL", "http://my host"),
        ("S3_BUCKET", "ab"),
        ("S3_BUCKET", "a" * 64),
        ("S3_BUCKET", "Videos"),
        ("S3_BUCKET", "my_videos"),
        ("S3_BUCKET", "-videos"),
        ("S3_BUCKET", "a..b"),
        ("S3_BUCKET", "192.168.5.4"),
        ("S3_BUCKET", "xn--videos"),
        ("S3_BUCKET", "videos-s3alias"),
        ("S3_PREFIX", "a/../b"),
        ("S3_PREFIX", "./a"),
        ("S3_PREFIX", "a//b"),
        ("S3_PREFIX", "a\tb"),
        ("S3_PREFIX", "a\udcffb"),
        ("S3_PREFIX", "\u00e4" * 257),
        ("S3_REGION", "eu central"),
        ("S3_ADDRESSING_STYLE", "dns"),
        ("S3_CHECKSUMS", "yes"),
        ("REDIS_NAMESPACE", "a{b}"),
        ("REDIS_NAMESPACE", "a b"),
        ("REDIS_NAMESPACE", "a\x1bb"),
        ("HTTP_HOST", "*"),
        ("HTTP_PORT", "65536"),
        ("STATUS_PAGE", "true"),
        ("STATUS_NETWORKS", "10.0.0.0/33"),
        ("STATUS_NETWORKS", "10.0.0.1/8"),
        ("STATUS_NETWORKS", "localhost"),
        ("STATUS_NETWORKS", ","),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_value_is_shown_with_what_it_must_be(name: str, text: str) -> None:
    problem = only_problem({**STORES, name: text})
    assert problem.startswith(f"{name} is {text[:200].strip()!r}, but it must be ") or (
        name in {"S3_BUCKET", "S3_PREFIX"} and problem.startswith(f"{name} is {text!r}, but it must ")
    )


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("S3_BUKCET=x\nno setting here\n")
    environ = {"REDIS_URL": "nonsense", "CHUNK_SIZE": "1", "LOG_LEVEL": "loud", "AWS_ACCESS_KEY_ID": "one"}
    told = problems(environ, env_file)
    named = [
        "S3_BUKCET",
        "line 2",
        "S3_ENDPOINT_URL",
        "AWS_SECRET_ACCESS_KEY",
        "CHUNK_SIZE",
        "REDIS_URL",
        "LOG_LEVEL",
    ]
    assert len(told) == len(named)
    for name in named:
        assert [name in problem for problem in told].count(True) == 1, name
    assert str(ConfigError(told)) == "\n".join(told)


@pytest.mark.parametrize("name", ["REDIS_URL", "S3_ENDPOINT_URL"])
def test_a_store_that_is_not_named_is_never_guessed(name: str) -> None:
    problem = only_problem({key: value for key, value in STORES.items() if key != name})
    assert name in problem
    assert "is set" in problem or "is not set" in problem
    assert "--embedded" in problem


@pytest.mark.parametrize("name", ["S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"])
def test_a_region_alone_means_amazon(name: str) -> None:
    settings = load_settings({"REDIS_URL": STORES["REDIS_URL"], name: "eu-central-1"}, None)
    assert (settings.s3.region, settings.s3.endpoint_url) == ("eu-central-1", None)


def test_our_own_name_for_the_region_wins_over_the_others() -> None:
    environ = {"AWS_REGION": "b-1", "AWS_DEFAULT_REGION": "c-1"}
    assert load_settings({**STORES, **environ}, None).s3.region == "b-1"
    assert load_settings({**STORES, **environ, "S3_REGION": "a-1"}, None).s3.region == "a-1"


def test_the_other_names_count_in_the_env_file_too(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("AWS_REGION=eu-central-1\n")
    assert load_settings(STORES, env_file).s3.region == "eu-central-1"


def test_a_wrong_value_under_another_name_is_told_by_that_name() -> None:
    assert only_problem({**STORES, "AWS_REGION": "no where"}).startswith("AWS_REGION is 'no where', but ")


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_an_endpoint_that_boto3_would_follow_is_seen_and_shown(name: str) -> None:
    settings = load_settings({"REDIS_URL": STORES["REDIS_URL"], name: "http://elsewhere:9000"}, None)
    assert settings.redacted()["S3_ENDPOINT_URL"] == "http://elsewhere:9000"


def test_the_addressing_style_follows_the_endpoint_unless_it_is_set() -> None:
    amazon = {"REDIS_URL": STORES["REDIS_URL"], "S3_REGION": "eu-central-1"}
    assert load_settings(STORES, None).s3.addressing_style == "path"
    assert load_settings(amazon, None).s3.addressing_style == "auto"
    assert load_settings({**STORES, "S3_ADDRESSING_STYLE": "Virtual"}, None).s3.addressing_style == "virtual"


def test_an_empty_value_is_an_unset_one(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("UPLOAD_WORKERS=7\nS3_REGION=\n")
    settings = load_settings({**STORES, "UPLOAD_WORKERS": "", "LOG_FORMAT": "  "}, env_file)
    assert (settings.upload.workers, settings.s3.region, settings.log.format) == (7, None, "text")


def test_the_environment_wins_over_the_env_file(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("\ufeffS3_BUCKET=from-file\r\nexport LOG_LEVEL='debug' # why\r\nHTTP_PORT=1\r\n")
    settings = load_settings({**STORES, "S3_BUCKET": "from-environment"}, env_file)
    assert (settings.s3.bucket, settings.log.level, settings.http.port) == ("from-environment", "DEBUG", 1)


def test_the_env_file_of_the_working_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("S3_BUCKET=from-file\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings(STORES).s3.bucket == "from-file"
    assert load_settings(STORES, None).s3.bucket == "videos"


def test_the_process_environment_is_read_when_none_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {**STORES, "S3_BUCKET": "from-process"}.items():
        monkeypatch.setenv(name, text)
    assert load_settings(env_file=None).s3.bucket == "from-process"


def test_nothing_is_read_from_a_place_that_was_not_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_BUCKET", "from-process")
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("S3_BUCKET=from-file\n")
    assert load_settings(STORES, None).s3.bucket == "videos"


def test_a_dollar_in_the_env_file_is_a_dollar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME_OF", "wrong")
    env_file = tmp_path / ".env"
    env_file.write_text("REDIS_PASSWORD='a${HOME_OF}b'\n")
    assert load_settings(STORES, env_file).secret_values()[0] == "a${HOME_OF}b"


def test_a_wrong_value_of_the_env_file_is_told_with_its_place(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("S3_BUCKET=No\n")
    assert only_problem(STORES, env_file).startswith(f"S3_BUCKET in {env_file} is 'No', but ")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("S3_BUKCET", "S3_BUCKET"),
        ("s3_bucket", "S3_BUCKET"),
        ("CHUNKSIZE", "CHUNK_SIZE"),
        ("REDIS_URI", "REDIS_URL"),
        ("REDIS_PASS", "REDIS_PASSWORD"),
        ("AWS_SECRET_KEY", "AWS_SECRET_ACCESS_KEY"),
        ("SCAN_INTERVAL", "SCAN_INTERVAL_SECONDS"),
        ("STREAM_TIMEOUT", "STREAM_TIMEOUT_SECONDS"),
    ],
)
def test_a_slip_of_the_pen_in_the_env_file_is_told(tmp_path: Path, key: str, meant: str) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text(f"{key}=x\n")
    assert only_problem(STORES, env_file) == f"{key} in {env_file} is no setting: did you mean {meant}?"


def test_other_keys_of_the_env_file_are_left_alone(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    keys = [
        "COMPOSE_PROJECT_NAME",
        "MINIO_ROOT_USER",
        "MINIO_ROOT_PASSWORD",
        "HTTP_PROXY",
        "UPLOADER_UID",
        "AWS_PROFILE",
        "GRAFANA_PASSWORD",
        "TZ",
    ]
    env_file.write_text("".join(f"{key}=x\n" for key in keys) + "JUST_A_NAME\n")
    assert load_settings(STORES, env_file).s3.bucket == "videos"


def test_a_line_of_the_env_file_that_cannot_be_understood_is_told_by_number(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("# comment\n\nS3_BUCKET=good\n\n\nREDIS_PASSWORD='never closed\n")
    problem = only_problem(STORES, env_file)
    assert "line 6 " in problem
    assert "never closed" not in problem


def test_an_env_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert "Is a directory" in only_problem(STORES, tmp_path)
    (tmp_path / ".env").write_bytes(b"S3_BUCKET=\xff\n")
    assert "UTF-8" in only_problem(STORES, tmp_path / ".env")
    assert load_settings(STORES, tmp_path / "none").s3.bucket == "videos"


def test_a_missing_folder_is_waited_for_but_a_file_is_no_folder(tmp_path: Path) -> None:
    assert loaded("WATCH_DIR", str(tmp_path / "later")) == tmp_path / "later"
    (tmp_path / "file").touch()
    assert "not a file" in only_problem({**STORES, "WATCH_DIR": str(tmp_path / "file")})
    assert "Not a directory" in only_problem({**STORES, "WATCH_DIR": str(tmp_path / "file" / "below")})


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert loaded("WATCH_DIR", "~/videos") == tmp_path / "videos"


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_secret_may_come_from_a_file(tmp_path: Path, name: str) -> None:
    secrets = {**KEYS, "AWS_SESSION_TOKEN": "the-token", "REDIS_PASSWORD": "the-password", **STORES}
    secrets |= {"STATUS_PASSWORD": "the page's: password"}
    direct = load_settings(secrets, None)
    file = tmp_path / "secret"
    file.write_text(f"{secrets.pop(name)}\n")
    from_file = load_settings({**secrets, f"{name}_FILE": str(file)}, None)
    secret = values(from_file)[name]
    assert isinstance(secret, Secret)
    assert secret.file == file
    assert secret == values(direct)[name]
    assert (
        from_file.s3.credentials()
        == direct.s3.credentials()
        == ("the-access-key", "the-secret-key", "the-token")
    )


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_secret_given_twice_is_refused(tmp_path: Path, name: str) -> None:
    environ = {**STORES, **KEYS, name: "redis://x", f"{name}_FILE": str(tmp_path / "file")}
    told = [problem for problem in problems(environ) if "both" in problem]
    assert told == [f"{name} and {name}_FILE are both set: leave one of them out."]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"some-hidden\nthing\n", "has more than one line"),
        (b"some-hidden\xff", "is not UTF-8 text"),
    ],
)
def test_a_bad_secret_file_is_told_by_name_without_its_content(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    problem = only_problem({"REDIS_URL_FILE": str(file), "S3_REGION": "eu-central-1"})
    assert problem.startswith(f"REDIS_URL_FILE is {str(file)!r}, which {reason}: ")
    assert "hidden" not in problem


def test_a_secret_file_that_would_block_for_ever_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        problem = only_problem({"REDIS_URL_FILE": str(path), "S3_REGION": "eu-central-1"})
        assert "not a regular file" in problem or "Is a directory" in problem


def test_a_secret_in_a_file_obeys_the_same_rule_and_its_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("http://hidden")
    problem = only_problem({"REDIS_URL_FILE": str(tmp_path / "url"), "S3_REGION": "eu-central-1"})
    assert problem.startswith(f"REDIS_URL from the file '{tmp_path / 'url'}' must look like redis://")
    assert "hidden" not in problem


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost",
        "redis://",
        "redis://:pass/word-hidden@host",
        "redis://:pass#word-hidden@host",
        "redis://host:99999",
        "redis://host/name",
        "redis://[::1",
        "redis://ho st",
        "redis://h\udcff",
        "unix://",
        "redis://host/0?socket_timeout=600",
        "redis://host/0?password=hidden",
    ],
)
def test_a_wrong_redis_url_is_refused_and_not_shown(url: str) -> None:
    problem = only_problem({**STORES, "REDIS_URL": url})
    assert problem.startswith(("REDIS_URL must look like redis://[user:", "REDIS_URL must have no options "))
    assert "hidden" not in problem


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "rediss://user:p%2Fw@host:6380/3?ssl_cert_reqs=none",
        "redis://[::1]:6379/",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_a_good_redis_url_is_taken_as_it_is(url: str) -> None:
    assert load_settings({**STORES, "REDIS_URL": url}, None).redis.url.get_secret_value() == url


@given(password=st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1))
def test_redis_gets_any_password_as_it_was_typed(password: str) -> None:
    for url, user, rest in (
        ("redis://host:6380/2", None, {"host": "host", "port": 6380, "db": 2}),
        ("redis://me@host/2", "me", {"host": "host", "db": 2}),
        ("rediss://[::1]", None, {"host": "::1"}),
        ("unix:///run/redis.sock", None, {"path": "/run/redis.sock"}),
    ):
        settings = load_settings({**STORES, "REDIS_URL": url, "REDIS_PASSWORD": password}, None)
        understood = parse_url(settings.redis.url.get_secret_value())  # type: ignore[no-untyped-call]
        assert understood["password"] == password
        assert understood.get("username") == user
        assert rest.items() <= understood.items()


def test_two_redis_passwords_are_refused() -> None:
    problem = only_problem(
        {**STORES, "REDIS_URL": "redis://:one-hidden@host", "REDIS_PASSWORD": "two-hidden"}
    )
    assert "REDIS_URL has a password, and REDIS_PASSWORD is set" in problem
    assert "hidden" not in problem


@pytest.mark.parametrize(
    ("given_keys", "told"),
    [
        ({"AWS_ACCESS_KEY_ID": "hidden"}, "AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": "hidden"}, "AWS_SECRET_ACCESS_KEY is set without AWS_ACCESS_KEY_ID"),
        ({"AWS_SESSION_TOKEN": "hidden"}, "AWS_SESSION_TOKEN is set without AWS_ACCESS_KEY_ID"),
        ({**KEYS, "AWS_SECRET_ACCESS_KEY": "hidden key"}, "AWS_SECRET_ACCESS_KEY must have no spaces"),
        ({**KEYS, "AWS_ACCESS_KEY_ID": "hidd\u00e9n"}, "AWS_ACCESS_KEY_ID must have no spaces"),
    ],
)
def test_half_a_pair_of_keys_or_a_broken_one_is_refused(given_keys: dict[str, str], told: str) -> None:
    problem = only_problem({**STORES, **given_keys})
    assert problem.startswith(told)
    assert "hidd" not in problem


def test_without_keys_boto3_looks_in_its_own_places() -> None:
    assert load_settings(STORES, None).s3.credentials() is None
    assert load_settings({**STORES, **KEYS}, None).s3.credentials() == S3Credentials(
        "the-access-key", "the-secret-key", None
    )


def test_renewed_keys_are_picked_up_while_running(tmp_path: Path) -> None:
    environ = dict(STORES)
    for name in SECRET_NAMES[:3]:
        (tmp_path / name).write_text(f"first-{name}\n")
        environ[f"{name}_FILE"] = str(tmp_path / name)
    settings = load_settings(environ, None)
    assert settings.s3.credentials() == tuple(f"first-{name}" for name in SECRET_NAMES[:3])
    for name in SECRET_NAMES[:3]:
        (tmp_path / name).write_text(f"second-{name}\n")
    assert settings.s3.credentials() == tuple(f"second-{name}" for name in SECRET_NAMES[:3])
    assert logs.redact(str(tuple(settings.s3.credentials() or ()))) == "('***', '***', '***')"


@pytest.mark.parametrize("content", [None, "", "hidden two\n", "one-hidden\ntwo\n"])
def test_keys_that_cannot_be_read_again_close_the_gate_and_end_nothing(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "secret"
    file.write_text("fine\n")
    settings = load_settings(
        {**STORES, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY_FILE": str(file)}, None
    )
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(StoreUnavailable, match="AWS_SECRET_ACCESS_KEY_FILE") as raised:
        settings.s3.credentials()
    assert (raised.value.service, raised.value.kind, raised.value.refused) == ("s3", "credentials", True)
    assert 30 <= raised.value.pause_seconds <= 60
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("REDIS_URL", "redis://h"), ("REDIS_URL_FILE", "/nowhere"), ("S3_ENDPOINT_URL", "http://h:9000")],
)
def test_embedded_and_another_server_contradict_each_other(name: str, text: str) -> None:
    problem = only_problem({name: text}, embedded=True)
    assert problem.startswith(f"{name} is set, but --embedded ")
    assert problem.endswith(f"leave out --embedded or unset {name}.")


def test_embedded_needs_no_address_and_forgets_the_keys_of_other_servers() -> None:
    environ = {
        **KEYS,
        "REDIS_PASSWORD": "x",
        "AWS_SESSION_TOKEN_FILE": "/run/secrets/of-docker",
        "AWS_ENDPOINT_URL": "http://elsewhere",
        "S3_ADDRESSING_STYLE": "virtual",
        "S3_BUCKET": "mine",
    }
    settings = load_settings(environ, None, embedded=True)
    assert (settings.s3.credentials(), settings.secret_values(), settings.s3.endpoint_url) == (None, (), None)
    servers = EmbeddedAddresses("redis://127.0.0.1:1/0", "http://127.0.0.1:2", "the-key", "the-secret")
    complete = with_embedded(settings, servers)
    assert (complete.s3.bucket, complete.s3.addressing_style) == ("mine", "path")
    assert complete.s3.endpoint_url == servers.s3_endpoint_url
    assert complete.s3.credentials() == (servers.access_key, servers.secret_key, None)
    assert complete.redis.url.get_secret_value() == servers.redis_url
    assert load_settings({}, None, embedded=True).redacted()["REDIS_URL"] == "unset"


def test_embedded_keeps_the_password_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse\n")
    for environ in (
        {"STATUS_PASSWORD": "correct horse"},
        {"STATUS_PASSWORD_FILE": str(tmp_path / "password")},
    ):
        settings = load_settings(environ, None, embedded=True)
        assert settings.http.status_password
        assert settings.http.status_password.get_secret_value() == "correct horse"
        assert settings.secret_values() == ("correct horse",)
        assert settings.redacted()["STATUS_PASSWORD"] == "***"


@pytest.mark.parametrize("password", ["seven77", "line\x0bbreak", "tab\tbetween"])
def test_a_password_of_the_page_that_is_too_simple_is_refused_and_not_shown(password: str) -> None:
    problem = only_problem({**STORES, "STATUS_PASSWORD": password})
    assert problem.startswith("STATUS_PASSWORD must have at least 8 characters")
    assert password not in problem


def test_what_works_without_redis_works_without_the_password_of_the_page() -> None:
    environ = {"S3_ENDPOINT_URL": "http://h", "STATUS_PASSWORD_FILE": "/nowhere"}
    assert load_settings(environ, None, needs_redis=False).http.status_password == Secret()


def test_embedded_still_checks_the_rest() -> None:
    told = problems({"CHUNK_SIZE": "1", "S3_ADDRESSING_STYLE": "dns"}, embedded=True)
    assert [problem.split()[0] for problem in told] == ["CHUNK_SIZE", "S3_ADDRESSING_STYLE"]


def full_of_secrets() -> dict[str, str]:
    return {
        "S3_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "hidden-1",
        "AWS_SECRET_ACCESS_KEY": "hidden-2",
        "AWS_SESSION_TOKEN": "hidden-3",
        "REDIS_URL": "rediss://hidden-user@example.com:6380/1",
        "REDIS_PASSWORD": "hidden/4",
    }


def test_no_secret_is_shown_by_repr_str_or_the_start_up_line() -> None:
    settings = load_settings(full_of_secrets(), None)
    for text in (repr(settings), str(settings), repr(settings.s3.credentials()), str(settings.redacted())):
        assert "hidden" not in text
    assert settings.s3.credentials() == ("hidden-1", "hidden-2", "hidden-3")


def test_the_start_up_line_has_every_setting_by_its_name() -> None:
    shown = load_settings(
        {**full_of_secrets(), "CHUNK_SIZE": "20MiB", "FILE_PATTERNS": "*.mp4,*.m4v"}, None
    ).redacted()
    assert list(shown) == [setting.name for setting in SETTINGS]
    assert shown["REDIS_URL"] == "rediss://***@example.com:6380/1"
    assert (shown["AWS_ACCESS_KEY_ID"], shown["REDIS_PASSWORD"]) == ("***", "***")
    assert (shown["AWS_ACCESS_KEY_ID_FILE"], shown["S3_PREFIX"], shown["S3_ENDPOINT_URL"]) == ("unset",) * 3
    assert (shown["CHUNK_SIZE"], shown["FILE_PATTERNS"]) == ("20MiB", "*.mp4,*.m4v")
    assert (shown["WATCH_DIR"], shown["SCAN_INTERVAL_SECONDS"]) == ("./input", "60")


def test_the_redaction_of_logs_learns_every_secret_in_every_spelling() -> None:
    known = load_settings(full_of_secrets(), None).secret_values()
    assert set(known) == {"hidden-1", "hidden-2", "hidden-3", "hidden/4", "hidden%2F4"}
    in_url = load_settings({**STORES, "REDIS_URL": "redis://:hidden%2F5@host"}, None).secret_values()
    assert set(in_url) == {"hidden/5", "hidden%2F5"}


def test_no_trace_of_a_wrong_secret_is_left_in_the_error() -> None:
    secret = token_hex(8)  # not a word in these lines, which the traceback shows as well
    wrong = dict.fromkeys(SECRET_NAMES[:3], f"{secret} \u00e9") | dict.fromkeys(SECRET_NAMES[3:], secret)
    with pytest.raises(ConfigError) as raised:
        load_settings({**STORES, **wrong, "S3_ENDPOINT_URL": f"http://{secret}:{secret}@host"}, None)
    assert len(raised.value.problems) == 5  # all but the password of the page: it may be any long text
    assert secret not in "".join(traceback.format_exception(raised.value))
    assert secret not in repr(raised.value.__context__)


def test_settings_cannot_be_changed() -> None:
    settings = load_settings(STORES, None)
    with pytest.raises(ValidationError, match="frozen"):
        settings.s3 = settings.s3
    with pytest.raises(ValidationError, match="frozen"):
        settings.s3.bucket = "other"


def test_the_example_file_names_exactly_the_settings_each_with_a_comment_and_its_default() -> None:
    examples = settings_in_env_file((ROOT / ".env.example").read_text())
    defaults = {setting.name: setting.default for setting in SETTINGS}
    assert sorted(examples) == sorted(defaults)
    for name, (in_force, value, comment) in examples.items():
        assert len(comment) > 10, f"{name} has no comment"
        if defaults[name]:
            assert value == defaults[name], name
        elif in_force:
            assert name in {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}, f"{name} has no default"
        elif value:  # an example must be a value that would be taken
            assert name.endswith("_FILE") or loaded(name, value)


def test_the_example_file_has_the_groups_of_the_settings_one_after_the_other() -> None:
    """As docs/settings.md has them."""
    group_of = {setting.name: setting.group for setting in SETTINGS}
    _, *sections = re.split(r"^# --- .* ---$", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
    groups = [{group_of[name] for name in settings_in_env_file(section)} for section in sections]
    assert groups == [{group} for group in dict.fromkeys(group_of.values())]


def test_the_example_file_works_as_it_is(tmp_path: Path) -> None:
    example = ROOT / ".env.example"
    settings = load_settings(STORES, example)
    plain = load_settings(
        {**STORES, "AWS_ACCESS_KEY_ID": "change-this-key", "AWS_SECRET_ACCESS_KEY": "change-this-secret"},
        None,
    )
    assert settings == plain
    assert load_settings({}, example, embedded=True) == load_settings({}, tmp_path / "none", embedded=True)


def test_what_compose_sets_itself_is_off_in_the_example_file() -> None:
    examples = settings_in_env_file((ROOT / ".env.example").read_text())
    for name in ("WATCH_DIR", "S3_ENDPOINT_URL", "REDIS_URL", "HTTP_HOST"):
        assert examples[name][0] is False


def test_every_setting_has_a_name_and_a_meaning() -> None:
    for setting in SETTINGS:
        assert len(setting.meaning) > 10, setting.name
        assert setting.name.isupper(), "a field without an alias"


def test_what_needs_no_redis_does_not_look_at_its_settings() -> None:
    environ = {"S3_ENDPOINT_URL": STORES["S3_ENDPOINT_URL"], **KEYS}
    wrong = {"REDIS_URL_FILE": "/does/not/exist", "REDIS_PASSWORD_FILE": "/does/not/exist"}
    settings = load_settings({**environ, **wrong}, None, needs_redis=False)
    assert settings.s3.endpoint_url == STORES["S3_ENDPOINT_URL"]
    assert settings.redis.url.get_secret_value() == ""
    assert load_settings({**environ, "REDIS_URL": "nonsense"}, None, needs_redis=False) == settings


def test_what_needs_no_redis_still_needs_s3() -> None:
    with pytest.raises(ConfigError, match="S3_ENDPOINT_URL"):
        load_settings({}, None, needs_redis=False)


def test_an_address_of_zeros_is_shown_whole() -> None:
    settings = load_settings({"HTTP_HOST": "0.0.0.0"}, env_file=None, embedded=True)  # noqa: S104 -- only shown
    assert settings.redacted()["HTTP_HOST"] == "0.0.0.0"  # noqa: S104 -- likewise
