"""The exception tree: what went wrong, and what to do, decided once, at the boundary where it was seen.

`s3/` and `redis_store/` translate botocore's and redis-py's exceptions into these;
nothing above them imports either library. Who catches what:

- `ConfigError` ends the process with exit code 2.
- `StoreUnavailable` trips the breaker of one service for all streams.
- `TransientError` puts one stream aside for a while.
- `PermanentError` marks one stream failed.
- `LeaseLost` makes the holder forget what it has in memory and load the stream again.
- Anything else is a bug: it ends the process with exit code 1 and its traceback.
"""

import errno
from enum import IntEnum
from typing import Literal

Service = Literal["s3", "redis"]

SERVICE_NAMES: dict[Service, str] = {"s3": "S3", "redis": "Redis"}
"""For people."""

LeaseReason = Literal["busy", "conflict", "expired", "fenced", "gap", "gone", "requested"]
"""Why a lease is none; `requested`: an operator wants something else of the stream first."""


ErrorKind = Literal[
    "away",
    "bad_request",
    "bucket",
    "busy",
    "cancelled",
    "clock",
    "conflict",
    "corrupt",
    "credentials",
    "cut_short",
    "delete_refused",
    "folder",
    "full",
    "key_too_long",
    "loading",
    "lost",
    "manifest",
    "memory",
    "missing",
    "not_a_file",
    "race",
    "read_only",
    "records_lost",
    "refused",
    "refused_by_store",
    "schema",
    "size",
    "slow",
    "source_io",
    "store",
    "throttled",
    "too_large",
    "unreachable",
    "unreadable",
]
"""Of an error, of the `kind` label of the error metric, and of `error_kind` in a stream's record.

Of a service: `unreachable`, `throttled`, `full`, `clock`, `credentials`, `bucket`, `read_only`, `memory`,
`loading`, `schema` (records of another layout or bucket), `records_lost` (it forgot some), `store` (another
or an emptied store), `folder` (records of another folder), `refused` (no Redis for us). In records alone:
`away` (the source is on a volume that is not mounted), `cut_short` (the source was gone, cut or replaced too
soon) and `cancelled` (by an operator).
"""

_HINTS = {
    "away": "mount its volume again; if it is gone for good, cancel the recording: what is stored stays",
    "bad_request": "correct S3_BUCKET, S3_PREFIX or the file's name",
    "bucket": "create the bucket {bucket}, or correct S3_BUCKET, S3_REGION or S3_ENDPOINT_URL",
    "clock": "set this machine's clock, and keep it right: timedatectl set-ntp true",
    "corrupt": "look for what changes data on the way (a proxy, a network card, bad memory), use https in"
    " S3_ENDPOINT_URL, and `retry` what failed",
    "credentials": "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, their rights on the bucket {bucket}, and"
    " S3_REGION",
    "delete_refused": "give these keys the right s3:DeleteObject on the bucket {bucket}",
    "folder": "give each folder a REDIS_NAMESPACE of its own, or correct WATCH_DIR",
    "full": "make room in the store: delete what is no longer needed, or give it more disk or a higher quota",
    "key_too_long": "move it to a folder less deep or shorten S3_PREFIX",
    "loading": "wait until Redis has loaded its data",
    "memory": "raise maxmemory or free some of Redis's memory; a recording takes 1 kB",
    "read_only": "name the primary in REDIS_URL, not a replica",
    "records_lost": "nothing has to be done, every file is compared with S3 again; let Redis evict no keys",
    "refused_by_store": "see the log of the store: it refuses this object",
    "refused": "name a Redis 6.2 or Valkey that we may use in REDIS_URL, and a cluster as"
    " redis+cluster://host,host",
    "schema": "update the daemon or choose another REDIS_NAMESPACE",
    "source_io": "check the disk or share that it lies on",
    "store": "bring the right one back, or correct S3_ENDPOINT_URL, S3_BUCKET and S3_PREFIX. To go on with"
    " this one, set STORE_CHANGED=rebuild: its recordings stay, and every file in the folder is compared with"
    " it",
    "throttled": "lower UPLOAD_WORKERS, raise CHUNK_SIZE, or ask the store's operator for a higher limit of"
    " requests",
    "too_large": "raise CHUNK_SIZE before the next recording",
    "unreachable": "check S3_ENDPOINT_URL, the network, and that the store is running",
    "unreadable": "give the daemon's user read permission on the file and its folders",
    # What Redis says in the same words.
    "redis credentials": "check the user and password in REDIS_URL, and give that user all commands on the"
    " keys of REDIS_NAMESPACE, EVALSHA and SCRIPT among them",
    "redis full": "make room on the disk of Redis",
    "redis unreachable": "check REDIS_URL and the network, and that Redis is running",
    # S3's own words, where they say more than the kind.
    "ExpiredToken": "renew AWS_SESSION_TOKEN and the keys that came with it",
    "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID, which the store does not know, or S3_ENDPOINT_URL",
    "XAdminUserNotFound": "correct AWS_ACCESS_KEY_ID, which the store does not know, or S3_ENDPOINT_URL",
    "SignatureDoesNotMatch": "correct AWS_SECRET_ACCESS_KEY, which does not fit AWS_ACCESS_KEY_ID (or a proxy"
    " changes requests)",
    "may_not_create": "create the bucket {bucket}, give these keys the right s3:CreateBucket, or correct"
    " S3_BUCKET",
    "missing_bucket": "create the bucket {bucket}, or correct S3_BUCKET or S3_ENDPOINT_URL",
    "not_s3": "set S3_ENDPOINT_URL to where the store answers S3, not to its web console or another server",
    "other_region": "set S3_REGION to the region of the bucket {bucket}, or correct S3_ENDPOINT_URL",
    # The system's, when descriptors ran out.
    "EMFILE": "raise its limit of open files (ulimit -n, LimitNOFILE of systemd, ulimits of compose)",
    "ENFILE": "raise fs.file-max of this machine",
}


def hint_of(*words: str, bucket: str = "that S3_BUCKET names") -> str:
    """Return what to do about a failure; "" when nothing is known to help.

    Parameters:
        words: for it, the most exact one first; the first that is known counts.
        bucket: its name, where that is known.
    """
    return next((_HINTS[word].replace("{bucket}", bucket) for word in words if word in _HINTS), "")


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


class UploaderError(Exception):
    """The root of every error that the daemon expects; as a text it says what happened and what to do.

    Parameters:
        message: what happened, for people.
        kind: which of the things that happen; "" where nobody asks.
        hint: what to do about it; None takes what helps against that kind, "" is nothing.
    """

    def __init__(
        self, message: str = "", *, kind: ErrorKind | Literal[""] = "", hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.hint = hint_of(kind) if hint is None else hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ConfigError(UploaderError):
    """The settings or the command line are wrong.

    Parameters:
        problems: one sentence for each problem; it names the setting and says what to do.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class TransientError(UploaderError):
    """This work on this stream failed; the same work may succeed later."""

    kind: ErrorKind

    def __init__(self, message: str, *, kind: ErrorKind, hint: str | None = None) -> None:
        super().__init__(message, kind=kind, hint=hint)


class StoreUnavailable(TransientError):
    """S3 or Redis cannot work for anybody now: down, full, throttled, or refusing us.

    Parameters:
        message: what it said; as a text the error begins with its name.
        service: which of the two.
        kind: see `ErrorKind`.
        hint: as above.
        refused: true when waiting alone cannot help (credentials, bucket): before the service
            was ever reached this ends the process with exit code 3.
        pause_seconds: the least time until the next probe; 0 leaves it to the breaker's backoff.
    """

    def __init__(
        self,
        message: str,
        *,
        service: Service,
        kind: ErrorKind,
        hint: str | None = None,
        refused: bool = False,
        pause_seconds: float = 0.0,
    ) -> None:
        super().__init__(
            message, kind=kind, hint=hint_of(f"{service} {kind}", kind) if hint is None else hint
        )
        self.service = service
        self.refused = refused
        self.pause_seconds = pause_seconds

    def __str__(self) -> str:
        return f"{SERVICE_NAMES[self.service]}: {super().__str__()}"


class PermanentError(UploaderError):
    """This stream cannot be stored as things are; trying again without a change is of no use."""

    kind: ErrorKind

    def __init__(self, message: str, *, kind: ErrorKind, hint: str | None = None) -> None:
        super().__init__(message, kind=kind, hint=hint)


class LeaseLost(UploaderError):
    """The right to work on a stream is gone; what is in memory of it is stale.

    Parameters:
        stream_id: whose lease.
        reason: why.
        holder: who has it when it is busy; "" for another thread of this process.
        ends_in_seconds: when that lease ends unless it is renewed; 0 when unknown.
    """

    def __init__(
        self, stream_id: str, reason: LeaseReason, *, holder: str = "", ends_in_seconds: float = 0.0
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
    said, hint = error.strerror or str(error), files_hint(error)
    return f"{said}; {hint}" if hint else said


def files_hint(error: BaseException | None) -> str | None:
    """Return which limit to raise if running out of descriptors is behind an error; None otherwise."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
            return hint_of(errno.errorcode[error.errno])
        error = error.__cause__ or error.__context__
    return None
