"""Pieces of a recording that are stored, and whether a source still holds any of them."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from source import Source
from stream import Chunk


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


def still_holds(source: Source, pieces: list[Piece]) -> bool:
    """Tell whether a source still holds any of the stored bytes, or there are none.

    Recorders patch the head and append, so the last pieces are the likeliest to stand.
    """
    for piece in reversed(pieces):
        body = source.read_chunk(piece.offset, piece.size)
        if hashlib.sha256(body).hexdigest().startswith(piece.sha256_start):
            return True
    return not pieces
