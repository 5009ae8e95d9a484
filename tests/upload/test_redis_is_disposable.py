"""Promises 9 and 11: Redis may lose everything, or wake up as it was yesterday, at any step: same result."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import CountingRclone
from tests.support.harness import CHUNK, Harness
from tests.support.servers import ValkeyServer
from tests.support.small_harness import SMALL_CHUNK, SmallHarness, noise

Copy = dict[bytes, bytes]
Step = Callable[[SmallHarness], None]

RUNNING, RESTARTED = "running", "restarted"
"""The daemon that goes on after the loss is the same one, or a new one."""


# ---------------------------------------------------------------------- the scene


def recordings_begin(harness: SmallHarness) -> None:
    harness.write("grows.mp4", noise(2 * SMALL_CHUNK + 5))
    harness.write("folder/done.mp4", noise(SMALL_CHUNK + 7))
    harness.write("replaced.mp4", noise(2 * SMALL_CHUNK))
    harness.scan()


def one_grows(harness: SmallHarness) -> None:
    append(harness, "grows.mp4", SMALL_CHUNK)
    harness.scan()
    harness.tick()


def its_head_is_patched(harness: SmallHarness) -> None:
    with (harness.folder / "grows.mp4").open("r+b") as file:
        file.seek(40)
        file.write(noise(4))
    harness.tick()


def all_are_complete(harness: SmallHarness) -> None:
    harness.until_finished("grows.mp4", "folder/done.mp4", "replaced.mp4")


def one_grows_again(harness: SmallHarness) -> None:
    append(harness, "folder/done.mp4", 2 * SMALL_CHUNK)
    harness.scan()
    harness.tick()


def another_takes_a_place(harness: SmallHarness) -> None:
    other = harness.folder / "other.tmp"
    other.write_bytes(noise(3 * SMALL_CHUNK + 1))
    other.rename(harness.folder / "replaced.mp4")
    harness.scan()
    harness.tick()


def append(harness: SmallHarness, path: str, size: int) -> None:
    with (harness.folder / path).open("ab") as file:
        file.write(noise(size))


SCENE: tuple[Step, ...] = (
    recordings_begin,
    one_grows,
    its_head_is_patched,
    all_are_complete,
    one_grows_again,
    another_takes_a_place,
    all_are_complete,
)


def must_be_as_without_a_loss(harness: SmallHarness, store: CountingRclone) -> None:
    harness.until_finished("grows.mp4", "folder/done.mp4", "replaced.mp4")
    for path in ("grows.mp4", "folder/done.mp4", "replaced.mp4"):
        assert harness.holds(path, harness.stream(path).generation)
    assert 2 * SMALL_CHUNK in complete_sizes(harness, "replaced.mp4"), "what it replaced is complete still"
    newest = harness.stream("folder/done.mp4").generation
    grew_as_known = harness.manifest("folder/done.mp4", newest)["revision"] == 2
    assert grew_as_known or SMALL_CHUNK + 7 in complete_sizes(harness, "folder/done.mp4")
    sent: Counter[tuple[str, str]] = Counter()
    for key, count in store.chunk_puts(harness.bucket).items():
        path, _, chunk = key.partition("/g000")
        sent[path, chunk.rpartition("/")[2]] += count
    assert not {key: count for key, count in sent.items() if count > 1}, "S3 had these"


def complete_sizes(harness: SmallHarness, path: str) -> list[int]:
    """Read every complete generation of a path back, and tell how long each is."""
    found = [key for key in harness.keys(f"{path}/g") if key.endswith("/metadata.json")]
    manifests = [json.loads(harness.read(key)) for key in found]
    complete = [each["generation"] for each in manifests if each["status"] == "complete"]
    return [len(harness.recorded(path, generation, leftovers=None)) for generation in complete]


# ---------------------------------------------------------------------- what Redis loses


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountingRclone]:
    rclone = CountingRclone(tmp_path_factory.mktemp("disposable") / "rclone")
    rclone.start()
    yield rclone
    rclone.close()


@pytest.fixture
def harness(
    tmp_path: Path, valkey: ValkeyServer, store: CountingRclone, redis_namespace: str
) -> SmallHarness:
    return SmallHarness(tmp_path / "input", valkey, store, redis_namespace, redis_namespace)


def keys_of(harness: SmallHarness, valkey: ValkeyServer) -> list[bytes]:
    found: Any = valkey.client.keys(f"{{{harness.settings.redis.namespace}}}:*")
    return list(found)


def lose_everything(harness: SmallHarness, valkey: ValkeyServer) -> None:
    """As FLUSHALL does, for what is ours in a server of many tests; a new empty Redis is the same."""
    if keys := keys_of(harness, valkey):
        valkey.client.delete(*keys)


def copied(harness: SmallHarness, valkey: ValkeyServer) -> Copy:
    return {key: valkey.client.dump(key) or b"" for key in keys_of(harness, valkey)}


def restore(harness: SmallHarness, valkey: ValkeyServer, copy: Copy) -> None:
    lose_everything(harness, valkey)
    for key, content in copy.items():
        valkey.client.restore(key, 0, content)


def test_the_scene_without_a_loss(harness: SmallHarness, store: CountingRclone) -> None:
    for step in SCENE:
        step(harness)
    must_be_as_without_a_loss(harness, store)


@pytest.mark.parametrize("daemon", [RUNNING, RESTARTED])
@pytest.mark.parametrize("lost_after", range(len(SCENE)))
def test_a_redis_that_loses_everything_changes_nothing(
    harness: SmallHarness, valkey: ValkeyServer, store: CountingRclone, lost_after: int, daemon: str
) -> None:
    for number, step in enumerate(SCENE):
        step(harness)
        if number == lost_after:
            lose_everything(harness, valkey)
            harness = again(harness) if daemon == RESTARTED else harness
    must_be_as_without_a_loss(harness, store)


def test_a_redis_that_loses_everything_after_every_step_changes_nothing(
    harness: SmallHarness, valkey: ValkeyServer, store: CountingRclone
) -> None:
    for step in SCENE:
        step(harness)
        lose_everything(harness, valkey)
    must_be_as_without_a_loss(harness, store)


AGES = [
    (copied, copied + age, RESTARTED if bool(copied % 2) == (age == 1) else RUNNING)
    for age in (1, 3)
    for copied in range(len(SCENE) - age)
]


@pytest.mark.parametrize("case", AGES, ids=str)
def test_a_redis_restored_from_an_older_copy_changes_nothing(
    harness: SmallHarness,
    valkey: ValkeyServer,
    store: CountingRclone,
    case: tuple[int, int, str],
) -> None:
    copied_after, restored_after, daemon = case
    copy: Copy = {}
    for number, step in enumerate(SCENE):
        step(harness)
        if number == copied_after:
            copy = copied(harness, valkey)
        if number == restored_after:
            restore(harness, valkey, copy)
            harness = again(harness) if daemon == RESTARTED else harness
    must_be_as_without_a_loss(harness, store)


# ---------------------------------------------------------------------- and a source cut since then


FIRST, SECOND = noise(2 * SMALL_CHUNK + 9), noise(4 * SMALL_CHUNK + 5)


def cut_in_place(harness: SmallHarness, content: bytes) -> None:
    """Write another recording into the same inode; whoever looks between sees the empty file."""
    with (harness.folder / "cam.mp4").open("r+b") as file:
        file.truncate(0)
        harness.tick()
        file.write(content)


@pytest.mark.parametrize("daemon", [RUNNING, RESTARTED])
@pytest.mark.parametrize("first_was", ["active", "complete"])
def test_a_recording_cut_in_place_after_the_copy_keeps_both_its_generations(
    harness: SmallHarness, valkey: ValkeyServer, first_was: str, daemon: str
) -> None:
    harness.write("cam.mp4", FIRST)
    if first_was == "complete":
        harness.until_finished("cam.mp4")
    harness.scan()
    copy = copied(harness, valkey)
    cut_in_place(harness, SECOND)
    harness.until_finished("cam.mp4")
    first = harness.recorded("cam.mp4", 1)
    assert harness.holds("cam.mp4", 2)
    restore(harness, valkey, copy)
    harness = again(harness) if daemon == RESTARTED else harness
    append(harness, "cam.mp4", 7)
    harness.until_finished("cam.mp4")
    assert harness.recorded("cam.mp4", 1) == first == FIRST[: len(first)]
    assert harness.recorded("cam.mp4", 2) == SECOND
    assert harness.stream("cam.mp4").generation == 3, "nobody knows any more whose the second one is"
    assert harness.holds("cam.mp4", 3)


def test_a_recording_cut_in_place_whose_end_an_older_copy_does_not_know_begins_anew(
    harness: SmallHarness, valkey: ValkeyServer
) -> None:
    harness.write("cam.mp4", FIRST)
    harness.scan()
    copy = copied(harness, valkey)
    harness.until_finished("cam.mp4")
    restore(harness, valkey, copy)
    with (harness.folder / "cam.mp4").open("r+b") as file:  # cut, and grown again before the next look
        file.write(SECOND)
    harness = again(harness)
    harness.until_finished("cam.mp4")
    assert harness.recorded("cam.mp4", 1) == FIRST
    assert harness.holds("cam.mp4", 2)


@pytest.mark.parametrize("daemon", [RUNNING, RESTARTED])
@pytest.mark.parametrize("left", [100, SMALL_CHUNK + 100, 2 * SMALL_CHUNK + 1])
def test_a_recording_cut_below_chunks_that_an_older_copy_does_not_know_begins_anew(
    harness: SmallHarness, valkey: ValkeyServer, left: int, daemon: str
) -> None:
    source = harness.write("cam.mp4", SECOND[: SMALL_CHUNK + 9])
    harness.scan()
    copy = copied(harness, valkey)
    append(harness, "cam.mp4", 3 * SMALL_CHUNK)
    content = source.read_bytes()
    harness.scan()
    harness.tick()
    assert harness.stream("cam.mp4").next_index == 4
    restore(harness, valkey, copy)
    os.truncate(source, left)
    harness = again(harness) if daemon == RESTARTED else harness
    harness.until_finished("cam.mp4")
    assert harness.recorded("cam.mp4", 1) == content[: 4 * SMALL_CHUNK]
    assert harness.holds("cam.mp4", 2)


def test_a_recording_of_an_older_copy_that_is_back_at_its_path_goes_on_beside_a_newer_one(
    harness: SmallHarness, valkey: ValkeyServer
) -> None:
    source = harness.write("cam.mp4", FIRST)
    harness.scan()
    copy = copied(harness, valkey)
    aside = source.rename(harness.folder / "cam.aside")
    harness.write("cam.mp4", SECOND)
    harness.until_finished("cam.mp4")
    aside.replace(source)
    restore(harness, valkey, copy)
    harness = again(harness)
    harness.until_finished("cam.mp4")
    assert harness.holds("cam.mp4", 1)
    assert harness.recorded("cam.mp4", 2) == SECOND


def test_two_daemons_on_an_older_copy_keep_both_generations(
    harness: SmallHarness, valkey: ValkeyServer
) -> None:
    harness.write("cam.mp4", FIRST)
    harness.scan()
    copy = copied(harness, valkey)
    cut_in_place(harness, SECOND)
    harness.until_finished("cam.mp4")
    first = harness.recorded("cam.mp4", 1)
    restore(harness, valkey, copy)
    both = [again(harness), again(harness)]
    for _ in range(4):
        for daemon in both:
            daemon.fall_idle()
    assert harness.recorded("cam.mp4", 1) == first
    assert harness.holds("cam.mp4", 2)
    assert harness.keys("cam.mp4/g0003") == []


def test_a_manifest_of_what_is_left_names_no_chunk_that_only_an_older_copy_knows(
    harness: SmallHarness, valkey: ValkeyServer
) -> None:
    source = harness.write("cam.mp4", FIRST)
    harness.scan()
    copy = copied(harness, valkey)
    with source.open("r+b") as file:
        file.write(b"patched")
    harness.until_finished("cam.mp4")
    append(harness, "cam.mp4", 2 * SMALL_CHUNK)
    harness.scan()
    restore(harness, valkey, copy)
    expected = source.read_bytes()[: 4 * SMALL_CHUNK]
    source.unlink()
    harness = again(harness)
    harness.until_finished("cam.mp4")
    assert harness.recorded("cam.mp4") == expected


@pytest.mark.parametrize("daemon", [RUNNING, RESTARTED])
def test_a_source_that_is_cut_within_its_last_stored_chunk_while_redis_forgets_begins_anew(
    harness: SmallHarness, valkey: ValkeyServer, daemon: str
) -> None:
    source = harness.write("cam.mp4", FIRST)
    harness.scan()
    lose_everything(harness, valkey)
    os.truncate(source, SMALL_CHUNK + 100)
    harness = again(harness) if daemon == RESTARTED else harness
    harness.until_finished("cam.mp4")
    stored = harness.keys(harness.generation("cam.mp4", 1) + "chunks/")
    assert b"".join(map(harness.read, stored)) == FIRST[: 2 * SMALL_CHUNK]
    assert harness.holds("cam.mp4", 2)


def again(harness: SmallHarness) -> SmallHarness:
    found: Any = harness.restarted()
    assert isinstance(found, SmallHarness)
    return found


def test_what_a_source_held_that_was_cut_while_redis_lost_its_record_is_kept(
    harness: Harness, valkey: ValkeyServer
) -> None:
    """The daemon remembers whose the stream is; while it is finalized, not how far it came."""
    harness.work()
    source = harness.write("a.mp4", os.urandom(3 * CHUNK + 9))
    os.utime(source, (1, 1))  # so it is finalized at once
    harness.parts.watch.scan()
    for _ in range(50):
        harness.parts.processor.work_once(0)
        stored = [key for key in harness.keys() if key.endswith(".part")]  # noqa: SIM118
        if len(stored) == 2:
            break
    base = f"{{{harness.settings.redis.namespace}}}:"
    keys: Any = valkey.client.keys(base + "*")
    valkey.client.delete(*keys)
    os.truncate(source, 1000)
    for _ in range(3):
        harness.fall_idle()
    assert set(stored) <= set(harness.keys())
    assert harness.manifest("a.mp4")["status"] == "incomplete"
    assert [chunk["key"] for chunk in harness.manifest("a.mp4")["chunks"]][:2] == sorted(stored)
    assert harness.holds("a.mp4", 2)
