"""A record for a source that cannot even be opened, so that its failure has a place where people see it."""

import os

from checkpoint import Checkpoints
from errors import PermanentError, SourceGone
from folder.source import translated
from recording.layout import BucketLayout, RecordingId, key_path, new_owner, next_generation
from recording.stream import Signature, Stream
from s3.bucket import ObjectStore


class UnopenedSources:
    """Begins streams of which nothing could be read yet.

    Parameters:
        root: the watched folder.
        checkpoints: the records.
        store: the bucket.
        layout: of that bucket.
        chunk_size: bytes, for new streams.
    """

    def __init__(
        self,
        *,
        root: str,
        checkpoints: Checkpoints,
        store: ObjectStore,
        layout: BucketLayout,
        chunk_size: int,
    ) -> None:
        self._root = root
        self._checkpoints = checkpoints
        self._store = store
        self._layout = layout
        self._chunk_size = chunk_size

    def record(self, path: str, finished: Stream | None) -> Stream | None:
        """Begin a stream for a source.

        Parameters:
            path: relative to the watched folder.
            finished: the newest stream there.

        Returns:
            None when the source is gone, or is as its finished recording knew it: only its mode or its
            name's folder changed. Or that another process was first.
        """
        keys = key_path(path)
        try:
            with translated(path):
                signature = Signature.of(os.lstat(os.path.join(self._root, path)))
        except (SourceGone, PermanentError):
            return None
        if finished and _same_content_times(finished.signature, signature):
            return None
        try:
            folders = self._store.folders(self._layout.path(keys) + "g")
        except PermanentError:  # a key that S3 cannot even list has nothing under it
            folders = []
        numbers = [found.generation for found in map(self._layout.recording, folders) if found]
        numbers += [finished.generation] if finished and finished.key_path == keys else []
        created = self._checkpoints.create(
            path,
            RecordingId(keys, next_generation(numbers), new_owner()),
            signature,
            replaces=finished.stream_id if finished else "",
            chunk_size=self._chunk_size,
        )
        if created is None:
            return None
        lease, stream = created
        self._checkpoints.release(lease)
        return stream


def _same_content_times(one: Signature, other: Signature) -> bool:
    """Return whether nobody wrote in between; `chmod` changes the inode's own time alone."""
    return (one.size, one.mtime_ns, one.ino) == (other.size, other.mtime_ns, other.ino)
