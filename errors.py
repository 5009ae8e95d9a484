"""The exception tree: what went wrong, decided once, at the boundary where it was seen.

`s3/` and `redis_store/` translate botocore's and redis-py's exceptions into these;
nothing above them imports either library. Who catches what:

- `ConfigError` ends the process with exit code 2.
- `StoreUnavailable` closes the gate of one service for all streams.
- `TransientError` puts one stream aside for a while.
- `PermanentError` marks one stream failed.
- `LeaseLost` makes the holder forget what it has in memory and load the stream again.
- Anything else is a bug: it ends the process with exit code 1 and its traceback.
"""

import errno
from enum import IntEnum
from typing import Literal

Service = Literal["s3", "redis"]


class ExitCode(IntEnum):
    """What the process ends with; `main.py COMMAND --help` says what each means for that command."""

    OK = 0
    PROBLEM = 1
    """A bug for the daemon; for a command, something is wrong with what it looked at."""
    USAGE = 2
    """Wrong settings or arguments."""
    REFUSED = 3
    """S3 or Redis refused us, or did not answer."""
    PENDING = 4
    """A request stands until a daemon carries it out."""
    INTERRUPTED = 130


OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
"""Too few descriptors, of this process or of the machine: nothing is wrong with what was to be opened."""

_FILES_HINTS = {
    errno.EMFILE: "raise its limit of open files (ulimit -n, LimitNOFILE of systemd, ulimits of compose)",
    errno.ENFILE: "raise fs.file-max of this machine",
}


class UploaderError(Exception):
    """The root of every error that the daemon expects."""


class ConfigError(UploaderError):
    """The settings or the command line are wrong.

    Parameters:
        problems: one sentence for each problem; it names the setting and says what to do.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class TransientError(UploaderError):
    """This work on this stream failed; the same work may succeed later.

    Parameters:
        message: what happened, for people.
        kind: a word for the `kind` label of the error metric.
    """

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class StoreUnavailable(TransientError):
    """S3 or Redis cannot work for anybody now: down, full, throttled, or refusing us.

    Parameters:
        service: which of the two.
        kind: `unreachable`, `throttled`, `full`, `clock`, `credentials`, `bucket`, `read_only`, `memory`,
            `loading`, `schema` (records of another layout or bucket), `records_lost` (it forgot some),
            `store` (another or an emptied store), `folder` (records of another folder),
           `refused` (no Redis for us).
        refused: true when waiting alone cannot help (credentials, bucket): before the service
            was ever reached this ends the process with exit code 3.
        pause_seconds: the least time until the next probe; 0 leaves it to the gate's backoff.
    """

    def __init__(
        self,
        message: str,
        *,
        service: Service,
        kind: str,
        refused: bool = False,
        pause_seconds: float = 0.0,
    ) -> None:
        super().__init__(message, kind=kind)
        self.service = service
        self.refused = refused
        self.pause_seconds = pause_seconds


class PermanentError(UploaderError):
    """This stream cannot be stored as things are; trying again without a change is of no use.

    Parameters:
        message: what is wrong with the stream and what to do, for people.
        kind: a word for the `kind` label of the error metric and the stream's record.
    """

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class LeaseLost(UploaderError):
    """The right to work on a stream is gone; what is in memory of it is stale.

    Parameters:
        stream_id: whose lease.
        reason: `fenced`, `gone`, `conflict`, `gap`, `busy`, `expired`, or `ordered`: an operator wants
            something else of the stream first.
        holder: who has it when it is busy; "" for another thread of this process.
        ends_in_seconds: when that lease ends unless it is renewed; 0 when unknown.
    """

    def __init__(
        self, stream_id: str, reason: str, *, holder: str = "", ends_in_seconds: float = 0.0
    ) -> None:
        super().__init__(f"lost the right to work on {stream_id}: {reason}")
        self.stream_id = stream_id
        self.reason = reason
        self.holder = holder
        self.ends_in_seconds = ends_in_seconds


class SourceGone(UploaderError):
    """There is no file at a source's path any more."""


class SourceChanged(UploaderError):
    """Somebody wrote to a source while it was being finalized; nothing was committed."""


class ChildDied(UploaderError):
    """An embedded server ended by itself; the message carries its last lines."""


def reason_of(error: OSError) -> str:
    """Return what the system said; when descriptors ran out, with the limit to raise."""
    said, hint = error.strerror or str(error), _FILES_HINTS.get(error.errno or 0)
    return f"{said}: {hint}" if hint else said


def files_hint(error: BaseException | None) -> str:
    """Return which limit to raise if running out of descriptors is behind an error of a library; else ""."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
            return f"; {reason_of(error)}"
        error = error.__cause__ or error.__context__
    return ""
