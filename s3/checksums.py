"""By which checksum a put is confirmed, and what an answer of the store says of the bytes of an object."""

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

import logs
from errors import PermanentError
from recording.stream import Proof
from s3.errors import of_reply

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

log = logs.get_logger(__name__)

Algorithm = Literal["sha256", "md5"]
"""By SHA-256 puts are confirmed where the store was seen to check it, else by MD5."""

Verdict = Proof | Literal["other bytes"]
"""What a reply says of an object; "" when it says nothing of its bytes."""

Body = bytes | bytearray
"""Of an object. A bytearray is sent as it is, too; it must not change until the call returns."""

_MD5_HEX = re.compile(r"[0-9a-f]{32}")
_TRIAL, _OTHER = b"a right checksum is taken", b"a wrong checksum is refused"


class Digests:
    """The hashes of a body, each computed when it is asked for, and once.

    Parameters:
        body: it must not change meanwhile.
        sha256: of it, in hex, where that is known already.
    """

    def __init__(self, body: Body, sha256: str | None = None) -> None:
        self._body = body
        self._sha256 = sha256

    @cached_property
    def md5(self) -> bytes:
        """The MD5."""
        return hashlib.md5(self._body, usedforsecurity=False).digest()

    @cached_property
    def sha256(self) -> bytes:
        """The SHA-256."""
        return bytes.fromhex(self._sha256) if self._sha256 else hashlib.sha256(self._body).digest()


class Confirmation:
    """How puts are confirmed on one store; all connections to it share this. Safe to use from any thread."""

    def __init__(self) -> None:
        self.algorithm: Algorithm = "md5"
        """Written by whoever saw that the store checks SHA-256, or that it no longer does."""

    @property
    def name(self) -> str:
        """The algorithm, for people."""
        return "SHA-256" if self.algorithm == "sha256" else "MD5"

    def withdraw(self, key: str) -> None:
        """Go back to MD5: the answer to a put had not the SHA-256 that the store used to give back."""
        self.algorithm = "md5"
        log.warning("MD5 from now on", reason="the store no longer confirms SHA-256", key=key)


def asked_of_put(algorithm: Algorithm, digests: Digests) -> dict[str, str]:
    """Return the parameters with which a put asks the store to check what arrives."""
    if algorithm == "sha256":
        return {"ChecksumSHA256": _base64(digests.sha256)}
    return {"ContentMD5": _base64(digests.md5)}


def asked_of_read(algorithm: Algorithm) -> dict[str, str]:
    """Return the parameters with which a HEAD or GET asks for the checksum that the store has."""
    return {"ChecksumMode": "ENABLED"} if algorithm == "sha256" else {}


def verdict(algorithm: Algorithm, reply: Mapping[str, Any], digests: Digests) -> Verdict:
    """Return by which hash a reply says that an object holds the bytes, or that it holds others.

    Parameters:
        algorithm: by which the store was asked.
        reply: to a put, a HEAD or a GET.
        digests: of the bytes that the object should have.
    """
    checksum = str(reply.get("ChecksumSHA256", ""))
    if algorithm == "sha256" and checksum and "-" not in checksum:  # "-": made of those of parts
        return "sha256" if checksum == _base64(digests.sha256) else "other bytes"
    return _of_etag(reply, digests)


def _of_etag(reply: Mapping[str, Any], digests: Digests) -> Verdict:
    """Return what an ETag says, if it is an MD5.

    That of an object encrypted with a key of KMS or the customer may look like an MD5 and is none (Amazon S3
    API reference, "Object").
    """
    if reply.get("SSECustomerAlgorithm") or str(reply.get("ServerSideEncryption", "")).startswith("aws:kms"):
        return ""
    etag = str(reply.get("ETag", "")).strip('"').lower()
    if not _MD5_HEX.fullmatch(etag):
        return ""
    return "md5" if etag == digests.md5.hex() else "other bytes"


def checks_sha256(client: "S3Client", bucket: str, key: str) -> bool:
    """Return whether the store refuses a wrong SHA-256, and takes a right one and gives it back.

    A store that knows nothing of checksums takes both; one that dislikes them refuses both.

    Parameters:
        client: of the store.
        bucket: its name.
        key: of a small object, which stays.

    Raises:
        UploaderError: the store said neither yes nor no.
        BotoCoreError: and others of botocore's when there is no answer; the caller translates them.
    """
    right, wrong = (_base64(hashlib.sha256(text).digest()) for text in (_TRIAL, _OTHER))
    if _takes(client, bucket, key, wrong) is not None:
        return False
    reply = _takes(client, bucket, key, right)
    return reply is not None and reply.get("ChecksumSHA256") == right


def _takes(client: "S3Client", bucket: str, key: str, checksum: str) -> Mapping[str, Any] | None:
    """Put the trial object with a checksum; None when the store refuses it."""
    try:
        return client.put_object(Bucket=bucket, Key=key, Body=_TRIAL, ChecksumSHA256=checksum)
    except ClientError as error:
        ours = of_reply(error, f"putting {key}", bucket)
        refused = isinstance(ours, PermanentError) or getattr(ours, "kind", "") == "corrupt"
        if not refused:
            raise ours from error
        return None


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
