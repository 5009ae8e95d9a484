"""Logs: one event is one line on stderr, for people or for machines, without secrets."""

import contextlib
import json
import logging
import math
import os
import re
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Literal
from urllib.parse import quote

import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter
from structlog.typing import EventDict, WrappedLogger

_HIDDEN = "***"
# A shorter secret would blank out half of every line, and anybody would guess it anyway.
_SHORTEST_SECRET = 4
# What a pipe that is ready takes without blocking: PIPE_BUF on Linux.
_PIPE_BYTES = 4096
# How long one line waits for a reader that stands still before it is dropped.
_STALL_SECONDS = 1.0
# Deeper values are written as Python writes them.
_NESTING = 4
# What these say below WARNING holds requests with their headers and signatures.
_TALKATIVE = ("boto3", "botocore", "s3transfer", "urllib3")
# One DEBUG line for each file event.
_EVENT_BY_EVENT = ("watchdog",)
# One INFO line for each viewer who closes a video.
_VIEWER_BY_VIEWER = ("waitress",)
_LEVELS = {"WARNING": "WARN", "CRITICAL": "FATAL"}
_COLOURS = {"DEBUG": 2, "INFO": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 35}
_WITH_TRACEBACK = frozenset({"ERROR", "CRITICAL"})
_PLAIN = re.compile(r'[^\s"=\\]+')
_OURS = frozenset({"time", "level", "event", "exception", "logger", "thread"})

# The first form also takes passwords with a slash, which no URL may have and people write: a colon that no
# port number follows. It is bounded, so that hostile text costs no more than its length.
_USER_IN_URL = re.compile(
    r"""://(?:[^\s/?#@:\[\]"'<>]{0,256}:(?![0-9]{1,5}(?:[/?#]|$))[^\s"'<>]{0,512}|[^\s/?#]*)@"""
)
_PASSWORD_OPTION = re.compile(r"""(password=['"]?)[^\s'"&,;)}]+""", re.IGNORECASE)
_AUTHORIZATION = re.compile(
    r"""(authorization['"]?\s*[:=]\s*)(b?'[^']*'|b?"[^"]*"|[^\r\n]+)""", re.IGNORECASE
)
_SIGNATURE = re.compile(
    r"""(x-amz-(?:signature|credential|security-token)['"]?\s*(?:[:=]|%3d)\s*b?['"]?)[^\s'"&,;}]+""",
    re.IGNORECASE,
)
_SECRET_KEYS = frozenset(
    {"authorization", "password", "x-amz-security-token", "x-amz-signature", "x-amz-credential"}
)

# Replaced as a whole under the lock, read without it: a tuple is always complete.
_secrets: tuple[str, ...] = ()
_secrets_lock = threading.Lock()

# The whole chain on the caller's side: the rest happens in the formatter, for the libraries' lines as well.
# It never changes, so that loggers made and used before `configure_logging` are right too.
structlog.configure(
    processors=[ProcessorFormatter.wrap_for_formatter],
    wrapper_class=BoundLogger,
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)


def get_logger(name: str) -> BoundLogger:
    """Return the logger of one module; values are keyword arguments: `log.info("chunk stored", index=3)`."""
    logger: BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def configure_logging(level: str, log_format: Literal["text", "json"], secrets: Iterable[str] = ()) -> None:
    """Send all logs and Python's warnings to stderr; may be called again.

    Parameters:
        level: `DEBUG`, `INFO`, `WARNING` or `ERROR`; the AWS libraries stay at `WARNING` or above.
        secrets: texts that must never be seen, in addition to those already known.
    """
    for secret in secrets:
        add_secret(secret)
    handler = _StderrHandler()
    render = _as_json if log_format == "json" else _text_renderer(colour=_is_terminal())
    handler.setFormatter(ProcessorFormatter(processors=[render]))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _StderrHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    quiet = (*_TALKATIVE, *_VIEWER_BY_VIEWER)
    for names, lowest in ((quiet, logging.WARNING), (_EVENT_BY_EVENT, logging.INFO)):
        for name in names:
            logging.getLogger(name).setLevel(max(lowest, root.level))
    logging.captureWarnings(capture=True)


def add_secret(value: str) -> None:
    """Never show this text again, in any spelling that a log may give it.

    Parameters:
        value: texts of fewer than 4 characters are not looked for.
    """
    global _secrets  # noqa: PLW0603 -- logging is one per process, and so are its secrets
    if len(value) < _SHORTEST_SECRET:
        return
    spellings = {
        value,
        quote(value, safe="", errors="surrogatepass"),
        repr(value)[1:-1],
        json.dumps(value)[1:-1],
    }
    with _secrets_lock:
        # The longest first: a URL before the password inside it.
        _secrets = tuple(sorted({*_secrets, *spellings}, key=len, reverse=True))


def redact(text: str) -> str:
    """Take out every known secret, user info in URLs and what AWS requests are signed with."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, _HIDDEN)
    if "://" in text and "@" in text:
        text = _USER_IN_URL.sub(f"://{_HIDDEN}@", text)
    lower = text.lower()
    if "password=" in lower:
        text = _PASSWORD_OPTION.sub(rf"\1{_HIDDEN}", text)
    if "authorization" in lower:
        text = _AUTHORIZATION.sub(rf"\1{_HIDDEN}", text)
    if "x-amz-" in lower:
        text = _SIGNATURE.sub(rf"\1{_HIDDEN}", text)
    return text


class _StderrHandler(logging.Handler):
    """Writes whole lines to stderr; never raises, and waits for nobody longer than a moment."""

    def __init__(self) -> None:
        super().__init__()
        # All under the handler's own lock.
        self._stalled = False
        self._torn = False
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        # A broken or closed stderr is no reason to stop uploading, and there is nowhere to tell.
        with contextlib.suppress(Exception):
            if self._lost:
                note = {"levelno": logging.WARNING, "levelname": "WARNING", "name": __name__}
                self._write(
                    self._line(logging.makeLogRecord({**note, "msg": f"{self._lost} log lines were lost"}))
                )
                self._lost = 0
            self._write(self._line(record))

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception as error:  # noqa: BLE001 -- a value that cannot be written must not end an upload
            about = {
                key: getattr(record, key) for key in ("created", "levelno", "levelname", "name", "threadName")
            }
            template = record.msg.get("event") if isinstance(record.msg, dict) else record.msg
            event = template if isinstance(template, str) else type(template).__name__
            message = f"{event} (this log line cannot be formatted: {type(error).__name__})"
            return self.format(logging.makeLogRecord({**about, "msg": message}))

    def _write(self, line: str) -> None:
        stream = sys.stderr
        text = f"\n{line}\n" if self._torn else f"{line}\n"
        try:
            descriptor = stream.fileno()
        except (OSError, ValueError):  # an object that only looks like a file
            stream.write(text)
            return
        self._write_bounded(descriptor, text.encode("utf-8", "backslashreplace"))

    def _write_bounded(self, descriptor: int, line: bytes) -> None:
        """Write past Python's buffers, which would keep what a broken pipe refused and fail again at exit."""
        ready = select.poll()
        ready.register(descriptor, select.POLLOUT)
        rest = memoryview(line)
        while rest:
            if not ready.poll(0 if self._stalled else _STALL_SECONDS * 1000):
                self._stalled, self._torn = True, self._torn or len(rest) < len(line)
                self._lost += 1
                raise BlockingIOError
            rest = rest[os.write(descriptor, rest[:_PIPE_BYTES]) :]
        self._stalled = self._torn = False


def _is_terminal() -> bool:
    with contextlib.suppress(ValueError, AttributeError):
        return sys.stderr.isatty()
    return False


def _collect(event_dict: EventDict) -> tuple[dict[str, Any], BaseException | None]:
    """Put the parts of one event in order, redacted, and the exception beside them."""
    record: logging.LogRecord = event_dict.pop("_record")
    of_ours = event_dict.pop("_from_structlog")
    error = _exception(event_dict.pop("exc_info", None))
    fields = {
        "time": _timestamp(record.created),
        "level": record.levelname,
        "event": redact(str(event_dict.pop("event", ""))).rstrip(),
    }
    for key, value in event_dict.items():
        fields[f"{key}_" if key in _OURS else key] = _clean_item(key, value)
    if not of_ours:
        fields["logger"] = record.name
    if logging.root.level <= logging.DEBUG:
        fields["thread"] = record.threadName or ""
    return fields, error


def _timestamp(created: float) -> str:
    whole = int(created)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((created - whole) * 1000):03d}Z"


def _exception(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if isinstance(exc_info[1], BaseException) else None
    return sys.exc_info()[1] if exc_info else None


def _clean_item(key: str, value: object) -> Any:
    return _HIDDEN if key.lower() in _SECRET_KEYS else _clean(value)


def _clean(value: object, nesting: int = _NESTING) -> Any:
    """Turn a value into what JSON can hold, redacted."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return redact(os.fsdecode(value))
    if nesting and isinstance(value, dict):
        return {
            redact(str(key)): _HIDDEN if str(key).lower() in _SECRET_KEYS else _clean(item, nesting - 1)
            for key, item in value.items()
        }
    if nesting and isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, nesting - 1) for item in value]
    return redact(str(value))


def _encodable(value: Any) -> Any:
    """Spell out what UTF-8 cannot hold: the bytes of a file name that is no text."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return value


def _dump(value: Any) -> str:
    # ASCII only: no reader may take U+2028 or U+0085 for the end of a line.
    return json.dumps(_encodable(value))


def _as_json(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> str:
    fields, error = _collect(event_dict)
    if error:
        fields["exception"] = redact("".join(traceback.format_exception(error))).rstrip()
    return _dump(fields)


def _text_renderer(*, colour: bool) -> Callable[[WrappedLogger, str, EventDict], str]:
    def render(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> str:
        fields, error = _collect(event_dict)
        when, level, event = fields.pop("time"), fields.pop("level"), fields.pop("event")
        word = f"{_LEVELS.get(level, level):<5}"
        block = ""
        if error and level in _WITH_TRACEBACK:
            trace = redact("".join(traceback.format_exception(error))).rstrip()
            block = "".join(f"\n    {_escaped(line)}" for line in trace.split("\n"))
        elif error:
            fields["exception"] = redact("".join(traceback.format_exception_only(error))).rstrip()
        values = " ".join(f"{_quoted(key)}={_as_word(value)}" for key, value in fields.items())
        if colour:
            word = f"\x1b[{_COLOURS.get(level, 0)}m{word}\x1b[0m"
        return f"{when} {word} {_escaped(event)}{'  ' if values else ''}{values}{block}"

    return render


def _as_word(value: Any) -> str:
    return _quoted(value) if isinstance(value, str) else _dump(value)


def _quoted(text: str) -> str:
    if text.isprintable() and _PLAIN.fullmatch(text):
        return text
    doubled = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_escaped(doubled)}"'


def _escaped(text: str) -> str:
    """Keep a line one line: spell out control characters, escape sequences and lone surrogates."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
