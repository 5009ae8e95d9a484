"""The settings: read from the environment and `.env`, validated together, every problem told."""

import difflib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

import config_rules as rules
from errors import ConfigError, StoreUnavailable

# Where a secret may come from instead of the environment: <NAME>_FILE, as Docker secrets do it.
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "REDIS_URL", "REDIS_PASSWORD")
# boto3 would follow these without a word; read here, they are checked and shown at the start.
_OTHER_NAMES = {
    "S3_ENDPOINT_URL": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "S3_REGION": ("AWS_REGION", "AWS_DEFAULT_REGION"),
}
# AWS_SECRET_KEY (0.80) and SCAN_INTERVAL (0.77) are meant as settings, HTTP_PROXY (0.74) is not.
_TYPO_SIMILARITY = 0.76
# Far more than any session token; whoever names a video by mistake should not wait for it.
_SECRET_FILE_BYTES = 64 * 1024
# The credentials probe of the gate: reliability.md, "global circuit-break, probe 30-60 s".
_CREDENTIALS_PAUSE_SECONDS = 30.0


class S3Credentials(NamedTuple):
    """One set of S3 keys."""

    access_key: str
    secret_key: str
    session_token: str | None

    def __repr__(self) -> str:
        return "S3Credentials(***)"


class Settings(BaseSettings):
    """Every setting, checked; the name in the environment is the field's name in capitals.

    Made by `load_settings`, which looks at the whole environment at once and tells every problem.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        validate_default=False,  # the empty redis_url is right until main.py knows the embedded one
    )

    watch_dir: rules.WatchDir = Path("input")
    """The folder to watch, with all its sub-folders. It may be missing: the daemon waits for it."""
    file_patterns: rules.FilePatterns = ("*.mp4",)
    """Which file names are recordings, separated by commas; case is ignored."""
    watch_mode: rules.WatchMode = "auto"
    """`native` file events, `polling` (for NFS, SMB and Docker Desktop), or `auto`."""
    scan_interval_seconds: Annotated[float, rules.seconds(1, 86_400)] = 60.0
    """Time between two full scans of the folder, which find what events missed; 1 to 86400."""
    stream_timeout_seconds: Annotated[float, rules.seconds(1, 86_400)] = 30.0
    """A recording that did not change for so long has ended; 1 to 86400."""

    chunk_size: rules.ChunkSize = 10 * rules.MIB
    """Size of a chunk, 5MiB to 512MiB. 10MB means 10,000,000 bytes, a bare number means bytes."""
    upload_workers: Annotated[int, rules.whole_number(1, 64)] = 4
    """How many recordings are uploaded at once, 1 to 64. Each worker holds up to two chunks in memory."""
    shutdown_grace_seconds: Annotated[float, rules.seconds(1, 600)] = 20.0
    """After SIGTERM, time to finish the chunks in flight; 1 to 600."""

    s3_endpoint_url: rules.EndpointUrl | None = None
    """URL of an S3 server such as MinIO or SeaweedFS; unset means Amazon S3."""
    s3_bucket: rules.Bucket = "videos"
    """The bucket; made if it is missing and the credentials allow it."""
    s3_prefix: rules.Prefix = ""
    """A folder inside the bucket for everything that the daemon writes."""
    s3_region: rules.Region | None = None
    """The bucket's region; without it AWS_REGION or AWS_DEFAULT_REGION counts. Amazon S3 needs one."""
    s3_addressing_style: rules.AddressingStyle = Field(
        default_factory=lambda known: "path" if known.get("s3_endpoint_url") else "auto"
    )
    """`path`, `virtual` or `auto`; unset means `path` with S3_ENDPOINT_URL and `auto` without."""
    s3_checksums: rules.Checksums = "when_required"
    """`when_supported` adds CRC checksums, which several S3 servers refuse. MD5 is always checked."""
    aws_access_key_id: rules.Credential | None = None
    """S3 access key. Without any key boto3 looks in its own places (profile, instance role)."""
    aws_access_key_id_file: Path | None = None
    """A file with the access key; read again while running, so that it may be renewed."""
    aws_secret_access_key: rules.Credential | None = None
    """S3 secret key."""
    aws_secret_access_key_file: Path | None = None
    """A file with the secret key; read again while running, so that it may be renewed."""
    aws_session_token: rules.Credential | None = None
    """Session token, only for temporary keys."""
    aws_session_token_file: Path | None = None
    """A file with the session token; read again while running, so that it may be renewed."""

    redis_url: rules.RedisUrl = SecretStr("")
    """Redis or Valkey, for example redis://localhost:6379/0; rediss:// for TLS, unix:// for a socket,
    redis+sentinel://host,host/name for the primary that Sentinel names."""
    redis_url_file: Path | None = None
    """A file with the Redis URL."""
    redis_password: SecretStr | None = None
    """The password, if REDIS_URL has none; any characters, no escaping."""
    redis_password_file: Path | None = None
    """A file with the Redis password."""
    redis_namespace: rules.Namespace = "video-uploader"
    """Start of every Redis key; daemons share work if and only if they share it."""

    http_host: rules.Host = "127.0.0.1"
    """Address for metrics and health checks; 0.0.0.0 for all addresses of the machine."""
    http_port: Annotated[int, rules.whole_number(0, 65_535)] = 8000
    """Port for metrics and health checks; 0 takes a free one."""
    log_level: rules.LogLevel = "INFO"
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""
    log_format: rules.LogFormat = "text"
    """`text` for people, `json` for machines."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 -- pydantic-settings fixes the signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- the same
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- the same
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- the same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `load_settings` hands over and nothing behind its back."""
        return (init_settings,)

    def redacted(self) -> dict[str, str]:
        """Every setting by its name in the environment, fit for a log: secrets as `***` or `unset`."""
        shown = {field.upper(): _text(getattr(self, field)) or "unset" for field in type(self).model_fields}
        return shown | {"REDIS_URL": _without_user(self.redis_url.get_secret_value()) or "unset"}

    def secret_values(self) -> tuple[str, ...]:
        """Every text that must never be seen, for the redaction of logs and pages.

        The Redis URL is not among them, only its password: its host is what an outage is about.
        """
        names = (name for name in _SECRETS if name != "REDIS_URL")
        secrets: list[SecretStr | None] = [getattr(self, name.lower()) for name in names]
        password = urlsplit(self.redis_url.get_secret_value()).password or ""
        texts = [secret.get_secret_value() for secret in secrets if secret]
        return tuple(text for text in (*texts, password, unquote(password)) if text)

    def s3_credentials(self) -> S3Credentials | None:
        """The S3 keys as they are now: those that came from a file are read again.

        Returns:
            None if there are none here and boto3 shall look in its own places.

        Raises:
            StoreUnavailable: a file cannot be read or used now; it may be in the middle of a renewal.
        """
        key, secret, token = (self._current(name) for name in _SECRETS[:3])
        return S3Credentials(key, secret, token) if key and secret else None

    def _current(self, name: str) -> str | None:
        known: SecretStr | None = getattr(self, name.lower())
        path: Path | None = getattr(self, f"{name.lower()}_file")
        if path is None:
            return known.get_secret_value() if known else None
        try:
            return rules.credential(_read_secret(path))
        except ValueError as error:
            raise StoreUnavailable(
                f"{name}_FILE: {str(path)!r} {error}",
                service="s3",
                kind="credentials",
                refused=True,
                pause_seconds=_CREDENTIALS_PAUSE_SECONDS,
            ) from None


class SettingDoc(NamedTuple):
    """What documents say of one setting; a default of `""` means that it is unset."""

    name: str
    default: str
    meaning: str


class _Given(NamedTuple):
    """A value as it was found, and how to name it in a problem."""

    text: str
    label: str


def load_settings(
    environ: Mapping[str, str] | None = None,
    env_file: str | os.PathLike[str] | None = ".env",
    *,
    embedded: bool = False,
    needs_redis: bool = True,
) -> Settings:
    """Read and check all settings; an empty value counts as unset, the environment wins over the file.

    Parameters:
        environ: the environment; None takes the process's own.
        env_file: may be missing; None reads none.
        embedded: S3 and Redis are the embedded servers: their addresses and keys come later, from `main.py`.
        needs_redis: false for what works with S3 alone; then nothing that is said of Redis is looked at.

    Raises:
        ConfigError: with every problem that was found.
    """
    problems: list[str] = []
    given = {} if env_file is None else _read_env_file(os.fspath(env_file), problems)
    variables = os.environ if environ is None else environ
    given |= {name: _Given(text.strip(), name) for name, text in variables.items() if text.strip()}
    if not needs_redis:
        for name in ("REDIS_URL", "REDIS_PASSWORD"):
            given.pop(name, None)
            given.pop(f"{name}_FILE", None)
    if embedded:
        _leave_to_embedded(given, problems)
    else:
        _take_other_names(given)
        _resolve_secrets(given, problems)
        _require_stores(given, problems, needs_redis=needs_redis)
    values = {field: given[field.upper()].text for field in Settings.model_fields if field.upper() in given}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(problems + _sentences(error, given)) from None
    if problems:
        raise ConfigError(problems)
    return settings.model_copy(update={"s3_addressing_style": "path"}) if embedded else settings


def _read_env_file(path: str, problems: list[str]) -> dict[str, _Given]:
    try:
        with open(path, encoding="utf-8") as file:  # the parser takes a BOM away
            bindings = list(parse_stream(file))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        problems.append(f"{path} cannot be read ({reason}): mend it or remove it.")
        return {}
    known = {setting.name for setting in SETTINGS}.union(*_OTHER_NAMES.values())
    found: dict[str, _Given] = {}
    for binding in bindings:
        if binding.error:
            # The parser counts the empty lines before as its first lines.
            text = binding.original.string
            line = binding.original.line + text.count("\n", 0, len(text) - len(text.lstrip()))
            problems.append(f"{path} line {line} is not NAME=value: mend it or put a # before it.")
        elif binding.key and binding.key not in known:
            # No word about keys that resemble nothing: the compose file has its own in the same file.
            close = difflib.get_close_matches(binding.key.upper(), known, 1, _TYPO_SIMILARITY)
            problems += [f"{binding.key} in {path} is no setting: did you mean {name}?" for name in close]
        elif binding.key and binding.value and binding.value.strip():
            found[binding.key] = _Given(binding.value.strip(), f"{binding.key} in {path}")
    return found


def _leave_to_embedded(given: dict[str, _Given], problems: list[str]) -> None:
    """Refuse the address of another server, and forget its keys: a `.env` for Docker may hold them."""
    problems += [
        f"{given[name].label} is set, but --embedded brings its own S3 and Redis:"
        f" leave out --embedded or unset {name}."
        for name in ("S3_ENDPOINT_URL", "REDIS_URL", "REDIS_URL_FILE")
        if name in given
    ]
    for name in ("S3_ENDPOINT_URL", *_SECRETS, *(f"{name}_FILE" for name in _SECRETS)):
        given.pop(name, None)


def _take_other_names(given: dict[str, _Given]) -> None:
    for name, others in _OTHER_NAMES.items():
        for other in others:
            if name not in given and other in given:
                given[name] = given[other]


def _resolve_secrets(given: dict[str, _Given], problems: list[str]) -> None:
    """Read the secrets that are in files, and put the Redis password into its URL."""
    for name in _SECRETS:
        file = given.get(f"{name}_FILE")
        if file and name in given:
            problems.append(f"{given[name].label} and {file.label} are both set: leave one of them out.")
        elif file:
            try:
                given[name] = _Given(_read_secret(Path(file.text)), f"{name} from the file {file.text!r}")
            except ValueError as error:
                problems.append(f"{file.label} is {file.text!r}, which {error}: mend the file or the path.")
    if "REDIS_URL" in given and "REDIS_PASSWORD" in given:
        given["REDIS_URL"] = _with_password(given["REDIS_URL"], given["REDIS_PASSWORD"], problems)


def _read_secret(path: Path) -> str:
    """Read one line; the ValueError never holds any of it."""

    def open_at_once(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)  # a FIFO would block for ever

    try:
        with open(path, "rb", opener=open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("is not a regular file")
            text = file.read(_SECRET_FILE_BYTES).decode("utf-8-sig").strip()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    if not text:
        raise ValueError("is empty")
    if len(text.splitlines()) > 1:
        raise ValueError("has more than one line")
    return text


def _with_password(url: _Given, password: _Given, problems: list[str]) -> _Given:
    try:
        parts = urlsplit(url.text)
    except ValueError:
        return url  # the rule for REDIS_URL tells
    if parts.password:
        problems.append(f"{url.label} has a password, and {password.label} is set: leave one of them out.")
        return url
    user, host = parts.username or "", parts.netloc.rpartition("@")[2]
    netloc = f"{user}:{quote(os.fsencode(password.text), safe='')}@{host}"
    return _Given(parts._replace(netloc=netloc).geturl(), url.label)


def _require_stores(given: dict[str, _Given], problems: list[str], *, needs_redis: bool) -> None:
    """Ask for what cannot be guessed: a default would store recordings where nobody looks for them."""

    def has(name: str) -> bool:
        return name in given or f"{name}_FILE" in given

    embedded = "or start with --embedded, which brings servers for this machine"
    if needs_redis and not has("REDIS_URL"):
        problems.append(f"REDIS_URL is not set: set it, for example to redis://localhost:6379/0, {embedded}.")
    if not has("S3_ENDPOINT_URL") and not has("S3_REGION"):
        problems.append(
            "Neither S3_ENDPOINT_URL nor S3_REGION is set: set S3_ENDPOINT_URL for a server such as MinIO"
            f" or SeaweedFS, or S3_REGION for Amazon S3, {embedded}."
        )
    key, secret, token = _SECRETS[:3]
    for one, other in ((key, secret), (secret, key), (token, key)):
        if has(one) and not has(other):
            problems.append(f"{one} is set without {other}: set both, or neither to use boto3's own places.")


def _sentences(error: ValidationError, given: dict[str, _Given]) -> list[str]:
    """Say of each wrong value what it is, unless it is a secret, and what it must be."""
    problems = []
    for detail in error.errors():
        name = str(detail["loc"][0]).upper()
        rule = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "literal_error":
            rule = f"must be {detail['ctx']['expected']}"
        if name in _SECRETS:
            problems.append(f"{given[name].label} {rule}.")
        elif detail["type"] != "default_factory_not_called":  # only says that another setting is wrong
            shown = _without_user(given[name].text)[:200]
            problems.append(f"{given[name].label} is {shown!r}, but it {rule}.")
    return problems


def _without_user(url: str) -> str:
    return re.sub(r"//[^/\s]*@", "//***@", url)


def _text(value: object) -> str:
    """Write a value as it would stand in `.env`; `""` for unset."""
    if value is None or value == SecretStr(""):
        return ""
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, SecretStr):
        return "***"
    if isinstance(value, Path):
        return str(value) if value.is_absolute() else f"./{value}"
    if isinstance(value, int) and value >= rules.MIB and value % rules.MIB == 0:  # only sizes are so large
        return f"{value // rules.MIB}MiB"
    return f"{value:g}" if isinstance(value, float) else str(value)


SETTINGS: tuple[SettingDoc, ...] = tuple(
    SettingDoc(
        field.upper(),
        _text(about.default if about.default_factory is None else None),
        about.description or "",
    )
    for field, about in Settings.model_fields.items()
)
