"""A record for a source that cannot even be opened, so that its failure has a place where people see it."""

import os

from errors import PermanentError, SourceGone
from folder.source import translated
from recording.layout import RecordingId, key_path, new_owner, next_generation
from recording.stream import Signature, Stream
from upload.site import Site


class UnopenedSources:
    """Begins streams of which nothing could be read yet.

    Parameters:
        site: where recordings come from and go to.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

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
                signature = Signature.of(os.lstat(os.path.join(self._site.root, path)))
        except (SourceGone, PermanentError):
            return None
        if finished and _same_content_times(finished.signature, signature):
            return None
        try:
            folders = self._site.store.folders(self._site.layout.path(keys) + "g")
        except PermanentError:  # a key that S3 cannot even list has nothing under it
            folders = []
        numbers = [found.generation for found in map(self._site.layout.recording, folders) if found]
        numbers += [finished.generation] if finished and finished.key_path == keys else []
        created = self._site.checkpoints.create(
            path,
            RecordingId(keys, next_generation(numbers), new_owner()),
            signature,
            replaces=finished.stream_id if finished else "",
            chunk_size=self._site.chunk_size,
        )
        if created is None:
            return None
        lease, stream = created
        self._site.checkpoints.release(lease)
        return stream


def _same_content_times(one: Signature, other: Signature) -> bool:
    """Return whether nobody wrote in between; `chmod` changes the inode's own time alone."""
    return (one.size, one.mtime_ns, one.ino) == (other.size, other.mtime_ns, other.ino)
