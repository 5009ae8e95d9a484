"""How all readers get a manifest out of a bucket: bounded, and one large one at a time in this process."""

import threading
from typing import NamedTuple, Protocol

from errors import PermanentError, TransientError
from recording import manifest
from recording.layout import BucketLayout, RecordingId
from recording.manifest import Manifest

LARGE_BYTES = 4 * 1024 * 1024
"""From here on one at a time: 12,000 chunks, or 120 GB in chunks of 10 MiB. Reading takes three times as much
memory as the text has: measured, 83 MiB for the 29 MiB of 94,000 chunks."""

WAIT_SECONDS = 20.0
"""For another large one to be read; then the turn is put off."""

_large = threading.BoundedSemaphore(1)


class Source(Protocol):
    """A bucket from which small objects are read."""

    def get(self, key: str, *, at_most: int) -> bytes | None:
        """Read an object; None when there is none. Raises PermanentError when it is larger."""


class Committed(NamedTuple):
    """A manifest that can be trusted, and its bytes."""

    manifest: Manifest
    raw: bytes


def read_manifest(
    store: Source,
    layout: BucketLayout,
    recording: RecordingId,
    *,
    key: str = "",
    at_most: int | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> Committed | None:
    """Read a manifest of a generation; None when there is none.

    Parameters:
        store: the bucket.
        layout: of it.
        recording: the generation.
        key: of a former revision; "" is the newest.
        at_most: bytes that it can have, where that is known better than by `MAX_MANIFEST_BYTES`.
        wait_seconds: for other threads that read a large one.

    Raises:
        ManifestError: it cannot be trusted.
        PermanentError: it has more bytes than it can have.
        TransientError: `busy` when others were reading all the time; and what `store.get` raises.
    """
    key = key or layout.manifest(recording)
    most = manifest.MAX_MANIFEST_BYTES if at_most is None else at_most
    try:
        return _read(store, layout, recording, key, min(most, LARGE_BYTES))
    except PermanentError as error:
        if error.kind != "manifest" or most <= LARGE_BYTES:
            raise
    if not _large.acquire(timeout=wait_seconds):
        raise TransientError(f"{key} is large, and others are being read", kind="busy")
    try:
        return _read(store, layout, recording, key, most)
    finally:
        _large.release()


def _read(
    store: Source, layout: BucketLayout, recording: RecordingId, key: str, at_most: int
) -> Committed | None:
    raw = store.get(key, at_most=at_most)
    return None if raw is None else Committed(manifest.parse(raw, layout, recording), raw)
