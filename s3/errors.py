"""What each failure of S3 means: retryable or not is decided here, once, and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

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

from errors import PermanentError, StoreUnavailable, TransientError, UploaderError, files_hint

_NO_CREDENTIALS = (CredentialRetrievalError, NoCredentialsError, PartialCredentialsError, ProfileNotFound)

_CODES = {
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

_BY_STATUS = {
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

_HINTS = {
    "credentials": (
        "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, their rights on the bucket {bucket}, and S3_REGION"
    ),
    "missing_bucket": "create the bucket {bucket}, or correct S3_BUCKET or S3_ENDPOINT_URL",
    "may_not_create": (
        "create the bucket {bucket}, give these keys the right s3:CreateBucket, or correct S3_BUCKET"
    ),
    "not_s3": "set S3_ENDPOINT_URL to where the store answers S3, not to its web console or another server",
    "other_region": "set S3_REGION to the region of the bucket {bucket}, or correct S3_ENDPOINT_URL",
    "clock": "set this machine's clock",
    "full": "make room in the store",
}
_HINTS_OF_CODES = {
    "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID, which the store does not know, or S3_ENDPOINT_URL",
    "XAdminUserNotFound": "correct AWS_ACCESS_KEY_ID, which the store does not know, or S3_ENDPOINT_URL",
    "SignatureDoesNotMatch": (
        "correct AWS_SECRET_ACCESS_KEY, which does not fit AWS_ACCESS_KEY_ID (or a proxy changes requests)"
    ),
    "ExpiredToken": "renew AWS_SESSION_TOKEN and the keys that came with it",
}
_BUCKETS = ("may_not_create", "missing_bucket", "not_s3", "other_region")
_REFUSALS = ("credentials", *_BUCKETS)

_PAUSE_SECONDS = {
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
        said = f"{doing}: {error}{f' ({timeout})' if timeout else ''}{files_hint(error)}"
        raise _unavailable(said, "unreachable", bucket) from error


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
        raise _unavailable(str(error), "missing_bucket", bucket, path=path) from error
    except TransientError as error:
        raise _unavailable(str(error), "unreachable", bucket) from error


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
    if kind in (None, "refused_by_store"):
        return PermanentError(said, kind="refused_by_store")
    if kind in ("conflict", "corrupt"):
        return TransientError(said, kind=kind)
    return _unavailable(said, kind, bucket, code=code, path=path)


def _unavailable(said: str, kind: str, bucket: str, *, code: str = "", path: str = "") -> StoreUnavailable:
    refused, hint = kind in _REFUSALS, _HINTS_OF_CODES.get(code) or _HINTS.get(kind)
    if refused and path:
        hint = f"take the path {path} out of S3_ENDPOINT_URL unless the store's manual has it, or {hint}"
    return StoreUnavailable(
        f"S3{' refuses us' if refused else ''}: {said}" + (f"; {hint.format(bucket=bucket)}" if hint else ""),
        service="s3",
        kind="bucket" if kind in _BUCKETS else kind,
        refused=refused,
        pause_seconds=_PAUSE_SECONDS.get(kind, 0.0),
    )


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
