"""What an ETag says of the bytes of an object."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

_MD5_HEX = re.compile(r"[0-9a-f]{32}")


def etag_verdict(reply: Mapping[str, Any], md5_hex: str) -> bool | None:
    """Return whether the ETag of a reply is an MD5; None when it is none and says nothing.

    That of an object encrypted with a key of KMS or the customer may look like an MD5 and is none (Amazon S3
    API reference, "Object").

    Parameters:
        reply: to a put, a HEAD or a GET.
        md5_hex: of the bytes that the object should have.
    """
    if reply.get("SSECustomerAlgorithm") or str(reply.get("ServerSideEncryption", "")).startswith("aws:kms"):
        return None
    etag = str(reply.get("ETag", "")).strip('"').lower()
    if etag == md5_hex:
        return True
    return False if _MD5_HEX.fullmatch(etag) else None


def md5_hex(body: bytes | bytearray) -> str:
    """Return the MD5 of a body in hex digits."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
