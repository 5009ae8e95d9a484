"""What all streams are doing, for people: from their records, and their sources if those are here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from folder.source import signature_at
from recording.playback import UNKNOWN_PLAYBACK, Playback
from recording.stream import UNFINISHED, Chunk, RecordedError, Signature, State, Stream
from redis_store.reader import CheckpointReader, Record
from scheduling.backlog import written_at

MAX_UNFINISHED = 2_000
"""Streams shown that are active or finalizing, and that failed; a second or two to read. `counts` has all."""

DAY_SECONDS = 86_400.0

LATEST_CHUNKS = 6
"""Of a stream, from whose times its rate is told."""


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream as it stands.

    `size` is of the source now if that is here, else as it was at the last checkpoint (bytes);
    `offset` is stored without a gap. The daemon still owes `unsafe_bytes`: none of a stream that is
    finished, whatever was lost of it. `lag_seconds` is the age of the oldest of them, `rate` the bytes
    a second into S3 over the last chunks, `seconds_left` until the stored bytes have caught up: both
    are None where nothing tells. `error` is why it failed, was cancelled, or what its turn waits for.
    `owner` holds the lease now. `modified_at_ms` is the source's: of a finished recording its end, by the
    clock of the machine that recorded. `lost_bytes` are those of an incomplete one that were seen and are
    not in S3; it may have been more. `recording` is its name among all of the bucket, also those of other
    sites.
    """

    stream_id: str
    recording: str
    path: str
    state: State
    generation: int
    revision: int
    size: int
    offset: int
    chunk_size: int
    chunks: int
    unsafe_bytes: int
    lag_seconds: float | None
    rate: float | None
    seconds_left: float | None
    started_at_ms: int
    updated_at_ms: int
    last_chunk_at: str | None
    repaired: int
    error: RecordedError
    owner: str
    cancelled: bool
    playback: Playback = UNKNOWN_PLAYBACK
    modified_at_ms: int = 0
    lost_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Overview:
    """The streams, those that need somebody first, and how many there are in each state.

    `streams`: failed ones, then the other unfinished ones by lag, then the last that were finished.
    In `counts` finalizing ones count as active. `taken_at` is seconds since the epoch. `cut_short` and
    `unplayable` are those of the last day that ended before they were stored whole, and that no player can
    open; of very many only the last.
    """

    streams: list[StreamStatus]
    counts: dict[State, int]
    taken_at: float
    cut_short: list[StreamStatus] = field(default_factory=list)
    unplayable: list[StreamStatus] = field(default_factory=list)


def take_overview(checkpoints: CheckpointReader, root: str, *, recent: int = 50) -> Overview:
    """Look at all unfinished streams and those that were finished last.

    Asks Redis only in bounded batches: about four round trips for 500 streams. Nothing is asked of S3.

    Parameters:
        checkpoints: the records.
        root: the watched folder; it need not be here.
        recent: at most so many that are finished.

    Raises:
        StoreUnavailable: Redis cannot be asked.
    """
    counts = checkpoints.counts()
    ids = checkpoints.ids(unfinished=MAX_UNFINISHED, finished=recent)
    now = time.time()
    records = checkpoints.records(ids, latest_chunks=LATEST_CHUNKS)
    found = [_status(each, root, now) for each in records]
    stored_after_all = _stored_after_all([record.stream for record in records])
    owed = [each for each in found if _is_owed(each.state)]
    owed.sort(key=lambda each: (each.state is not State.FAILED, -(each.lag_seconds or 0), each.path))
    ended = [each for each in found if not _is_owed(each.state)]
    ended.sort(key=lambda each: (each.modified_at_ms, each.stream_id), reverse=True)
    late = [each for each in ended if each.updated_at_ms >= (now - DAY_SECONDS) * 1000 and not each.cancelled]
    return Overview(
        owed + ended[:recent],
        counts,
        now,
        cut_short=[
            each for each in late if each.state is State.INCOMPLETE and each.stream_id not in stored_after_all
        ],
        unplayable=[each for each in late if each.playback.unplayable],
    )


def status_of(checkpoints: CheckpointReader, root: str, ids: Sequence[str]) -> list[StreamStatus]:
    """Look at some streams, in that order; one without a record is left out.

    Parameters:
        checkpoints: the records.
        root: the watched folder; it need not be here.
        ids: of the streams.

    Raises:
        StoreUnavailable: Redis cannot be asked.
    """
    now = time.time()
    return [_status(each, root, now) for each in checkpoints.records(ids, latest_chunks=LATEST_CHUNKS)]


def _is_owed(state: State) -> bool:
    return state in UNFINISHED or state is State.FAILED


def _stored_after_all(streams: list[Stream]) -> set[str]:
    """Return those whose very file is complete as a later recording: its volume was away, and came back."""
    whole = {(each.path, each.born_ns): each.generation for each in streams if each.state is State.COMPLETE}
    return {
        each.stream_id
        for each in streams
        if each.born_ns and whole.get((each.path, each.born_ns), 0) > each.generation
    }


def _is_cut_short(stream: Stream) -> bool:
    return stream.state is State.INCOMPLETE and not stream.cancelled


def _status(record: Record, root: str, now: float) -> StreamStatus:
    stream, latest = record.stream, record.latest
    source = signature_at(root, stream) if _is_owed(stream.state) else None
    known = source or stream.signature
    unsafe = max(known.size - stream.offset, 0) if _is_owed(stream.state) else 0
    rate = _rate(latest, now)
    return StreamStatus(
        stream_id=stream.stream_id,
        recording=stream.recording.full_name,
        path=stream.path,
        state=stream.state,
        generation=stream.generation,
        revision=stream.revision,
        size=known.size,
        offset=stream.offset,
        chunk_size=stream.chunk_size,
        chunks=stream.next_index,
        unsafe_bytes=unsafe,
        lag_seconds=max(now - written_at(stream, known), 0.0) if unsafe else None,
        rate=rate,
        seconds_left=_seconds_left(stream, known, unsafe, rate),
        started_at_ms=stream.started_at_ms,
        updated_at_ms=stream.updated_at_ms,
        last_chunk_at=latest[-1].uploaded_at if latest else None,
        repaired=stream.repaired,
        error=stream.error,
        owner=record.owner,
        cancelled=stream.cancelled,
        playback=stream.playback,
        modified_at_ms=known.mtime_ns // 1_000_000,
        lost_bytes=max(stream.signature.size - stream.offset, 0) if _is_cut_short(stream) else 0,
    )


# ---------------------------------------------------------------------- what the records tell of time


def _rate(latest: Sequence[Chunk], now: float) -> float | None:
    """Return the bytes a second from the times of the last chunks; one that is long overdue lowers it."""
    if not latest:
        return None
    first, last = _seconds(latest[0].uploaded_at), _seconds(latest[-1].uploaded_at)
    if last <= first:
        return None
    end = now if now - last > last - first else last
    return sum(chunk.size for chunk in latest[1:]) / (end - first)


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).astimezone(UTC).timestamp()


def _seconds_left(stream: Stream, known: Signature, unsafe: int, rate: float | None) -> float | None:
    """Return when what is stored has caught up; None at the head of a recording, or if it never will."""
    if rate is None or unsafe < stream.chunk_size:
        return None
    seconds = (known.mtime_ns - stream.signature.mtime_ns) / 1e9
    growth = max(known.size - stream.signature.size, 0) / seconds if seconds > 0 else 0.0
    return unsafe / (rate - growth) if rate > growth else None
