"""Where settings come from: lines of `.env`, files that hold one secret, the parts of a URL."""

import difflib
import os
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, unquote_plus, urlsplit

from dotenv.parser import parse_stream

# AWS_SECRET_KEY (0.80) and SCAN_INTERVAL (0.77) are meant as settings, HTTP_PROXY (0.74) is not.
_TYPO_SIMILARITY = 0.76
# Far more than any session token; whoever names a video by mistake should not wait for it.
_SECRET_FILE_BYTES = 64 * 1024
_HIDDEN = "***"
_SCHEME = re.compile("[A-Za-z0-9+.-]+://")
# Whatever else a URL may ask for, its value is hidden: a new option must not be one that leaks.
_HARMLESS_OPTION = re.compile(
    "(db|protocol|client_name|ssl_(cert_reqs|ca_certs|ca_path|certfile|keyfile|check_hostname|min_version|"
    "ciphers|validate_ocsp|validate_ocsp_stapled|exclude_verify_flags|include_verify_flags))=[A-Za-z0-9._/:%+-]*"
)


class RawSetting(NamedTuple):
    """A value as it was found, how to name it in a problem, and the file that it is the whole of."""

    text: str
    label: str
    file: Path | None = None


def read_env_file(path: str, known: Collection[str], problems: list[str]) -> dict[str, RawSetting]:
    """Read the settings that a file names; a missing file names none.

    Parameters:
        path: of the file.
        known: the names that settings have; what resembles one of them is a slip of the pen.
        problems: what is wrong with the file is added to them.
    """
    try:
        with open(path, encoding="utf-8") as file:  # the parser takes a BOM away
            bindings = list(parse_stream(file))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        problems.append(f"{path} cannot be read ({reason}): mend it or remove it.")
        return {}
    found: dict[str, RawSetting] = {}
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
            found[binding.key] = RawSetting(binding.value.strip(), f"{binding.key} in {path}")
    return found


def read_secret(path: str | os.PathLike[str]) -> str:
    """Read the one line of a file.

    Raises:
        ValueError: it cannot be; the message goes on behind the name of the file and holds nothing of it.
    """

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


def with_password(url: RawSetting, password: RawSetting, problems: list[str]) -> RawSetting:
    """Put a password into a URL that has none; it may hold any characters."""
    try:
        parts = urlsplit(url.text)
    except ValueError:
        return url  # the rule for REDIS_URL tells
    if parts.password:
        problems.append(f"{url.label} has a password, and {password.label} is set: leave one of them out.")
        return url
    user, host = parts.username or "", parts.netloc.rpartition("@")[2]
    netloc = f"{user}:{quote(os.fsencode(password.text), safe='')}@{host}"
    return url._replace(text=parts._replace(netloc=netloc).geturl())


def without_credentials(url: str) -> str:
    """Return a URL without user, password and any option that may be a secret.

    A URL that is written wrongly is cut rather than understood: a password may hold `/`, `?` and `@`, so what
    stands before the last `@` is hidden, and with an `@` behind the first `?` all but the scheme is.
    """
    start = match[0] if (match := _SCHEME.match(url)) else ""
    rest = url.removeprefix(start)
    head, question, query = rest.partition("?")
    if "@" in query:
        return f"{start}{_HIDDEN}"
    if "@" in head:
        head = f"{_HIDDEN}@{head.rpartition('@')[2]}"
    return f"{start}{head}{question}{'&'.join(map(_shown_option, query.split('&')))}"


def secrets_in(url: str) -> set[str]:
    """Return the passwords that a URL holds, as they are written and as they are meant.

    Parameters:
        url: one that was checked.
    """
    parts = urlsplit(url)
    hidden = [option for option in parts.query.split("&") if _shown_option(option) != option]
    values = [parts.password or "", *(option.partition("=")[2] for option in hidden)]
    return {text for value in values for text in (value, unquote(value), unquote_plus(value)) if text}


def _shown_option(option: str) -> str:
    """Return an option of a URL as it may be shown: the value of an unknown one is hidden."""
    if not option or _HARMLESS_OPTION.fullmatch(option):
        return option
    name = option.partition("=")[0]
    return f"{name}={_HIDDEN}" if name == "ssl_password" else _HIDDEN
