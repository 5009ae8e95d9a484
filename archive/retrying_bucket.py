"""The bucket as its readers see it: nothing is written but by `Remover`, and short outages are waited out."""

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import logs
from errors import StoreUnavailable, TransientError, UploaderError
from recording.layout import BucketLayout, RecordingId
from recording.stream import StoredObject
from s3.bucket import ObjectStore
from s3.manifest_reader import Committed, read_manifest

log = logs.get_logger(__name__)

ATTEMPTS = 6
"""In a row for one request: with the pauses below about 15 seconds."""

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 8.0

LARGE_WAIT_SECONDS = 3600.0
"""Of a command that has time: eight threads list, and 256 MiB take 43 minutes at 100 kB/s."""

Reply = TypeVar("Reply")


class Stopped(UploaderError):
    """Somebody asked us to stop while we waited or read."""


class ArchiveStore:
    """Reads of one bucket, each repeated while S3 does not answer. Safe to use from any thread.

    Every method raises `StoreUnavailable` when S3 refuses us or has not answered `attempts` times in a
    row, `PermanentError` when the request can never succeed, and `Stopped`.

    Parameters:
        store: the bucket.
        stop: set it to end every wait and read.
        attempts: for one request, without progress in between; None goes on for ever.
        large_wait_seconds: for other threads of this process that read a large manifest.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        stop: threading.Event,
        attempts: int | None = ATTEMPTS,
        large_wait_seconds: float = LARGE_WAIT_SECONDS,
    ) -> None:
        self._store = store
        self._attempts = attempts
        self._large_wait_seconds = large_wait_seconds
        self.bucket = store.bucket
        self.stop = stop

    def prepare(self) -> None:
        """Make sure that the bucket is there and lets us in."""
        self._patiently(lambda: self._store.prepare(create=False))

    def get(self, key: str, *, at_most: int) -> bytes | None:
        """Read a small object; None when there is none. More than `at_most` bytes are refused."""
        return self._patiently(lambda: self._store.get(key, at_most=at_most))

    def manifest(self, layout: BucketLayout, recording: RecordingId, *, key: str = "") -> Committed | None:
        """Read a manifest of a generation, as `read_manifest` does; None when there is none."""
        wait = self._large_wait_seconds
        return self._patiently(
            lambda: read_manifest(self._store, layout, recording, key=key, wait_seconds=wait)
        )

    def level(self, prefix: str) -> tuple[list[str], list[StoredObject]]:
        """List what lies right under a prefix: deeper prefixes, ending in `/`, and objects."""
        return self._patiently(lambda: self._store.level(prefix))

    def objects(self, prefix: str) -> list[StoredObject]:
        """List all objects under a prefix, in order of key."""
        return self._patiently(lambda: list(self._store.objects(prefix)))

    def chunk_objects(self, chunks_under: str) -> list[StoredObject]:
        """List a generation's chunk folder in requests that also a slow lister answers in time."""
        return self._patiently(lambda: list(self._store.chunk_objects(chunks_under)))

    def pieces(self, key: str, size: int, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Read the bytes `[start, end)` of an object; a broken connection goes on where it broke.

        Parameters:
            key: under the bucket.
            size: bytes that the whole object must have.
            start: the first byte that is wanted.
            end: the byte after the last one; None means up to `size`.

        Raises:
            PermanentError: `missing` when there is no such object, `size` when it has another size.
        """
        position, last = start, size if end is None else end
        failures = 0
        while position < last:
            try:
                for piece in self._store.pieces(key, size, start=position, end=last):
                    if self.stop.is_set():
                        raise Stopped
                    position += len(piece)
                    failures = 0
                    yield piece
            except TransientError as error:
                failures += 1
                self._wait_after(error, failures)

    def _patiently(self, request: Callable[[], Reply]) -> Reply:
        failures = 0
        while True:
            try:
                return request()
            except TransientError as error:
                failures += 1
                self._wait_after(error, failures)

    def _wait_after(self, error: TransientError, failures: int) -> None:
        """Wait before the next attempt; raise the error when there is none."""
        refused = isinstance(error, StoreUnavailable) and error.refused
        if refused or (self._attempts is not None and failures >= self._attempts):
            raise error
        if failures == 1:
            log.warning("S3 does not answer, trying again", reason=str(error))
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 10), LONGEST_PAUSE_SECONDS)
        if self.stop.wait(pause):
            raise Stopped


class Remover(ArchiveStore):
    """Deletes in one bucket, for `prune` alone, as patiently. Parameters and errors as above."""

    def delete(self, key: str) -> None:
        """Delete an object; none there is no error.

        Raises:
            PermanentError: `delete_refused` when our rights do not cover it.
        """
        self._patiently(lambda: self._store.delete([key]))

    def keeps_versions(self) -> bool | None:
        """Return whether what is deleted stays as an older version; None when the store does not say."""
        return self._patiently(self._store.keeps_versions)
