"""Where everything lies in the bucket, and how recordings are named. Pure: no I/O.

```
<prefix><key path>/g0001-7f3a91c2/chunks/000042-9f86d081884c.part
<prefix><key path>/g0001-7f3a91c2/metadata.json            the newest revision: the commit point
<prefix><key path>/g0001-7f3a91c2/metadata.r0001.json      a former revision
```

Every key is computed here, from facts, and never taken from a record or a manifest.
"""

import hashlib
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from errors import PermanentError

MAX_KEY_BYTES = 1024
"""S3 refuses longer object keys (Amazon S3 user guide, "Naming objects")."""

MAX_SEGMENT_BYTES = 100
"""Of one `/`-separated part of a key path; keeps deep paths below `MAX_KEY_BYTES` and names readable."""

MAX_CHUNKS = 1_000_000
"""Of one stream: six digits keep keys in the order of their chunks; 5 TB in chunks of 5 MiB."""

MAX_REVISION = 10**9

MAX_GENERATION = 10**9 - 1
"""Nine digits, as names of folders have at most."""

_NOT_PLAIN = re.compile(r"[^\w ().,@=!'-]")
_CHUNK_NAME = re.compile(r"([0-9]{6})-[0-9a-f]{12}\.part")
_GENERATION_NAME = re.compile(r"g([0-9]{4,9})-([0-9a-f]{8})")
_FORMER_NAME = re.compile(r"metadata\.r([0-9]{4,10})\.json")
_OWNER = re.compile(r"[0-9a-f]{8}")


class RecordingId(NamedTuple):
    """One generation of one key path, and the stream that began it.

    `owner` is random: two daemons that know nothing of each other and begin the same name at the same
    moment get two folders, on any store. Only the stream whose record has it puts anything there.
    """

    key_path: str
    generation: int
    owner: str

    @property
    def stream_id(self) -> str:
        """Its name among the streams of one namespace, such as `cam1/front.mp4@1`."""
        return stream_id(self.key_path, self.generation)

    @property
    def full_name(self) -> str:
        """Its name among all recordings of a bucket, such as `cam1/front.mp4@1-7f3a91c2`."""
        return f"{self.stream_id}-{self.owner}"


class BucketLayout:
    """The keys of everything under one prefix of one bucket.

    Parameters:
        prefix: `S3_PREFIX`: empty, or ending in `/`.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def path(self, key_path: str) -> str:
        """Return the key prefix, ending in `/`, under which all generations of a key path lie."""
        return f"{self.prefix}{key_path}/"

    def generation(self, recording: RecordingId) -> str:
        """Return the key prefix, ending in `/`, under which everything of one generation lies."""
        return f"{self.path(recording.key_path)}g{recording.generation:04d}-{recording.owner}/"

    def manifest(self, recording: RecordingId) -> str:
        """Return the key of a generation's manifest.

        Raises:
            PermanentError: the key would be longer than S3 takes.
        """
        return _bounded(self.generation(recording) + "metadata.json")

    def former_manifest(self, recording: RecordingId, revision: int) -> str:
        """Return the key under which the manifest of a revision is kept once it has been superseded.

        Raises:
            PermanentError: the key would be longer than S3 takes.
        """
        return _bounded(f"{self.generation(recording)}metadata.r{revision:04d}.json")

    def chunks(self, recording: RecordingId) -> str:
        """Return the key prefix, ending in `/`, of a generation's chunk objects."""
        return self.generation(recording) + "chunks/"

    def chunk(self, recording: RecordingId, index: int, sha256: str) -> str:
        """Return the key of a chunk; the same content always gets the same key.

        Raises:
            PermanentError: the key would be longer than S3 takes, or the stream has too many chunks.
        """
        if index >= MAX_CHUNKS:
            raise PermanentError(f"it has more than {MAX_CHUNKS} chunks", kind="too_large")
        return _bounded(f"{self.chunks(recording)}{index:06d}-{sha256[:12]}.part")

    def chunk_index(self, recording: RecordingId, key: str) -> int | None:
        """Return the index in a chunk's key; None when the key is no chunk of this generation."""
        folder = self.chunks(recording)
        match = _CHUNK_NAME.fullmatch(key[len(folder) :]) if key.startswith(folder) else None
        return int(match[1]) if match else None

    def former_revision(self, recording: RecordingId, key: str) -> int | None:
        """Return the revision in a former manifest's key; None when the key is none of this generation."""
        folder = self.generation(recording)
        match = _FORMER_NAME.fullmatch(key[len(folder) :]) if key.startswith(folder) else None
        return int(match[1]) if match else None

    def recording(self, folder: str) -> RecordingId | None:
        """Return the generation whose key prefix this is; None when it is none.

        Parameters:
            folder: ending in `/`, as a list gives it.
        """
        keys, _, name = folder.removeprefix(self.prefix).rstrip("/").rpartition("/")
        match = _GENERATION_NAME.fullmatch(name)
        if not match or not keys or not folder.startswith(self.prefix):
            return None
        found = RecordingId(keys, int(match[1]), match[2])
        return found if found.generation and self.generation(found) == folder else None

    def takes(self, key_path: str) -> bool:
        """Return whether the keys of a first chunk of this key path would be short enough."""
        try:
            self.chunk(RecordingId(key_path, 1, "0" * 8), 0, "0" * 12)
        except (PermanentError, UnicodeEncodeError):
            return False
        return True


def chunk_hash_start(key: str) -> str:
    """Return the beginning of the SHA-256 that a chunk's key holds."""
    return key.rpartition("-")[2].removesuffix(".part")


def new_owner() -> str:
    """Return a random id for a stream that begins; 32 bits, within one path and generation number."""
    return secrets.token_hex(4)


def is_owner(text: str) -> bool:
    """Return whether a text has the form of an owner's id."""
    return _OWNER.fullmatch(text) is not None


def stream_id(key_path: str, generation: int) -> str:
    """Return the id of the stream of one generation of a key path."""
    return f"{key_path}@{generation}"


def key_path(path: str) -> str:
    """Spell a relative path so that it can stand in S3 keys: readable, bounded, never colliding.

    Parameters:
        path: relative to the watched folder, `/`-separated, undecodable bytes as surrogates.
    """
    return "/".join(_key_segment(segment) for segment in path.split("/"))


def _key_segment(segment: str) -> str:
    plain = _NOT_PLAIN.sub("_", unicodedata.normalize("NFC", segment))
    kept = bool(segment) and plain == segment and not segment.startswith(".")
    if kept and len(segment.encode()) <= MAX_SEGMENT_BYTES:
        return segment
    mark = "~" + hashlib.sha256(os.fsencode(segment)).hexdigest()[:10]
    head = plain.encode()[: MAX_SEGMENT_BYTES - len(mark)].decode(errors="ignore")
    return head + mark


def _bounded(key: str) -> str:
    if len(key.encode()) > MAX_KEY_BYTES:
        raise PermanentError(
            f"its S3 keys would have {len(key.encode())} bytes and S3 takes {MAX_KEY_BYTES}",
            kind="key_too_long",
        )
    return key


def next_generation(known: Iterable[int]) -> int:
    """Return the number of the generation that comes after others of one path.

    Strangers in a bucket, or a damaged record, may claim the last number that there can be: that one is
    passed over. Two of one number are told apart by their owners.
    """
    return max((number for number in known if number < MAX_GENERATION), default=0) + 1
