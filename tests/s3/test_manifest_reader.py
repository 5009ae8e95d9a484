"""How manifests come out of a bucket: one large one at a time, and the small ones beside it."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from errors import PermanentError, TransientError
from recording import manifest
from recording.layout import BucketLayout, RecordingId
from recording.manifest import Manifest
from s3 import manifest_reader
from s3.manifest_reader import read_manifest
from tests.support.archive_parts import Shelf
from tests.support.servers import RcloneS3

LARGE, SMALL = RecordingId("large.mp4", 1, "7f3a91c2"), RecordingId("small.mp4", 1, "7f3a91c2")
LAYOUT = BucketLayout("")


@pytest.fixture
def shelf(rclone: RcloneS3, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A bucket with a large and a small manifest."""
    shelf = Shelf(rclone, bucket)
    for recording, count in ((LARGE, 20), (SMALL, 1)):
        content = os.urandom(count)
        chunks = shelf.record(recording.key_path, content, chunk_size=1)
        shelf.commit(recording.key_path, chunks, content, chunk_size=1)
    monkeypatch.setattr(manifest_reader, "LARGE_BYTES", 4000)
    return shelf


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Whether a large manifest is being read, and what lets it end."""
    reading, go_on, parse = threading.Event(), threading.Event(), manifest.parse

    def wait(raw: bytes, *where: Any) -> Manifest:
        if len(raw) > manifest_reader.LARGE_BYTES:
            reading.set()
            assert go_on.wait(60)
        return parse(raw, *where)

    monkeypatch.setattr(manifest, "parse", wait)
    yield reading, go_on
    go_on.set()


def test_while_a_large_one_is_read_another_waits_and_a_small_one_does_not(
    shelf: Shelf, held: tuple[threading.Event, threading.Event]
) -> None:
    store, (reading, go_on) = shelf.archive().store._store, held
    with ThreadPoolExecutor(1) as other:
        first = other.submit(read_manifest, store, LAYOUT, LARGE)
        assert reading.wait(60)
        with pytest.raises(TransientError, match="others are being read"):
            read_manifest(store, LAYOUT, LARGE, wait_seconds=0)
        small = read_manifest(store, LAYOUT, SMALL, wait_seconds=0)
        go_on.set()
        large = first.result(60)
    assert large
    assert small
    assert (len(large.manifest.chunks), len(small.manifest.chunks)) == (20, 1)
    assert read_manifest(store, LAYOUT, LARGE, wait_seconds=0) == large


def test_one_that_is_larger_than_it_can_be_is_refused(shelf: Shelf) -> None:
    store = shelf.archive().store._store
    for most in (1000, 5000):
        with pytest.raises(PermanentError, match=f"more than {most} bytes"):
            read_manifest(store, LAYOUT, LARGE, at_most=most)
