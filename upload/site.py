"""One site: the folder that is watched, the bucket that its recordings go to, and the records of both."""

from typing import NamedTuple

from checkpoint import Checkpoints
from recording.layout import BucketLayout
from s3.bucket import ObjectStore
from upload.crash_points import Hook, no_op
from upload.manifests import ManifestStore


class Site(NamedTuple):
    """What every part of the work on a recording needs.

    Attributes:
        root: the absolute path of the watched folder.
        chunk_size: bytes, for new streams.
        checkpoints: the records in Redis.
        store: the bucket.
        layout: of that bucket.
        manifests: in that bucket.
        at: called at each crash point.
    """

    root: str
    chunk_size: int
    checkpoints: Checkpoints
    store: ObjectStore
    layout: BucketLayout
    manifests: ManifestStore
    at: Hook = no_op
