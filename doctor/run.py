"""`doctor`: looks at a set-up before anyone records with it, without a daemon."""

import socket
from collections.abc import Callable

from checkpoint import describe_store
from config import Settings
from doctor.finding import Finding
from doctor.folder import check_descriptors, check_folder
from doctor.marker import CHECK, check_marker
from doctor.redis import check_redis
from doctor.s3 import ProbedStore, check_store


def run_checks(settings: Settings, *, doing: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Look at the folder, at S3 and at Redis; nothing that is written for it stays anywhere.

    Takes some seconds when all is well, and about a minute at the most beside the upload of a chunk.

    Parameters:
        settings: complete, with the addresses of Redis and S3.
        doing: called with what comes next, for people.

    Returns:
        Every finding, in a fixed order. Recording is safe when none is a `problem`.
    """
    doing("looking at the folder")
    found = check_folder(
        settings.folder.root, patterns=settings.folder.file_patterns, mode=settings.folder.watch_mode
    )
    found.append(check_descriptors(upload_workers=settings.upload.workers))
    doing("looking at S3")
    store = ProbedStore(settings.s3, connections=1)
    endpoint = settings.s3.endpoint_url
    found += check_store(
        store,
        prefix=settings.s3.prefix,
        chunk_size=settings.upload.chunk_size,
        encrypted=endpoint is None or endpoint.lower().startswith("https:"),
        checksums=settings.s3.checksums,
    )
    doing("looking at Redis")
    found += check_redis(
        settings.redis,
        store_identity=describe_store(settings.s3.bucket, settings.s3.prefix),
        owner=f"{socket.gethostname()}:doctor",
    )
    found.append(_marker(settings, store, found))
    return found


def _marker(settings: Settings, store: ProbedStore, found: list[Finding]) -> Finding:
    """Compare S3 with Redis, if both can be asked."""
    broken = [
        each.check for each in found if each.check in ("S3 bucket", "Redis") and each.level == "problem"
    ]
    if broken:
        return Finding(CHECK, "unchecked", f"whose store it is: see {' and '.join(broken)}")
    return check_marker(
        store,
        settings.redis,
        prefix=settings.s3.prefix,
        rebuild=settings.s3.store_changed == "rebuild",
    )
