"""A file system that fails (EIO, ESTALE) delays what it fails for and nothing else; nothing is lost."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drills.outage import SHORT_BACKOFF
from tests.support.daemon_process import ROOT, DaemonProcess, Site
from tests.support.harness import CHUNK
from tests.support.servers import RcloneS3, ValkeyServer, wait_until

pytestmark = pytest.mark.root


def on_fuse(site: Site) -> str:
    """Return a prelude for a daemon that sees `backing` at its folder, on a file system that may fail."""
    paths = [str(path) for path in (site.folder, site.base / "backing", site.base / "fault")]
    return f"from tests.support.fuse_folder import mounted\nmounted(*{paths!r})"


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, redis_namespace: str) -> Iterator[Site]:
    site = Site(tmp_path, valkey, rclone, redis_namespace)
    (site.base / "backing").mkdir()
    tried = subprocess.run(
        [sys.executable, "-c", on_fuse(site)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"no FUSE here: {tried.stderr.splitlines()[-1]}")
    yield site
    site.close()


def write(site: Site, name: str) -> bytes:
    content = os.urandom(2 * CHUNK + 7)
    (site.base / "backing" / name).write_bytes(content)
    return content


def must_wait(daemon: DaemonProcess, number: int) -> None:
    for count in (1, 3):
        said = daemon.wait_for("trying again", path="bad.mp4", count=count)["reason"]
        assert os.strerror(number) in said


@pytest.mark.parametrize(
    ("operation", "number"),
    [pytest.param("read", errno.EIO, id="read-EIO"), pytest.param("open", errno.ESTALE, id="open-ESTALE")],
)
def test_a_file_that_cannot_be_read_now_is_tried_again_and_no_other_waits_for_it(
    site: Site, operation: str, number: int
) -> None:
    fault = site.base / "fault"
    fault.write_text(f"{operation} {number} bad.mp4")
    bad, good = write(site, "bad.mp4"), write(site, "good.mp4")
    daemon = site.daemon(prelude=f"{on_fuse(site)}\n{SHORT_BACKOFF}")
    must_wait(daemon, number)
    daemon.wait_for("complete", stream="good.mp4@1")
    assert site.view.recorded("good.mp4") == good
    assert daemon.metric("video_uploader_errors_total", kind="source_io") >= 3
    assert not daemon.events("complete", stream="bad.mp4@1")
    fault.unlink()
    daemon.wait_for("complete", stream="bad.mp4@1")
    assert site.view.recorded("bad.mp4") == bad
    for event in ("failed", "vanished", "replaced", "closed incomplete"):
        assert not daemon.events(event)
    assert daemon.terminate() == 0


def test_a_folder_that_cannot_be_read_now_is_looked_at_again(site: Site) -> None:
    content = write(site, "a.mp4")
    fault = site.base / "fault"
    fault.write_text(f"opendir {errno.EIO} backing")
    daemon = site.daemon(prelude=f"{on_fuse(site)}\n{SHORT_BACKOFF}")
    assert os.strerror(errno.EIO) in daemon.wait_for("watched folder missing")["reason"]
    wait_until(lambda: daemon.get("/readyz")[0] == 503)
    assert not daemon.events("found")
    fault.unlink()
    daemon.wait_for("complete", stream="a.mp4@1")
    daemon.wait_for_ready()
    assert site.view.recorded("a.mp4") == content
    assert daemon.terminate() == 0
