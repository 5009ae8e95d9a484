"""Which sources are recordings that an operator cancelled: they stay so, whatever the file itself does."""

from folder.source import Source
from recording.stream import Signature, Stream
from upload.content_match import continues
from upload.manifests import ManifestStore


class CancelledSources:
    """Remembers what was seen of each source, so that growth costs no look at S3 and a cut is noticed.

    Parameters:
        manifests: what is stored of those recordings.
    """

    def __init__(self, manifests: ManifestStore) -> None:
        self._manifests = manifests
        # Which recording, and the source as it was last; each entry owned by the worker of the path.
        self._seen: dict[str, tuple[tuple[str, int, int], Signature]] = {}

    def include(self, known: Stream, source: Source, signature: Signature) -> bool:
        """Return whether a source is the cancelled recording still; it may have grown or been patched.

        At first sight some of its stored bytes must agree, because an inode number is used again after
        a delete. If there are none, the inode decides.

        Parameters:
            known: the cancelled stream at its path.
            source: open.
            signature: of the source.
        """
        recording = known.stream_id, known.revision, signature.ino
        before = self._seen.pop(known.path, None)
        known_before = before is not None and before[0] == recording
        least = before[1].size if before and known_before else known.signature.size
        if signature.ino != known.signature.ino or signature.size < least:
            return False
        if not known_before:
            found = self._manifests.read(known.recording)
            if found and found.chunks and not continues(source, signature, found):
                return False
        self._seen[known.path] = recording, signature
        return True
