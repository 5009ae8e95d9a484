"""What the groups of settings are made of: checked values by their names in the environment, and secrets."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr


class Secret(SecretStr):
    """A text that is never shown; empty when it is unset.

    Parameters:
        text: what must not be seen.
        file: that it was read from; None when it came from the environment or `.env`.
    """

    def __init__(self, text: str = "", file: Path | None = None) -> None:
        super().__init__(text)
        self.file = file


class SettingsGroup(BaseModel):
    """Settings that belong together. The alias of a field is its name in the environment.

    `title` is the heading in `docs/settings.md`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",  # each group takes its own out of all that is set
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    def values(self) -> Iterator[tuple[str, object]]:
        """Iterate over the settings: name in the environment and value."""
        for field, about in type(self).model_fields.items():
            yield str(about.alias), getattr(self, field)
