"""Manifests in S3: read with distrust, put and read back, kept when they are superseded."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import logs
from checkpoint import Lease
from errors import PermanentError, TransientError
from recording import manifest
from recording.layout import BucketLayout, RecordingId
from recording.manifest import Manifest, ManifestError, Media, Uploader
from recording.stream import Chunk, Signature, State, Stream
from recording.timestamps import utc_now
from s3.bucket import ObjectStore
from s3.manifest_reader import read_manifest
from upload.crash_points import CrashPoint, Hook, no_op

log = logs.get_logger(__name__)


class ManifestStore:
    """The manifests of one bucket and prefix.

    Parameters:
        store: the bucket.
        layout: of it.
        uploader: named in each manifest that is put.
        at: called at each crash point.
    """

    def __init__(
        self, *, store: ObjectStore, layout: BucketLayout, uploader: Uploader, at: Hook = no_op
    ) -> None:
        self._store = store
        self._layout = layout
        self._uploader = uploader
        self._at = at

    def read(self, recording: RecordingId) -> Manifest | None:
        """Return the manifest of a generation; None when there is none that can be trusted."""
        return self._read(recording, self._layout.manifest(recording))

    def _read(self, recording: RecordingId, key: str) -> Manifest | None:
        try:
            found = read_manifest(self._store, self._layout, recording, key=key)
        except ManifestError as error:
            log.warning("manifest not trusted", key=key, reason=str(error))
            return None
        return found and found.manifest

    def latest(self, stream: Stream) -> Manifest | None:
        """Return the manifest that the next commit of a stream takes the place of; None for none.

        If its record says that there must be one, a store that does not find it is asked in another way, too:
        nothing is put over a manifest that was only away for a moment. A damaged one is replaced.

        Raises:
            TransientError: it was not found, and is listed.
        """
        key = self._layout.manifest(stream.recording)
        found = self.read(stream.recording)
        if found or not stream.revision or not any(each.key == key for each in self._store.objects(key)):
            return found
        try:
            again = read_manifest(self._store, self._layout, stream.recording)
        except ManifestError:
            return None
        if again is None:
            raise TransientError(f"{key} is listed and was not found", kind="race")
        return again.manifest

    def fetch(self, chunk: Chunk) -> bytes | None:
        """Read a chunk that a manifest names back from S3; None when it is not there."""
        return self._store.get(chunk.key, at_most=chunk.size)

    def named_by_former(self, recording: RecordingId) -> set[str] | None:
        """Return the keys of all chunks that former revisions name; None when one of those cannot be read."""
        named: set[str] = set()
        for key in self._former_keys(recording):
            former = self._read(recording, key)
            if former is None:
                return None
            named |= {chunk.key for chunk in former.chunks}
        return named

    def _former_keys(self, recording: RecordingId) -> Iterator[str]:
        for found in self._store.objects(self._layout.generation(recording) + "metadata.r"):
            if self._layout.former_revision(recording, found.key) is not None:
                yield found.key

    def keep(self, lease: Lease, recording: RecordingId, revision: int) -> None:
        """Keep the manifest of a revision that is about to be superseded, with all that it names.

        Parameters:
            lease: of the stream.
            recording: whose manifest.
            revision: that it is of.

        Raises:
            TransientError: it is another one by now, or the copy reads back differently.
        """
        found = read_manifest(self._store, self._layout, recording)
        if found is None or found.manifest.revision != revision:
            raise TransientError(
                f"the manifest of {recording.full_name} changed this very moment", kind="race"
            )
        self._put(lease, self._layout.former_manifest(recording, revision), found.raw)
        self._at(CrashPoint.FORMER_KEPT)

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
            stream: its record; never an adopted one.
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
            PermanentError: our own reader would not trust it; nothing was put.
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
            layout=self._layout,
            uploader=self._uploader,
            completed_at=utc_now(),
            former=earlier,
        )
        try:
            manifest.parse(content, self._layout, stream.recording)
        except ManifestError as error:
            raise PermanentError(f"its manifest would not be trusted: {error}", kind="manifest") from error
        key = self._layout.manifest(stream.recording)
        self._put(lease, key, content, at=CrashPoint.MANIFEST_PUT)
        self._at(CrashPoint.MANIFEST_CONFIRMED)
        return revision

    def _put(self, lease: Lease, key: str, content: bytes, *, at: CrashPoint | None = None) -> None:
        lease.check()
        self._store.put(key, content)
        if at:
            self._at(at)
        # Another daemon may have put a longer one since: that is no error of this stream.
        if self._store.get(key, at_most=manifest.MAX_MANIFEST_BYTES) != content:
            raise TransientError(f"{key} reads back differently from what was put", kind="corrupt")
