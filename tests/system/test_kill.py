"""kill -9, restarts, and a Redis that lost everything: the same result, and almost nothing is sent twice."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.drills.kill import WORKERS, check, drill
from tests.support.daemon_process import SHORT_LEASES, CountingRclone, Site
from tests.support.harness import CHUNK
from tests.support.pacing import at_rate
from tests.support.servers import ValkeyServer, wait_until
from tests.support.writers import WRITERS, Written

KILLS = 6
FLUSHES = 4
BYTES_PER_SECOND = 4_000_000
SIZE = 3 * CHUNK + 1_000_000
LIVE = ("ffmpeg_default", "ffmpeg_fragmented", "copied", "appended_and_closed", "head_patched", "downloaded")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountingRclone]:
    rclone = CountingRclone(tmp_path_factory.mktemp("kill") / "rclone")
    rclone.start()
    yield rclone
    rclone.close()


@pytest.fixture
def site(
    tmp_path: Path, private_valkey: ValkeyServer, store: CountingRclone, redis_namespace: str
) -> Iterator[Site]:
    site = Site(tmp_path, private_valkey, store, redis_namespace)
    yield site
    site.close()


@contextmanager
def writing(site: Site) -> Iterator[Written]:
    """Recorders that write while the block runs; then their files are complete and in what it gave."""
    written: Written = {}
    stop = threading.Event()
    with ThreadPoolExecutor(len(LIVE)) as pool:
        pace = at_rate(BYTES_PER_SECOND, 0.0, stop)
        recorders = [pool.submit(WRITERS[name], site.folder / f"{name}.mp4", SIZE, pace) for name in LIVE]
        try:
            yield written
        finally:
            stop.set()
        for recorder in recorders:
            written |= recorder.result()


def put_twice(site: Site, store: CountingRclone) -> dict[str, int]:
    return {key: count for key, count in store.chunk_puts(site.bucket).items() if count > 1}


def test_kills_at_random_moments_lose_nothing_and_repeat_at_most_a_chunk_a_worker(
    site: Site, store: CountingRclone
) -> None:
    report = drill(site, store, kills=KILLS, seed=7, prelude=SHORT_LEASES)
    assert report.repeated_puts <= KILLS * WORKERS
    assert report.chunk_puts > report.files


def test_a_chunk_whose_put_was_cut_off_by_a_kill_is_put_once_more(site: Site, store: CountingRclone) -> None:
    (site.folder / "a.mp4").write_bytes(os.urandom(4 * CHUNK))
    first = site.daemon(prelude=SHORT_LEASES, UPLOAD_WORKERS="1")
    wait_until(lambda: store.chunk_puts(site.bucket), message="no put began")
    store.freeze()
    first.kill()
    store.thaw()
    second = site.daemon(prelude=SHORT_LEASES, UPLOAD_WORKERS="1")
    site.wait_until_stored("a.mp4")
    assert second.terminate() == 0
    assert site.view.holds("a.mp4")
    assert sum(put_twice(site, store).values()) <= 2


def test_after_a_clean_stop_nothing_is_put_twice(site: Site, store: CountingRclone) -> None:
    with writing(site) as written:
        for _ in range(3):
            daemon = site.daemon()
            daemon.wait_for("chunk stored", count=3)
            assert daemon.terminate() == 0
    last = site.daemon()
    site.wait_until_stored(*(path.name for path in written))
    assert last.terminate() == 0
    check(site, written)
    assert put_twice(site, store) == {}


def test_what_happened_while_the_daemon_was_down_is_found_at_the_next_start(
    site: Site, store: CountingRclone
) -> None:
    def write(name: str, size: int) -> Path:
        path = site.folder / name
        path.write_bytes(os.urandom(size))
        return path

    started = {name: write(name, 2 * CHUNK + 9) for name in ("patched.mp4", "renamed.mp4", "deleted.mp4")}
    untouched = write("untouched.mp4", CHUNK + 1)
    first = site.daemon()
    site.wait_until_stored(*started, untouched.name)
    growing = write("growing.mp4", 2 * CHUNK + 1)
    first.wait_for("chunk stored", stream="growing.mp4@1", index=1)
    assert first.terminate() == 0

    with growing.open("ab") as appended:
        appended.write(os.urandom(CHUNK))
    with started["patched.mp4"].open("r+b") as patched:
        patched.write(b"a new head")
    started["renamed.mp4"].rename(site.folder / "new name.mp4")
    started["deleted.mp4"].unlink()
    write("new.mp4", CHUNK)
    before = store.chunk_puts(site.bucket)

    second = site.daemon()
    site.wait_until_stored("growing.mp4", "patched.mp4", "new name.mp4", "new.mp4", "untouched.mp4")
    assert second.terminate() == 0
    view = site.view
    assert [view.holds(f"{name}.mp4") for name in ("growing", "new", "untouched", "patched")] == [True] * 4
    assert view.manifest("patched.mp4")["revision"] == 2
    assert view.recorded("renamed.mp4") == (site.folder / "new name.mp4").read_bytes()
    assert view.manifest("deleted.mp4")["status"] == "complete"
    view.recorded("deleted.mp4")
    fresh = store.chunk_puts(site.bucket) - before
    # The two that follow in growing.mp4, the patched head, the new file.
    assert sorted(key.partition("/")[0] for key in fresh) == ["growing.mp4"] * 2 + ["new.mp4", "patched.mp4"]
    assert put_twice(site, store) == {}


def test_a_scan_of_known_and_unchanged_files_costs_no_call_to_s3_and_one_to_redis(
    site: Site, store: CountingRclone
) -> None:
    names = [f"{number}.mp4" for number in range(20)]
    for name in names:
        (site.folder / name).write_bytes(os.urandom(1000))
    first = site.daemon()
    site.wait_until_stored(*names)
    assert first.terminate() == 0
    before = len(store.log())
    site.valkey.client.config_resetstat()
    second = site.daemon(SCAN_INTERVAL_SECONDS="1")
    wait_until(lambda: second.metric("video_uploader_scans_total") >= 3)
    scans = second.metric("video_uploader_scans_total")
    lookups = site.valkey.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert second.terminate() == 0
    asked_for = [line for line in store.log()[before:].splitlines() if " OBJECT" in line]
    others = [line for line in asked_for if not line.endswith((".vcu/store.json", "/metadata.json"))]
    assert [line for line in others if ".vcu/index/" not in line] == [], "but for the marker and the audit"
    # A script that Valkey does not know yet is asked for twice; another scan may have begun meanwhile.
    # So do the probe, the count of the streams and the audit; one for each file would be 20 a scan.
    assert lookups <= scans + 15


def test_a_redis_that_loses_everything_while_recorders_write_changes_nothing(
    site: Site, store: CountingRclone
) -> None:
    finished = site.folder / "finished.mp4"
    finished.write_bytes(os.urandom(CHUNK + 7))
    daemon = site.daemon()
    site.wait_until_stored(finished.name)
    with writing(site) as written:
        for flush in range(1, FLUSHES + 1):
            daemon.wait_for("chunk stored", count=3 * flush)
            site.valkey.client.flushall()
    site.wait_until_stored(finished.name, *(path.name for path in written))
    assert daemon.terminate() == 0
    check(site, written)
    assert site.view.holds(finished.name)
    assert put_twice(site, store) == {}
    assert {generation for _, generation in site.generations()} == {1}
