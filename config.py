"""The settings: read from the environment and `.env`, validated together, every problem told."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from errors import ConfigError, StoreUnavailable
from settings import risks, rules, sources

_STORE_SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "REDIS_URL",
    "REDIS_PASSWORD",
)
# Where a secret may come from instead of the environment: <NAME>_FILE, as Docker secrets do it.
_SECRETS = (*_STORE_SECRETS, "STATUS_PASSWORD")
# boto3 would follow these without a word; read here, they are checked and shown at the start.
_OTHER_NAMES = {
    "S3_ENDPOINT_URL": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "S3_REGION": ("AWS_REGION", "AWS_DEFAULT_REGION"),
}
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
    audit_days: Annotated[float, rules.days(0.01, 365)] = 7.0
    """Within so many days every finished recording is compared with S3 once more; 0.01 to 365."""
    shutdown_grace_seconds: Annotated[float, rules.seconds(1, 600)] = 20.0
    """After SIGTERM, time to finish the chunks in flight; 1 to 600."""

    s3_endpoint_url: rules.EndpointUrl | None = None
    """URL of an S3 server such as MinIO or SeaweedFS; unset means Amazon S3."""
    s3_bucket: rules.Bucket = "videos"
    """The bucket; made if it is missing and the credentials allow it."""
    s3_prefix: rules.Prefix = ""
    """A folder inside the bucket for everything that the daemon writes."""
    store_changed: rules.StoreChanged = "refuse"
    """When S3 is not the store that Redis has records of, or was emptied: `refuse` it, or `rebuild` the
    records by comparing every file in the folder with it."""
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
    redis+sentinel://host,host/name for the primary that Sentinel names, redis+cluster://host,host for a
    cluster, rediss+cluster:// for one with TLS."""
    redis_url_file: Path | None = None
    """A file with the Redis URL."""
    redis_password: SecretStr | None = None
    """The password, if REDIS_URL has none; any characters, no escaping."""
    redis_password_file: Path | None = None
    """A file with the Redis password."""
    redis_namespace: rules.Namespace = "video-uploader"
    """Start of every Redis key; daemons share work if and only if they share it."""

    http_host: rules.Host = "127.0.0.1"
    """Address of page, metrics and health checks; 0.0.0.0 for all addresses of the machine."""
    http_port: Annotated[int, rules.whole_number(0, 65_535)] = 8000
    """Port of page, metrics and health checks; 0 takes a free one."""
    status_page: rules.Switch = "on"
    """The status page at / with its API and its player: `on` or `off`."""
    status_password: rules.Password | None = None
    """Asked for by page, API and player, with any user name. At least 8 characters."""
    status_password_file: Path | None = None
    """A file with the password of the page."""
    status_networks: rules.Networks = ("127.0.0.0/8", "::1/128")
    """Who may see the page while there is no password: networks of addresses, separated by commas."""
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
        return shown | {
            "REDIS_URL": sources.without_credentials(self.redis_url.get_secret_value()) or "unset"
        }

    def warnings(self) -> list[str]:
        """Return what works and should not stay so, one sentence each, with the setting and what to do."""
        return risks.risks_of(
            secrets={
                name: secret.get_secret_value()
                for name in _SECRETS
                if (secret := getattr(self, name.lower()))
            },
            http_host=self.http_host,
            page_password=(self.status_password is not None) if self.status_page == "on" else None,
            networks=self.status_networks,
        )

    def secret_values(self) -> tuple[str, ...]:
        """Every text that must never be seen, for the redaction of logs and pages.

        The Redis URL is not among them, only its passwords: its host is what an outage is about.
        """
        names = (name for name in _SECRETS if name != "REDIS_URL")
        secrets: list[SecretStr | None] = [getattr(self, name.lower()) for name in names]
        texts = [secret.get_secret_value() for secret in secrets if secret]
        return (*texts, *sorted(sources.secrets_in(self.redis_url.get_secret_value())))

    def s3_credentials(self) -> S3Credentials | None:
        """The S3 keys as they are now: those that came from a file are read again.

        Returns:
            None if there are none here and boto3 shall look in its own places.

        Raises:
            StoreUnavailable: a file cannot be read or used now; it may be in the middle of a renewal.
        """
        key, secret, token = (self._current(name) for name in _STORE_SECRETS[:3])
        return S3Credentials(key, secret, token) if key and secret else None

    def _current(self, name: str) -> str | None:
        known: SecretStr | None = getattr(self, name.lower())
        path: Path | None = getattr(self, f"{name.lower()}_file")
        if path is None:
            return known.get_secret_value() if known else None
        try:
            return rules.credential(sources.read_secret(path))
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
        needs_redis: false for what works with S3 alone; then nothing that is said of Redis and
            of the page's password is looked at.

    Raises:
        ConfigError: with every problem that was found.
    """
    problems: list[str] = []
    given = {} if env_file is None else sources.read_env_file(os.fspath(env_file), _known_names(), problems)
    variables = os.environ if environ is None else environ
    given |= {name: sources.Given(text.strip(), name) for name, text in variables.items() if text.strip()}
    if not needs_redis:
        for name in ("REDIS_URL", "REDIS_PASSWORD", "STATUS_PASSWORD"):
            given.pop(name, None)
            given.pop(f"{name}_FILE", None)
    if embedded:
        _leave_to_embedded(given, problems)
    else:
        _take_other_names(given)
    _resolve_secrets(given, problems)
    if not embedded:
        _require_stores(given, problems, needs_redis=needs_redis)
    values = {field: given[field.upper()].text for field in Settings.model_fields if field.upper() in given}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(problems + _sentences(error, given)) from None
    if problems:
        raise ConfigError(problems)
    return settings.model_copy(update={"s3_addressing_style": "path"}) if embedded else settings


def _known_names() -> set[str]:
    return {setting.name for setting in SETTINGS}.union(*_OTHER_NAMES.values())


def _leave_to_embedded(given: dict[str, sources.Given], problems: list[str]) -> None:
    """Refuse the address of another server, and forget its keys: a `.env` for Docker may hold them."""
    problems += [
        f"{given[name].label} is set, but --embedded brings its own S3 and Redis:"
        f" leave out --embedded or unset {name}."
        for name in ("S3_ENDPOINT_URL", "REDIS_URL", "REDIS_URL_FILE")
        if name in given
    ]
    for name in ("S3_ENDPOINT_URL", *_STORE_SECRETS, *(f"{name}_FILE" for name in _STORE_SECRETS)):
        given.pop(name, None)


def _take_other_names(given: dict[str, sources.Given]) -> None:
    for name, others in _OTHER_NAMES.items():
        for other in others:
            if name not in given and other in given:
                given[name] = given[other]


def _resolve_secrets(given: dict[str, sources.Given], problems: list[str]) -> None:
    """Read the secrets that are in files, and put the Redis password into its URL."""
    for name in _SECRETS:
        file = given.get(f"{name}_FILE")
        if file and name in given:
            problems.append(f"{given[name].label} and {file.label} are both set: leave one of them out.")
        elif file:
            try:
                given[name] = sources.Given(
                    sources.read_secret(Path(file.text)), f"{name} from the file {file.text!r}"
                )
            except ValueError as error:
                problems.append(f"{file.label} is {file.text!r}, which {error}: mend the file or the path.")
    if "REDIS_URL" in given and "REDIS_PASSWORD" in given:
        given["REDIS_URL"] = sources.with_password(given["REDIS_URL"], given["REDIS_PASSWORD"], problems)


def _require_stores(given: dict[str, sources.Given], problems: list[str], *, needs_redis: bool) -> None:
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
    key, secret, token = _STORE_SECRETS[:3]
    for one, other in ((key, secret), (secret, key), (token, key)):
        if has(one) and not has(other):
            problems.append(f"{one} is set without {other}: set both, or neither to use boto3's own places.")


def _sentences(error: ValidationError, given: dict[str, sources.Given]) -> list[str]:
    """Return what each wrong value is, unless it is a secret, and what it must be."""
    problems = []
    for detail in error.errors():
        name = str(detail["loc"][0]).upper()
        rule = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "literal_error":
            rule = f"must be {detail['ctx']['expected']}"
        if name in _SECRETS:
            problems.append(f"{given[name].label} {rule}.")
        elif detail["type"] != "default_factory_not_called":  # only says that another setting is wrong
            text = given[name].text
            shown = (
                sources.without_credentials(text) if name == "S3_ENDPOINT_URL" or "://" in text else text
            )[:200]
            problems.append(f"{given[name].label} is {shown!r}, but it {rule}.")
    return problems


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
