"""What each failure of S3 means: retryable or not is decided here, once, and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from errors import PermanentError, StoreUnavailable, TransientError, UploaderError

_CREDENTIAL_CODES = frozenset(
    {
        "403",
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_THROTTLE_CODES = frozenset(
    {"SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "429", "503 Slow Down", "509"}
)
_CLOCK_CODES = frozenset({"RequestTimeTooSkewed"})
_FULL_CODES = frozenset(
    {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "507"}
)
_CORRUPT_CODES = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "OperationAborted",
        "XAmzContentSHA256Mismatch",
    }
)
_NEVER_CODES = frozenset(
    {
        "EntityTooLarge",
        "InvalidArgument",
        "InvalidObjectName",
        "KeyTooLongError",
        "NotImplemented",
        "XMinioInvalidObjectName",
    }
)

FULL_PAUSE_SECONDS = 60.0
CLOCK_PAUSE_SECONDS = 60.0
CREDENTIALS_PAUSE_SECONDS = 30.0
THROTTLE_PAUSE_SECONDS = 2.0


@contextmanager
def translated(doing: str, bucket: str) -> Iterator[None]:
    """Turn botocore's exceptions into ours: retryable or not is decided here and nowhere else."""
    try:
        yield
    except ClientError as error:
        raise _of_reply(error, doing, bucket) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise _refused(str(error), "credentials", bucket) from error
    except ParamValidationError as error:
        raise PermanentError(f"{doing}: {error}", kind="bad_request") from error
    except (BotoCoreError, OSError) as error:
        raise _unavailable(f"{doing}: {error}", "unreachable") from error


def _of_reply(error: ClientError, doing: str, bucket: str) -> UploaderError:  # noqa: PLR0911 - a table
    code, status = code_of(error), status_of(error)
    said = f"{doing}: {code} {error.response.get('Error', {}).get('Message', '')}".rstrip()
    if code in _CORRUPT_CODES or status == HTTPStatus.CONFLICT:
        return TransientError(said, kind="corrupt" if code in _CORRUPT_CODES else "conflict")
    if code in _CLOCK_CODES:
        advice = "set this machine's clock"
        return _unavailable(f"{said}; {advice}", "clock", CLOCK_PAUSE_SECONDS)
    if code in _FULL_CODES or status == HTTPStatus.INSUFFICIENT_STORAGE:
        return _unavailable(f"{said}; make room in the store", "full", FULL_PAUSE_SECONDS)
    if code in _THROTTLE_CODES or status in (429, 509):
        return _unavailable(said, "throttled", THROTTLE_PAUSE_SECONDS)
    if code in _CREDENTIAL_CODES or status in (401, 403):
        return _refused(said, "credentials", bucket)
    if code == "NoSuchBucket" or (status == HTTPStatus.NOT_FOUND and doing.startswith("opening")):
        return _refused(said, "bucket", bucket)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and code not in _NEVER_CODES:
        return _unavailable(said, "unreachable")
    if code == "RequestTimeout":
        return _unavailable(said, "unreachable")
    return PermanentError(said, kind="refused_by_store")


def _refused(said: str, kind: str, bucket: str) -> StoreUnavailable:
    advice = {
        "credentials": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and their rights on the bucket",
        "bucket": f"create the bucket {bucket} or name another in S3_BUCKET",
    }[kind]
    return StoreUnavailable(
        f"S3 refuses us ({said}): {advice}",
        service="s3",
        kind=kind,
        refused=True,
        pause_seconds=CREDENTIALS_PAUSE_SECONDS,
    )


def _unavailable(said: str, kind: str, pause_seconds: float = 0.0) -> StoreUnavailable:
    return StoreUnavailable(f"S3: {said}", service="s3", kind=kind, pause_seconds=pause_seconds)


def code_of(error: ClientError) -> str:
    """Give S3's word for the failure, such as `NoSuchKey`; the status as text for a HEAD."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """Give the HTTP status; 0 when there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
