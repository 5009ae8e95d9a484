"""Having one chunk in S3: found there, copied there from an earlier generation, or sent."""

import time
from dataclasses import replace

import metrics
from recording.stream import Chunk, Stream
from s3.bucket import Body
from upload.site import Site


class ChunkWriter:
    """Puts chunks under the keys that the layout gives them. Safe to use from any thread.

    Parameters:
        site: where recordings come from and go to.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def ensure(self, stream: Stream, index: int, body: Body, sha256: str, *, ask: bool) -> Chunk:
        """Have a chunk in S3, confirmed; the same bytes are not sent twice.

        Parameters:
            stream: whose chunk it is; never an adopted one.
            index: of the chunk.
            body: its bytes.
            sha256: of them, in hex.
            ask: whether S3 may have it already.

        Raises:
            StoreUnavailable, TransientError, PermanentError: as `ObjectStore.put`.
        """
        key = self._site.layout.chunk(stream.recording, index, sha256)
        stored = self._site.store.find(key, body, sha256=sha256) if ask else None
        if stored:
            metrics.CHUNKS_ADOPTED.inc()
        base = self._site.layout.recording(stream.base) if stream.base and stored is None else None
        if base and base.key_path == stream.key_path:
            stored = self._site.store.copy(
                self._site.layout.chunk(base, index, sha256), key, body, sha256=sha256
            )
            metrics.CHUNKS_COPIED.inc(stored is not None)
        if stored is None:
            began_at = time.monotonic()
            stored = self._site.store.put(key, body, sha256=sha256)
            metrics.PUT_SECONDS.observe(time.monotonic() - began_at)
            metrics.CHUNKS_UPLOADED.inc()
            metrics.UPLOADED_BYTES.inc(len(body))
        return Chunk(index, len(body), sha256, stored.etag, key, stored.uploaded_at, stored.confirmed_by)

    def find(self, chunk: Chunk, body: Body) -> Chunk | None:
        """Return a chunk as S3 has it now; None when it has not these bytes.

        Parameters:
            chunk: as it is recorded.
            body: its bytes.
        """
        found = self._site.store.find(chunk.key, body, sha256=chunk.sha256)
        if found is None:
            return None
        return replace(chunk, etag=found.etag, uploaded_at=found.uploaded_at, confirmed_by=found.confirmed_by)
