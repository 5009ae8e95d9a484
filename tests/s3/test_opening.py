"""What keeps us out of the bucket is told exactly: on real servers, and with the answers of others."""

import os
from collections.abc import Iterator

import pytest

from errors import StoreUnavailable
from s3.bucket import ObjectStore
from tests.support.fault_server import FaultServer
from tests.support.servers import RcloneS3, S3Server, s3_settings

HTML = {"Content-Type": "text/html; charset=utf-8"}
PAGE = b"<!doctype html><html><head><title>MinIO Console</title><meta charset=utf-8></head></html>"


@pytest.fixture
def server(rclone: RcloneS3) -> Iterator[FaultServer]:
    """In front of a real S3."""
    with FaultServer(rclone.port) as server:
        yield server


def refusal(
    endpoint_url: str,
    bucket: str = "videos",
    *,
    access_key: str = S3Server.access_key,
    secret: str = S3Server.secret_key,
    create: bool = True,
) -> StoreUnavailable | None:
    """Open a bucket; None when that went well."""
    store = ObjectStore(
        s3_settings(endpoint_url, bucket, access_key=access_key, secret_key=secret), connections=1
    )
    try:
        store.prepare(create=create)
    except StoreUnavailable as error:
        return error
    return None


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"secret": "wrong"}, "SignatureDoesNotMatch"),
        ({"secret": "wrong"}, "correct AWS_SECRET_ACCESS_KEY"),
        ({"access_key": "unknown"}, "InvalidAccessKeyId"),
        ({"access_key": "unknown"}, "correct AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_wrong_secret_is_told_from_an_unknown_key(
    keys: dict[str, str], said: str, rclone: RcloneS3, bucket: str
) -> None:
    error = refusal(rclone.endpoint_url, bucket, **keys)  # type: ignore[arg-type] # the keys only
    assert error
    assert said in str(error)
    assert (error.kind, error.refused) == ("credentials", True)


def test_rights_that_are_missing_are_told_in_the_words_of_s3(server: FaultServer) -> None:
    server.fail(403, "AccessDenied")
    error = refusal(server.endpoint_url)
    assert error
    assert "AccessDenied said by the test" in str(error)
    assert error.kind == "credentials"
    assert server.count("PUT") == 0


def test_a_missing_bucket_that_may_not_be_made_is_told_as_missing(server: FaultServer) -> None:
    server.fail(403, "AccessDenied", method="PUT")
    error = refusal(server.endpoint_url, "nowhere")
    assert error
    assert "the bucket nowhere is missing, and making it is refused: AccessDenied" in str(error)
    assert "create the bucket nowhere, give these keys the right s3:CreateBucket" in str(error)
    assert (error.kind, error.refused) == ("bucket", True)


@pytest.mark.parametrize(
    ("status", "body", "kind_of_answer"),
    [
        (200, PAGE, "text/html"),
        (200, b"<html><body>well-formed</body></html>", "text/html"),
        (403, PAGE, "text/html"),
        (404, PAGE, "text/html"),
        (405, PAGE, "text/html"),
        (404, b"404 page not found", "text/plain"),
        (404, b"{}", "application/json"),
        (404, b"", "an answer that is not S3's"),
        (400, b"", "an answer that is not S3's"),
    ],
)
def test_another_server_than_s3_is_told_with_what_it_answers(
    status: int, body: bytes, kind_of_answer: str, server: FaultServer
) -> None:
    named = "/" in kind_of_answer
    server.answer(status, body, headers={"Content-Type": f"{kind_of_answer}; charset=utf-8"} if named else {})
    error = refusal(server.endpoint_url)
    assert error
    assert f"the server at S3_ENDPOINT_URL gives {kind_of_answer}; set S3_ENDPOINT_URL" in str(error)
    assert (error.kind, error.refused) == ("bucket", True)
    assert server.count("PUT") == 0, "a bucket was made, or a file of that name"


@pytest.mark.parametrize("status", [502, 503, 504])
def test_the_page_of_a_proxy_whose_s3_is_down_is_an_outage(status: int, server: FaultServer) -> None:
    server.answer(status, PAGE, headers=HTML)
    error = refusal(server.endpoint_url)
    assert error
    assert (error.kind, error.refused) == ("unreachable", False)
    assert server.count("GET") == 0
    server.heal()
    server.fail(403, method="HEAD")
    server.answer(status, PAGE, headers=HTML)
    assert "web console" not in str(refusal(server.endpoint_url))


def test_a_head_of_any_type_is_enough_when_the_list_is_one(server: FaultServer, bucket: str) -> None:
    server.answer(200, headers=HTML, method="HEAD")
    assert refusal(server.endpoint_url, bucket) is None


def test_a_head_is_refused_as_before_when_the_list_tells_no_more(server: FaultServer, bucket: str) -> None:
    server.fail(403, method="HEAD")
    error = refusal(server.endpoint_url, bucket)
    assert error
    assert (error.kind, error.refused) == ("credentials", True)
    assert "opening the bucket: 403" in str(error)


@pytest.mark.parametrize("first", ["minio", "a bucket that is there"])
def test_a_path_in_the_endpoint_is_told_and_nothing_is_made_beneath_it(
    first: str, rclone: RcloneS3, bucket: str
) -> None:
    path = "minio" if first == "minio" else bucket
    error = refusal(f"{rclone.endpoint_url}/{path}/")
    assert error
    assert f"take the path /{path} out of S3_ENDPOINT_URL" in str(error)
    assert error.refused
    assert os.listdir(rclone.data_dir / bucket) == []
    assert not (rclone.data_dir / "minio").exists()


def test_minio_which_reserves_its_name_is_no_reason_to_blame_the_keys_alone(server: FaultServer) -> None:
    server.fail(403, "AllAccessDisabled")
    assert "take the path /minio out of S3_ENDPOINT_URL" in str(refusal(f"{server.endpoint_url}/minio"))
    assert "path" not in str(refusal(server.endpoint_url))
