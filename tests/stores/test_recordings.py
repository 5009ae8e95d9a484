"""Recordings on each store: byte for byte, verified, restored, and not taken for stored when gone."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from errors import StoreUnavailable
from tests.stores.declared import DECLARED
from tests.stores.every_store import REAL_STORES
from tests.stores.mechanisms import YES
from tests.support.daemon_process import MAIN, TIMEOUT_SECONDS, Site
from tests.support.harness import CHUNK
from tests.support.object_store import store_at
from tests.support.pacing import Stepper
from tests.support.servers import S3Server, ValkeyServer, wait_until
from tests.support.small_harness import SMALL_CHUNK, SmallHarness, noise
from tests.support.writers import WRITERS, sha256_of

pytestmark = [pytest.mark.stores, pytest.mark.parametrize("server", REAL_STORES, indirect=True)]


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyServer, server: S3Server) -> Iterator[Site]:
    name = f"test-{uuid.uuid4().hex}"
    server.client.create_bucket(Bucket=name)
    site = Site(tmp_path, valkey, server, name)
    yield site
    site.close()


@pytest.fixture
def harness(tmp_path: Path, valkey: ValkeyServer, server: S3Server) -> SmallHarness:
    name = f"test-{uuid.uuid4().hex}"
    server.client.create_bucket(Bucket=name)
    return SmallHarness(tmp_path / "input", valkey, server, name, name)


def test_a_recording_whose_head_is_patched_at_its_end_is_stored_verified_and_restored(site: Site) -> None:
    daemon = site.daemon()
    recording = site.folder / "cam1.mp4"
    with Stepper(WRITERS["ffmpeg_default"], recording, 2 * CHUNK + 1_000_000) as writer:
        writer.write_to(CHUNK + 1_500_000)
        wait_until(lambda: _stored_bytes(site) >= CHUNK, TIMEOUT_SECONDS)
        written = writer.finish()
    site.wait_until_stored("cam1.mp4")
    assert daemon.terminate() == 0
    assert site.view.holds("cam1.mp4")
    assert site.view.manifest("cam1.mp4")["repaired_chunks"] == 1
    assert _command(site, "verify", "cam1.mp4").returncode == 0
    assert _command(site, "restore", "cam1.mp4", "--to", "back.mp4").returncode == 0
    assert sha256_of(site.base / "back.mp4") == written[recording]


def _stored_bytes(site: Site) -> int:
    found = site.view.parts.checkpoints.find("cam1.mp4")
    return found.offset if found else 0


def _command(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(MAIN.parent), "PATH": "/usr/bin:/bin", **site.environment()}
    command = [sys.executable, str(MAIN), *arguments]
    return subprocess.run(
        command, cwd=site.base, env=environment, capture_output=True, text=True, check=False
    )


def test_a_bucket_that_was_emptied_is_refused_also_by_a_store_that_makes_it_again(
    harness: SmallHarness,
) -> None:
    harness.write("cam1.mp4", noise(SMALL_CHUNK + 1000))
    harness.until_finished("cam1.mp4")
    client, name = harness.s3, harness.bucket
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=name)
    for key in [item["Key"] for page in pages for item in page.get("Contents", ())]:
        client.delete_object(Bucket=name, Key=key)
    client.delete_bucket(Bucket=name)
    with suppress(ClientError):  # where it succeeds, the bucket is there again, and empty
        client.put_object(Bucket=name, Key="a", Body=b"x")
    with pytest.raises(StoreUnavailable) as refused:
        harness.parts.marker.check()
    assert refused.value.refused
    assert refused.value.kind in ("store", "bucket")


def test_in_a_versioned_bucket_a_repaired_recording_is_whole(server: S3Server, harness: SmallHarness) -> None:
    store = store_at(server.port, harness.bucket)
    if DECLARED[server.name]["versioned bucket keeps what was deleted"] != YES:
        assert not store.keeps_versions()
        return
    server.client.put_bucket_versioning(Bucket=harness.bucket, VersioningConfiguration={"Status": "Enabled"})
    assert store.keeps_versions()
    target = harness.write("cam1.mp4", noise(3 * SMALL_CHUNK))
    harness.scan()
    with target.open("r+b") as file:
        file.write(b"patched")
    harness.until_finished("cam1.mp4")
    assert harness.holds("cam1.mp4")
    assert harness.manifest("cam1.mp4")["repaired_chunks"] == 1
