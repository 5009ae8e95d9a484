"""The keys of what the daemon keeps in the bucket beside recordings: everything under `.vcu/`. Pure.

No key path begins so: a folder whose name begins with a dot gets another one (`key_path`).
"""

import hashlib
import re
from datetime import UTC, datetime
from typing import NamedTuple

from recording.layout import MAX_KEY_BYTES

FOLDER = ".vcu/"

_COMMIT = re.compile(
    r"([0-9]{4}/[0-9]{2}/[0-9]{2})/([0-9]{2}-[0-9]{2}-[0-9]{2})Z~(complete|incomplete)~r([0-9]{1,10})~(.+)"
)


def service_folder(prefix: str) -> str:
    """Return the key prefix under which no recording lies.

    Parameters:
        prefix: `S3_PREFIX`: empty, or ending in `/`.
    """
    return prefix + FOLDER


def marker_key(prefix: str) -> str:
    """Return the key of the object that says which store this is. Parameters as above."""
    return f"{service_folder(prefix)}store.json"


def trial_key(prefix: str) -> str:
    """Return the key of the object by which checksums are tried. Parameters as above."""
    return f"{service_folder(prefix)}checksum-trial"


class Commit(NamedTuple):
    """One line of the list of commits: a generation that was whole in S3.

    `folder` is the generation's, without the prefix and the `/` at its end, such as `cam1/front.mp4/g0001`,
    or "~" and a hash when the key would be too long: then the body of the object has it.
    """

    committed_at: str
    state: str
    revision: int
    folder: str


def commits_folder(prefix: str) -> str:
    """Return the key prefix of the list of commits. Parameters as above."""
    return f"{service_folder(prefix)}index/"


def commit_key(prefix: str, committed_at_ms: int, state: str, revision: int, folder: str) -> str:
    """Return the key that says of a commit when and what it was; the same for the same commit.

    Parameters:
        prefix: `S3_PREFIX`.
        committed_at_ms: since the epoch.
        state: complete or incomplete.
        revision: that was committed.
        folder: of the generation, without prefix.
    """
    day = datetime.fromtimestamp(committed_at_ms // 1000, UTC)
    start = f"{commits_folder(prefix)}{day:%Y/%m/%d/%H-%M-%S}Z~{state}~r{revision}~"
    if len((start + folder).encode()) > MAX_KEY_BYTES:
        return f"{start}~{hashlib.sha256(folder.encode()).hexdigest()}"
    return start + folder


def parse_commit_key(prefix: str, key: str) -> Commit | None:
    """Read what `commit_key` wrote; None when it is none of ours."""
    match = _COMMIT.fullmatch(key.removeprefix(commits_folder(prefix)))
    if not match or not key.startswith(commits_folder(prefix)):
        return None
    day, time, state, revision, folder = match.groups()
    return Commit(f"{day.replace('/', '-')}T{time.replace('-', ':')}Z", state, int(revision), folder)
