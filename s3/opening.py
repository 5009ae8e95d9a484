"""Opening the bucket: it is there and lets us in, or it is made."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from s3.errors import code_of, status_of

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


def open_bucket(client: "S3Client", bucket: str, *, own_server: bool, create: bool) -> None:
    """Make sure that a bucket is there and lets us in.

    Parameters:
        client: of the server.
        bucket: its name.
        own_server: whether it is another server than Amazon's, which has no regions.
        create: make the bucket when it is missing.

    Raises:
        ClientError: botocore's own; the caller translates it.
    """
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if status_of(error) != HTTPStatus.NOT_FOUND or not create:
            raise
        _create(client, bucket, own_server=own_server)


def _create(client: "S3Client", bucket: str, *, own_server: bool) -> None:
    region: Any = client.meta.region_name
    try:
        if not own_server and region not in (None, "us-east-1", "aws-global"):
            client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
        else:
            client.create_bucket(Bucket=bucket)
    except ClientError as error:
        if code_of(error) not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise
