"""Whether S3 still holds a finished recording as it was committed. Reads only."""

import hashlib
import re
from collections.abc import Iterator

from errors import PermanentError
from recording.layout import BucketLayout
from recording.manifest import Manifest, ManifestError, max_bytes
from recording.stream import NOBODYS, Chunk, State, StoredObject, Stream
from s3.bucket import ObjectStore
from s3.manifest_reader import read_manifest

_MD5_HEX = re.compile(r"[0-9a-f]{32}")


class StoredRecordings:
    """Compares records with what S3 holds. Safe to use from any thread.

    Parameters:
        store: the bucket.
        layout: of it.
    """

    def __init__(self, *, store: ObjectStore, layout: BucketLayout) -> None:
        self._store = store
        self._layout = layout

    def problems(self, stream: Stream) -> list[str]:
        """Return what is wrong with a finished recording; nothing when it is whole.

        Costs one request for the manifest, and one for each hundred chunks and one more. What only a list
        says is asked for once more, because a list may be behind.

        Parameters:
            stream: its record; complete or incomplete.

        Raises:
            StoreUnavailable: S3 does not answer, or refuses us.
            TransientError: only this request failed.
        """
        key = self._layout.manifest(stream.recording)
        if stream.state is State.INCOMPLETE and stream.offset == 0 and stream.revision == 0:
            return []  # closed before anything of it was stored
        expected = stream.offset // stream.chunk_size + 1
        try:
            found = read_manifest(self._store, self._layout, stream.recording, at_most=max_bytes(expected))
        except (ManifestError, PermanentError) as error:
            return [f"{key}: {error}"]
        if found is None:
            return [f"{key} is not there"]
        return [*_differences(key, found.manifest, stream), *self._damage(found.manifest, stream)]

    def _damage(self, found: Manifest, stream: Stream) -> Iterator[str]:
        under = self._layout.chunks(stream.recording)
        stored = {each.key: each for each in self._store.chunk_objects(under)} if found.chunks else {}
        for chunk in found.chunks:
            problem = _difference(chunk, stored.get(chunk.key))
            if problem:
                yield from self._confirmed(chunk, problem)

    def _confirmed(self, chunk: Chunk, problem: str) -> Iterator[str]:
        """Read a chunk of which the list does not say that it is whole."""
        whole = hashlib.sha256()
        try:
            for piece in self._store.pieces(chunk.key, chunk.size):
                whole.update(piece)
        except PermanentError as error:
            yield str(error)
            return
        if whole.hexdigest() != chunk.sha256:
            yield f"{chunk.key} {problem}"


def _differences(key: str, found: Manifest, stream: Stream) -> Iterator[str]:
    """Compare a manifest with the record of its commit, or of the commit that was found for a source."""
    if stream.adopted and stream.signature != NOBODYS and found.revision != stream.revision:
        yield f"{key} is of revision {found.revision} by now: the recording was {stream.revision}"
    if found.revision < stream.revision:
        yield f"{key} is of revision {found.revision}, not {stream.revision}"
    if stream.state is State.COMPLETE and found.status is not State.COMPLETE:
        yield f"{key} is {found.status}, not complete"
    if found.revision == stream.revision and found.total_size != stream.offset:
        yield f"{key} is of {found.total_size} bytes, not {stream.offset}"


def _difference(chunk: Chunk, found: StoredObject | None) -> str:
    """Return what a list has against a chunk; "" when it agrees.

    Two ETags of the form of an MD5 that differ mostly mean other bytes, but a bucket that was copied into
    one with encryption has others, too.
    """
    if found is None:
        return "is not in the list"
    if found.size != chunk.size:
        return f"has {found.size} bytes, not {chunk.size}"
    both = _MD5_HEX.fullmatch(found.etag) and _MD5_HEX.fullmatch(chunk.etag)
    return "has other bytes than its SHA-256 says" if both and found.etag != chunk.etag else ""
