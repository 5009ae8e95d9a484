"""Pieces of a recording that are stored, and whether a source still holds any of them."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from folder.source import Source
from recording.manifest import MAX_CHUNK_BYTES
from recording.stream import Chunk, StoredObject, parse_chunk_key


class Piece(NamedTuple):
    """Bytes that S3 holds: where they lie in the recording and how their SHA-256 begins."""

    offset: int
    size: int
    sha256_start: str


def pieces_of(chunks: Iterable[Chunk], chunk_size: int) -> list[Piece]:
    """Give the pieces that some chunks are.

    Parameters:
        chunks: of one generation.
        chunk_size: bytes, of that generation.
    """
    return [Piece(chunk.index * chunk_size, chunk.size, chunk.sha256) for chunk in chunks]


def listed_pieces(objects: Iterable[StoredObject], under: str, usual_size: int) -> list[Piece]:
    """Give the pieces that a generation's chunk objects are, in order.

    Parameters:
        objects: as S3 lists them.
        under: the folder that they lie in, ending in `/`.
        usual_size: `CHUNK_SIZE`, bytes.
    """
    pieces = []
    for stored in objects:
        index = parse_chunk_key(stored.key, under)
        if index is not None and 0 < stored.size <= MAX_CHUNK_BYTES:
            start = stored.key.rpartition("-")[2].removesuffix(".part")
            pieces.append(Piece(index, stored.size, start))  # an offset once the chunk size is known
    chunk_size = chunk_size_of(pieces, usual_size)
    return [piece._replace(offset=piece.offset * chunk_size) for piece in pieces]


def chunk_size_of(pieces: list[Piece], usual_size: int) -> int:
    """Tell the chunk size of a generation, which may be older than the setting.

    All chunks but a tail have it, so only a single one does not tell, and that begins at 0.
    """
    if not pieces:
        return usual_size
    longest = max(piece.size for piece in pieces)
    return longest if pieces[-1].offset else max(longest, usual_size)


def still_holds(source: Source, pieces: list[Piece]) -> bool:
    """Tell whether a source still holds any of the stored bytes, or there are none.

    Recorders patch the head and append, so the last pieces are the likeliest to stand.
    """
    for piece in reversed(pieces):
        body = source.read_chunk(piece.offset, piece.size)
        if hashlib.sha256(body).hexdigest().startswith(piece.sha256_start):
            return True
    return not pieces
