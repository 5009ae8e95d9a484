"""Whose folder a namespace is about, on a real Valkey."""

import os
from collections.abc import Callable, Iterator

import pytest

from checkpoint import Checkpoints
from errors import StoreUnavailable
from redis_store import folders
from redis_store.client import connect_url
from tests.support.servers import ValkeyServer

Start = Callable[[], Checkpoints]


@pytest.fixture
def start(valkey: ValkeyServer, redis_namespace: str) -> Iterator[Start]:
    """Starts one more daemon."""
    with connect_url(valkey.url) as client:
        yield lambda: Checkpoints(client, namespace=redis_namespace, owner=os.urandom(4).hex())


@pytest.fixture
def nobody_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "LIVE_SECONDS", 0)


def refusal(checkpoints: Checkpoints, inode: int, born_ns: int, path: str) -> tuple[bool, str]:
    with pytest.raises(StoreUnavailable) as caught:
        checkpoints.claim_folder(inode, born_ns, path)
    assert caught.value.kind == "folder"
    return caught.value.refused, str(caught.value)


def test_another_folder_is_refused_and_the_settings_are_named(start: Start) -> None:
    start().claim_folder(1, 10, "/srv/one")
    refused, reason = refusal(start(), 2, 20, "/srv/two")
    assert refused
    for part in ("/srv/one", "/srv/two", "REDIS_NAMESPACE", "WATCH_DIR"):
        assert part in reason
    start().claim_folder(1, 10, "/srv/one")
    assert refusal(start(), 2, 20, "/srv/two")[0], "asking does not help"


def test_one_folder_may_be_seen_at_two_paths_and_from_two_machines(start: Start) -> None:
    server, container, share = start(), start(), start()
    for _ in range(2):
        server.claim_folder(1, 10, "/srv/one")
        container.claim_folder(1, 10, "/videos")
        share.claim_folder(1, 0, "/mnt/share")  # a share that tells no birth time


def test_an_inode_number_that_was_used_again_is_another_folder(start: Start) -> None:
    start().claim_folder(2, 10, "/srv/one")  # 2 is the root of every ext4 volume
    assert refusal(start(), 2, 11, "/srv/two")[0]


@pytest.mark.usefixtures("nobody_is_live")
def test_a_folder_that_was_made_anew_or_mounted_goes_on_at_its_path(start: Start) -> None:
    start().claim_folder(1, 10, "/videos")
    start().claim_folder(2, 20, "/videos")
    start().claim_folder(1, 10, "/videos")
    assert refusal(start(), 2, 20, "/other")[0], "the former folder is forgotten"


def test_a_folder_that_is_made_anew_while_its_daemon_runs_goes_on(start: Start) -> None:
    daemon = start()
    daemon.claim_folder(1, 10, "/videos")
    daemon.claim_folder(2, 20, "/videos")


def test_two_machines_with_two_folders_at_one_path_are_told_apart_while_both_run(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = start(), start()
    first.claim_folder(1, 10, "/videos")
    refused, reason = refusal(second, 2, 20, "/videos")
    assert not refused, "its daemon may have been killed a moment ago: wait"
    assert first._owner in reason
    assert "REDIS_NAMESPACE" in reason
    monkeypatch.setattr(folders, "LIVE_SECONDS", 0)
    second.claim_folder(2, 20, "/videos")
    monkeypatch.undo()
    assert not refusal(first, 1, 10, "/videos")[0]


def test_names_of_folders_that_are_no_text_are_told_as_they_are(start: Start) -> None:
    start().claim_folder(1, 10, os.fsdecode(b"/srv/\xff one"))
    assert os.fsdecode(b"/srv/\xff one") in refusal(start(), 2, 20, "/srv/two")[1]


def test_a_claim_that_is_damaged_is_no_bug(start: Start, valkey: ValkeyServer, redis_namespace: str) -> None:
    valkey.client.hset(f"{{{redis_namespace}}}:folders", mapping={"x": "y", "1:10": "", "": "now a b"})
    start().claim_folder(1, 10, "/srv/one")
    assert refusal(start(), 2, 20, "/srv/two")[0]
