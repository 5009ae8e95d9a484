"""What the answers of a store say of the bytes, where it was seen to check SHA-256."""

import base64
import hashlib
import logging

import pytest

from errors import StoreUnavailable, TransientError
from s3.bucket import ObjectStore
from tests.support.fault_server import FaultServer
from tests.support.object_store import store_at
from tests.support.servers import free_port

BODY = b"some bytes"
RIGHT = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
WRONG = base64.b64encode(hashlib.sha256(b"other bytes").digest()).decode()
MD5 = hashlib.md5(BODY).hexdigest()
CHECKSUM = "x-amz-checksum-sha256"
FOUND = {
    "Last-Modified": "Mon, 31 Aug 2026 12:00:00 GMT",
    "Content-Length": str(len(BODY)),
    "ETag": '"opaque"',
}


def proven_at(port: int) -> ObjectStore:
    """Return a store that was seen to check SHA-256."""
    store = store_at(port, "videos")
    store.confirmation.algorithm = "sha256"
    return store


def test_a_put_sends_the_sha256_that_is_known_and_no_md5() -> None:
    with FaultServer() as server:
        server.answer(200, headers={"ETag": '"opaque"', CHECKSUM: RIGHT}, method="PUT")
        proven_at(server.port).put("a", BODY, sha256=hashlib.sha256(BODY).hexdigest())
        (put,) = server.requests
    assert put.headers[CHECKSUM] == RIGHT
    assert "content-md5" not in put.headers
    assert CHECKSUM in put.headers["authorization"], "the signature covers it"


def test_an_answer_with_another_sha256_confirms_nothing() -> None:
    with FaultServer() as server:
        server.answer(200, headers={"ETag": f'"{MD5}"', CHECKSUM: WRONG}, method="PUT")
        store = proven_at(server.port)
        with pytest.raises(TransientError) as error:
            store.put("a", BODY)
    assert error.value.kind == "corrupt"
    assert store.confirmation.algorithm == "sha256"


def test_an_answer_without_sha256_is_judged_by_its_md5() -> None:
    with FaultServer() as server:  # it answers with an ETag that is one
        store = proven_at(server.port)
        assert store.put("a", BODY).etag == MD5
    assert store.confirmation.algorithm == "sha256"


def test_a_store_that_confirms_sha256_no_longer_is_asked_for_md5_from_then_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with FaultServer() as server:
        server.answer(200, headers={"ETag": '"opaque"'}, method="PUT")
        store = proven_at(server.port)
        with caplog.at_level(logging.WARNING), pytest.raises(TransientError) as error:
            store.put("a", BODY)
        assert store.put("a", BODY).etag == "opaque"
        first, second = server.requests
    assert error.value.kind == "corrupt"
    assert "content-md5" not in first.headers
    assert "content-md5" in second.headers
    assert "no longer confirms SHA-256" in caplog.text
    assert (store.for_viewers().confirmation.name, store.for_probes().confirmation.name) == ("MD5", "MD5")


@pytest.mark.parametrize(
    ("checksum", "held", "verdict"),
    [
        (RIGHT, b"not looked at", "found"),
        (WRONG, BODY, "other"),
        (f"{WRONG}-2", BODY, "found"),  # made of those of parts: the object is read
        (f"{WRONG}-2", b"more bytes", "other"),
        ("", BODY, "found"),
    ],
)
def test_an_object_is_found_by_its_sha256_else_by_its_bytes(checksum: str, held: bytes, verdict: str) -> None:
    with FaultServer() as server:
        headers = FOUND | ({CHECKSUM: checksum} if checksum else {})
        server.answer(200, headers=headers, method="HEAD")
        server.answer(200, held, headers=FOUND, method="GET")
        assert ("found" if proven_at(server.port).find("a", BODY) else "other") == verdict
        assert server.requests[0].headers["x-amz-checksum-mode"] == "ENABLED"


def test_an_object_that_was_read_is_compared_with_its_sha256() -> None:
    with FaultServer() as server:
        server.answer(200, BODY, headers=FOUND | {CHECKSUM: RIGHT}, method="GET", times=1)
        server.answer(200, BODY, headers=FOUND | {CHECKSUM: WRONG}, method="GET")
        store = proven_at(server.port)
        assert store.get("a", at_most=100) == BODY
        with pytest.raises(TransientError) as error:
            store.get("a", at_most=100)
    assert error.value.kind == "corrupt"


# ---------------------------------------------------------------------- the trial


@pytest.mark.parametrize(
    "code", ["BadDigest", "XAmzContentChecksumMismatch", "InvalidDigest", "InvalidRequest"]
)
def test_a_refusal_in_any_words_counts(code: str) -> None:
    with FaultServer() as server:
        trial = base64.b64encode(hashlib.sha256(b"a right checksum is taken").digest()).decode()
        server.fail(400, code, method="PUT", times=1)
        server.answer(200, headers={"ETag": '"x"', CHECKSUM: trial}, method="PUT")
        assert store_at(server.port, "videos").checks_sha256("trial")


def test_a_store_that_refuses_a_right_checksum_too_checks_none() -> None:
    with FaultServer() as server:
        server.fail(501, "NotImplemented", method="PUT")
        assert not store_at(server.port, "videos").checks_sha256("trial")


def test_a_store_that_takes_a_right_checksum_and_does_not_give_it_back_checks_none() -> None:
    with FaultServer() as server:
        server.fail(400, "BadDigest", method="PUT", times=1)
        assert not store_at(server.port, "videos").checks_sha256("trial")


def test_a_store_that_takes_a_wrong_checksum_is_not_believed_the_right_one() -> None:
    with FaultServer() as server:
        trial = base64.b64encode(hashlib.sha256(b"a right checksum is taken").digest()).decode()
        server.answer(200, headers={"ETag": '"x"', CHECKSUM: trial}, method="PUT")
        assert not store_at(server.port, "videos").checks_sha256("trial")


@pytest.mark.parametrize("answer", [(503, "SlowDown"), (403, "AccessDenied"), (500, "InternalError")])
def test_a_failure_is_no_refusal_of_the_checksum(
    answer: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    with FaultServer() as server:
        server.fail(*answer, method="PUT")
        with pytest.raises(StoreUnavailable):
            store_at(server.port, "videos").checks_sha256("trial")
    with pytest.raises(StoreUnavailable):
        store_at(free_port(), "videos").checks_sha256("trial")
