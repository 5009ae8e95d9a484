"""A recording comes back as it was, goes on after a kill, and never spoils what is there."""

import base64
import errno
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archive import target_file as restore_target
from archive.restore import Failed, Restored, RestoreError, restore, restore_all
from archive.target_file import TargetError, open_target
from recording.manifest import ManifestError
from recording.stream import State
from tests.support.archive_parts import CHUNK, MODIFIED, OWNER, Shelf, noise, requests_of
from tests.support.fault_proxy import FaultProxy
from tests.support.harness import CHUNK as DAEMON_CHUNK
from tests.support.harness import Harness
from tests.support.pacing import AT_ONCE
from tests.support.servers import RcloneS3, wait_until
from tests.support.writers import WRITERS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shelf(rclone: RcloneS3, bucket: str) -> Shelf:
    return Shelf(rclone, bucket)


@pytest.fixture(params=["rclone", "moto"])
def either(request: pytest.FixtureRequest) -> Shelf:
    """For what may depend on the server."""
    return Shelf.of(request)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "restored"
    folder.mkdir()
    return folder


def restored(shelf: Shelf, folder: Path, name: str = "a.mp4", *, force: bool = False) -> Restored:
    """Restore a recording to `out.mp4`."""
    archive = shelf.archive()
    recording = archive.find(name)
    with open_target(str(folder), ["out.mp4"], create=False) as target:
        return restore(archive, recording, target, force=force)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# ---------------------------------------------------------------------- what comes back


def test_a_recording_comes_back_byte_for_byte(either: Shelf, folder: Path) -> None:
    for size in (0, 1, CHUNK, 7 * CHUNK, 7 * CHUNK + 1):
        content = noise(size)
        either.store_complete(f"{size}.mp4", content)
        done = restored(either, folder, f"{size}.mp4", force=True)
        assert (folder / "out.mp4").read_bytes() == content
        assert (done.fetched_bytes, done.kept_bytes, done.notes) == (size, 0, ())
        assert done.sha256 == hashlib.sha256(content).hexdigest()
        assert names(folder) == ["out.mp4"]


def test_a_restored_file_has_the_sources_time_and_is_for_nobody_else(shelf: Shelf, folder: Path) -> None:
    shelf.store_complete("cam/a.mp4", noise(CHUNK))
    before = os.umask(0o022)
    try:
        restored(shelf, folder, "cam/a.mp4")
        all_of(shelf, folder / "all")
    finally:
        os.umask(before)
    mine = (folder / "out.mp4").stat()
    assert mine.st_mtime == MODIFIED
    assert stat.S_IMODE(mine.st_mode) == 0o600
    made = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder / "all").rglob("*")}
    assert made == {"cam": 0o700, "a.mp4": 0o600}


def test_every_writers_recording_comes_back(harness: Harness, tmp_path: Path) -> None:
    """All at once, through the real daemon; Redis has no part in the restore."""
    for name, writer in WRITERS.items():
        writer(harness.folder / f"{name}.mp4", DAEMON_CHUNK + 100_000, AT_ONCE)
    harness.fall_idle()
    archive = Shelf(harness._servers[1], harness.bucket).archive()
    done = list(restore_all(archive, str(tmp_path / "out"), force=False))
    assert [each for each in done if isinstance(each, Failed)] == []
    for source in harness.folder.iterdir():
        assert (tmp_path / "out" / source.name).read_bytes() == source.read_bytes(), source.name


def with_manifest(shelf: Shelf, folder: Path, name: str = "a.mp4", *, force: bool = False) -> Restored:
    archive = shelf.archive()
    with open_target(str(folder), ["a.mp4"], create=False) as target:
        return restore(archive, archive.find(name), target, force=force, with_manifest=True)


def test_the_manifest_is_saved_beside_the_recording_by_the_same_rules(shelf: Shelf, folder: Path) -> None:
    shelf.store_complete("a.mp4", noise(2 * CHUNK))
    raw = shelf.s3.get_object(Bucket=shelf.bucket, Key=f"a.mp4/g0001-{OWNER}/metadata.json")["Body"].read()
    beside = folder / "a.mp4.metadata.json"
    beside.write_text("mine")
    with pytest.raises(RestoreError, match=r"a.mp4.metadata.json exists and is another file: --force"):
        with_manifest(shelf, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["a.mp4.metadata.json"]
    assert with_manifest(shelf, folder, force=True).manifest == str(beside)
    assert beside.read_bytes() == raw
    assert beside.stat().st_mode & 0o777 == 0o600
    assert beside.stat().st_mtime == (folder / "a.mp4").stat().st_mtime
    beside.unlink()
    assert with_manifest(shelf, folder).fetched_bytes == 0  # killed between the two, it goes on
    before = beside.stat().st_ino
    assert with_manifest(shelf, folder).manifest
    assert beside.stat().st_ino == before
    assert sorted(path.name for path in folder.iterdir()) == ["a.mp4", "a.mp4.metadata.json"]


def test_the_manifest_that_is_saved_is_that_of_the_revision_and_none_while_it_grows(
    shelf: Shelf, folder: Path
) -> None:
    shelf.store_complete("a.mp4", noise(CHUNK), former=True)
    shelf.store_complete("a.mp4", noise(2 * CHUNK), revision=2)
    archive = shelf.archive()
    with open_target(str(folder), ["old.mp4"], create=False) as target:
        restore(archive, archive.find("a.mp4", revision=1), target, force=False, with_manifest=True)
    assert json.loads((folder / "old.mp4.metadata.json").read_text())["revision"] == 1
    shelf.record("live.mp4", noise(CHUNK))
    assert with_manifest(shelf, folder, "live.mp4").manifest is None
    assert not (folder / "a.mp4.metadata.json").exists()


def test_a_manifest_that_was_exchanged_since_it_was_opened_is_not_saved(shelf: Shelf, folder: Path) -> None:
    shelf.store_complete("a.mp4", noise(CHUNK))
    archive = shelf.archive()
    opened = archive.find("a.mp4")
    shelf.store_complete("a.mp4", noise(CHUNK), revision=2)
    with (
        open_target(str(folder), ["a.mp4"], create=False) as target,
        pytest.raises(RestoreError, match="committed again this very moment"),
    ):
        restore(archive, opened, target, force=False, with_manifest=True)
    assert list(folder.iterdir()) == []


def test_a_recording_called_like_a_manifest_keeps_its_bytes(shelf: Shelf, folder: Path) -> None:
    content = noise(CHUNK)
    shelf.store_complete("a.mp4", noise(2 * CHUNK))
    shelf.store_complete("a.mp4.metadata.json", content)
    done = list(restore_all(shelf.archive(), str(folder), force=True, with_manifest=True))
    assert [type(each) for each in done] == [Restored, Restored]
    assert json.loads((folder / "a.mp4.metadata.json").read_text())["total_size_bytes"] == 2 * CHUNK
    assert (folder / f"a.mp4.metadata.json@1-{OWNER}").read_bytes() == content


def test_a_growing_recording_is_restored_as_far_as_it_goes(shelf: Shelf, folder: Path) -> None:
    content = noise(3 * CHUNK)
    shelf.record("a.mp4", content)
    done = restored(shelf, folder)
    assert (folder / "out.mp4").read_bytes() == content
    assert (done.status, done.sha256) == ("growing", None)
    assert "no manifest yet" in done.notes[0]


def test_an_incomplete_recording_is_restored_and_says_so(shelf: Shelf, folder: Path) -> None:
    content = noise(2 * CHUNK)
    shelf.commit("a.mp4", shelf.record("a.mp4", content), None, status=State.INCOMPLETE)
    done = restored(shelf, folder)
    assert (folder / "out.mp4").read_bytes() == content
    assert "this is what was stored" in done.notes[0]


def test_a_recording_that_grows_again_is_restored_as_it_was_completed(shelf: Shelf, folder: Path) -> None:
    content = noise(4 * CHUNK)
    shelf.store_complete("a.mp4", content[: 2 * CHUNK + 5])
    assert restored(shelf, folder).notes == ()
    shelf.record("a.mp4", content)
    (folder / "out.mp4").unlink()
    done = restored(shelf, folder)
    assert (folder / "out.mp4").read_bytes() == content[: 2 * CHUNK + 5]
    assert "grows again" in done.notes[0]


# ---------------------------------------------------------------------- what is there already


def test_a_file_that_is_the_recording_already_is_left_alone(shelf: Shelf, folder: Path) -> None:
    content = noise(3 * CHUNK)
    shelf.store_complete("a.mp4", content)
    (folder / "out.mp4").write_bytes(content)
    before = (folder / "out.mp4").stat()
    done = restored(shelf, folder)
    after = (folder / "out.mp4").stat()
    assert (done.fetched_bytes, done.kept_bytes) == (0, 3 * CHUNK)
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


@pytest.mark.parametrize("same_size", ["same size", "other size"])
def test_another_file_is_never_overwritten_without_force(shelf: Shelf, folder: Path, same_size: str) -> None:
    content = noise(3 * CHUNK)
    shelf.store_complete("a.mp4", content)
    other = noise(3 * CHUNK if same_size == "same size" else 5)
    (folder / "out.mp4").write_bytes(other)
    with pytest.raises(RestoreError, match="--force"):
        restored(shelf, folder)
    assert (folder / "out.mp4").read_bytes() == other
    restored(shelf, folder, force=True)
    assert (folder / "out.mp4").read_bytes() == content
    assert names(folder) == ["out.mp4"]


@pytest.mark.parametrize("links", ["with hard links", "without hard links"])
def test_a_file_that_appears_meanwhile_is_not_overwritten(
    shelf: Shelf, folder: Path, links: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no hard links on this file system")

    if links == "without hard links":
        monkeypatch.setattr(os, "link", refuse)
    shelf.store_complete("a.mp4", noise(3 * CHUNK))
    archive = shelf.archive()
    recording = archive.find("a.mp4")

    def appear(_: int) -> None:
        (folder / "out.mp4").write_bytes(b"mine")

    with open_target(str(folder), ["out.mp4"], create=False) as target, pytest.raises(TargetError) as refused:
        restore(archive, recording, target, force=False, advance=appear)
    assert "--force" in str(refused.value)
    assert (folder / "out.mp4").read_bytes() == b"mine"
    (folder / "out.mp4").unlink()
    done = restored(shelf, folder)
    assert (done.fetched_bytes, names(folder)) == (0, ["out.mp4"])


def test_a_link_at_the_destination_is_replaced_and_not_followed(shelf: Shelf, folder: Path) -> None:
    shelf.store_complete("a.mp4", noise(CHUNK))
    (folder / "precious").write_bytes(b"precious")
    (folder / "out.mp4").symlink_to("precious")
    with pytest.raises(RestoreError, match="--force"):
        restored(shelf, folder)
    restored(shelf, folder, force=True)
    assert not (folder / "out.mp4").is_symlink()
    assert (folder / "precious").read_bytes() == b"precious"


def test_a_folder_at_the_destination_is_never_replaced(shelf: Shelf, folder: Path) -> None:
    shelf.store_complete("a.mp4", noise(CHUNK))
    (folder / "out.mp4").mkdir()
    with pytest.raises(TargetError, match="directory"):
        restored(shelf, folder, force=True)


def partial_name(shelf: Shelf, folder: Path) -> str:
    """The name that a restore of `a.mp4` to `out.mp4` gives its partial file."""
    with open_target(str(folder), ["out.mp4"], create=False) as target:
        return target._partial_name(f"{shelf.bucket}/a.mp4/g0001-{OWNER}/metadata.json")


@pytest.mark.parametrize("planted", ["link", "pipe", "folder"])
def test_what_was_planted_as_a_partial_file_is_not_written(shelf: Shelf, folder: Path, planted: str) -> None:
    shelf.store_complete("a.mp4", noise(CHUNK))
    name = folder / partial_name(shelf, folder)
    (folder / "precious").write_bytes(b"precious")
    if planted == "link":
        name.symlink_to("precious")
    elif planted == "pipe":
        os.mkfifo(name)
    else:
        name.mkdir()
    with pytest.raises(TargetError, match="not ours" if planted == "pipe" else "cannot be written"):
        restored(shelf, folder)
    assert (folder / "precious").read_bytes() == b"precious"
    assert not (folder / "out.mp4").exists()


def test_two_restores_to_one_file_do_not_mix(shelf: Shelf, folder: Path) -> None:
    shelf.store_complete("a.mp4", noise(CHUNK))
    mark = f"{shelf.bucket}/a.mp4/g0001-{OWNER}/metadata.json"
    with (
        open_target(str(folder), ["out.mp4"], create=False) as target,
        target.partial(mark),
        pytest.raises(TargetError, match="another restore"),
    ):
        restored(shelf, folder)
    restored(shelf, folder)


def test_a_restore_killed_between_its_two_names_leaves_one_file(shelf: Shelf, folder: Path) -> None:
    content = noise(3 * CHUNK)
    shelf.store_complete("a.mp4", content)
    (folder / "out.mp4").write_bytes(content)
    os.link(folder / "out.mp4", folder / partial_name(shelf, folder))
    restored(shelf, folder)
    assert names(folder) == ["out.mp4"]
    shelf.store_complete("a.mp4", noise(2 * CHUNK), generation=1)
    os.link(folder / "out.mp4", folder / partial_name(shelf, folder))
    kept = (folder / "out.mp4").open("rb")
    restored(shelf, folder, force=True)
    with kept:
        assert kept.read() == content, "the old file's bytes were changed in place"


def test_a_name_as_long_as_a_file_system_takes_is_restored(shelf: Shelf, folder: Path) -> None:
    shelf.store_complete("a.mp4", noise(CHUNK))
    archive = shelf.archive()
    with open_target(str(folder), ["ä" * 127], create=False) as target:
        restore(archive, archive.find("a.mp4"), target, force=False)
    assert names(folder) == ["ä" * 127]


# ---------------------------------------------------------------------- going on


def test_a_restore_killed_in_the_middle_fetches_only_what_was_missing(shelf: Shelf, folder: Path) -> None:
    chunk_size, count = 1_000_000, 16
    content = noise(chunk_size * count)
    chunks = shelf.record("a.mp4", content, chunk_size=chunk_size)
    shelf.commit("a.mp4", chunks, content, chunk_size=chunk_size)
    partial = folder / partial_name(shelf, folder)
    with FaultProxy(shelf.server.port) as proxy:
        proxy.stall_after(2_500_000, to="client")
        environment = {**os.environ, **shelf.settings(), "S3_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        command = [sys.executable, str(ROOT / "main.py"), "restore", "a.mp4", "--to", "out.mp4"]
        process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
        wait_until(lambda: partial.exists() and content.startswith(partial.read_bytes()[:chunk_size]))
        wait_until(lambda: proxy.struck >= 1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert names(folder) == [partial.name]
    written = partial.read_bytes()
    missing = [
        chunk.key
        for chunk in chunks
        if hashlib.sha256(written[chunk.index * chunk_size :][:chunk_size]).hexdigest() != chunk.sha256
    ]
    assert 0 < len(missing) < count
    archive = shelf.archive()
    recording = archive.find("a.mp4")
    with (
        requests_of(archive, "GetObject") as gets,
        open_target(str(folder), ["out.mp4"], create=False) as target,
    ):
        done = restore(archive, recording, target, force=False)
    assert sorted(get["Key"] for get in gets) == missing
    assert done.fetched_bytes == len(missing) * chunk_size
    assert (folder / "out.mp4").read_bytes() == content
    assert names(folder) == ["out.mp4"]


def test_a_partial_file_with_other_bytes_is_mended(shelf: Shelf, folder: Path) -> None:
    content = noise(4 * CHUNK + 5)
    shelf.store_complete("a.mp4", content)
    spoilt = bytearray(content)
    spoilt[CHUNK + 1] ^= 1
    (folder / partial_name(shelf, folder)).write_bytes(spoilt + b"and more")
    done = restored(shelf, folder)
    assert done.fetched_bytes == CHUNK
    assert (folder / "out.mp4").read_bytes() == content


def test_a_damaged_chunk_ends_the_restore_and_what_was_fetched_is_kept(shelf: Shelf, folder: Path) -> None:
    content = noise(8 * CHUNK)
    chunks = shelf.store_complete("a.mp4", content)
    shelf.put(chunks[6].key, noise(CHUNK))
    with pytest.raises(RestoreError, match=r"chunk 6 of a\.mp4@1 has other bytes"):
        restored(shelf, folder)
    assert not (folder / "out.mp4").exists()
    shelf.put(chunks[6].key, content[6 * CHUNK : 7 * CHUNK])
    done = restored(shelf, folder)
    assert done.fetched_bytes == 2 * CHUNK
    assert (folder / "out.mp4").read_bytes() == content


def test_a_whole_that_is_not_what_the_manifest_says_is_not_kept(shelf: Shelf, folder: Path) -> None:
    content = noise(2 * CHUNK)
    shelf.commit("a.mp4", shelf.record("a.mp4", content), content + b"more")
    with pytest.raises(RestoreError, match="manifest was changed"):
        restored(shelf, folder)
    assert names(folder) == []


def test_a_disk_without_room_is_told_before_anything_is_fetched(shelf: Shelf, folder: Path) -> None:
    def grow(manifest: dict[str, Any]) -> None:
        size, count = 512 * 1024**2, 10_000
        chunk = manifest["chunks"][0]
        manifest["chunks"] = [
            {**chunk, "index": n, "offset": n * size, "size_bytes": size}
            | {"key": chunk["key"].replace("000000-", f"{n:06d}-")}
            for n in range(count)
        ]
        manifest.update(chunk_size_bytes=size, total_size_bytes=size * count)

    content = noise(CHUNK)
    shelf.commit("a.mp4", shelf.record("a.mp4", content), content, spoil=grow)
    with pytest.raises(TargetError, match="room"):
        restored(shelf, folder)
    assert not (folder / "out.mp4").exists()


def test_a_hostile_manifest_writes_nothing(shelf: Shelf, folder: Path) -> None:
    content = noise(CHUNK)
    shelf.commit("a.mp4", shelf.record("a.mp4", content), content, spoil=lambda m: m.update(chunks=[5]))
    with pytest.raises(ManifestError):
        restored(shelf, folder)
    (failed,) = restore_all(shelf.archive(), str(folder), force=True)
    assert isinstance(failed, Failed)
    assert names(folder) == []


# ---------------------------------------------------------------------- all of them


def all_of(shelf: Shelf, folder: Path) -> dict[str, str]:
    """Restore everything; name to the path below the folder, or to the reason why not."""
    return {
        done.name: os.path.relpath(done.to, folder) if isinstance(done, Restored) else done.reason
        for done in restore_all(shelf.archive(), str(folder), force=False)
    }


def test_all_recordings_come_back_under_their_original_paths(shelf: Shelf, folder: Path) -> None:
    odd = os.fsdecode(b"cam 1/w\xff:ird\n.mp4")
    contents = {path: noise(CHUNK + 1) for path in ("a.mp4", "deep/er/b.mp4", odd)}
    for path, content in contents.items():
        shelf.store_complete(path, b"older")
        shelf.store_complete(path, content, generation=2)
    assert set(all_of(shelf, folder).values()) == set(contents)
    for path, content in contents.items():
        assert (folder / path).read_bytes() == content
    again = list(restore_all(shelf.archive(), str(folder), force=False))
    assert sum(done.fetched_bytes for done in again if isinstance(done, Restored)) == 0


HIDDEN = (".bashrc", ".ssh/config.mp4", "cam/.x.mp4")


def test_no_name_that_begins_with_a_dot_is_made_unless_it_is_asked_for(shelf: Shelf, folder: Path) -> None:
    for path in HIDDEN:
        shelf.store_complete(path, path.encode())
    shelf.store_complete("seen.mp4", b"seen", keys=".raw/key")  # no daemon makes such a key
    shelf.store_complete("plain.mp4", b"plain", keys="plain.mp4")
    all_of(shelf, folder)
    made = [path.relative_to(folder) for path in folder.rglob("*")]
    assert not [path for path in made if any(part.startswith(".") for part in path.parts)]
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert set(files.values()) == {b"seen", b"plain", *(path.encode() for path in HIDDEN)}
    assert files[folder / "plain.mp4"] == b"plain"


def test_hidden_names_come_back_as_they_were_when_asked_for(shelf: Shelf, folder: Path) -> None:
    for path in HIDDEN:
        shelf.store_complete(path, path.encode())
    done = list(restore_all(shelf.archive(), str(folder), force=False, allow_hidden=True))
    assert [each for each in done if isinstance(each, Failed)] == []
    for path in HIDDEN:
        assert (folder / path).read_bytes() == path.encode()


def test_recordings_of_renamed_files_do_not_take_each_others_place(shelf: Shelf, folder: Path) -> None:
    """Two were renamed to a name that a third recording has, and one to a name of its own."""
    shelf.store_complete("b.mp4", b"b")
    shelf.store_complete("b.mp4", b"was a", keys="a.mp4")
    shelf.store_complete("b.mp4", b"was c", keys="c.mp4")
    shelf.store_complete("new.mp4", b"was d", keys="d.mp4")
    shelf.store_complete("new.mp4", b"was e", keys="e.mp4")
    all_of(shelf, folder)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found == {
        "a.mp4": b"was a",
        "b.mp4": b"b",
        "c.mp4": b"was c",
        "new.mp4": b"was d",
        "e.mp4": b"was e",
    }


def test_no_path_in_a_manifest_leads_out_of_the_folder(shelf: Shelf, folder: Path) -> None:
    content = noise(CHUNK)
    chunks = shelf.record("cam/a.mp4", content)
    for path in ("../evil", "/evil", "x/../../evil", "x//evil", "./evil", "", "x\0evil", "..", "x/.", None):
        encoded = "not base64" if path is None else base64.b64encode(path.encode()).decode()

        def spoil(manifest: dict[str, Any], encoded: str = encoded) -> None:
            manifest["source"]["path_base64"] = encoded

        shelf.commit("cam/a.mp4", chunks, content, spoil=spoil)
        assert all_of(shelf, folder) == {"cam/a.mp4@1": "cam/a.mp4"}
        assert names(folder) == ["cam"]
        (folder / "cam/a.mp4").unlink()


def test_a_link_below_the_folder_is_not_followed(shelf: Shelf, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / "cam").symlink_to(outside)
    shelf.store_complete("cam/a.mp4", noise(CHUNK))
    shelf.store_complete("other.mp4", noise(CHUNK))
    done = all_of(shelf, folder)
    assert "cannot be written" in done["cam/a.mp4@1"]
    assert done["other.mp4@1"] == "other.mp4", "one that fails does not stop the others"
    assert names(outside) == []


def test_a_destination_that_is_no_name_is_refused(folder: Path) -> None:
    for segments in ([], [""], [".."], ["a", ".."], ["a/b"], ["a\0b"]):
        with pytest.raises(TargetError, match="no name"), open_target(str(folder), segments, create=True):
            pass
    with (
        pytest.raises(TargetError, match="No such file"),
        open_target(str(folder / "no"), ["a"], create=False),
    ):
        pass
    assert names(folder) == []


def test_two_file_systems_that_tell_holes_differently_give_the_same(folder: Path) -> None:
    """A file without holes is read, a hole is skipped, and an error of the call means that it is read."""
    with (folder / "sparse").open("w+b") as file:
        file.truncate(10 * 1024**2)
        os.pwrite(file.fileno(), b"x", 5 * 1024**2)
        assert restore_target._is_hole(file.fileno(), 0, 1024**2)
        assert not restore_target._is_hole(file.fileno(), 0, 6 * 1024**2)
        assert restore_target._is_hole(file.fileno(), 8 * 1024**2, 9 * 1024**2)
    read, write = os.pipe()
    assert not restore_target._is_hole(read, 0, 1)
    os.close(read)
    os.close(write)
