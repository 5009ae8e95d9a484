"""The log: how much is written, and for whom."""

from typing import Annotated, Literal

from pydantic import Field

from settings import rules
from settings.group import SettingsGroup

Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], rules.in_case(str.upper)]
Format = Annotated[Literal["text", "json"], rules.in_case(str.lower)]


class LogSettings(SettingsGroup, title="Logs"):
    """What the log shows."""

    level: Level = Field(default="INFO", alias="LOG_LEVEL")
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""
    format: Format = Field(default="text", alias="LOG_FORMAT")
    """`text` for people, `json` for machines."""
