"""Opening the bucket: it is there and lets us in, or it is made; what keeps us out is told exactly."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from s3.errors import code_of, may_not_create, not_s3, of_reply, opening, status_of

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_DOING = "opening the bucket"


def ensure_bucket(client: "S3Client", bucket: str, *, own_server: bool, create: bool) -> None:
    """Make sure that a bucket is there and lets us in.

    Parameters:
        client: of the server.
        bucket: its name.
        own_server: whether it is another server than Amazon's, which has no regions.
        create: make the bucket when it is missing.

    Raises:
        UploaderError: for every answer that is no success.
        BotoCoreError: and others of botocore's when there is no answer; the caller translates them.
    """
    path = urlsplit(client.meta.endpoint_url).path.rstrip("/")
    try:
        reply: Any = client.head_bucket(Bucket=bucket)
        if "html" in _content_type(reply):  # of a web console, which has a page for every address
            _ask_in_words(client, bucket, path)
    except ClientError as head:
        error = head
        if status_of(head) < HTTPStatus.INTERNAL_SERVER_ERROR:
            error = _ask_in_words(client, bucket, path) or head
        # Beneath a path it would be made as an object of the bucket that the path begins with.
        if status_of(error) != HTTPStatus.NOT_FOUND or path or not create:
            with opening(bucket, path):
                raise of_reply(error, _DOING, bucket, path) from head
        _create(client, bucket, own_server=own_server)


def _ask_in_words(client: "S3Client", bucket: str, path: str) -> ClientError | None:
    """Return the refusal of a list, which has S3's word for it: a HEAD has none for a wrong secret.

    Returns:
        None when the list is allowed.

    Raises:
        StoreUnavailable: the answer is none that an S3 server gives.
    """
    reply: Any = {}
    try:
        reply = client.list_objects_v2(Bucket=bucket, MaxKeys=1)
        if "IsTruncated" in reply:
            return None
    except ClientError as error:
        if not _is_foreign(error):
            return error
        reply = error.response
    except ResponseParserError:
        pass
    kind_of_answer = _content_type(reply) or "an answer that is not S3's"
    raise not_s3(f"{_DOING}: the server at S3_ENDPOINT_URL gives {kind_of_answer}", bucket, path)


def _is_foreign(error: ClientError) -> bool:
    """Return whether a failure is not in S3's words; the page of a proxy for an outage is no sign of that."""
    status = status_of(error)
    if code_of(error) not in ("", str(status)) or status > HTTPStatus.INTERNAL_SERVER_ERROR:
        return False
    page = _content_type(error.response)
    if page and "xml" not in page:
        return True
    return status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


def _content_type(reply: Any) -> str:
    headers = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(headers.get("content-type", "")).partition(";")[0].lower()[:100]


def _create(client: "S3Client", bucket: str, *, own_server: bool) -> None:
    region: Any = client.meta.region_name
    try:
        if not own_server and region not in (None, "us-east-1", "aws-global"):
            client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
        else:
            client.create_bucket(Bucket=bucket)
    except ClientError as error:
        if code_of(error) in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            return
        if code_of(error) in ("AccessDenied", "AllAccessDisabled", "403"):
            raise may_not_create(error, bucket) from error
        raise of_reply(error, _DOING, bucket) from error
