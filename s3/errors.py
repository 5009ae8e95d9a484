"""Maps botocore's errors to ours. Whether a failure is retryable is decided only here."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Literal

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from urllib3.exceptions import HTTPError

from errors import (
    ErrorKind,
    PermanentError,
    StoreUnavailable,
    TransientError,
    UploaderError,
    files_hint,
    hint_of,
)

_NO_CREDENTIALS = (CredentialRetrievalError, NoCredentialsError, PartialCredentialsError, ProfileNotFound)

_Failure = ErrorKind | Literal["may_not_create", "missing_bucket", "not_s3", "other_region"]

_CODES: dict[_Failure, tuple[str, ...]] = {
    "clock": ("RequestTimeTooSkewed",),
    "conflict": ("ConditionalRequestConflict", "OperationAborted"),
    "corrupt": (
        "BadDigest",
        "IncompleteBody",
        "InvalidDigest",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    ),
    "credentials": (
        "400",  # without S3's word, as the answer to a HEAD is: Amazon S3 says so of an expired token
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "XAdminUserNotFound",  # versitygw's InvalidAccessKeyId, with status 404
    ),
    "full": ("InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"),
    "missing_bucket": ("InvalidBucketName", "NoSuchBucket"),
    "other_region": (
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
    ),
    "throttled": ("SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests"),
    "unreachable": ("RequestTimeout",),
}
_BY_CODE = {code: kind for kind, codes in _CODES.items() for code in codes}

_BY_STATUS: dict[int, _Failure] = {
    301: "other_region",
    302: "other_region",
    307: "unreachable",  # a bucket so new that its name leads elsewhere for a while
    308: "other_region",
    401: "credentials",
    403: "credentials",
    408: "unreachable",
    409: "conflict",
    429: "throttled",
    501: "refused_by_store",
    507: "full",
    509: "throttled",
}

_REFUSALS = ("credentials", "may_not_create", "missing_bucket", "not_s3", "other_region")

_PAUSE_SECONDS: dict[_Failure, float] = {
    "clock": 60.0,
    "credentials": 30.0,
    "full": 60.0,
    "may_not_create": 30.0,
    "missing_bucket": 30.0,
    "not_s3": 30.0,
    "other_region": 30.0,
    "throttled": 2.0,
}


@contextmanager
def translated(doing: str, bucket: str) -> Iterator[None]:
    """Turn botocore's exceptions into ours.

    Parameters:
        doing: what was asked for, for people.
        bucket: its name, for people.
    """
    try:
        yield
    except ClientError as error:
        raise of_reply(error, doing, bucket) from error
    except _NO_CREDENTIALS as error:
        raise _unavailable(str(error), "credentials", bucket) from error
    except ParamValidationError as error:
        raise PermanentError(f"{doing}: {error}", kind="bad_request") from error
    except ValueError as error:  # botocore passes on what is no number or no time in an answer
        raise not_s3(f"{doing}: {error}", bucket) from error
    except (BotoCoreError, HTTPError, OSError) as error:  # botocore wraps not all of urllib3's in a body
        timeout = timeout_behind(error)
        said = f"{doing}: {error}{f' ({timeout})' if timeout else ''}"
        raise StoreUnavailable(said, service="s3", kind="unreachable", hint=files_hint(error)) from error


@contextmanager
def opening(bucket: str, path: str = "") -> Iterator[None]:
    """While the bucket is opened no stream is to blame: what fails is the store or the settings.

    Parameters:
        bucket: its name, for people.
        path: that of S3_ENDPOINT_URL, when it may be what is wrong.
    """
    try:
        yield
    except StoreUnavailable:
        raise
    except PermanentError as error:
        raise _unavailable(error.message, "missing_bucket", bucket, path=path) from error
    except TransientError as error:
        raise _unavailable(error.message, "unreachable", bucket) from error


def not_s3(said: str, bucket: str, path: str = "") -> StoreUnavailable:
    """Return the error for an answer that no S3 server gives; see `of_reply` for the path."""
    return _unavailable(said, "not_s3", bucket, path=path)


def may_not_create(error: ClientError, bucket: str) -> StoreUnavailable:
    """Return the error for a bucket that is missing and that the store does not let us make."""
    said = f"the bucket {bucket} is missing, and making it is refused: {_words_of(error)}"
    return _unavailable(said, "may_not_create", bucket)


def timeout_behind(error: BaseException | None) -> TimeoutError | None:
    """Return the timeout of the socket behind an error of a library; None when it was something else."""
    while error is not None and not isinstance(error, TimeoutError):
        error = error.__cause__ or error.__context__
    return error


def of_reply(error: ClientError, doing: str, bucket: str, path: str = "") -> UploaderError:
    """Return our error for an answer of S3.

    Parameters:
        error: botocore's.
        doing: what was asked for, for people.
        bucket: its name, for people.
        path: that of S3_ENDPOINT_URL, when it may be what is wrong.
    """
    code, status = code_of(error), status_of(error)
    said = f"{doing}: {_words_of(error)}"
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if kind is None and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        kind = "unreachable"
    if kind is None and code == str(status):
        kind = "missing_bucket"  # not in S3's words: another server, or a HEAD of the bucket
    if kind is None or kind == "refused_by_store":
        return PermanentError(said, kind="refused_by_store")
    if kind == "conflict" or kind == "corrupt":  # noqa: PLR1714 - mypy knows these words only so
        return TransientError(said, kind=kind)
    return _unavailable(said, kind, bucket, code=code, path=path)


def _unavailable(
    said: str, failure: _Failure, bucket: str, *, code: str = "", path: str = ""
) -> StoreUnavailable:
    hint = hint_of(code, failure, bucket=bucket)
    if path and failure in _REFUSALS:
        hint = f"take the path {path} out of S3_ENDPOINT_URL unless the store's manual has it, or {hint}"
    return StoreUnavailable(
        said,
        service="s3",
        kind=_kind_of(failure),
        hint=hint,
        refused=failure in _REFUSALS,
        pause_seconds=_PAUSE_SECONDS.get(failure, 0.0),
    )


def _kind_of(failure: _Failure) -> ErrorKind:
    match failure:
        case "may_not_create" | "missing_bucket" | "not_s3" | "other_region":
            return "bucket"
        case _:
            return failure


def _words_of(error: ClientError) -> str:
    return f"{code_of(error)} {error.response.get('Error', {}).get('Message', '')}".rstrip()


def code_of(error: ClientError) -> str:
    """Return S3's word for the failure, such as `NoSuchKey`; the status as text for a HEAD."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_no_object(error: ClientError) -> bool:
    """Return whether an answer says that there is no such object, and blames neither bucket nor keys."""
    return status_of(error) == HTTPStatus.NOT_FOUND and code_of(error) not in _BY_CODE


def status_of(error: ClientError) -> int:
    """Return the HTTP status; 0 when there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
