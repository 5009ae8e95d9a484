"""What each failure of S3 becomes: a server that answers so, and how often botocore asked it."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from errors import PermanentError, StoreUnavailable, TransientError, UploaderError
from s3.bucket import ObjectStore
from tests.support.fault_server import FaultServer
from tests.support.servers import s3_settings


@pytest.fixture(autouse=True)
def botocore_does_not_wait_between_its_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)


@pytest.fixture(scope="module")
def one_server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture
def server(one_server: FaultServer) -> FaultServer:
    one_server.heal()
    one_server.requests.clear()
    return one_server


@pytest.fixture(scope="module")
def store(one_server: FaultServer) -> ObjectStore:
    """One for all tests, connected: making a client takes 0.1 s."""
    store = store_at(one_server.endpoint_url)
    store.prepare(create=False)
    store.put("a", b"")
    return store


def store_at(endpoint_url: str | None) -> ObjectStore:
    return ObjectStore(s3_settings(endpoint_url), connections=2)


def failure(work: Callable[[], object]) -> UploaderError:
    with pytest.raises(UploaderError) as failed:
        work()
    return failed.value


class Row(NamedTuple):
    """Of the table in reliability.md: an answer, what it becomes, and how many attempts botocore makes."""

    status: int
    code: str
    becomes: type[UploaderError]
    kind: str
    attempts: int
    pause: float = 0.0
    refused: bool = False


OUTAGES = [
    Row(status, code, StoreUnavailable, "unreachable", attempts)
    for status, code, attempts in [
        (500, "InternalError", 2),
        (500, "", 2),
        (502, "", 2),
        (503, "ServiceUnavailable", 2),
        (503, "XMinioServerNotInitialized", 2),
        (504, "", 2),
        (400, "RequestTimeout", 2),
        (408, "RequestTimeout", 2),
        (408, "", 1),
        (307, "TemporaryRedirect", 1),
        (599, "", 1),
    ]
]
THROTTLES = [
    Row(status, code, StoreUnavailable, "throttled", attempts, 2)
    for status, code, attempts in [
        (503, "SlowDown", 2),
        (503, "SlowDownWrite", 2),
        (429, "TooManyRequests", 2),
        (429, "", 2),
        (509, "BandwidthLimitExceeded", 2),
        (509, "", 1),
    ]
]
OF_ONE_REQUEST = [
    Row(status, code, TransientError, kind, 1)
    for status, code, kind in [
        (400, "BadDigest", "corrupt"),
        (400, "InvalidDigest", "corrupt"),
        (400, "IncompleteBody", "corrupt"),
        (400, "XAmzContentSHA256Mismatch", "corrupt"),
        (400, "XAmzContentChecksumMismatch", "corrupt"),
        (409, "OperationAborted", "conflict"),
        (409, "ConditionalRequestConflict", "conflict"),
        (409, "XMinioObjectExistsAsDirectory", "conflict"),
        (409, "", "conflict"),
    ]
]
CREDENTIALS = [
    Row(status, code, StoreUnavailable, "credentials", 1, 30, refused=True)
    for status, code in [
        (400, "ExpiredToken"),
        (400, "InvalidToken"),
        (403, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch"),
        (403, "AccessDenied"),
        (403, ""),
        (401, ""),
        (400, ""),
    ]
]
BUCKETS = [
    Row(status, code, StoreUnavailable, "bucket", 1, 30, refused=True)
    for status, code in [
        (404, "NoSuchBucket"),
        (400, "InvalidBucketName"),
        (404, ""),
        (405, ""),
        (301, "PermanentRedirect"),
        (301, ""),
        (302, ""),
        (308, ""),
        (400, "AuthorizationHeaderMalformed"),
        (400, "IllegalLocationConstraintException"),
    ]
]
FULL = [
    Row(status, code, StoreUnavailable, "full", 1, 60)
    for status, code in [
        (507, "InsufficientStorage"),
        (507, ""),
        (507, "XMinioStorageFull"),
        (403, "QuotaExceeded"),
        (400, "XMinioAdminBucketQuotaExceeded"),
    ]
]
CLOCK = [Row(403, "RequestTimeTooSkewed", StoreUnavailable, "clock", 1, 60)]
OURS = [
    Row(status, code, PermanentError, "refused_by_store", 1)
    for status, code in [
        (400, "EntityTooLarge"),
        (400, "KeyTooLongError"),
        (400, "InvalidArgument"),
        (412, "PreconditionFailed"),
        (405, "MethodNotAllowed"),
        (501, "NotImplemented"),
        (501, ""),
        (400, "SomethingNobodyKnows"),
    ]
]
TABLE = [*OUTAGES, *THROTTLES, *OF_ONE_REQUEST, *CREDENTIALS, *BUCKETS, *FULL, *CLOCK, *OURS]


def check(error: UploaderError, row: Row) -> None:
    assert type(error) is row.becomes
    assert isinstance(error, TransientError | PermanentError)
    assert error.kind == row.kind
    if isinstance(error, StoreUnavailable):
        assert (error.service, error.refused, error.pause_seconds) == ("s3", row.refused, row.pause)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.status} {row.code}")
def test_an_answer_to_a_put_becomes(row: Row, server: FaultServer, store: ObjectStore) -> None:
    server.fail(row.status, row.code)
    error = failure(lambda: store.put("a/b.part", b"chunk"))
    check(error, row)
    assert f"putting a/b.part: {row.code or row.status}" in str(error)
    assert server.count() == row.attempts


WITHOUT_A_BODY = [row for row in TABLE if not row.code]


@pytest.mark.parametrize("row", WITHOUT_A_BODY, ids=lambda row: f"{row.status}")
def test_an_answer_to_a_head_which_has_no_body_becomes(
    row: Row, server: FaultServer, store: ObjectStore
) -> None:
    server.fail(row.status)
    if row.status == 404:
        assert store.find("a/b.part", b"chunk") is None
    else:
        check(failure(lambda: store.find("a/b.part", b"chunk")), row)
    assert server.count() == row.attempts


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.status} {row.code}")
def test_opening_the_bucket_tells_only_of_the_store(
    row: Row, server: FaultServer, store: ObjectStore
) -> None:
    server.fail(404, method="HEAD")
    server.fail(row.status, row.code, method="PUT")
    error = failure(lambda: store.prepare(create=True))
    assert isinstance(error, StoreUnavailable)
    assert error.refused is (row.refused or row.becomes is PermanentError)


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (301, "PermanentRedirect", "set S3_REGION to the region of the bucket videos"),
        (400, "AuthorizationHeaderMalformed", "set S3_REGION to the region of the bucket videos"),
        (404, "NoSuchBucket", "create the bucket videos, or correct S3_BUCKET or S3_ENDPOINT_URL"),
        (404, "", "create the bucket videos, or correct S3_BUCKET or S3_ENDPOINT_URL"),
        (
            403,
            "AccessDenied",
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, their rights on the bucket videos",
        ),
        (403, "RequestTimeTooSkewed", "set this machine's clock"),
        (507, "XMinioStorageFull", "make room in the store"),
    ],
)
def test_the_message_says_what_to_do(
    status: int, code: str, hint: str, server: FaultServer, store: ObjectStore
) -> None:
    server.fail(status, code)
    assert hint in str(failure(lambda: store.put("a", b"")))


def test_what_s3_says_reaches_the_message(server: FaultServer, store: ObjectStore) -> None:
    server.fail(400, "InvalidArgument")
    assert failure(lambda: store.put("a", b"")).message == "putting a: InvalidArgument said by the test"


@pytest.mark.parametrize("work", ["get", "list", "delete"])
def test_every_request_is_translated(work: str, server: FaultServer, store: ObjectStore) -> None:
    requests: dict[str, Callable[[], object]] = {
        "get": lambda: store.get("a", at_most=1),
        "list": lambda: list(store.objects("a")),
        "delete": lambda: store.delete(["a"]),
    }
    server.fail(503, "SlowDown")
    assert isinstance(failure(requests[work]), StoreUnavailable)


def test_a_deletion_that_is_denied_concerns_that_object_only(server: FaultServer, store: ObjectStore) -> None:
    server.fail(403, "AccessDenied", method="DELETE")
    error = failure(lambda: store.delete(["a"]))
    assert isinstance(error, PermanentError)
    assert error.kind == "delete_refused"


def test_a_missing_object_is_no_failure_and_a_missing_bucket_is(
    server: FaultServer, store: ObjectStore
) -> None:
    server.fail(404, "NoSuchKey", times=1)
    assert store.get("a", at_most=1) is None
    server.fail(404, "NoSuchBucket", times=1)
    assert isinstance(failure(lambda: store.get("a", at_most=1)), StoreUnavailable)


@pytest.mark.parametrize("body", [b"<html><body>hello</body></html>", b"not XML", b"{}"])
def test_the_page_of_a_web_server_confirms_nothing(
    body: bytes, server: FaultServer, store: ObjectStore
) -> None:
    server.answer(200, body)
    requests: list[Callable[[], object]] = [
        lambda: store.put("a", b"chunk"),
        lambda: store.find("a", b"chunk"),
        lambda: store.get("a", at_most=1000),
        lambda: store.folders("a/"),
    ]
    for request in requests:
        assert isinstance(failure(request), StoreUnavailable)


@pytest.mark.parametrize("answer", [503, 200])
def test_a_put_that_is_not_confirmed_is_no_sign_that_the_store_takes_any(
    answer: int, server: FaultServer, store: ObjectStore
) -> None:
    server.answer(answer, method="PUT")
    assert isinstance(failure(lambda: store.put("a", b"chunk")), StoreUnavailable)
    assert not store.takes_puts
    server.heal()
    server.answer(200, headers={"ETag": '"opaque"'}, method="PUT")
    store.put("a", b"chunk")
    assert store.takes_puts


@pytest.mark.parametrize("token", ["", "<NextContinuationToken>same</NextContinuationToken>"])
def test_a_list_that_does_not_go_on_is_no_endless_one(
    token: str, server: FaultServer, store: ObjectStore
) -> None:
    page = f"<ListBucketResult><IsTruncated>true</IsTruncated>{token}</ListBucketResult>"
    server.answer(200, page.encode())
    assert "a list that does not go on" in str(failure(lambda: list(store.objects("a"))))
    assert server.count() <= 2


def test_an_answer_that_comes_before_the_body_was_sent_blames_no_stream() -> None:
    with FaultServer() as server:
        store = store_at(server.endpoint_url)
        server.answer(403, b"<Error><Code>AccessDenied</Code></Error>", method="PUT", unread=True)
        assert isinstance(failure(lambda: store.put("a", bytearray(10 * 1024 * 1024))), StoreUnavailable)
        server.fail(403)
        error = failure(lambda: store.prepare(create=False))
        assert isinstance(error, StoreUnavailable)
        assert error.kind == "credentials"


def test_missing_credentials_are_a_refusal(server: FaultServer) -> None:
    store = store_at(server.endpoint_url)
    store._clients._credentials = lambda: None
    error = failure(lambda: store.prepare(create=True))
    assert isinstance(error, StoreUnavailable)
    assert (error.kind, error.refused, server.count()) == ("credentials", True, 0)


def test_a_profile_that_is_not_there_is_a_refusal(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    store = store_at(server.endpoint_url)
    error = failure(lambda: store.prepare(create=True))
    assert isinstance(error, StoreUnavailable)
    assert (error.kind, error.refused) == ("credentials", True)


def test_a_bucket_name_that_cannot_be_one_is_a_refusal(server: FaultServer) -> None:
    store = store_at(server.endpoint_url)
    store.bucket = "no/bucket name"
    error = failure(lambda: store.prepare(create=True))
    assert isinstance(error, StoreUnavailable)
    assert (error.kind, error.refused, server.count()) == ("bucket", True, 0)
