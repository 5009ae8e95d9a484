"""Whether a source holds a recording. Only content proves that: names, numbers and times are used again."""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from folder.source import Source
from recording.layout import BucketLayout, RecordingId, chunk_hash_start
from recording.manifest import Manifest
from recording.stream import MAX_CHUNK_BYTES, Chunk, Signature, StoredObject

EVIDENCE_BYTES = 64 * 1024
"""Compressed, of the least that two recordings do not share by chance: reserved space is zeros, and all
files of one recorder begin alike."""

MAX_SAMPLES = 8
"""Chunks that are read to find out in one turn whether two recordings are one: 80 MiB, 0.1 to 0.5 s."""

HEAD_BYTES = 64 * 1024 * 1024
"""Where recorders patch a file after its end. The farthest that was measured is byte 47.5 million: the head
that `qtmux` reserves for 6 hours."""


_BLOCK_BYTES = 4096


class Piece(NamedTuple):
    """Bytes that S3 holds: where they lie in the recording and how their SHA-256 begins."""

    offset: int
    size: int
    sha256_start: str

    def is_in(self, source: Source) -> bytearray | bytes | None:
        """Return these bytes if the source has them at their place. The next read overwrites them."""
        body = source.read_chunk(self.offset, self.size)
        same = hashlib.sha256(body).hexdigest().startswith(self.sha256_start)
        return body if same and len(body) == self.size else None


def pieces_of(chunks: Iterable[Chunk], chunk_size: int) -> list[Piece]:
    """Return the pieces that some chunks are.

    Parameters:
        chunks: of one generation.
        chunk_size: bytes, of that generation.
    """
    return [Piece(chunk.index * chunk_size, chunk.size, chunk.sha256) for chunk in chunks]


def listed_pieces(
    objects: Iterable[StoredObject], layout: BucketLayout, recording: RecordingId, chunk_size: int
) -> list[Piece]:
    """Return the pieces that the chunk objects of a generation without a manifest are, in order.

    Parameters:
        objects: as S3 lists them.
        layout: of the bucket.
        recording: whose chunks they are.
        chunk_size: bytes; a generation with another one gives none.
    """
    pieces = []
    for stored in objects:
        index = layout.chunk_index(recording, stored.key)
        if index is not None and 0 < stored.size <= MAX_CHUNK_BYTES:
            pieces.append(Piece(index * chunk_size, stored.size, chunk_hash_start(stored.key)))
    fits = all(piece.size <= chunk_size for piece in pieces) and any(p.size == chunk_size for p in pieces)
    return pieces if fits else []


def is_evidence(body: bytes | bytearray) -> bool:
    """Return whether these bytes say so much that another recording has not the same ones by chance."""
    compressor, told = zlib.compressobj(1), 0
    with memoryview(body) as view:
        for start in range(0, len(body), EVIDENCE_BYTES):
            told += len(compressor.compress(view[start : start + EVIDENCE_BYTES]))
            if told >= EVIDENCE_BYTES:
                return True
    return told + len(compressor.flush()) >= EVIDENCE_BYTES


def shares_content(source: Source, pieces: Sequence[Piece]) -> bool:
    """Return whether a source proves to hold what is stored of a recording, by a sample of it.

    Recorders patch the head and append, so it begins with the last pieces, and goes back in growing steps.
    """
    return any((body := piece.is_in(source)) is not None and is_evidence(body) for piece in _sample(pieces))


def _sample(pieces: Sequence[Piece]) -> list[Piece]:
    if len(pieces) <= MAX_SAMPLES:
        return list(reversed(pieces))
    back = sorted({min(2**step - 1, len(pieces) - 1) for step in range(MAX_SAMPLES - 1)} | {len(pieces) // 2})
    return [pieces[len(pieces) - 1 - step] for step in back]


def continues(source: Source, signature: Signature, manifest: Manifest) -> bool:
    """Return whether a source that is no shorter than a committed recording proves to be that one.

    Of what recorders never patch, every full chunk of the sample must agree: a file that is written round
    and round keeps many chunks of the recording that it no longer is.

    Parameters:
        source: open.
        signature: of the source.
        manifest: of the recording.
    """
    if signature.size < manifest.total_size or not manifest.chunks:
        return False
    pieces = pieces_of(manifest.chunks, manifest.chunk_size)
    if contradicts(source, manifest):
        return False
    return shares_content(source, pieces) or _begins_with(source, pieces)


def contradicts(source: Source, manifest: Manifest) -> bool:
    """Return whether a full chunk of the sample differs that no recorder patches. Parameters as above."""
    sample = _sample(pieces_of(manifest.chunks, manifest.chunk_size))
    behind_the_head = [each for each in sample if each.offset >= HEAD_BYTES]
    full = [each for each in behind_the_head if each.size == manifest.chunk_size]
    return any(each.is_in(source) is None for each in full)


def _begins_with(source: Source, pieces: Sequence[Piece]) -> bool:
    """Return whether a short recording is the beginning of a source, byte for byte; zeros prove nothing."""
    if len(pieces) > MAX_SAMPLES:
        return False
    varied = False
    for piece in pieces:
        body = piece.is_in(source)
        if body is None:
            return False
        varied = varied or body.count(body[:1]) < len(body)
    return varied


def overlaps(source: Source, manifest: Manifest, fetch: Callable[[Chunk], bytes | None]) -> bool:
    """Return whether a source has enough bytes of a committed chunk at their places, though not all of them.

    For recordings so short that every chunk was patched. It reads the last full chunk back from S3.

    Parameters:
        source: open.
        manifest: of the recording.
        fetch: reads a chunk's object; None when it is not there.
    """
    full = [chunk for chunk in manifest.chunks if chunk.size == manifest.chunk_size]
    if not manifest.chunks:
        return False
    chunk = (full or manifest.chunks)[-1]
    stored = fetch(chunk)
    if stored is None:
        return False
    body = source.read_chunk(chunk.index * manifest.chunk_size, chunk.size)
    agreeing = bytearray()
    for at in range(0, min(len(body), len(stored)), _BLOCK_BYTES):
        block = stored[at : at + _BLOCK_BYTES]
        if body[at : at + _BLOCK_BYTES] == block:
            agreeing += block
        if len(agreeing) >= 4 * EVIDENCE_BYTES and is_evidence(agreeing):
            return True
    return is_evidence(agreeing)
