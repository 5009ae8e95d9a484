"""The settings: read from the environment and `.env`, checked together, every problem reported at once.

Plain pydantic and python-dotenv: the sources of pydantic-settings cannot say which line of `.env` or which
secret's file is wrong, nor that a name is misspelled, so not one of them was in use.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from errors import ConfigError
from settings import risks, sources
from settings.folder import FolderSettings
from settings.group import Secret, SettingsGroup
from settings.http import HttpSettings
from settings.log import LogSettings
from settings.redis import RedisSettings
from settings.s3 import S3Settings
from settings.upload import MIB, UploadSettings

# boto3 would follow these without a word; read here, they are checked and shown at the start.
_OTHER_NAMES = {
    "S3_ENDPOINT_URL": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "S3_REGION": ("AWS_REGION", "AWS_DEFAULT_REGION"),
}
_S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_NOT_FOR_S3_ALONE = ("REDIS_URL", "REDIS_PASSWORD", "STATUS_PASSWORD")


class Settings(BaseModel):
    """Every setting, checked, in groups.

    Made by `load_settings`, which looks at the whole environment at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    folder: FolderSettings
    upload: UploadSettings
    s3: S3Settings
    redis: RedisSettings
    http: HttpSettings
    log: LogSettings

    def replaced(self, **groups: Mapping[str, object]) -> "Settings":
        """Return these settings with other values, which are not checked, by group and field."""
        changed = {name: getattr(self, name).model_copy(update=values) for name, values in groups.items()}
        return self.model_copy(update=changed)

    def redacted(self) -> dict[str, str]:
        """Return every setting by its name in the environment, fit for a log: secrets as `***` or `unset`."""
        shown = {}
        for name, value in self._values():
            shown[name] = _text(value) or "unset"
            if isinstance(value, Secret):
                shown[f"{name}_FILE"] = _text(value.file) or "unset"
        url = sources.without_credentials(self.redis.url.get_secret_value())
        return shown | {"REDIS_URL": url or "unset"}

    def warnings(self) -> list[str]:
        """Return what works and should not stay so, one sentence each, with the setting and what to do."""
        return risks.risks_of(self._secrets(), self.http)

    def secret_values(self) -> tuple[str, ...]:
        """Return every text that must never be seen, for the redaction of logs and pages.

        The Redis URL is not among them, only its passwords: its host is what an outage is about.
        """
        secrets = self._secrets()
        url = secrets.pop("REDIS_URL", "")
        return (*secrets.values(), *sorted(sources.secrets_in(url)))

    def _values(self) -> Iterator[tuple[str, object]]:
        for _, group in self:
            yield from group.values()

    def _secrets(self) -> dict[str, str]:
        return {
            name: secret.get_secret_value()
            for name, secret in self._values()
            if isinstance(secret, Secret) and secret
        }


class SettingDoc(NamedTuple):
    """What documents say of one setting; a default of `""` means that it is unset."""

    group: str
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
        embedded: S3 and Redis are the embedded servers: their addresses and keys come later.
        needs_redis: false for what works with S3 alone; then nothing that is said of Redis and
            of the page's password is looked at.

    Raises:
        ConfigError: with every problem that was found.
    """
    problems: list[str] = []
    raw = {} if env_file is None else sources.read_env_file(os.fspath(env_file), _NAMES, problems)
    variables = os.environ if environ is None else environ
    raw |= {name: sources.RawSetting(text.strip(), name) for name, text in variables.items() if text.strip()}
    if not needs_redis:
        _drop(raw, _NOT_FOR_S3_ALONE)
    if embedded:
        _leave_to_embedded(raw, problems)
    else:
        _take_other_names(raw)
    _resolve_secrets(raw, problems)
    if not embedded:
        _require_stores(raw, problems, needs_redis=needs_redis)
    values = {
        name: Secret(each.text, each.file) if name in _SECRETS else each.text for name, each in raw.items()
    }
    try:
        settings = Settings.model_validate(dict.fromkeys(Settings.model_fields, values))
    except ValidationError as error:
        raise ConfigError(problems + _sentences(error, raw)) from None
    if problems:
        raise ConfigError(problems)
    return settings


def _drop(raw: dict[str, sources.RawSetting], secrets: tuple[str, ...]) -> None:
    for name in secrets:
        raw.pop(name, None)
        raw.pop(f"{name}_FILE", None)


def _leave_to_embedded(raw: dict[str, sources.RawSetting], problems: list[str]) -> None:
    """Refuse the address of another server, and forget its keys: a `.env` for Docker may hold them."""
    problems += [
        f"{raw[name].label} is set, but --embedded brings its own S3 and Redis:"
        f" leave out --embedded or unset {name}."
        for name in ("S3_ENDPOINT_URL", "REDIS_URL", "REDIS_URL_FILE")
        if name in raw
    ]
    raw.pop("S3_ENDPOINT_URL", None)
    _drop(raw, (*_S3_KEYS, "REDIS_URL", "REDIS_PASSWORD"))


def _take_other_names(raw: dict[str, sources.RawSetting]) -> None:
    for name, others in _OTHER_NAMES.items():
        for other in others:
            if name not in raw and other in raw:
                raw[name] = raw[other]


def _resolve_secrets(raw: dict[str, sources.RawSetting], problems: list[str]) -> None:
    """Read the secrets that are in files, and put the Redis password into its URL."""
    for name in _SECRETS:
        file = raw.get(f"{name}_FILE")
        if file and name in raw:
            problems.append(f"{raw[name].label} and {file.label} are both set: leave one of them out.")
        elif file:
            path = Path(file.text)
            try:
                raw[name] = sources.RawSetting(
                    sources.read_secret(path), f"{name} from the file {file.text!r}", path
                )
            except ValueError as error:
                problems.append(f"{file.label} is {file.text!r}, which {error}: mend the file or the path.")
    if "REDIS_URL" in raw and "REDIS_PASSWORD" in raw:
        raw["REDIS_URL"] = sources.with_password(raw["REDIS_URL"], raw["REDIS_PASSWORD"], problems)


def _require_stores(raw: dict[str, sources.RawSetting], problems: list[str], *, needs_redis: bool) -> None:
    """Ask for what cannot be guessed: a default would store recordings where nobody looks for them."""

    def has(name: str) -> bool:
        return name in raw or f"{name}_FILE" in raw

    embedded = "or start with --embedded, which brings servers for this machine"
    if needs_redis and not has("REDIS_URL"):
        problems.append(f"REDIS_URL is not set: set it, for example to redis://localhost:6379/0, {embedded}.")
    if not has("S3_ENDPOINT_URL") and not has("S3_REGION"):
        problems.append(
            "Neither S3_ENDPOINT_URL nor S3_REGION is set: set S3_ENDPOINT_URL for a server such as MinIO"
            f" or SeaweedFS, or S3_REGION for Amazon S3, {embedded}."
        )
    key, secret, token = _S3_KEYS
    for one, other in ((key, secret), (secret, key), (token, key)):
        if has(one) and not has(other):
            problems.append(f"{one} is set without {other}: set both, or neither to use boto3's own places.")


def _sentences(error: ValidationError, raw: dict[str, sources.RawSetting]) -> list[str]:
    """Return what each wrong value is, unless it is a secret, and what it must be."""
    problems = []
    for detail in error.errors():
        name = str(detail["loc"][1])
        rule = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "literal_error":
            rule = f"must be {detail['ctx']['expected']}"
        if name in _SECRETS:
            problems.append(f"{raw[name].label} {rule}.")
        elif detail["type"] != "default_factory_not_called":  # only says that another setting is wrong
            text = raw[name].text
            shown = (
                sources.without_credentials(text) if name == "S3_ENDPOINT_URL" or "://" in text else text
            )[:200]
            problems.append(f"{raw[name].label} is {shown!r}, but it {rule}.")
    return problems


def _text(value: object) -> str:
    """Return a value as it would stand in `.env`; `""` for unset."""
    if value is None:
        return ""
    if isinstance(value, Secret):
        return "***" if value else ""
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, Path):
        return str(value) if value.is_absolute() else f"./{value}"
    if isinstance(value, int) and value >= MIB and value % MIB == 0:  # only sizes are so large
        return f"{value // MIB}MiB"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _docs() -> Iterator[SettingDoc]:
    for field in Settings.model_fields.values():
        group = cast("type[SettingsGroup]", field.annotation)
        title = str(group.model_config["title"])
        for about in group.model_fields.values():
            default = _text(None if about.default_factory else about.default)
            yield SettingDoc(title, str(about.alias), default, about.description or "")
            if about.annotation is Secret:
                yield SettingDoc(title, f"{about.alias}_FILE", "", _meaning_of_file(str(about.alias)))


def _meaning_of_file(name: str) -> str:
    again = "; read again while running, so that it may be renewed" if name in _S3_KEYS else ""
    return f"A file with the value of `{name}`{again}."


SETTINGS: tuple[SettingDoc, ...] = tuple(_docs())
_NAMES = {setting.name for setting in SETTINGS}.union(*_OTHER_NAMES.values())
_SECRETS = [each.name.removesuffix("_FILE") for each in SETTINGS if each.name.endswith("_FILE")]
