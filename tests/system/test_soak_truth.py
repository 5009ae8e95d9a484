"""The soak asks the page: each lie is seen, and what a daemon cannot know yet passes."""

import http.server
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.drills import soak_truth
from tests.drills.soak_damage import WAYS, Records
from tests.drills.soak_store import StoreFolder
from tests.drills.soak_truth import Blind, PageTruth
from tests.support.harness import CHUNK, Harness
from tests.support.servers import RcloneS3

NAME = "00007-copied.mp4"
AN_HOUR = 3600.0


class _Page(http.server.BaseHTTPRequestHandler):
    level = "safe"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(
            json.dumps({"answer": {"level": self.level, "all_in_s3": self.level == "safe"}}).encode()
        )

    def log_message(self, *_: object) -> None:
        pass


class Scene:
    """A stored recording, and a page that says what the test wants. `generation` is its newest one."""

    def __init__(self, harness: Harness, objects: Path, log: Path) -> None:
        self.harness, self.store = harness, StoreFolder(objects, chunk_sizes=[CHUNK])
        self.wipes: list[float] = []
        self.blind = Blind()
        self.log = log
        self.truth = PageTruth(
            "A",
            log_path=lambda: log,
            folder=harness.folder,
            store=self.store,
            blind=[self.blind],
            wipes=self.wipes,
        )

    def record(self, size: int) -> None:
        """Have a recording stored."""
        self.source = self.harness.write(NAME, os.urandom(size))
        self.harness.fall_idle()

    def lies(self) -> list[str]:
        """Ask once, and give what was found wrong."""
        before = len(self.truth.problems)
        assert self.truth.ask() == "safe"
        return self.truth.problems[before:]

    @property
    def generation(self) -> Path:
        return max((self.store.objects / NAME).iterdir(), key=lambda folder: folder.name)


@pytest.fixture
def scene(
    tmp_path: Path, rclone: RcloneS3, bucket: str, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    monkeypatch.setattr(soak_truth, "KNOWN_SECONDS", 0.0)
    server = http.server.HTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    log = tmp_path / "daemon.log"
    url = f"http://127.0.0.1:{server.server_port}/"
    log.write_text(json.dumps({"time": "now", "level": "INFO", "event": "serving", "url": url}) + "\n")
    scene = Scene(harness, rclone.data_dir / bucket, log)
    scene.record(100_000)
    yield scene
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_safe_that_is_true_is_compared_and_passes(scene: Scene) -> None:
    assert scene.lies() == []
    assert scene.truth.compared == 1
    assert scene.truth.levels == {"safe": 1}


def test_a_safe_over_a_file_that_is_not_stored_is_seen(scene: Scene) -> None:
    scene.harness.write("00008-copied.mp4", b"only here")
    (lie,) = scene.lies()
    assert lie.startswith("A said safe at ")
    assert "00008-copied.mp4" in lie


def test_a_safe_over_changed_bytes_is_seen(scene: Scene) -> None:
    with scene.source.open("r+b") as file:
        file.write(b"patched")
    assert len(scene.lies()) == 1


@pytest.mark.parametrize("what", ["chunk", "manifest", "bucket"])
def test_a_safe_over_a_store_that_lost_something_is_seen(scene: Scene, what: str) -> None:
    assert scene.lies() == []  # and what was read is not believed for ever
    if what == "chunk":
        next((scene.generation / "chunks").iterdir()).unlink()
    elif what == "manifest":
        (scene.generation / "metadata.json").unlink()
    else:
        shutil.rmtree(scene.store.objects)
    assert len(scene.lies()) == 1


def test_what_is_new_need_not_be_known(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak_truth, "KNOWN_SECONDS", AN_HOUR)
    scene.harness.write("00008-copied.mp4", b"only here")
    assert scene.lies() == []
    assert scene.truth.compared == 0


def test_time_in_which_a_daemon_stood_still_does_not_count(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.time()
    scene.harness.write("00008-copied.mp4", b"only here")
    scene.blind._times.append((began - 1, began + AN_HOUR))
    monkeypatch.setattr(soak_truth, "KNOWN_SECONDS", 0.001)
    assert scene.lies() == []
    scene.blind._times.clear()
    monkeypatch.setattr(soak_truth, "KNOWN_SECONDS", 0.0)
    assert len(scene.lies()) == 1


@pytest.mark.parametrize("noticed", ["", "records begin anew"])
def test_a_bucket_made_anew_is_no_excuse_once_it_was_noticed(scene: Scene, noticed: str) -> None:
    scene.wipes.append(time.time())
    shutil.rmtree(scene.store.objects)
    if noticed:
        event = {"level": "WARNING", "event": noticed}
        with scene.log.open("a") as log:
            log.write(json.dumps({"time": "2999-01-01T00:00:00.000Z"} | event) + "\n")
        assert scene.lies() == []  # that is later than what the page said
        with scene.log.open("a") as log:
            log.write(json.dumps({"time": datetime.now(UTC).isoformat()} | event) + "\n")
    assert len(scene.lies()) == bool(noticed)


def test_a_bucket_made_anew_long_ago_is_no_excuse(scene: Scene) -> None:
    scene.wipes.append(time.time() - soak_truth.NOTICED_SECONDS)
    shutil.rmtree(scene.store.objects)
    assert len(scene.lies()) == 1


def test_a_page_that_does_not_answer_or_says_less_is_counted_and_not_compared(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(scene.store.objects)
    monkeypatch.setattr(_Page, "level", "behind")
    assert scene.truth.ask() == "behind"
    scene.log.write_text("")
    scene.truth._addresses.clear()
    assert scene.truth.ask() == ""
    assert (scene.truth.problems, scene.truth.compared) == ([], 0)


def test_seconds_in_which_nothing_could_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "time", lambda: now)
    blind = Blind()
    assert blind.seconds(0, 200) == 0
    blind.begin()
    assert blind.seconds(90, 110) == 10
    now = 120.0
    blind.end()
    assert [blind.seconds(*each) for each in ((90, 200), (110, 115), (120, 200))] == [20, 5, 0]


# ---------------------------------------------------------------------- what was ever complete


def test_what_was_complete_and_is_not_there_any_more_is_seen(scene: Scene) -> None:
    scene.store.note_complete()
    assert scene.store.not_restored() == []
    shutil.rmtree(scene.generation)
    (missing,) = scene.store.not_restored()
    assert missing.endswith("revision 1 was complete and cannot be restored")
    (recording,) = {key[0] for key in scene.store._complete}
    scene.store.forget(recording)
    assert scene.store.not_restored() == []


def test_a_revision_that_only_grew_holds_the_former_one_and_a_patched_one_does_not(scene: Scene) -> None:
    scene.record(2 * CHUNK + 9)
    scene.store.note_complete()
    with scene.source.open("ab") as file:
        file.write(b"more")
    scene.harness.fall_idle()
    assert not list(scene.generation.glob("metadata.r*.json"))
    scene.store.note_complete()
    assert len(scene.store._complete) == 3  # and the recording before
    assert scene.store.not_restored() == []
    with scene.source.open("r+b") as file:
        file.write(b"patched")
    scene.harness.fall_idle()
    assert scene.store.not_restored() == []
    (former,) = scene.generation.glob("metadata.r*.json")
    former.unlink()
    assert len(scene.store.not_restored()) == 2


def test_a_revision_that_was_overwritten_is_seen(scene: Scene) -> None:
    scene.record(2 * CHUNK + 9)
    scene.store.note_complete()
    path = scene.generation / "metadata.json"
    manifest: dict[str, Any] = json.loads(path.read_text())
    with scene.source.open("r+b") as file:
        file.write(b"patched")
    scene.harness.fall_idle()
    newer = json.loads(path.read_text())
    (former,) = scene.generation.glob("metadata.r*.json")
    former.unlink()
    path.write_text(json.dumps(newer | {"revision": manifest["revision"]}))
    scene.store.note_complete()
    assert "revision 1 was overwritten" in "\n".join(scene.store.not_restored())


# ---------------------------------------------------------------------- damage


def test_each_way_of_damage_changes_the_records(scene: Scene) -> None:
    for number in range(2):
        scene.harness.write(f"0001{number}-copied.mp4", os.urandom(2 * CHUNK + 1))
    scene.harness.scan()
    client = scene.harness._servers[0].client
    base = f"{{{scene.harness._namespace}}}:"

    def state() -> dict[bytes, Any]:
        keys = sorted(client.scan_iter(f"{base}*"))
        return {key: client.hgetall(key) if client.type(key) == b"hash" else key for key in keys}

    records = Records(client, scene.harness._namespace, random.Random(1))
    for way in sorted(WAYS, key="key evicted".__eq__):  # that one last: the others need what it drops
        before, tries = state(), 0
        while state() == before:  # some values are equal, and some keys are not there yet
            assert WAYS[way](records).startswith(base)
            tries += 1
            assert tries < 100, f"{way} changed nothing"
