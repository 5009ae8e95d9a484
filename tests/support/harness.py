"""The whole daemon without its threads: a test steps it, with a clock of its own, on real servers."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from config import Settings, load_settings
from recording.service_keys import service_folder
from recording.stream import State, Stream
from tests.support.servers import S3Server, ValkeyServer
from upload.crash_points import Hook, no_op
from wiring import Parts, wire

if TYPE_CHECKING:
    from errors import StoreUnavailable

CHUNK = 5 * 1024 * 1024
"""The smallest chunk that can be set, so that tests are quick."""

TIMEOUT = 30.0


class Clock:
    """Monotonic seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Harness:
    """One daemon on a folder of the test. `restarted` gives the next one on the same Redis, S3 and folder."""

    def __init__(
        self,
        folder: Path,
        valkey: ValkeyServer,
        s3: S3Server,
        bucket: str,
        namespace: str,
        *,
        at: Hook = no_op,
        **settings: str,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.bucket = folder, bucket
        self._servers = (valkey, s3)
        self._namespace, self._more = namespace, settings
        self.s3 = s3.client
        self.settings = self._load()
        self.clock = Clock()
        self.parts: Parts = wire(self.settings, clock=self.clock, at=at)

    def _load(self) -> Settings:
        valkey, s3 = self._servers
        environment = {
            "WATCH_DIR": str(self.folder),
            "CHUNK_SIZE": str(CHUNK),
            "STREAM_TIMEOUT_SECONDS": str(TIMEOUT),
            "REDIS_URL": valkey.url,
            "REDIS_NAMESPACE": self._namespace,
            "S3_ENDPOINT_URL": s3.endpoint_url,
            "S3_BUCKET": self.bucket,
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        }
        return load_settings(environment | self._more, env_file=None)

    @property
    def refusal(self) -> "StoreUnavailable | None":
        """Why the daemon would have ended at its start."""
        return self.parts.breakers.refusal

    def restarted(self) -> Self:
        """Return a new daemon; the old one is just left, as after kill -9, and its leases are let go."""
        for lease in self.parts.checkpoints.held():
            self.parts.checkpoints.release(lease)
        valkey, s3 = self._servers
        return type(self)(self.folder, valkey, s3, self.bucket, self._namespace, **self._more)  # type: ignore[arg-type]

    # ------------------------------------------------------------------ stepping

    def work(self, *, max_turns: int = 10_000) -> None:
        """Let a worker do every turn that is due now."""
        for _ in range(max_turns):
            before = self._state()
            self.parts.processor.work_once(0)
            if self._state() == before:
                return
        raise AssertionError(f"there was still work after {max_turns} turns")

    def _state(self) -> tuple[object, ...]:
        schedule = self.parts.schedule
        return (
            len(schedule),
            self.parts.breakers.works("redis"),
            self.parts.breakers.works("s3"),
            schedule.turns,
        )

    def scan(self) -> None:
        """Scan the folder and do what follows from it."""
        self.work()  # opens the breakers of a new daemon
        self.parts.watch.scan()
        self.work()

    def tick(self, seconds: float = 1.0) -> None:
        """Let time pass, have the monitor look, and do what follows from it."""
        self.clock.now += seconds
        self.parts.monitor.tick()
        self.work()

    def fall_idle(self) -> None:
        """Let so much time pass without a write that every source is finalized."""
        self.scan()
        self.tick()
        self.tick(TIMEOUT)
        self.tick()

    # ------------------------------------------------------------------ looking

    def write(self, path: str, content: bytes) -> Path:
        """Write a source from its beginning."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return target

    def stream(self, path: str) -> Stream:
        """Return the record of the newest stream at a path."""
        found = self.parts.checkpoints.find(path)
        assert found, f"Redis knows no stream at {path}"
        return found

    def state(self, path: str) -> State:
        """Return the state of the newest stream at a path."""
        return self.stream(path).state

    def keys(self, under: str = "") -> list[str]:
        """List the objects of recordings in the bucket."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=under)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return [key for key in keys if not key.startswith(service_folder(self.settings.s3.prefix))]

    def read(self, key: str) -> bytes:
        """Read one object."""
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def generation(self, key_path: str, generation: int = 1) -> str:
        """Return the key prefix of a generation, ending in `/`; two owners of one number fail the test."""
        found = self.s3.list_objects_v2(
            Bucket=self.bucket, Prefix=f"{key_path}/g{generation:04d}-", Delimiter="/"
        )
        (folder,) = (item["Prefix"] for item in found.get("CommonPrefixes", ()))
        return str(folder)

    def manifest(self, key_path: str, generation: int = 1, revision: int | None = None) -> dict[str, Any]:
        """Read the manifest of a generation, or that of a former revision."""
        name = "metadata.json" if revision is None else f"metadata.r{revision:04d}.json"
        content: dict[str, Any] = json.loads(self.read(self.generation(key_path, generation) + name))
        return content

    def former(self, key_path: str, generation: int = 1) -> list[str]:
        """List the former manifests that are kept of a generation."""
        return self.keys(self.generation(key_path, generation) + "metadata.r")

    def recorded(
        self, key_path: str, generation: int = 1, revision: int | None = None, *, leftovers: int | None = 0
    ) -> bytes:
        """Put a generation together from what its manifest names, checking every promise of the manifest.

        Parameters:
            key_path: of the recording.
            generation: of it.
            revision: a former one.
            leftovers: chunks that lie beside it and that no manifest names; None for any number.
        """
        manifest = self.manifest(key_path, generation, revision)
        pieces = []
        for number, chunk in enumerate(manifest["chunks"]):
            piece = self.read(chunk["key"])
            assert chunk["index"] == number
            assert chunk["offset"] == number * manifest["chunk_size_bytes"]
            assert (len(piece), hashlib.sha256(piece).hexdigest()) == (chunk["size_bytes"], chunk["sha256"])
            pieces.append(piece)
        whole = b"".join(pieces)
        assert len(whole) == manifest["total_size_bytes"]
        assert manifest["sha256"] in (None, hashlib.sha256(whole).hexdigest())
        named = {chunk["key"] for chunk in manifest["chunks"]}
        for key in [
            *self.former(key_path, generation),
            self.generation(key_path, generation) + "metadata.json",
        ]:
            named |= {chunk["key"] for chunk in json.loads(self.read(key))["chunks"]}
        beside = set(self.keys(manifest["prefix"] + "chunks/")) - named
        assert leftovers in (None, len(beside)), f"chunks that no manifest names: {beside}"
        return whole

    def holds(self, path: str, generation: int = 1) -> bool:
        """Return whether a complete generation is the file on disk, byte for byte."""
        manifest = self.manifest(path, generation)
        return (
            manifest["status"] == "complete"
            and self.recorded(path, generation) == (self.folder / path).read_bytes()
        )


HarnessMaker = Callable[..., Harness]
