"""Which store `doctor` has before it: whether S3's marker and the records in Redis are about one store."""

from functools import partial

from checkpoint import connect
from doctor.finding import Finding
from errors import StoreUnavailable, hint_of
from recording.service_keys import marker_key
from redis_store.store_claim import StoreClaim
from s3.bucket import ObjectStore
from settings.redis import RedisSettings
from upload.store_marker import (
    Marker,
    Verdict,
    difference,
    holds_recorded,
    read_marker,
    verdict,
)

CHECK = "store marker"


def check_marker(store: ObjectStore, redis: RedisSettings, *, prefix: str, rebuild: bool) -> Finding:
    """Compare the marker in S3 with the id in Redis, as the daemon does at its start; both are only read.

    Parameters:
        store: a bucket that is there and lets us in.
        redis: which Redis, and whose keys in it.
        prefix: `S3_PREFIX`.
        rebuild: `STORE_CHANGED=rebuild`.
    """
    try:
        with connect(redis) as client:
            records = StoreClaim(client, namespace=redis.namespace)
            claim, recordings = records.read(), records.recordings()
            marker = read_marker(store, marker_key(prefix))
            stored_here = partial(holds_recorded, store, records, prefix)
            found = verdict(claim, marker, recordings, rebuild=rebuild, stored_here=stored_here)
        empty = not marker.store_id and not any(store.level(prefix))
    except StoreUnavailable as error:
        return Finding(CHECK, "unchecked", str(error))
    if marker.problem:
        hint = "restore it, or delete it: without records of recordings the next start marks the store anew"
        return Finding(CHECK, "problem", f"{marker_key(prefix)} {marker.problem}", hint)
    if found is Verdict.REFUSE:
        said = difference(store.bucket, claim, marker, recordings) + ("; it is empty" if empty else "")
        return Finding(CHECK, "problem", said, hint_of("store"))
    return _going_on(found, claim, marker, recordings)


def _going_on(found: Verdict, claim: str, marker: Marker, recordings: int) -> Finding:
    short = marker.store_id[:8]
    if found is Verdict.SAME:
        return Finding(CHECK, "ok", f"{short}, the store that the records in Redis are about")
    if found is Verdict.MARK:
        return Finding(CHECK, "ok", "none yet, and no records: the first start of the daemon marks the store")
    if found is Verdict.TAKE_OVER:
        about = "what they say is stored is in it" if recordings else "none yet"
        return Finding(
            CHECK, "ok", f"{short}; records in Redis: {about}. The start of the daemon takes it over"
        )
    which = f"the store {claim[:8]}" if claim else "no store that is known"
    said = (
        f"{short or 'none'}, and the {recordings} records in Redis are about {which}: the start of the daemon"
        " drops them and compares every file in the folder with this one"
    )
    hint = "if this is not the right store, correct S3_ENDPOINT_URL, S3_BUCKET and S3_PREFIX before you start"
    return Finding(CHECK, "warning", said, hint)
