"""The leases on streams: taking, renewing and giving back the right to write a stream's record."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from errors import LeaseLost, LeaseReason, StoreUnavailable, UploaderError
from recording.stream import Stream
from redis_store import lease_scripts
from redis_store.clocks import boot_seconds
from redis_store.errors import translated
from redis_store.fields import FIELDS, DamagedRecord, stream_of
from redis_store.folders import FolderRecords
from redis_store.requests import OperatorRequest, request_of

if TYPE_CHECKING:
    import redis

LEASE_TTL_SECONDS = 30.0
"""How long a lease outlives its last renewal; the monitor renews every 10 s, so two may fail."""

LEASE_FRESH_SECONDS = 20.0
"""A holder whose last renewal is older starts no put: the put must end before the lease can."""

TTL_MS = int(LEASE_TTL_SECONDS * 1000)


LEASE_REASONS: dict[Any, LeaseReason] = {each.upper(): each for each in get_args(LeaseReason)}
"""What the scripts answer instead of OK."""


@dataclass(slots=True)
class Lease:
    """The right to write one stream's record.

    `epoch` fences older holders; `previous_epoch` tells whether somebody else held it in between.
    `renewed_at` is by the clock that goes on while the machine is suspended, as the lease in Redis does,
    and written by whoever renews (the monitor thread). `request` is what an operator wants of the stream.
    """

    stream_id: str
    epoch: str
    previous_epoch: str
    renewed_at: float = field(default_factory=boot_seconds)
    request: OperatorRequest | None = None

    def check(self) -> None:
        """Refuse to start a put under a lease that may soon be somebody else's.

        Raises:
            LeaseLost: the last renewal is older than `LEASE_FRESH_SECONDS`.
        """
        if boot_seconds() - self.renewed_at > LEASE_FRESH_SECONDS:
            raise LeaseLost(self.stream_id, "expired")


class Leases(FolderRecords):
    """The leases that this process holds: at most one for each stream.

    Safe to use from any thread. Every method raises `StoreUnavailable` when Redis is down or refuses us.

    Parameters:
        client: made by `checkpoint.connect`.
        namespace: first part of every key.
        owner: names this process among all that share the namespace; never used twice.
    """

    def __init__(self, client: "redis.Redis", *, namespace: str, owner: str) -> None:
        super().__init__(client, namespace=namespace, owner=owner)
        self._acquire = client.register_script(lease_scripts.ACQUIRE)
        self._renew = client.register_script(lease_scripts.RENEW)
        self._end_all = client.register_script(lease_scripts.END_ALL)
        self._held_lock = threading.Lock()
        self._held: dict[str, Lease | None] = {}  # None while it is asked for; guarded by _held_lock

    # ------------------------------------------------------------------ taking

    def acquire(self, stream_id: str) -> tuple[Lease, Stream]:
        """Take the lease of a stream and read its record as it is now.

        Raises:
            LeaseLost: `gone` when there is no such record, `busy` while another process, or another
                thread of this one, holds it or is about to.
        """
        with self._held_lock:
            if stream_id in self._held:
                raise LeaseLost(stream_id, "busy")
            self._held[stream_id] = None
        try:
            asked_at = boot_seconds()
            with translated():
                reply: Any = self._acquire(
                    keys=[self._stream_key(stream_id), self._chunks_key(stream_id), self._requests],
                    args=[self._owner, TTL_MS, stream_id, *FIELDS],
                )
            if reply[0] == "BUSY":
                raise LeaseLost(stream_id, "busy", holder=reply[1], ends_in_seconds=int(reply[2]) / 1000)
            if reply[0] != "OK":
                raise LeaseLost(stream_id, LEASE_REASONS[reply[0]])
        except UploaderError:
            with self._held_lock:
                del self._held[stream_id]
            raise
        return self._granted(reply, asked_at)

    def _granted(self, reply: Any, asked_at: float) -> tuple[Lease, Stream]:
        _, stream_id, epoch, previous, values, *request = reply
        lease = Lease(stream_id, epoch, previous, asked_at, request_of(request[0]) if request else None)
        with self._held_lock:
            self._held[stream_id] = lease
        try:
            return lease, stream_of(stream_id, values)
        except DamagedRecord as error:
            self._disbelieve(stream_id, "", str(error))
            self.drop(lease)
            raise LeaseLost(stream_id, "gone") from error

    @contextmanager
    def leased(self, stream_id: str) -> Iterator[tuple[Lease, Stream]]:
        """Hold a lease for a few writes; it is given back whatever happens."""
        lease, stream = self.acquire(stream_id)
        try:
            yield lease, stream
        except UploaderError:
            self.release_quietly(lease)
            raise
        self.release(lease)

    # ------------------------------------------------------------------ holding

    def held(self) -> list[Lease]:
        """Return the leases that this process holds now."""
        with self._held_lock:
            return [lease for lease in self._held.values() if lease]

    def renew_held(self) -> None:
        """Renew every lease that this process holds; one that was lost is forgotten and starts no put."""
        for lease in self.held():
            asked_at = boot_seconds()
            with translated():
                reply: Any = self._renew(
                    keys=[self._stream_key(lease.stream_id)], args=[self._owner, lease.epoch, TTL_MS]
                )
            if reply[0] == "OK":
                lease.renewed_at = asked_at
            else:
                lease.renewed_at = -math.inf
                self.drop(lease)

    # ------------------------------------------------------------------ giving back

    def release(self, lease: Lease) -> None:
        """Release a lease. A lease that is not ours any more is no error."""
        self.drop(lease)
        with translated():
            self._renew(keys=[self._stream_key(lease.stream_id)], args=[self._owner, lease.epoch, 0])

    def release_quietly(self, lease: Lease) -> None:
        """Release a lease if Redis can be reached; else it ends by itself."""
        with suppress(StoreUnavailable):
            self.release(lease)

    def release_all(self) -> None:
        """Release every lease, because the daemon stops; ends early when Redis cannot be reached."""
        with suppress(StoreUnavailable):
            for lease in self.held():
                self.release(lease)

    def end_all(self) -> None:
        """End the leases of daemons that cannot live any more; only where nobody else can use this Redis."""
        with translated():
            self._end_all(keys=[self._active], args=[self._stream_key("")])

    def drop(self, lease: Lease) -> None:
        """Forget a lease without asking Redis; it ends by itself after `LEASE_TTL_SECONDS`."""
        with self._held_lock:
            if self._held.get(lease.stream_id) is lease:
                del self._held[lease.stream_id]
