"""One reader over many chunk objects, on two real servers and through faults of the network."""

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import pytest

from archive import chunks as chunk_reader
from archive.chunks import BLOCKS_IN_MEMORY, ChunkReader
from archive.listing import Archive
from errors import PermanentError, StoreUnavailable
from recording.stream import Chunk
from tests.support.archive_parts import CHUNK, Shelf, noise, requests_of
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import RcloneS3, wait_until


@pytest.fixture(params=["rclone", "moto"])
def shelf(request: pytest.FixtureRequest) -> Shelf:
    return Shelf.of(request)


class Copied(NamedTuple):
    """A block with bytes of its own."""

    chunk: Chunk
    offset: int
    body: bytes
    damage: str


def read(reader: ChunkReader, skip: Collection[int] = ()) -> list[Copied]:
    """All blocks; the memory of each is used again for a later one."""
    return [Copied(*block[:2], bytes(block.body), block.damage) for block in reader.blocks(skip=skip)]


def test_any_range_comes_out_of_the_chunks(shelf: Shelf) -> None:
    content = noise(3 * CHUNK + 7)
    reader = ChunkReader(shelf.store(), shelf.record("a.mp4", content))
    assert reader.size == len(content)
    edges = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 6, 3 * CHUNK + 7, 10**9]
    for start in edges:
        for end in [*edges, None]:
            assert b"".join(reader.pieces(start, end)) == content[start:end], (start, end)


def test_blocks_come_in_order_with_their_places(shelf: Shelf) -> None:
    content = noise(12 * CHUNK + 7)
    blocks = read(ChunkReader(shelf.store(), shelf.record("a.mp4", content)))
    assert b"".join(block.body for block in blocks) == content
    assert [block.offset for block in blocks] == list(range(0, 13 * CHUNK, CHUNK))
    assert not any(block.damage for block in blocks)


def test_skipped_chunks_are_not_asked_for(shelf: Shelf) -> None:
    archive = shelf.archive()
    chunks = shelf.record("a.mp4", noise(4 * CHUNK))
    with requests_of(archive, "GetObject") as gets:
        blocks = read(ChunkReader(archive.store, chunks), skip={0, 2})
    assert [block.chunk.index for block in blocks] == [1, 3]
    assert sorted(get["Key"] for get in gets) == [chunks[1].key, chunks[3].key]


def test_a_block_keeps_its_bytes_while_as_many_as_memory_allows_are_read_ahead(shelf: Shelf) -> None:
    archive = shelf.archive()
    content = noise(20 * CHUNK)
    chunks = shelf.record("a.mp4", content)
    with requests_of(archive, "GetObject") as gets:

        def enough(count: int) -> bool:
            return len(gets) == count

        blocks = ChunkReader(archive.store, chunks).blocks()
        for index in range(10):
            block = next(blocks)
            wait_until(partial(enough, index + BLOCKS_IN_MEMORY))
            assert block.body == content[index * CHUNK : (index + 1) * CHUNK]
        blocks.close()
    assert len(gets) == 9 + BLOCKS_IN_MEMORY


def test_a_chunk_larger_than_a_block_comes_in_parts(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_reader, "BLOCK_BYTES", 400)
    content = noise(2 * CHUNK + 7)
    blocks = read(ChunkReader(shelf.store(), shelf.record("a.mp4", content)))
    assert [len(block.body) for block in blocks] == [400, 400, 200, 400, 400, 200, 7]
    assert b"".join(block.body for block in blocks) == content
    assert not any(block.damage for block in blocks)


Spoil = Callable[[Shelf, str], object]
SPOILT: dict[str, Spoil] = {
    "missing": lambda shelf, key: shelf.delete(key),
    "size": lambda shelf, key: shelf.put(key, noise(CHUNK + 1)),
    "content": lambda shelf, key: shelf.put(key, noise(CHUNK)),
}


@pytest.mark.parametrize("block_bytes", [CHUNK, 400])
def test_damage_is_told_and_the_rest_is_read(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(chunk_reader, "BLOCK_BYTES", block_bytes)
    content = noise(5 * CHUNK)
    chunks = shelf.record("a.mp4", content)
    for index, spoil in enumerate(SPOILT.values(), start=1):
        spoil(shelf, chunks[index].key)
    blocks = read(ChunkReader(shelf.store(), chunks))
    told = {block.chunk.index: block.damage for block in blocks if block.damage}
    assert told == dict(enumerate(SPOILT, start=1))
    whole = b"".join(block.body for block in blocks if block.chunk.index in (0, 4))
    assert whole == content[:CHUNK] + content[4 * CHUNK :]


@pytest.mark.parametrize("damage", ["missing", "size"])
def test_a_range_out_of_a_damaged_chunk_is_refused(shelf: Shelf, damage: str) -> None:
    chunks = shelf.record("a.mp4", noise(3 * CHUNK))
    SPOILT[damage](shelf, chunks[1].key)
    reader = ChunkReader(shelf.store(), chunks)
    for start in (CHUNK, 2 * CHUNK - 1):
        with pytest.raises(PermanentError) as refused:
            list(reader.pieces(start))
        assert refused.value.kind == damage


def test_a_range_behind_the_end_of_a_cut_object_is_refused(shelf: Shelf) -> None:
    chunks = shelf.record("a.mp4", noise(CHUNK))
    shelf.put(chunks[0].key, b"cut")
    with pytest.raises(PermanentError) as refused:
        list(ChunkReader(shelf.store(), chunks).pieces(500, 600))
    assert refused.value.kind == "size"


def test_the_beginning_of_a_hash_is_checked_too(shelf: Shelf) -> None:
    chunks = [replace(chunk, sha256=chunk.sha256[:12]) for chunk in shelf.record("a.mp4", noise(2 * CHUNK))]
    shelf.put(chunks[1].key, noise(CHUNK))
    assert [block.damage for block in ChunkReader(shelf.store(), chunks).blocks()] == ["", "content"]


def test_a_byte_flipped_on_the_way_is_fetched_again(rclone: RcloneS3, bucket: str) -> None:
    shelf = Shelf(rclone, bucket)
    content = noise(300_000)
    chunks = shelf.record("a.mp4", content, chunk_size=100_000)
    with FaultProxy(rclone.port) as proxy:
        proxy.flip_byte(50_000, to="client", times=1)
        blocks = read(ChunkReader(shelf.store(port=proxy.port), chunks))
        assert proxy.struck == 1
    assert b"".join(block.body for block in blocks) == content


def test_a_connection_that_breaks_goes_on_where_it_broke(rclone: RcloneS3, bucket: str) -> None:
    shelf = Shelf(rclone, bucket)
    content = noise(20_000_000)  # more than the buffers on the way can hold
    chunks = shelf.record("a.mp4", content, chunk_size=len(content))
    with FaultProxy(rclone.port) as proxy:
        archive = Archive(shelf.store(port=proxy.port, attempts=2), prefix="", watch_dir="input")
        with requests_of(archive, "GetObject") as gets:
            pieces = ChunkReader(archive.store, chunks).pieces()
            read = next(pieces)
            proxy.reset_after(0, to="client", times=1)
            read += b"".join(pieces)
        assert proxy.struck == 1
    assert read == content
    first, second = (get.get("Range", "") for get in gets)
    assert first == ""
    assert re.fullmatch("bytes=[1-9][0-9]{5,7}-19999999", second)


def test_an_outage_ends_the_reading(rclone: RcloneS3, bucket: str) -> None:
    shelf = Shelf(rclone, bucket)
    chunks = shelf.record("a.mp4", noise(3 * CHUNK))
    with FaultProxy(rclone.port) as proxy:
        proxy.refuse()
        with pytest.raises(StoreUnavailable):
            read(ChunkReader(shelf.store(port=proxy.port), chunks))
