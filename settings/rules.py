"""Rules that several settings share; a `ValueError` says what a value must be."""

import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, PlainValidator

from settings.group import Secret


def whole_number(low: int, high: int) -> BeforeValidator:
    """Accept the whole numbers from `low` to `high`, written in plain digits."""

    def check(value: object) -> int:
        text = str(value)
        if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return BeforeValidator(check)


def seconds(low: float, high: float) -> BeforeValidator:
    """Accept the numbers of seconds from `low` to `high`, with or without decimals."""
    return _number("seconds", low, high)


def days(low: float, high: float) -> BeforeValidator:
    """Accept the numbers of days from `low` to `high`, with or without decimals."""
    return _number("days", low, high)


def _number(unit: str, low: float, high: float) -> BeforeValidator:
    def check(value: object) -> float:
        text = str(value)
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not low <= float(text) <= high:
            raise ValueError(f"must be a number of {unit} from {low:g} to {high:g}, without a unit")
        return float(text)

    return BeforeValidator(check)


def matching(pattern: str, message: str) -> AfterValidator:
    """Accept the printable texts that `pattern` matches as a whole."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value) or not value.isprintable():
            raise ValueError(message)
        return value

    return AfterValidator(check)


def in_case(change: Callable[[str], str]) -> BeforeValidator:
    """Ignore the case of a word: `change` is `str.lower` or `str.upper`."""
    return BeforeValidator(lambda value: change(value) if isinstance(value, str) else value)


Switch = Annotated[Literal["on", "off"], in_case(str.lower)]
"""`on` or `off`; case is ignored."""


def secret(check: Callable[[str], str]) -> PlainValidator:
    """Check a secret by its text, and keep which file it came from."""

    def check_inside(value: object) -> Secret:
        known = value if isinstance(value, Secret) else Secret(str(value))
        return Secret(check(known.get_secret_value()), known.file)

    return PlainValidator(check_inside)


def parts(value: object) -> tuple[str, ...]:
    """Split what is separated by commas; each part once, none of them empty."""
    return tuple(dict.fromkeys(part.strip() for part in str(value).split(",") if part.strip()))
