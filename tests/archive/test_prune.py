"""What is superseded goes, in steps that leave everything restorable, and nothing else ever goes."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest

from archive import prune as archive_prune
from archive.prune import Pruned, prune
from archive.retrying_bucket import Remover
from recording.layout import RecordingId
from recording.stream import Chunk, State
from tests.support.archive_parts import CHUNK, MODIFIED, OWNER, Shelf, noise
from tests.support.servers import RcloneS3

LONG_AGO = MODIFIED + 100.0
"""When what is superseded was put; its manifests say that it was committed a minute before."""

BEFORE = datetime.fromtimestamp(MODIFIED + 86_400, UTC)

STRANGE = f"a.mp4/g0001-{OWNER}/chunks/000000-notes.part"


class Killed(Exception):
    """The process ended after a delete."""


@pytest.fixture
def shelf(rclone: RcloneS3, bucket: str) -> Shelf:
    shelf = Shelf(rclone, bucket)
    shelf.put_at = LONG_AGO
    return shelf


def run(shelf: Shelf, *, remove: bool = True) -> list[Pruned]:
    archive = shelf.archive()
    return list(prune(archive, archive.entries(), before=BEFORE, remover=shelf.store() if remove else None))


def bytes_of(shelf: Shelf, chunks: tuple[Chunk, ...]) -> bytes:
    return b"".join(shelf.s3.get_object(Bucket=shelf.bucket, Key=each.key)["Body"].read() for each in chunks)


def is_whole(shelf: Shelf, path: str) -> bool:
    """Whether the newest recording comes back with the hash that its manifest gives."""
    found = shelf.archive().find(path)
    return hashlib.sha256(bytes_of(shelf, found.chunks)).hexdigest() == found.sha256


def with_everything_superseded(shelf: Shelf) -> set[str]:
    """A path with all that can be superseded; gives the keys that must stay."""
    content = noise(3 * CHUNK + 7)
    shelf.store_complete("a.mp4", noise(CHUNK) + content[CHUNK:], revision=1, former=True)
    shelf.store_complete("a.mp4", noise(2 * CHUNK) + noise(5), revision=2, former=True)
    keep = {chunk.key for chunk in shelf.store_complete("a.mp4", content, revision=3)}
    shelf.record("a.mp4", noise(2 * CHUNK))  # put, and never committed
    shelf.put(STRANGE, b"x")
    shelf.record("a.mp4", content[: 2 * CHUNK], owner="0badcafe")  # begun elsewhere, abandoned
    layout = shelf.layout
    return {*keep, STRANGE, layout.manifest(RecordingId("a.mp4", 1, OWNER))}


def test_all_that_is_superseded_goes_and_the_newest_stays(shelf: Shelf) -> None:
    keep = with_everything_superseded(shelf)
    all_keys = set(shelf.all_keys())
    told = run(shelf, remove=False)
    assert set(shelf.all_keys()) == all_keys
    assert {key for each in told for key in each.keys} == all_keys - keep
    assert run(shelf) == told
    assert set(shelf.all_keys()) == keep
    assert [(each.name, each.revisions, each.problem) for each in told] == [
        ("a.mp4@1-0badcafe", (), ""),
        (f"a.mp4@1-{OWNER}", (1, 2), ""),
    ]
    assert run(shelf) == []


@contextmanager
def killed_after(monkeypatch: pytest.MonkeyPatch, deletes: int) -> Iterator[None]:
    real, number = Remover.delete, count(1)

    def delete(self: Remover, key: str) -> None:
        real(self, key)
        if next(number) == deletes:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Remover, "delete", delete)
        yield


def test_killed_after_each_delete_it_leaves_all_that_a_manifest_names(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = with_everything_superseded(shelf)
    for _ in count():
        try:
            with killed_after(monkeypatch, 1):
                if not run(shelf):
                    break
        except Killed:
            assert is_whole(shelf, f"a.mp4@1-{OWNER}")
            archive = shelf.archive()
            for revision in (1, 2):
                if f"a.mp4/g0001-{OWNER}/metadata.r000{revision}.json" in shelf.all_keys():
                    former = archive.find(f"a.mp4@1-{OWNER}", revision=revision)
                    assert len(bytes_of(shelf, former.chunks)) == former.size
    assert set(shelf.all_keys()) == keep


@pytest.mark.parametrize("recent", ["superseded", "committed"])
def test_a_revision_that_was_committed_or_superseded_recently_stays(shelf: Shelf, recent: str) -> None:
    """The day on which a good recording was replaced by mistake counts, not the day on which it was made."""
    now = datetime.now(UTC).isoformat()

    def spoil(content: dict[str, Any]) -> None:
        content["completed_at"] = now if recent == "committed" else content["completed_at"]

    content = noise(2 * CHUNK)
    chunks = shelf.record("a.mp4", content)
    shelf.put_at = None if recent == "superseded" else LONG_AGO
    shelf.commit("a.mp4", chunks, content, former=True, spoil=spoil)
    shelf.put_at = LONG_AGO
    shelf.store_complete("a.mp4", noise(CHUNK), revision=2)
    assert run(shelf) == []
    assert shelf.archive().find("a.mp4", revision=1).chunks == tuple(chunks)


def test_chunks_that_are_recent_stay(shelf: Shelf) -> None:
    content = noise(2 * CHUNK)
    shelf.store_complete("a.mp4", content)
    shelf.put_at = None
    shelf.record("a.mp4", noise(2 * CHUNK))
    shelf.record("a.mp4", content[:CHUNK], owner="0badcafe")
    assert run(shelf) == []


def test_bytes_beyond_the_end_stay_until_another_recording_has_them(shelf: Shelf) -> None:
    """A recording that grew again while its daemon was lost: nothing else has that footage."""
    content = noise(2 * CHUNK + 5)
    shelf.store_complete("a.mp4", content)
    grown = content + noise(2 * CHUNK)
    beyond = {chunk.key for chunk in shelf.record("a.mp4", grown)[2:]}
    assert run(shelf) == []
    shelf.store_complete("a.mp4", grown, generation=2)
    (pruned,) = run(shelf)
    assert set(pruned.keys) == beyond
    assert is_whole(shelf, "a.mp4@1")
    assert is_whole(shelf, "a.mp4@2")


def holder(shelf: Shelf, content: bytes, how: str) -> None:
    """Store another recording of the path, or what only looks like one."""
    path = "b.mp4" if how == "another path" else "a.mp4"
    status = State.INCOMPLETE if how == "incomplete" else State.COMPLETE
    held = noise(CHUNK) + content[CHUNK:] if how == "other bytes" else content
    chunks = shelf.record(path, held, generation=2)
    if how == "not committed":
        return
    spoil = dict.clear if how == "damaged manifest" else lambda _: None
    shelf.commit(path, chunks, held, generation=2, status=status, spoil=spoil)
    if how == "chunk missing":
        shelf.delete(chunks[0].key)


@pytest.mark.parametrize(
    "how",
    [
        "another path",
        "incomplete",
        "other bytes",
        "not committed",
        "damaged manifest",
        "chunk missing",
    ],
)
def test_an_abandoned_generation_stays_unless_a_complete_one_has_all_of_it(shelf: Shelf, how: str) -> None:
    content = noise(2 * CHUNK)
    chunks = shelf.record("a.mp4", content)
    holder(shelf, content, how)
    assert [each.keys for each in run(shelf) if each.keys] == []
    assert bytes_of(shelf, tuple(chunks)) == content


def test_an_abandoned_generation_with_something_recent_stays(shelf: Shelf) -> None:
    content = noise(2 * CHUNK)
    shelf.record("a.mp4", content)
    shelf.store_complete("a.mp4", content, generation=2)
    shelf.put_at = None
    shelf.put(STRANGE, b"x")
    assert run(shelf) == []


@pytest.mark.parametrize(
    "wrong", ["incomplete", "newest damaged", "former damaged", "chunk missing", "other"]
)
def test_nothing_goes_of_a_generation_that_is_not_whole_or_not_understood(shelf: Shelf, wrong: str) -> None:
    content = noise(2 * CHUNK)
    status = State.INCOMPLETE if wrong == "incomplete" else State.COMPLETE
    old = shelf.store_complete("a.mp4", noise(CHUNK), former=True)
    chunks = shelf.record("a.mp4", content)
    spoil = dict.clear if wrong == "newest damaged" else lambda _: None
    shelf.commit("a.mp4", chunks, content, revision=3, status=status, spoil=spoil)
    if wrong == "former damaged":
        shelf.commit("a.mp4", chunks, content, revision=2, former=True, spoil=dict.clear)
    if wrong == "other":  # the name of one revision, the content of another
        key = shelf.layout.former_manifest(RecordingId("a.mp4", 1, OWNER), 2)
        manifest = shelf.layout.manifest(RecordingId("a.mp4", 1, OWNER))
        shelf.put(key, shelf.s3.get_object(Bucket=shelf.bucket, Key=manifest)["Body"].read())
    if wrong == "chunk missing":
        shelf.delete(chunks[1].key)
    keys = shelf.all_keys()
    told = run(shelf)
    assert shelf.all_keys() == keys
    assert bytes_of(shelf, tuple(old))
    assert [bool(each.problem) for each in told] == ([] if wrong == "incomplete" else [True])


def test_a_commit_at_this_very_moment_stops_it(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source went back to what it was: the new revision names what the former one named."""
    was = noise(2 * CHUNK)
    chunks = shelf.store_complete("a.mp4", was, former=True)
    shelf.store_complete("a.mp4", noise(CHUNK), revision=2)
    decide = archive_prune.removable

    def commit_then_decide(*args: Any, **more: Any) -> Any:
        shelf.commit("a.mp4", chunks, was, revision=3)
        return decide(*args, **more)

    monkeypatch.setattr(archive_prune, "removable", commit_then_decide)
    (told,) = run(shelf)
    assert told.keys == ()
    assert "committed again" in told.problem
    assert is_whole(shelf, "a.mp4")


def test_a_commit_during_the_last_deletes_is_told(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    was = noise(2 * CHUNK)
    chunks = shelf.store_complete("a.mp4", was, former=True)
    shelf.store_complete("a.mp4", noise(CHUNK), revision=2)
    real = Remover.delete

    def delete_then_commit(self: Remover, key: str) -> None:
        real(self, key)
        if key == chunks[0].key:
            shelf.commit("a.mp4", chunks, was, revision=3)

    monkeypatch.setattr(Remover, "delete", delete_then_commit)
    (told,) = run(shelf)
    assert "revision 3 was committed at this very moment and names what was removed" in told.problem
