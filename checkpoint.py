"""Redis: the record of every stream. The leases that writing needs are in `redis_store/leases.py`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import logs
import metrics
from errors import LeaseLost, StoreUnavailable
from recording.layout import BucketLayout, RecordingId
from recording.manifest import Manifest
from recording.playback import UNKNOWN_PLAYBACK, Playback
from recording.stream import NO_ERROR, Chunk, RecordedError, Signature, State, Stream, check_move
from redis_store import scripts
from redis_store.client import connect
from redis_store.clocks import boot_seconds
from redis_store.errors import translated
from redis_store.fields import FIELDS, chunk_json, encode_path, playback_json
from redis_store.leases import LEASE_REASONS, TTL_MS, Lease, Leases
from redis_store.reader import LOOKUP_BATCH
from redis_store.requests import OperatorRequest, Outcome, outcome_json, request_json

if TYPE_CHECKING:
    import redis

__all__ = ["LOOKUP_BATCH", "Checkpoints", "Lease", "connect", "describe_store"]

log = logs.get_logger(__name__)

SCHEMA_VERSION = 3

MAX_REQUESTS = 1_000
"""That may stand at once: every daemon reads them, about 200 kB, every few seconds."""


def describe_store(bucket: str, prefix: str) -> str:
    """Return the words for the one store that the records of a namespace are true of."""
    return f"bucket {bucket}, prefix {prefix or '(none)'}"


class Checkpoints(Leases):
    """The records of all streams in one namespace of one Redis, and the leases on them.

    Safe to use from any thread. Every method raises `StoreUnavailable` when Redis is down or refuses
    us, and every write to a stream raises `LeaseLost` when the lease does not hold any more; the
    record is unchanged then. Repeating a write that succeeded changes nothing.

    Parameters:
        client: made by `connect`.
        namespace: first part of every key.
        owner: names this process among all that share the namespace; never used twice.
    """

    def __init__(self, client: "redis.Redis", *, namespace: str, owner: str) -> None:
        super().__init__(client, namespace=namespace, owner=owner)
        self._create = client.register_script(scripts.CREATE)
        self._checkpoint = client.register_script(scripts.CHECKPOINT)
        self._replace = client.register_script(scripts.REPLACE)
        self._set_state = client.register_script(scripts.SET_STATE)
        self._restore = client.register_script(scripts.RESTORE)
        self._move = client.register_script(scripts.MOVE)
        self._place_request = client.register_script(scripts.PLACE_REQUEST)
        self._complete_request = client.register_script(scripts.COMPLETE_REQUEST)
        self._set_last_error = client.register_script(scripts.SET_LAST_ERROR)
        self._set_volume = client.register_script(scripts.SET_VOLUME)
        self._reset = client.register_script(scripts.RESET)
        self._resign = client.register_script(scripts.RESIGN)
        self._extent = client.register_script(scripts.EXTENT)
        self._discard = client.register_script(scripts.DISCARD)

    # ------------------------------------------------------------------ the service

    def prepare(self, store_identity: str) -> None:
        """Make sure that Redis answers, lets us in and holds records that are about our store.

        Parameters:
            store_identity: made by `describe_store`; records are true of one place only.

        Raises:
            StoreUnavailable: `refused` for a wrong password, missing rights, a newer layout, or
                records of another bucket or prefix.
        """
        with translated(at_start=True):
            self._lookup(keys=[self._paths], args=[self._stream_key(""), 0, ""])  # may we run scripts?
            self._redis.set(self._base + "schema", SCHEMA_VERSION, nx=True)
            self._redis.set(self._base + "home", store_identity, nx=True)
        if incompatible := self.incompatibility(store_identity):
            raise incompatible

    def incompatibility(self, store_identity: str) -> StoreUnavailable | None:
        """Return why the records are not ours to go on with; None when they are, or are none. Only reads.

        Parameters:
            store_identity: as for `prepare`.
        """
        found: Any
        found_identity: Any
        with translated(at_start=True):
            found, found_identity = self._redis.mget(self._base + "schema", self._base + "home")
        hint = None
        if found not in (None, str(SCHEMA_VERSION)):
            problem = f"the records in Redis have layout {found}, this version knows {SCHEMA_VERSION}"
        elif found_identity not in (None, store_identity):
            problem = f"the records in Redis are about {found_identity}, the settings name {store_identity}"
            hint = "choose another REDIS_NAMESPACE, or the S3_BUCKET and S3_PREFIX that they are about"
        else:
            return None
        return StoreUnavailable(problem, service="redis", kind="schema", hint=hint, refused=True)

    # ------------------------------------------------------------------ writing

    def create(
        self,
        path: str,
        recording: RecordingId,
        signature: Signature,
        *,
        replaces: str,
        chunk_size: int,
        revision: int = 0,
        born_ns: int = 0,
        base: str = "",
        exact: bool = False,
        adopted: Manifest | None = None,
        error: RecordedError = NO_ERROR,
    ) -> tuple[Lease, Stream] | None:
        """Begin a stream at a path and hold its lease.

        Parameters:
            path: relative to the watched folder.
            recording: wanted; a higher generation is given when Redis knows this one already.
            signature: of the source.
            replaces: id of the stream that was the newest at this path, "" for none.
            chunk_size: bytes.
            revision: of that generation in S3 (0: never completed); 0 when a higher one is given.
            born_ns: when the source was created, 0 if unknown.
            base: see `Stream`.
            exact: give this generation or none.
            adopted: the manifest of the recording as it was found in S3, see `Stream.adopted`; always exact.
            error: that goes with its state.

        Returns:
            None when another process was first: look the path up again. Or that Redis has another recording
            of exactly that generation.
        """
        asked_at = boot_seconds()
        fields_of_s3 = (
            int(adopted is not None),
            base,
            adopted.status if adopted else State.ACTIVE,
            *error,
            len(adopted.chunks) if adopted else 0,
            adopted.total_size if adopted else 0,
            int(exact or adopted is not None),
            playback_json(adopted.facts.playback) if adopted else "",
        )
        arguments: list[Any] = [
            *(self._stream_key(""), self._chunks_key(""), encode_path(path), replaces),
            *(recording.key_path, recording.generation, revision, chunk_size),
            *(self._owner, TTL_MS, *signature, born_ns, recording.owner, *fields_of_s3, *FIELDS),
        ]
        with translated():
            reply: Any = self._create(
                keys=[self._paths, self._generations, self._inodes, *self._zsets[:3]], args=arguments
            )
        return self._granted(reply, asked_at) if reply[0] == "OK" else None

    def checkpoint(self, lease: Lease, chunk: Chunk, signature: Signature) -> None:
        """Record the next chunk. S3 must have confirmed it before.

        Raises:
            LeaseLost: also `gap` when it is not the next one and `conflict` when that index holds
                other content.
        """
        content = chunk_json(chunk), chunk.size, chunk.sha256
        self._write(self._checkpoint, lease, lease.stream_id, chunk.index, *content, *signature)

    def replace(self, lease: Lease, chunk: Chunk) -> None:
        """Record new content for a chunk that was recorded before; only while finalizing."""
        self._write(self._replace, lease, chunk.index, chunk_json(chunk), chunk.size, chunk.sha256)

    def set_state(
        self,
        lease: Lease,
        old: State,
        new: State,
        signature: Signature,
        *,
        revision: int,
        error: RecordedError = NO_ERROR,
        playback: Playback = UNKNOWN_PLAYBACK,
    ) -> None:
        """Move a stream to another state. Moving to `active` drops the tail's record.

        Parameters:
            lease: of the stream.
            old: its state.
            new: the other one.
            signature: of its source.
            revision: that is committed now.
            error: that goes with its state.
            playback: what it is to a player, once it is finished.

        Raises:
            IllegalMoveError: the table of `recording/stream.py` does not know the move.
        """
        check_move(old, new)
        facts = *error, *signature, playback_json(playback), int(bool(playback.unplayable))
        self._write(self._set_state, lease, lease.stream_id, old, new, revision, *facts)

    def make_active(self, lease: Lease, stream: Stream) -> Stream:
        """Take back a finalization that its holder never ended; the tail's record is dropped."""
        self.set_state(lease, State.FINALIZING, State.ACTIVE, stream.signature, revision=stream.revision)
        with translated():
            found = self._load(stream.stream_id)
        if found is None:
            raise LeaseLost(stream.stream_id, "gone")
        return found

    def restore(self, lease: Lease, chunks: Sequence[Chunk]) -> None:
        """Put the records of full chunks back, so that a stream goes on after them.

        Parameters:
            lease: of a stream that is finished, or that has no chunk yet.
            chunks: from index 0, without a gap, none of them a tail.
        """
        for start in range(0, max(len(chunks), 1), LOOKUP_BATCH):
            batch = chunks[start : start + LOOKUP_BATCH]
            pairs = [part for chunk in batch for part in (chunk.index, chunk_json(chunk))]
            self._write(self._restore, lease, start, start + len(batch), *pairs)

    def checked_chunks(self, lease: Lease, stream: Stream, layout: BucketLayout) -> list[Chunk]:
        """Return the recorded chunks of an unfinished stream, in order and without a gap.

        If any of their records cannot be true, all are forgotten and the stream begins at 0: S3 has the
        chunks, and says of each whether it is there.

        Parameters:
            lease: of the stream.
            stream: as it is under that lease.
            layout: of the bucket, for the keys.
        """
        chunks, problem = self._claimed_chunks(stream, layout)
        in_order = [chunk.index for chunk in chunks] == list(range(len(chunks)))
        full = all(chunk.size == stream.chunk_size for chunk in chunks[:-1])
        if not problem and not (in_order and full):
            problem = "they have gaps"
        if not problem:
            return chunks
        metrics.DAMAGED_RECORDS.inc()
        log.error("chunk records are damaged, asking S3 instead", stream=stream.stream_id, reason=problem)
        self._write(self._reset, lease)
        return []

    def set_extent(self, lease: Lease, committed: Manifest) -> None:
        """Record how much of a finished stream its manifest commits.

        Parameters:
            lease: of the stream.
            committed: its manifest.
        """
        self._write(self._extent, lease, len(committed.chunks), committed.total_size)

    def resign(self, lease: Lease, signature: Signature, born_ns: int) -> None:
        """Record that the source has another inode or other times, and the same bytes.

        Parameters:
            lease: of the stream.
            signature: of the source now.
            born_ns: when it was created, 0 if unknown.
        """
        self._write(self._resign, lease, lease.stream_id, born_ns, *signature)

    def _disbelieve(self, stream_id: str, path: str, why: str) -> None:
        """Discard a record that cannot be ours, so that its source is looked up in S3."""
        metrics.DAMAGED_RECORDS.inc()
        log.error("record is damaged and discarded, asking S3 instead", stream=stream_id[:200], reason=why)
        of_stream = [self._stream_key(stream_id), self._chunks_key(stream_id)]
        with translated():
            self._discard(
                keys=[*of_stream, *self._zsets, self._paths],
                args=[stream_id, encode_path(path) if path else ""],
            )

    def move(self, lease: Lease, new_path: str, *, replaces: str) -> None:
        """Let a stream follow its source to another path.

        Parameters:
            lease: of the stream.
            new_path: relative to the watched folder.
            replaces: id of the stream that was the newest at the new path, "" for none.
        """
        self._write(self._move, lease, lease.stream_id, encode_path(new_path), replaces)

    # ------------------------------------------------------------------ requests and errors

    def place_request(self, stream_id: str, request: OperatorRequest) -> str:
        """Leave a request for whichever daemon has the stream's next turn; it replaces an earlier one.

        Returns:
            `OK`; `GONE` when there is no such record, `FULL` when `MAX_REQUESTS` stand already.
        """
        with translated():
            reply: Any = self._place_request(
                keys=[self._stream_key(stream_id), self._requests],
                args=[stream_id, request_json(request), MAX_REQUESTS],
            )
        return str(reply[0])

    def complete_request(self, lease: Lease, outcome: Outcome) -> bool:
        """Take away the request that was met with a lease, and write down what came of it.

        Returns:
            False when it is away already: another process, or our own call whose reply was lost, did so.
        """
        return self._write_with(
            self._complete_request,
            lease,
            [self._stream_key(lease.stream_id), self._requests],
            lease.stream_id,
            outcome.token,
            outcome_json(outcome),
        )

    def set_last_error(self, path: str, error: RecordedError) -> None:
        """Write down what the unfinished stream at a path waits for; the next checkpoint clears it.

        Parameters:
            path: relative to the watched folder.
            error: what its turn met; `NO_ERROR` when it went well again.
        """
        with translated():
            self._set_last_error(keys=[self._paths], args=[self._stream_key(""), encode_path(path), *error])

    def set_volume(self, stream: Stream, volume: str) -> Stream:
        """Record on which volume the source of an unfinished stream is; returns the stream with it.

        Parameters:
            stream: whose source was just seen.
            volume: as `folder.volumes` names it.
        """
        with translated():
            self._set_volume(keys=[self._stream_key(stream.stream_id)], args=[volume])
        return replace(stream, volume=volume)

    def _write(self, script: Any, lease: Lease, *arguments: Any) -> None:
        of_stream = [self._stream_key(lease.stream_id), self._chunks_key(lease.stream_id)]
        self._write_with(script, lease, [*of_stream, *self._zsets, self._paths, self._inodes], *arguments)

    def _write_with(self, script: Any, lease: Lease, keys: list[str], *arguments: Any) -> bool:
        """Run a fenced script; true when it changed something, false when all was so already."""
        with translated():
            reply: Any = script(keys=keys, args=[self._owner, lease.epoch, *arguments])
        if reply[0] not in ("OK", "DUP"):
            self.drop(lease)
            raise LeaseLost(lease.stream_id, LEASE_REASONS[reply[0]])
        return bool(reply[0] == "OK")
