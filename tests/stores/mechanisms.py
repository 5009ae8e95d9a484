"""What a store can do beyond the contract: each mechanism is tried, and the answer is a word of the table."""

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.fault_proxy import FaultProxy
from tests.support.servers import S3Server

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

PART = 5 * 1024 * 1024
"""The smallest part that S3 lets be followed by another."""

REFUSED, ACCEPTED = "refused", "**accepted**"
YES, NO = "yes", "no"
HONOURED, IGNORED = "honoured", "**ignored**"
UNSUPPORTED = "not supported"

_REFUSALS = (*range(400, 500), 501)


class Bucket(NamedTuple):
    """A new, empty bucket of a server."""

    server: S3Server
    client: "S3Client"
    name: str

    def put(self, key: str, body: bytes, **more: Any) -> dict[str, Any]:
        """Put an object with boto3 as it is, and return the answer."""
        return dict(self.client.put_object(Bucket=self.name, Key=key, Body=body, **more))

    def body(self, key: str, **more: Any) -> bytes:
        """Read an object."""
        return self.client.get_object(Bucket=self.name, Key=key, **more)["Body"].read()

    def refuses(self, work: Callable[[], object]) -> bool:
        """Return whether the server answers with an error that is the request's fault."""
        try:
            work()
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] not in _REFUSALS:
                raise
            return True
        return False


Measure = Callable[[Bucket], str]
MECHANISMS: dict[str, Measure] = {}
"""By the title in the table of docs/stores.md, in its order."""


def mechanism(title: str) -> Callable[[Measure], Measure]:
    """Register how a mechanism is tried."""

    def register(measure: Measure) -> Measure:
        MECHANISMS[title] = measure
        return measure

    return register


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def md5(body: bytes) -> str:
    return _base64(hashlib.md5(body, usedforsecurity=False).digest())


def sha256(body: bytes) -> str:
    return _base64(hashlib.sha256(body).digest())


def crc64nvme(body: bytes) -> str:
    return {b"some bytes": "71zg0HRv9O4=", b"other bytes": "/NZaiMPg8eU="}[body]  # computed with awscrt


def _wrong(bucket: Bucket, parameter: str, checksum: Callable[[bytes], str]) -> str:
    """Send a checksum of other bytes; what was refused must not be there either."""
    refused = bucket.refuses(
        lambda: bucket.put("wrong", b"some bytes", **{parameter: checksum(b"other bytes")})
    )
    bucket.put("right", b"some bytes", **{parameter: checksum(b"some bytes")})
    if refused:
        assert bucket.refuses(lambda: bucket.body("wrong"))
    return REFUSED if refused else ACCEPTED


def _echoed(bucket: Bucket, parameter: str, checksum: Callable[[bytes], str]) -> str:
    """Return which answers have the right checksum in them."""
    right = checksum(b"some bytes")
    answers = {"PUT": bucket.put("echo", b"some bytes", **{parameter: right})}
    answers["HEAD"] = dict(bucket.client.head_object(Bucket=bucket.name, Key="echo", ChecksumMode="ENABLED"))
    return ", ".join(name for name, answer in answers.items() if answer.get(parameter) == right) or NO


@mechanism("wrong `Content-MD5`")
def wrong_md5(bucket: Bucket) -> str:
    return _wrong(bucket, "ContentMD5", md5)


@mechanism("wrong `x-amz-checksum-sha256`")
def wrong_sha256(bucket: Bucket) -> str:
    return _wrong(bucket, "ChecksumSHA256", sha256)


@mechanism("wrong `x-amz-checksum-crc64nvme`")
def wrong_crc64nvme(bucket: Bucket) -> str:
    return _wrong(bucket, "ChecksumCRC64NVME", crc64nvme)


@mechanism("right SHA-256 in the answer to")
def sha256_echoed(bucket: Bucket) -> str:
    return _echoed(bucket, "ChecksumSHA256", sha256)


@mechanism("right CRC64NVME in the answer to")
def crc64nvme_echoed(bucket: Bucket) -> str:
    return _echoed(bucket, "ChecksumCRC64NVME", crc64nvme)


@mechanism("body that does not fit its signature")
def payload_hash(bucket: Bucket) -> str:
    """Have one bit of a signed body changed on its way."""
    body = bytes(100_000)
    signing = Config(
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path", "payload_signing_enabled": True},
        request_checksum_calculation="when_required",
    )
    with FaultProxy(bucket.server.port) as proxy:
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{proxy.port}",
            region_name="us-east-1",
            aws_access_key_id=bucket.server.access_key,
            aws_secret_access_key=bucket.server.secret_key,
            config=signing,
        )
        proxy.flip_byte(50_000)
        refused = bucket.refuses(lambda: client.put_object(Bucket=bucket.name, Key="signed", Body=body))
        client.close()
        assert proxy.struck == 1
    if not refused:
        assert bucket.body("signed") != body
    return REFUSED if refused else ACCEPTED


@mechanism("ETag of a put is its MD5")
def etag_is_md5(bucket: Bucket) -> str:
    etag = str(bucket.put("a", b"some bytes")["ETag"]).strip('"')
    return YES if etag == hashlib.md5(b"some bytes", usedforsecurity=False).hexdigest() else NO


@mechanism("`If-None-Match: *` on a put")
def put_if_none_match(bucket: Bucket) -> str:
    bucket.put("new", b"first", IfNoneMatch="*")
    refused = bucket.refuses(lambda: bucket.put("new", b"second", IfNoneMatch="*"))
    assert bucket.body("new") == (b"first" if refused else b"second")
    return HONOURED if refused else IGNORED


@mechanism("`If-Match` on a put")
def put_if_match(bucket: Bucket) -> str:
    etag = str(bucket.put("a", b"first")["ETag"])
    bucket.put("a", b"second", IfMatch=etag)
    refused = bucket.refuses(lambda: bucket.put("a", b"third", IfMatch=etag))
    assert bucket.body("a") == (b"second" if refused else b"third")
    return HONOURED if refused else IGNORED


@mechanism("`If-Match` on a delete")
def delete_if_match(bucket: Bucket) -> str:
    etag = str(bucket.put("a", b"first")["ETag"])
    bucket.put("a", b"second")
    refused = bucket.refuses(lambda: bucket.client.delete_object(Bucket=bucket.name, Key="a", IfMatch=etag))
    assert bucket.refuses(lambda: bucket.body("a")) is not refused
    return HONOURED if refused else IGNORED


@mechanism("copy by the store")
def copy_object(bucket: Bucket) -> str:
    bucket.put("a", b"some bytes")
    source: Any = {"Bucket": bucket.name, "Key": "a"}
    if bucket.refuses(lambda: bucket.client.copy_object(Bucket=bucket.name, Key="b", CopySource=source)):
        return UNSUPPORTED
    return "right" if bucket.body("b") == b"some bytes" else "**other bytes**"


@mechanism("objects joined by `UploadPartCopy`")
def join(bucket: Bucket) -> str:
    pieces = {"first": b"a" * PART, "second": b"b" * 1000}
    for key, piece in pieces.items():
        bucket.put(key, piece)
    where: Any = {"Bucket": bucket.name, "Key": "joined"}
    try:
        where["UploadId"] = bucket.client.create_multipart_upload(**where)["UploadId"]
        parts: list[Any] = []
        for number, key in enumerate(pieces, 1):
            source: Any = {"Bucket": bucket.name, "Key": key}
            reply = bucket.client.upload_part_copy(**where, PartNumber=number, CopySource=source)
            parts.append({"PartNumber": number, "ETag": reply["CopyPartResult"].get("ETag", "")})
        bucket.client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    except ClientError:
        return UNSUPPORTED
    joined = bucket.body("joined")
    if joined == b"".join(pieces.values()):
        return "right"
    return "**other bytes**" if joined else "**an empty object**"


@mechanism("versioned bucket keeps what was deleted")
def versioning(bucket: Bucket) -> str:
    on: Any = {"Status": "Enabled"}
    if bucket.refuses(
        lambda: bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration=on)
    ):
        return UNSUPPORTED
    version = bucket.put("a", b"first").get("VersionId")
    bucket.put("a", b"second")
    bucket.client.delete_object(Bucket=bucket.name, Key="a")
    assert bucket.refuses(lambda: bucket.body("a"))
    return YES if version and bucket.body("a", VersionId=version) == b"first" else "**no**"


@mechanism("Object Lock holds a deletion off")
def object_lock(bucket: Bucket) -> str:
    name = f"{bucket.name}-lock"
    locked: Any = {
        "ObjectLockMode": "COMPLIANCE",
        "ObjectLockRetainUntilDate": datetime.now(UTC) + timedelta(days=1),
        "ContentMD5": md5(b"x"),
    }
    try:
        bucket.client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        reply = bucket.client.put_object(Bucket=name, Key="a", Body=b"x", **locked)
    except ClientError:
        return UNSUPPORTED
    version: Any = {"VersionId": reply["VersionId"]} if "VersionId" in reply else {}
    refused = bucket.refuses(lambda: bucket.client.delete_object(Bucket=name, Key="a", **version))
    return YES if refused else "**accepted, not kept**"


@mechanism("tags given with a put")
def tagging(bucket: Bucket) -> str:
    try:
        bucket.put("a", b"x", Tagging="camera=front")
        tags = bucket.client.get_object_tagging(Bucket=bucket.name, Key="a")["TagSet"]
    except ClientError:
        return NO
    return YES if tags == [{"Key": "camera", "Value": "front"}] else "**accepted, not kept**"


@mechanism("answer to a range")
def ranges(bucket: Bucket) -> str:
    bucket.put("a", b"0123456789")
    reply = bucket.client.get_object(Bucket=bucket.name, Key="a", Range="bytes=2-4")
    assert (reply["Body"].read(), reply["ContentRange"]) == (b"234", "bytes 2-4/10")
    return str(reply["ResponseMetadata"]["HTTPStatusCode"])


@mechanism("key with `//`")
def double_slash(bucket: Bucket) -> str:
    return _key(bucket, "a//b")


@mechanism("key with `\\`")
def backslash(bucket: Bucket) -> str:
    return _key(bucket, "a\\b")


def _key(bucket: Bucket, key: str) -> str:
    try:
        bucket.put(key, b"x")
    except ClientError:
        return REFUSED
    listed = [item["Key"] for item in bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]]
    return "kept" if listed == [key] else f"becomes `{listed[0]}`"


@mechanism("object `a/b` beside an object `a`")
def beneath_an_object(bucket: Bucket) -> str:
    bucket.put("a", b"x")
    try:
        bucket.put("a/b", b"y")
    except ClientError:
        return REFUSED
    return "kept" if (bucket.body("a"), bucket.body("a/b")) == (b"x", b"y") else "**lost**"


@mechanism("put into a bucket that is gone")
def put_without_bucket(bucket: Bucket) -> str:
    bucket.client.delete_bucket(Bucket=bucket.name)
    return REFUSED if bucket.refuses(lambda: bucket.put("a", b"x")) else "**makes the bucket**"
