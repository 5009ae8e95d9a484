"""Recordings in a bucket without a daemon, and an archive that reads them."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from archive.listing import Archive
from archive.retrying_bucket import Remover
from recording import manifest
from recording.layout import BucketLayout, RecordingId, key_path
from recording.manifest import Media, Uploader
from recording.mp4 import MediaFacts
from recording.stream import Chunk, Signature, State, Stream
from recording.timestamps import utc_now
from s3.bucket import ObjectStore
from tests.support.servers import S3Server, s3_settings

if TYPE_CHECKING:
    import pytest
    from types_boto3_s3 import S3Client

CHUNK = 1000
"""Bytes: the daemon's own chunks are larger, but nothing in the archive depends on it."""

OWNER = "7f3a91c2"
"""Of every generation that a test stores by itself."""

MODIFIED = 1_700_000_000
STARTED = 1_699_999_000

MOVIE = Media(MediaFacts(None, "avc1", None, 640, 480, fragmented=True, complete=True), None)
"""Of a file that a player opens, and that does not tell how long it is."""


class Shelf:
    """One bucket of a real server: recordings are put there, spoilt, and read by an archive."""

    def __init__(self, server: S3Server, bucket: str, *, prefix: str = "") -> None:
        self.server, self.bucket, self.prefix = server, bucket, prefix
        self.layout = BucketLayout(prefix)
        self.s3: S3Client = server.client
        self.put_at: float | None = None
        """Seconds since the epoch when what is put was put; None: now. rclone only."""
        self._stores: dict[int, ObjectStore] = {}

    @classmethod
    def of(cls, request: "pytest.FixtureRequest") -> Self:
        """A new bucket on the server that a fixture's `params` name: rclone or moto."""
        name = {"rclone": "bucket", "moto": "moto_bucket"}[request.param]
        return cls(request.getfixturevalue(request.param), request.getfixturevalue(name))

    # ------------------------------------------------------------------ reading

    def archive(self, *, port: int | None = None, stop: threading.Event | None = None) -> Archive:
        """An archive of this bucket; one attempt for a request.

        Parameters:
            port: of a proxy to be asked instead of the server.
            stop: ends its waits.
        """
        return Archive(self.store(port=port, stop=stop), prefix=self.prefix, watch_dir="input")

    def store(
        self, *, port: int | None = None, stop: threading.Event | None = None, attempts: int | None = 1
    ) -> Remover:
        port = port or self.server.port
        if port not in self._stores:  # making a client takes as long as a hundred requests
            self._stores[port] = ObjectStore(
                s3_settings(f"http://127.0.0.1:{port}", self.bucket), connections=12
            )
        return Remover(self._stores[port], stop=stop or threading.Event(), attempts=attempts)

    def settings(self) -> dict[str, str]:
        """What the commands need in their environment; Redis is not among it."""
        return {
            "S3_ENDPOINT_URL": self.server.endpoint_url,
            "S3_BUCKET": self.bucket,
            "S3_PREFIX": self.prefix,
            "AWS_ACCESS_KEY_ID": self.server.access_key,
            "AWS_SECRET_ACCESS_KEY": self.server.secret_key,
        }

    # ------------------------------------------------------------------ writing

    def put(self, key: str, body: bytes) -> str:
        metadata = {} if self.put_at is None else {"mtime": str(self.put_at)}  # rclone takes it as the time
        reply = self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, Metadata=metadata)
        return reply["ETag"].strip('"')

    def delete(self, key: str) -> None:
        self.s3.delete_object(Bucket=self.bucket, Key=key)

    def all_keys(self) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def record(
        self,
        path: str,
        content: bytes,
        *,
        generation: int = 1,
        owner: str = OWNER,
        keys: str = "",
        chunk_size: int = CHUNK,
    ) -> list[Chunk]:
        """Store the chunks of a recording, as while it grows: there is no manifest yet."""
        recording = RecordingId(keys or key_path(path), generation, owner)
        chunks = []
        for index, start in enumerate(range(0, len(content), chunk_size)):
            body = content[start : start + chunk_size]
            sha256 = hashlib.sha256(body).hexdigest()
            key = self.layout.chunk(recording, index, sha256)
            chunks.append(Chunk(index, len(body), sha256, self.put(key, body), key, utc_now()))
        return chunks

    def commit(
        self,
        path: str,
        chunks: Sequence[Chunk],
        content: bytes | None,
        *,
        generation: int = 1,
        owner: str = OWNER,
        revision: int = 1,
        former: bool = False,
        keys: str = "",
        status: State = State.COMPLETE,
        spoil: Callable[[dict[str, Any]], object] = lambda _: None,
        chunk_size: int = CHUNK,
        started: int = STARTED,
        modified: float = MODIFIED,
        media: Media = MOVIE,
    ) -> str:
        """Put the manifest of a recording; its key.

        Parameters:
            content: None: the source was gone, so there is no hash of the whole.
            former: whether it was superseded, and lies beside the newest manifest.
            spoil: changes the manifest before it is put.
            started: seconds since the epoch.
            modified: likewise, of the source.
            media: what the file says about itself.
        """
        keys = keys or key_path(path)
        size = sum(chunk.size for chunk in chunks)
        signature = Signature(size, int(modified * 10**9), int(modified * 10**9), 1, 1)
        recording = RecordingId(keys, generation, owner)
        stream = Stream(
            stream_id=recording.stream_id,
            path=path,
            generation=generation,
            owner=owner,
            revision=revision,
            state=status,
            signature=signature,
            chunk_size=chunk_size,
            next_index=len(chunks),
            offset=size,
            started_at_ms=started * 1000,
            updated_at_ms=0,
        )
        built = json.loads(
            manifest.build(
                stream,
                chunks,
                status=status,
                sha256=None if content is None else hashlib.sha256(content).hexdigest(),
                signature=signature,
                media=media,
                bucket=self.bucket,
                layout=self.layout,
                uploader=Uploader("1", "test"),
                completed_at="2023-11-14T22:14:00.000Z",
            )
        )
        spoil(built)
        layout = self.layout
        key = layout.former_manifest(recording, revision) if former else layout.manifest(recording)
        self.put(key, json.dumps(built).encode())
        return key

    def store_complete(
        self,
        path: str,
        content: bytes,
        *,
        generation: int = 1,
        owner: str = OWNER,
        keys: str = "",
        revision: int = 1,
        former: bool = False,
    ) -> list[Chunk]:
        """Store a whole recording with its manifest."""
        chunks = self.record(path, content, generation=generation, owner=owner, keys=keys)
        self.commit(
            path,
            chunks,
            content,
            generation=generation,
            owner=owner,
            keys=keys,
            revision=revision,
            former=former,
        )
        return chunks


def noise(size: int) -> bytes:
    return os.urandom(size)


@contextmanager
def requests_of(archive: Archive, operation: str) -> Iterator[list[dict[str, Any]]]:
    """Note the parameters of each request that an archive sends, such as `GetObject`."""
    seen: list[dict[str, Any]] = []

    def note(params: dict[str, Any], **_: object) -> None:
        seen.append(params)

    events = archive.store._store._connected().meta.events
    events.register(f"provide-client-params.s3.{operation}", note)
    try:
        yield seen
    finally:
        events.unregister(f"provide-client-params.s3.{operation}", note)
