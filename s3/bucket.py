"""One bucket through boto3: confirmed puts, reads, lists. What its errors mean: `s3/errors.py`."""

import copy
import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from errors import PermanentError, StoreUnavailable, TransientError
from recording.stream import StoredObject
from recording.timestamps import iso, utc_now
from s3.checksums import Body as Body  # noqa: PLC0414 - of what is put here
from s3.checksums import Confirmation, Digests, asked_of_put, asked_of_read, checks_sha256, verdict
from s3.clients import ClientProfile, S3Clients
from s3.errors import is_no_object, not_s3, opening, status_of, timeout_behind, translated
from s3.opening import ensure_bucket
from scheduling.put_limit import PutLimit
from settings.s3 import S3Settings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ObjectTypeDef

MAX_BLOCKS = 10_000
"""Of a hundred chunk indexes each: 1,000,000 chunks."""

PIECE_BYTES = 256 * 1024
"""Read at a time: larger ones only took more memory (measured with a local server)."""


class ObjectStore:
    """One bucket of one S3 server. Safe to use from any thread.

    Every method raises `StoreUnavailable` when the store is down, full, throttling or refusing us,
    `TransientError` when only this request failed, and `PermanentError` when it can never succeed.

    Parameters:
        settings: which bucket of which server, and how to speak to it.
        connections: size of the connection pool.
        puts: is told of puts that were confirmed and of requests that the line was too slow for.
    """

    def __init__(self, settings: S3Settings, *, connections: int, puts: PutLimit | None = None) -> None:
        self.bucket = settings.bucket
        self.puts = puts or PutLimit(connections)
        self._own_server = settings.endpoint_url is not None
        self._clients = S3Clients(settings, connections=connections)
        self._profile: ClientProfile = "upload"
        self.confirmation = Confirmation()
        """How the store confirms puts; shared with `for_viewers` and `for_probes`."""
        self.answered_at = -math.inf
        """Monotonic seconds of the last answer that was no failure; written by any thread."""
        self.takes_puts = True
        """Whether the last put that ended was confirmed; written by any thread."""

    # ------------------------------------------------------------------ the service

    def prepare(self, *, create: bool) -> None:
        """Make sure that the bucket is there and lets us in; tells an outage after `QUICK_SECONDS`.

        Parameters:
            create: make the bucket when it is missing. Only before it was ever seen: one that
                vanished later held recordings, and an empty one in its place would hide that.

        Raises:
            StoreUnavailable: and nothing else; `refused` for every answer that waiting cannot change.
        """
        with opening(self.bucket), self._translated("opening the bucket"):
            ensure_bucket(self._clients.get("probe"), self.bucket, own_server=self._own_server, create=create)

    def renew_credentials(self) -> None:
        """Read the keys again; if they may be others now, connect with them at the next call."""
        self._clients.renew()

    def for_viewers(self) -> "ObjectStore":
        """Return the same bucket for people who watch: it gives up early, and shares connections and keys."""
        return self._with_profile("viewer")

    def for_probes(self) -> "ObjectStore":
        """Return the same bucket for short questions: `QUICK_SECONDS` to connect, and as long to answer."""
        return self._with_profile("probe")

    def _with_profile(self, profile: ClientProfile) -> "ObjectStore":
        hasty = copy.copy(self)
        hasty._profile = profile  # noqa: SLF001 - our own
        return hasty

    def _connected(self) -> "S3Client":
        return self._clients.get(self._profile)

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        began_at = time.monotonic()
        try:
            with translated(doing, self.bucket):
                yield
        except StoreUnavailable as error:
            # Too much for the line is no outage. Who asks short questions knows no other failure.
            if self._profile == "upload" and timeout_behind(error) and self._clients.line.moves():
                self.puts.timed_out(began_at)
                raise TransientError(error.message, kind="slow") from error
            raise
        self.answered_at = time.monotonic()

    @contextmanager
    def _noting_refusal(self) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable:
            self.takes_puts = False
            raise

    @property
    def heard_at(self) -> float:
        """Monotonic seconds of the last sign of life: an answer, or bytes of a request that left."""
        return max(self.answered_at, self._clients.line.moved_at)

    # ------------------------------------------------------------------ objects

    def checks_sha256(self, key: str) -> bool:
        """Return whether the store refuses a put whose SHA-256 is wrong; see `checksums.checks_sha256`.

        Parameters:
            key: of a small object, which stays.
        """
        with self._translated(f"putting {key}"):
            return checks_sha256(self._connected(), self.bucket, key)

    def put(self, key: str, body: Body, *, sha256: str | None = None) -> StoredObject:
        """Store an object and have it confirmed: a checksum on the way in, and compared with the answer.

        Parameters:
            key: under the bucket.
            body: sent as it is, without a copy.
            sha256: of the body, in hex, where it is known.

        Raises:
            TransientError: `corrupt` when the store holds other bytes than these.
            StoreUnavailable: `bucket` also when the answer confirms nothing, as that of a web server.
        """
        digests, algorithm = Digests(body, sha256), self.confirmation.algorithm
        with self._noting_refusal():
            with self._translated(f"putting {key}"):
                reply = self._connected().put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=body,  # type: ignore[arg-type] # botocore takes a bytearray, its stubs do not know
                    **asked_of_put(algorithm, digests),  # type: ignore[arg-type] # one parameter
                )
            if not reply.get("ETag"):
                raise not_s3(f"putting {key}: an answer without ETag", self.bucket)
        told = verdict(algorithm, reply, digests)
        if not told and algorithm == "sha256":
            self.confirmation.withdraw(key)
            raise TransientError(f"the store did not confirm the SHA-256 of {key}", kind="corrupt")
        if told == "other bytes":
            raise TransientError(f"the store holds other bytes than were sent to {key}", kind="corrupt")
        self.takes_puts = True
        self.puts.confirmed()
        return StoredObject(key, len(body), reply["ETag"].strip('"'), utc_now(), told)

    def find(self, key: str, body: Body, *, sha256: str | None = None) -> StoredObject | None:
        """Return the object at a key if it holds exactly these bytes; it is read if the answer says nothing.

        Parameters: as those of `put`.
        """
        algorithm = self.confirmation.algorithm
        with self._translated(f"asking for {key}"):
            try:
                reply = self._connected().head_object(
                    Bucket=self.bucket,
                    Key=key,
                    **asked_of_read(algorithm),  # type: ignore[arg-type] # one parameter
                )
            except ClientError as error:
                if is_no_object(error):
                    return None
                raise
        if not (reply.get("ETag") and reply.get("LastModified")):
            raise not_s3(f"asking for {key}: an answer without ETag or time", self.bucket)
        if reply["ContentLength"] != len(body):
            return None
        digests = Digests(body, sha256)
        told = verdict(algorithm, reply, digests)
        if not told and self._holds(key, len(body), digests.sha256):
            told = "sha256"
        if not told or told == "other bytes":
            return None
        return StoredObject(key, len(body), reply["ETag"].strip('"'), iso(reply["LastModified"]), told)

    def _holds(self, key: str, size: int, sha256: bytes) -> bool:
        read = hashlib.sha256()
        try:
            for piece in self.pieces(key, size):
                read.update(piece)
        except PermanentError:  # it went, or changed, since we asked
            return False
        return read.digest() == sha256

    def copy(
        self, source_key: str, key: str, body: Body, *, sha256: str | None = None
    ) -> StoredObject | None:
        """Have the store copy an object of ours; None when it cannot, or has other bytes there.

        Parameters:
            source_key: of an object that should hold these bytes.
            key: where they shall lie.
            body: the bytes. What the store answers proves nothing: the copy is asked for and compared.
            sha256: of the body, in hex, where it is known.
        """
        if self.find(source_key, body, sha256=sha256) is None:
            return None
        with self._translated(f"copying {source_key}"):
            try:
                self._connected().copy_object(
                    Bucket=self.bucket, Key=key, CopySource={"Bucket": self.bucket, "Key": source_key}
                )
            except ClientError:  # gone this very moment, not allowed, not supported: it is sent instead
                return None
        return self.find(key, body, sha256=sha256)

    def get(self, key: str, *, at_most: int) -> bytes | None:
        """Read a small object; None when there is none.

        Parameters:
            key: under the bucket.
            at_most: bytes; a larger object is refused.

        Raises:
            PermanentError: the object is larger.
            TransientError: `corrupt` when these are not the bytes that the answer speaks of.
        """
        algorithm = self.confirmation.algorithm
        with self._translated(f"reading {key}"):
            try:
                reply = self._connected().get_object(
                    Bucket=self.bucket,
                    Key=key,
                    **asked_of_read(algorithm),  # type: ignore[arg-type] # one parameter
                )
            except ClientError as error:
                if is_no_object(error):
                    return None
                raise
            with closing(reply["Body"]) as body:
                found = body.read(at_most + 1)
        if len(found) > at_most:
            raise PermanentError(f"{key} has more than {at_most} bytes", kind="manifest")
        if not reply.get("ETag"):
            raise not_s3(f"reading {key}: an answer without ETag", self.bucket)
        if verdict(algorithm, reply, Digests(found)) == "other bytes":
            raise TransientError(f"{key} arrived with other bytes than the store holds", kind="corrupt")
        return found

    def pieces(
        self, key: str, size: int, *, start: int = 0, end: int | None = None, piece_bytes: int = PIECE_BYTES
    ) -> Iterator[bytes]:
        """Read the bytes `[start, end)` of an object, a piece at a time, so that memory stays bounded.

        Parameters:
            key: under the bucket.
            size: bytes that the whole object must have.
            start: the first byte that is wanted.
            end: the byte after the last one; None means up to `size`.
            piece_bytes: the most that one piece has.

        Raises:
            PermanentError: `missing` when there is no such object, `size` when it has another size.
        """
        end = size if end is None else end
        wanted: dict[str, str] = {} if (start, end) == (0, size) else {"Range": f"bytes={start}-{end - 1}"}
        with self._translated(f"reading {key}"):
            try:
                reply = self._connected().get_object(Bucket=self.bucket, Key=key, **wanted)  # type: ignore[arg-type]
            except ClientError as error:
                if status_of(error) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    raise PermanentError(f"{key} has not {size} bytes", kind="size") from error
                if is_no_object(error):
                    raise PermanentError(f"{key} is not there", kind="missing") from error
                raise
        with closing(reply["Body"]) as body:
            whole = reply.get("ContentRange", "").rpartition("/")[2]
            if reply["ContentLength"] != end - start or (whole.isdigit() and int(whole) != size):
                raise PermanentError(f"{key} has not {size} bytes", kind="size")
            left = end - start
            while left:
                with self._translated(f"reading {key}"):
                    piece = body.read(min(piece_bytes, left))
                left -= len(piece)
                yield piece

    def level(self, prefix: str) -> tuple[list[str], list[StoredObject]]:
        """List what lies right under a prefix, as in a folder.

        Returns:
            The deeper prefixes, ending in `/`, and the objects; both in order.
        """
        folders: list[str] = []
        found: list[StoredObject] = []
        for page in self._pages(prefix, Delimiter="/"):
            folders += [item["Prefix"] for item in page.get("CommonPrefixes", ())]
            found += [self._stored(item) for item in page.get("Contents", ())]
        return folders, found

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """List the objects whose keys begin with a prefix, in order of key."""
        for page in self._pages(prefix):
            yield from map(self._stored, page.get("Contents", ()))

    def _pages(self, prefix: str, **more: str) -> Iterator["ListObjectsV2OutputTypeDef"]:
        token = None
        while True:
            with self._translated(f"listing {prefix}"):
                page = self._connected().list_objects_v2(Bucket=self.bucket, Prefix=prefix, **more)  # type: ignore[arg-type]
            if "IsTruncated" not in page:  # any XML would pass for an empty list, and the key for a new one
                raise not_s3(f"listing {prefix}: an answer that is no list", self.bucket)
            yield page
            if not page["IsTruncated"]:
                return
            before, token = token, page.get("NextContinuationToken")
            if not token or token == before:
                raise not_s3(f"listing {prefix}: a list that does not go on", self.bucket)
            more["ContinuationToken"] = token

    def _stored(self, item: "ObjectTypeDef") -> StoredObject:
        try:
            return StoredObject(item["Key"], item["Size"], item["ETag"].strip('"'), iso(item["LastModified"]))
        except KeyError as error:
            raise not_s3(f"a list whose objects have no {error}", self.bucket) from error

    def chunk_objects(self, prefix: str) -> Iterator[StoredObject]:
        """List the objects of a generation's chunk folder, a hundred indexes a request.

        A store that computes ETags while it lists (rclone) reads every object that it names; small
        requests keep each answer within the read timeout.

        Parameters:
            prefix: the folder, ending in `/`.
        """
        for block in range(MAX_BLOCKS):
            page = list(self.objects(f"{prefix}{block:04d}"))
            yield from page
            if not page:
                return

    def folders(self, prefix: str) -> list[str]:
        """List the key prefixes, ending in `/`, that begin with a prefix and go on to the next `/`."""
        return self.level(prefix)[0]

    def delete(self, keys: list[str]) -> None:
        """Delete objects, one request each: the multi-object request differs between servers.

        Raises:
            PermanentError: `delete_refused` when our rights do not cover it.
        """
        for key in keys:
            with self._translated(f"deleting {key}"):
                try:
                    self._connected().delete_object(Bucket=self.bucket, Key=key)
                except ClientError as error:
                    if status_of(error) != HTTPStatus.FORBIDDEN:
                        raise
                    raise PermanentError(
                        f"the store refuses to delete {key}", kind="delete_refused"
                    ) from error

    def keeps_versions(self) -> bool | None:
        """Return whether what is deleted stays as an older version; None when the store does not say."""
        with self._translated("asking for the bucket's versioning"):
            try:
                return "Status" in self._connected().get_bucket_versioning(Bucket=self.bucket)
            except ClientError:
                return None
