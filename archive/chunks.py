"""One seekable reader over the chunks of a recording: any range of its bytes, out of the chunk objects."""

import hashlib
import itertools
import threading
from collections import deque
from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from archive.retrying_bucket import ArchiveStore, Stopped
from errors import PermanentError
from recording.stream import Chunk

BLOCK_BYTES = 10 * 1024 * 1024
"""The most that one request of `blocks` asks for: the default chunk, so that it comes in one."""

WORKERS = 4
"""Requests at a time: more were no faster against servers on the same machine."""

BLOCKS_IN_MEMORY = 4
"""The one that is given and those that are fetched meanwhile: 40 MiB, which are used over and over."""

FETCHES = 2
"""Of a block whose bytes are wrong: the first time may have been an accident of the network."""


class Block(NamedTuple):
    """A piece of a recording that lies in one chunk.

    `body` holds its bytes until the next block is asked for: its memory is used again. `offset` is its
    place in the recording. `damage` says what is wrong with the chunk (`missing`,
    `size`, `content`); the body is empty then. A hash that does not agree shows at the last block of
    a chunk.
    """

    chunk: Chunk
    offset: int
    body: memoryview
    damage: str = ""


class _Span(NamedTuple):
    """What one request asks for: the bytes `[start, end)` of a chunk."""

    chunk: Chunk
    offset: int
    start: int
    end: int

    @property
    def whole(self) -> bool:
        return (self.start, self.end) == (0, self.chunk.size)


class ChunkReader:
    """Reads a recording out of its chunk objects. Safe to use from any thread.

    Parameters:
        store: the bucket.
        chunks: all of them in order, without a gap; all have the size of the first but the last, which
            may be shorter. `sha256` may be only the beginning of a hash.
    """

    def __init__(self, store: ArchiveStore, chunks: Sequence[Chunk]) -> None:
        self._store = store
        self._chunks = chunks
        self._chunk_size = chunks[0].size if chunks else 1
        self.size = sum(chunk.size for chunk in chunks)

    def pieces(self, start: int = 0, end: int | None = None) -> Generator[bytes, None, None]:
        """Yield the bytes `[start, end)` in small pieces, each as soon as it is there.

        Nothing is read ahead and no hash is checked: this is for a player that jumps about.

        Parameters:
            start: the first byte that is wanted.
            end: the byte after the last one; None means up to the end.

        Raises:
            PermanentError: `missing` or `size` when an object is not what it should be.
            StoreUnavailable: S3 does not answer, or refuses us.
        """
        last = self.size if end is None else min(end, self.size)
        position = start
        while position < last:
            chunk = self._chunks[position // self._chunk_size]
            begins = chunk.index * self._chunk_size
            until = min(last - begins, chunk.size)
            yield from self._store.pieces(chunk.key, chunk.size, start=position - begins, end=until)
            position = begins + until

    def blocks(self, *, skip: Collection[int] = ()) -> Generator[Block, None, None]:
        """Yield whole chunks in order, fetched in parallel and ahead, each one's hash checked.

        Damage is part of what is given, and the reading goes on behind it.

        Parameters:
            skip: indexes of chunks that are not wanted.

        Raises:
            StoreUnavailable: S3 does not answer, or refuses us.
        """
        ahead: deque[Future[Block]] = deque()
        abandoned = threading.Event()
        whole = _ChunkHash()
        buffers = [bytearray(min(BLOCK_BYTES, self._chunk_size)) for _ in range(BLOCKS_IN_MEMORY)]
        turn = itertools.cycle(buffers)
        pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="vcu-fetch")
        try:
            for span in self._spans(skip):
                if len(ahead) == BLOCKS_IN_MEMORY:
                    yield whole.checked(ahead.popleft().result())
                ahead.append(pool.submit(self._fetch, span, memoryview(next(turn)), abandoned))
            while ahead:
                yield whole.checked(ahead.popleft().result())
        finally:
            abandoned.set()
            pool.shutdown(cancel_futures=True)

    def _spans(self, skip: Collection[int]) -> Iterator[_Span]:
        for chunk in self._chunks:
            if chunk.index in skip:
                continue
            for start in range(0, chunk.size, BLOCK_BYTES):
                offset = chunk.index * self._chunk_size + start
                yield _Span(chunk, offset, start, min(start + BLOCK_BYTES, chunk.size))

    def _fetch(self, span: _Span, buffer: memoryview, abandoned: threading.Event) -> Block:
        """Read one span; on a worker, so that hashing whole chunks is parallel too."""
        body = buffer[: span.end - span.start]
        for _ in range(FETCHES):
            filled = 0
            try:
                for piece in self._store.pieces(
                    span.chunk.key, span.chunk.size, start=span.start, end=span.end
                ):
                    if abandoned.is_set():
                        raise Stopped
                    body[filled : filled + len(piece)] = piece
                    filled += len(piece)
            except PermanentError as error:
                if error.kind not in ("missing", "size"):
                    raise
                return Block(span.chunk, span.offset, body[:0], error.kind)
            if not span.whole or agrees(span.chunk, hashlib.sha256(body).hexdigest()):
                return Block(span.chunk, span.offset, body)
        return Block(span.chunk, span.offset, body[:0], "content")


class _ChunkHash:
    """Checks chunks that came in several blocks. Owned by the thread that takes the blocks."""

    def __init__(self) -> None:
        self._index = -1
        self._hash = hashlib.sha256()
        self._hashed = 0

    def checked(self, block: Block) -> Block:
        """Return the block, with damage when it is the last one and the chunk's hash does not agree."""
        if block.damage or len(block.body) == block.chunk.size:
            return block  # whole chunks were hashed where they were fetched
        if block.chunk.index != self._index:
            self._index, self._hashed, self._hash = block.chunk.index, 0, hashlib.sha256()
        self._hash.update(block.body)
        self._hashed += len(block.body)
        if self._hashed < block.chunk.size or agrees(block.chunk, self._hash.hexdigest()):
            return block
        return block._replace(body=block.body[:0], damage="content")


def agrees(chunk: Chunk, sha256: str) -> bool:
    """Return whether a hash is the chunk's, as far as its record goes."""
    return sha256.startswith(chunk.sha256)
