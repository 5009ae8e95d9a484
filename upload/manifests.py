"""Manifests in S3: read with distrust, put and read back."""

from collections.abc import Sequence
from dataclasses import replace

import logs
from checkpoint import Lease
from errors import TransientError
from recording import manifest
from recording.manifest import Manifest, ManifestError, Media, Uploader
from recording.stream import Chunk, Signature, State, Stream, manifest_key
from s3.bucket import ObjectStore, utc_now
from upload.crash_points import CrashPoint, Reach, pass_by

log = logs.get_logger(__name__)


class ManifestStore:
    """The manifests of one bucket and prefix.

    Parameters:
        store: the bucket.
        prefix: `S3_PREFIX`.
        uploader: named in each manifest that is put.
        reach: called at each crash point.
    """

    def __init__(
        self, *, store: ObjectStore, prefix: str, uploader: Uploader, reach: Reach = pass_by
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._uploader = uploader
        self._reach = reach

    def read(self, key_path: str, generation: int) -> Manifest | None:
        """Read the manifest of a generation; None when there is none that can be trusted."""
        key = manifest_key(self._prefix, key_path, generation)
        raw = self._store.get(key, at_most=manifest.MAX_MANIFEST_BYTES)
        if raw is None:
            return None
        try:
            return manifest.parse(raw, prefix=self._prefix, key_path=key_path, generation=generation)
        except ManifestError as error:
            log.warning("manifest not trusted", key=key, reason=str(error))
            return None

    def commit(
        self,
        lease: Lease,
        stream: Stream,
        chunks: Sequence[Chunk],
        *,
        status: State,
        sha256: str | None,
        signature: Signature,
        media: Media,
        earlier: Manifest | None,
    ) -> int:
        """Put the next revision of a generation's manifest and read it back.

        Parameters:
            lease: of the stream.
            stream: its record.
            chunks: all of them, in order.
            status: `complete` or `incomplete`.
            sha256: of the whole file; None when it could not be read again.
            signature: of the source.
            media: facts of the recording, or why there are none.
            earlier: the manifest that it takes the place of.

        Returns:
            The revision.

        Raises:
            TransientError: it reads back differently.
        """
        revision = max(stream.revision, earlier.revision if earlier else 0) + 1
        content = manifest.build(
            replace(stream, revision=revision),
            chunks,
            status=status,
            sha256=sha256,
            signature=signature,
            media=media,
            bucket=self._store.bucket,
            prefix=self._prefix,
            uploader=self._uploader,
            completed_at=utc_now(),
        )
        key = manifest_key(self._prefix, stream.key_path, stream.generation)
        lease.check()
        self._store.put(key, content)
        self._reach(CrashPoint.MANIFEST_PUT)
        # Another daemon may have put a longer one since: that is no error of this stream.
        if self._store.get(key, at_most=manifest.MAX_MANIFEST_BYTES) != content:
            raise TransientError(f"{key} reads back differently from what was put", kind="corrupt")
        self._reach(CrashPoint.MANIFEST_CONFIRMED)
        return revision
