"""Which store this is: a marker object with a random id, and the same id beside the records in Redis.

A bucket of the right name that lets us in proves nothing: it may have been emptied, made anew, or be that of
another server. So nothing is stored, and nothing called safe, before the ids agree.
"""

import json
import secrets
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import NamedTuple

import logs
from errors import PermanentError, StoreUnavailable, TransientError
from recording.layout import BucketLayout
from recording.service_keys import marker_key, trial_key
from recording.timestamps import utc_now
from redis_store.store_claim import STORE_ID, StoreClaim
from s3.bucket import ObjectStore
from scheduling.outages import CircuitBreakers

log = logs.get_logger(__name__)

SCHEMA_VERSION = 1

MAX_MARKER_BYTES = 4096
"""Ours has about 100."""

PAUSE_SECONDS = 30.0
"""Between two looks at a store that is not the right one: a person has to do something first."""


class Marker(NamedTuple):
    """What S3 holds at the marker's key: an id, or "" with what is wrong with it, or with nothing."""

    store_id: str
    problem: str = ""


class Verdict(Enum):
    """What follows from what S3 and Redis say; see docs/design.md, "Which store is this?"."""

    SAME = auto()
    MARK = auto()
    TAKE_OVER = auto()
    BEGIN_ANEW = auto()
    REFUSE = auto()


def verdict(
    claim: str, marker: Marker, recordings: int, *, rebuild: bool, stored_here: Callable[[], bool]
) -> Verdict:
    """Decide which store this is. Pure.

    Parameters:
        claim: the id that Redis has; "" for none.
        marker: what S3 says, without a problem.
        recordings: of which Redis has records.
        rebuild: `STORE_CHANGED=rebuild`.
        stored_here: says whether S3 has what the records say is stored; asked only if the ids differ.
    """
    if claim and claim == marker.store_id:
        return Verdict.SAME
    if recordings == 0:
        return Verdict.TAKE_OVER if marker.store_id else Verdict.MARK
    if marker.store_id and stored_here():
        return Verdict.TAKE_OVER
    if rebuild or (marker.store_id and not claim):
        return Verdict.BEGIN_ANEW
    return Verdict.REFUSE


def holds_recorded(store: ObjectStore, records: StoreClaim, prefix: str) -> bool:
    """Return whether a store has what the records say is stored: the first and the last of each state.

    Eight requests at the most. Keys hold random ids, so no other store has them, unless this one was copied.

    Parameters:
        store: the bucket.
        records: in Redis.
        prefix: `S3_PREFIX`.

    Raises:
        StoreUnavailable: S3 or Redis does not answer, or refuses us.
    """
    keys = records.stored_keys(BucketLayout(prefix))
    try:
        return all(any(found.key == key for found in store.objects(key)) for key in keys)
    except (PermanentError, TransientError) as error:
        raise _unanswered(", ".join(keys), error) from error


class StoreMarker:
    """Knows whether the store that answers is the one that the records are about. For any thread.

    No conditional put is needed, which several servers ignore: daemons that share a Redis agree on an id
    there first. Of those that do not the last put counts: all others find another id in the very bucket that
    has what their records say is stored, and take it over.

    Parameters:
        store: the bucket, for short questions.
        claim: the same id, in Redis.
        prefix: `S3_PREFIX`.
        rebuild: begin the records anew when the store is another one, instead of refusing it.
        checksums: `S3_CHECKSUMS`.
        breakers: that of Redis is tripped when the records begin anew, so that nothing counts as safe
            before the whole folder was scanned again.
    """

    def __init__(
        self,
        *,
        store: ObjectStore,
        claim: StoreClaim,
        prefix: str,
        rebuild: bool,
        checksums: str,
        breakers: CircuitBreakers,
    ) -> None:
        self._store = store
        self._claim = claim
        self._key = marker_key(prefix)
        self._prefix = prefix
        self._rebuild = rebuild
        self._checksums = checksums
        self._breakers = breakers
        self._agreed = ""  # written by whoever opened the store last, read by any thread

    @property
    def agreed(self) -> str:
        """The id on which S3 and Redis agreed; "" before they did."""
        return self._agreed

    def open(self) -> None:
        """Open the bucket, and make sure that it is the right one; on the first start mark it.

        Raises:
            StoreUnavailable: of S3, `store` when it is another or an emptied one, and whatever else
                `ObjectStore.prepare` says; of Redis when that does not answer.
        """
        recordings = self._claim.recordings()
        try:
            # One that vanished held recordings: an empty one in its place would hide that.
            self._store.prepare(create=not self._agreed and (recordings == 0 or self._rebuild))
        except StoreUnavailable as error:
            if error.kind == "bucket" and recordings:
                raise _refused(f"{error.message}. {_known(recordings)} in it") from error
            raise
        self._agree(self._claim.read(), self._read(), recordings)

    def check(self) -> None:
        """Ask S3 whether it still is the store that was agreed on; one small request when it is.

        Raises:
            StoreUnavailable: as `open` does.
        """
        try:
            same = self._read().store_id == self._agreed
        except StoreUnavailable as error:
            if error.kind != "bucket":
                raise
            same = False
        if not same or not self._agreed:
            self.open()

    def keep(self) -> None:
        """Write the id into Redis again if it was lost there.

        Raises:
            StoreUnavailable: Redis does not answer, or its records are about another store by now.
        """
        if self._agreed and self._claim.claim(self._agreed) != self._agreed:
            self.check()

    # ------------------------------------------------------------------ who is right

    def _agree(self, claim: str, marker: Marker, recordings: int) -> None:
        if marker.problem:
            raise _refused(f"{self._key} {marker.problem}", "restore or delete it")
        stored_here = partial(holds_recorded, self._store, self._claim, self._prefix)
        found = verdict(claim, marker, recordings, rebuild=self._rebuild, stored_here=stored_here)
        if found is Verdict.SAME:
            self._settle(marker.store_id)
        elif found is Verdict.MARK:
            self._make(claim)
        elif found is Verdict.TAKE_OVER:
            self._take_over(marker)
        elif found is Verdict.BEGIN_ANEW:
            self._begin_anew(marker, recordings)
        else:
            raise _refused(difference(self._store.bucket, claim, marker, recordings))

    def _take_over(self, marker: Marker) -> None:
        self._claim.claim(marker.store_id, replace=True)
        log.info("known store", store_id=marker.store_id)
        self._settle(marker.store_id)

    def _begin_anew(self, marker: Marker, recordings: int) -> None:
        """Drop all records, because nothing says that they are about this store."""
        log.warning(
            "records begin anew",
            reason="they are not about this store",
            recordings=recordings,
            store_id=marker.store_id or "new",
        )
        # Before they go: a page that is asked meanwhile must not count records that are no more.
        self._breakers.fail(
            StoreUnavailable(
                "the records begin anew",
                service="redis",
                kind="records_lost",
            )
        )
        self._claim.forget_all()
        if marker.store_id:
            self._take_over(marker)
        else:
            self._make(self._claim.claim(_new_id(), replace=True))

    def _make(self, claim: str) -> None:
        """Mark the store; daemons that do so at once, with one Redis, put the same."""
        store_id = claim or self._claim.claim(_new_id())
        content = {"schema_version": SCHEMA_VERSION, "store_id": store_id, "made_at": utc_now()}
        try:
            self._store.put(self._key, json.dumps(content).encode())
        except (PermanentError, TransientError) as error:
            raise _unanswered(self._key, error) from error
        found = self._read()
        if found.problem or not found.store_id:
            raise _refused(f"{self._key} was put and {found.problem or 'is not there'}", "use another store")
        if found.store_id != store_id:  # a daemon with another Redis was faster
            self._take_over(found)
            return
        log.info("store marked", store_id=store_id, key=self._key)
        self._settle(store_id)

    def _settle(self, store_id: str) -> None:
        if self._checksums == "auto" and store_id != self._agreed:
            self._choose_checksum(store_id)
        self._agreed = store_id

    def _choose_checksum(self, store_id: str) -> None:
        """Have puts confirmed by SHA-256 if the store checks it, which is tried once for each store."""
        known = self._claim.checksum(store_id)
        if known not in ("sha256", "md5"):
            try:
                known = "sha256" if self._store.checks_sha256(trial_key(self._prefix)) else "md5"
            except (PermanentError, TransientError) as error:
                raise _unanswered(trial_key(self._prefix), error) from error
            self._claim.remember_checksum(store_id, known)
        self._store.confirmation.algorithm = "sha256" if known == "sha256" else "md5"
        log.info("puts are confirmed", by=self._store.confirmation.name, store_id=store_id)

    def _read(self) -> Marker:
        return read_marker(self._store, self._key)


def difference(bucket: str, claim: str, marker: Marker, recordings: int) -> str:
    """Return in words how a store that is refused differs from the one that the records are about.

    Parameters:
        bucket: its name.
        claim: the id that Redis has; "" for none.
        marker: what S3 says.
        recordings: of which Redis has records.
    """
    known = claim[:8] or "unknown"
    other = f"another store, {marker.store_id[:8]}"
    which = other if marker.store_id else "not marked: emptied, or made anew"
    return f"the bucket {bucket} is {which}. {_known(recordings)} in the store {known}"


def read_marker(store: ObjectStore, key: str) -> Marker:
    """Return what a store says of itself.

    Parameters:
        store: the bucket.
        key: from `marker_key`.

    Raises:
        StoreUnavailable: S3 does not answer, or refuses us.
    """
    try:
        raw = store.get(key, at_most=MAX_MARKER_BYTES)
    except PermanentError as error:
        return Marker("", f"cannot be used ({error})")
    except StoreUnavailable:
        raise
    except TransientError as error:
        raise _unanswered(key, error) from error
    return Marker("") if raw is None else _parse(raw)


def _parse(raw: bytes) -> Marker:
    try:
        content = json.loads(raw)
        schema, store_id = content["schema_version"], content["store_id"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return Marker("", "is damaged")
    if schema != SCHEMA_VERSION:
        return Marker("", f"has layout {schema!r:.50}, this version knows {SCHEMA_VERSION}")
    if not isinstance(store_id, str) or not STORE_ID.fullmatch(store_id):
        return Marker("", "holds no id of a store")
    return Marker(store_id)


def _new_id() -> str:
    return secrets.token_hex(16)


def _known(recordings: int) -> str:
    return f"Redis knows {recordings} recording{'s' * (recordings != 1)}"


def _refused(message: str, hint: str | None = None) -> StoreUnavailable:
    return StoreUnavailable(
        message, service="s3", kind="store", hint=hint, refused=True, pause_seconds=PAUSE_SECONDS
    )


def _unanswered(key: str, error: Exception) -> StoreUnavailable:
    if isinstance(error, StoreUnavailable):
        return error
    return StoreUnavailable(f"{key}: {error}", service="s3", kind="unreachable")
