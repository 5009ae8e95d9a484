"""What is gone altogether is noticed by the list of commits, without Redis."""

import json

import pytest

from archive.commits import complete_commits
from archive.missing import vanished
from archive.verify import Report
from recording.layout import MAX_KEY_BYTES
from recording.service_keys import Commit, commit_key, parse_commit_key
from tests.support.archive_parts import Shelf

AT_MS = 1_763_735_405_123


@pytest.mark.parametrize("prefix", ["", "cams/"])
def test_a_key_alone_says_when_what_and_where(prefix: str) -> None:
    key = commit_key(prefix, AT_MS, "complete", 3, "cam 1/front~x.mp4/g0002-7f3a91c2")
    assert key == f"{prefix}.vcu/index/2025/11/21/14-30-05Z~complete~r3~cam 1/front~x.mp4/g0002-7f3a91c2"
    assert parse_commit_key(prefix, key) == Commit(
        "2025-11-21T14:30:05Z", "complete", 3, "cam 1/front~x.mp4/g0002-7f3a91c2"
    )
    assert parse_commit_key(prefix, key.replace("complete", "perfect")) is None
    assert parse_commit_key("other/", key) is None


def test_a_path_that_is_too_long_for_a_key_is_in_the_body() -> None:
    folder = "/".join(["x" * 100] * 10) + "/g0001-7f3a91c2"
    key = commit_key("", AT_MS, "complete", 1, folder)
    assert len(key.encode()) <= MAX_KEY_BYTES
    commit = parse_commit_key("", key)
    assert commit
    assert commit.folder.startswith("~")


@pytest.fixture(params=["rclone", "moto"])
def shelf(request: pytest.FixtureRequest) -> Shelf:
    return Shelf.of(request)


def list_commit(shelf: Shelf, folder: str, state: str = "complete", at_ms: int = AT_MS) -> str:
    key = commit_key("", at_ms, state, 1, folder)
    shelf.put(key, json.dumps({"schema_version": 1, "folder": folder}).encode())
    return key


def missing(shelf: Shelf, *seen: str) -> list[Report]:
    archive = shelf.archive()
    return list(vanished(archive, complete_commits(archive.store, ""), dict.fromkeys(seen, 1)))


def test_what_was_complete_and_has_no_manifest_now_is_missing(shelf: Shelf) -> None:
    line = list_commit(shelf, "cam/a.mp4/g0001-7f3a91c2")
    (gone,) = missing(shelf)
    (problem,) = gone.problems
    assert (gone.name, gone.status) == ("cam/a.mp4@1-7f3a91c2", "damaged")
    assert (problem.kind, problem.key) == ("missing", "cam/a.mp4/g0001-7f3a91c2/metadata.json")
    assert line in problem.detail


def test_what_is_there_was_seen_or_was_never_complete_is_not_missing(shelf: Shelf) -> None:
    shelf.store_complete("a.mp4", b"video")
    for folder, state in (
        ("a.mp4/g0001-7f3a91c2", "complete"),
        ("b.mp4/g0001-7f3a91c2", "complete"),
        ("c.mp4/g0001-7f3a91c2", "incomplete"),
    ):
        list_commit(shelf, folder, state)
    list_commit(shelf, "d.mp4/g0001-7f3a91c2")
    list_commit(shelf, "d.mp4/g0001-7f3a91c2", "incomplete", AT_MS + 60_000)
    assert missing(shelf, "b.mp4/g0001-7f3a91c2/") == []


def test_of_a_long_path_the_body_tells_and_a_damaged_line_tells_nothing(shelf: Shelf) -> None:
    folder = "/".join(["x" * 99] * 10) + "/g0001-7f3a91c2"
    key = list_commit(shelf, folder)
    assert [gone.name for gone in missing(shelf)] == [folder.replace("/g0001", "@1")]
    shelf.put(key, b"{")
    shelf.put(".vcu/index/stray", b"")
    assert missing(shelf) == []
