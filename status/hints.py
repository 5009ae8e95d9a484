"""What people can do about each kind of failure, in a sentence. Pure."""

_HINTS = {
    "unreachable": "Bring the server or the network back. It is tried again by itself, without end.",
    "throttled": "S3 asks to be spared: lower UPLOAD_WORKERS or raise CHUNK_SIZE if it stays so.",
    "full": "Make room in the store. It is tried again by itself.",
    "clock": "Set the clock of this machine: it differs too much from that of S3.",
    "credentials": "Renew keys, password or rights. Those in files are read again, others need a restart.",
    "bucket": "Bring the bucket back, or correct S3_BUCKET, S3_REGION and S3_ENDPOINT_URL.",
    "store": "Bring the right store back, correct S3_ENDPOINT_URL, or set STORE_CHANGED=rebuild.",
    "loading": "Wait: Redis has just started.",
    "memory": "Raise the maxmemory of Redis; a recording takes 1 kB.",
    "read_only": "REDIS_URL names a replica: name the primary.",
    "refused": "What answers is no Redis that can be used: correct REDIS_URL.",
    "records_lost": "Nothing has to be done: every file is compared with S3 again. Let Redis evict no keys.",
    "schema": "Redis holds the records of another bucket, prefix or version: take another REDIS_NAMESPACE.",
    "folder": "Give each folder a REDIS_NAMESPACE of its own, or correct WATCH_DIR.",
    # Of one stream: what its record begins with, up to the colon.
    "unreadable": "Let the daemon read the file and the folders above it; it tries again at every scan.",
    "away": "Mount its volume again. If it is gone for good, cancel the recording: what is stored stays.",
    "key_too_long": "Move it to a folder less deep, or shorten S3_PREFIX.",
    "too_large": "Raise CHUNK_SIZE for the next recording.",
    "corrupt": "Look for a broken proxy, network card or store; then `touch` the file.",
    "refused_by_store": "S3 refuses this object; the reason says why.",
    "bad_request": "S3 refuses this object; the reason says why.",
}


def hint_of(kind: str) -> str:
    """Return what to do about a kind of failure; "" when nothing is known to help.

    Parameters:
        kind: of an error, or the reason in a stream's record, which begins with one.
    """
    return _HINTS.get(kind.partition(":")[0], "")
