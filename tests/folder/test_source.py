"""Opening and reading sources: what is no regular file, what may not be read, holes, errors of the disk."""

import errno
import os
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from errors import PermanentError, SourceGone, TransientError
from folder import birth_time
from folder.source import open_source, translated
from recording.stream import Signature
from tests.support.rights import bound_by_file_modes

BLOCK = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture(params=["disk", "memory"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on the disk's file system, and one on tmpfs."""
    if request.param == "disk":
        yield tmp_path
        return
    if not os.access("/dev/shm", os.W_OK):  # noqa: S108 - a mount of the kernel's
        pytest.skip("there is no tmpfs at /dev/shm")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    # Others of earlier tests may be closed meanwhile, whenever the collector finds them.
    assert set(os.listdir("/proc/self/fd")) <= before


def read(root: Path, path: str) -> bytes:
    with open_source(str(root), path) as source:
        return source.read(0, 100)


# ---------------------------------------------------------------------- what is there


@pytest.mark.parametrize(
    "path",
    [
        "a.mp4",
        "a/b/c.mp4",
        "quote\"'<x>\n.mp4",
        os.fsdecode(b"\xff\xfe.mp4"),
        "ü" * 120 + ".mp4",
        "d/" * 40 + "a.mp4",
    ],
    ids=["plain", "below folders", "control characters", "no UTF-8", "255 bytes", "40 folders deep"],
)
def test_a_file_of_any_name_is_read(root: Path, path: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(b"content")
    assert read(root, path) == b"content"


def test_the_watched_folder_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (root / "a.mp4").write_bytes(b"content")
    (tmp_path / "link").symlink_to(root)
    assert read(tmp_path / "link", "a.mp4") == b"content"


def test_a_read_gives_fewer_bytes_only_where_the_file_ends(root: Path) -> None:
    (root / "a.mp4").write_bytes(b"0123456789")
    with open_source(str(root), "a.mp4") as source:
        assert source.read(2, 3) == b"234"
        assert source.read(8, 100) == b"89"
        assert source.read(10, 100) == b""
        assert source.read(1000, 100) == b""


def test_a_read_that_the_kernel_cuts_short_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Linux gives at most 2 GiB at once, network file systems and signals sometimes less.
    (root / "a.mp4").write_bytes(b"0123456789")
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: whole(fd, min(length, 3), offset))
    with open_source(str(root), "a.mp4") as source:
        assert source.read(1, 8) == b"12345678"
        assert source.read(1, 100) == b"123456789"


def test_a_chunk_is_read_as_any_other_bytes_are(root: Path) -> None:
    (root / "a.mp4").write_bytes(b"0123456789")
    with open_source(str(root), "a.mp4") as source:
        for offset, length in [(0, 4), (4, 4), (8, 4), (10, 4), (0, 10), (0, 3)]:
            assert source.read_chunk(offset, length) == source.read(offset, length)


def test_a_chunk_that_the_kernel_cuts_short_is_read_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a.mp4").write_bytes(b"0123456789")
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: whole(fd, [views[0][:3]], offset))
    with open_source(str(root), "a.mp4") as source:
        assert source.read_chunk(1, 8) == b"12345678"
        assert source.read_chunk(1, 100) == b"123456789"


def test_chunks_of_one_size_share_their_memory_in_a_thread_and_with_no_other(root: Path) -> None:
    (root / "a.mp4").write_bytes(b"0123456789")
    with open_source(str(root), "a.mp4") as source:
        first = source.read_chunk(0, 4)
        with ThreadPoolExecutor(1) as other:
            theirs = other.submit(source.read_chunk, 4, 4).result()
        assert (first, theirs) == (b"0123", b"4567")
        assert source.read_chunk(4, 4) is first
        assert first == b"4567"


def test_a_short_chunk_keeps_no_bytes_of_the_one_before(root: Path) -> None:
    (root / "a.mp4").write_bytes(b"0123456789")
    with open_source(str(root), "a.mp4") as source:
        source.read_chunk(0, 8)
        assert bytes(source.read_chunk(8, 8)) == b"89"


def test_the_signature_is_that_of_the_open_file_also_when_another_took_its_name(root: Path) -> None:
    (root / "a.mp4").write_bytes(b"old")
    with open_source(str(root), "a.mp4") as source:
        before = os.stat(root / "a.mp4")
        (root / "b.mp4").write_bytes(b"another")
        (root / "b.mp4").rename(root / "a.mp4")
        assert source.signature().ino == before.st_ino
        assert source.read(0, 100) == b"old"
        with (root / "a.mp4").open("ab") as file:
            file.write(b"!")
        assert source.signature().size == 3


def test_a_write_changes_the_signature(root: Path) -> None:
    (root / "a.mp4").write_bytes(b"x")
    with open_source(str(root), "a.mp4") as source:
        before = source.signature()
        assert before == Signature.of(os.stat(root / "a.mp4"))
        with (root / "a.mp4").open("ab") as file:
            file.write(b"y")
        assert source.signature() != before


# ---------------------------------------------------------------------- what is no source


def make_link(at: Path) -> None:
    (at.parent.parent / "outside").write_bytes(b"secret")
    at.symlink_to(at.parent.parent / "outside")


def make_socket(at: Path) -> None:
    folder = os.getcwd()
    os.chdir(at.parent)  # an address has room for 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(at.name)
    finally:
        os.chdir(folder)


def make_device(at: Path) -> None:
    try:
        os.mknod(at, 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


OTHER_THINGS: dict[str, Callable[[Path], None]] = {
    "link": make_link,
    "dangling link": lambda at: at.symlink_to("nowhere"),
    "link to itself": lambda at: at.symlink_to(at.name),
    "FIFO": os.mkfifo,
    "socket": make_socket,
    "folder": os.mkdir,
}


@pytest.mark.parametrize(
    "make",
    [
        *(pytest.param(make, id=name) for name, make in OTHER_THINGS.items()),
        pytest.param(make_device, id="device", marks=pytest.mark.root),
    ],
)
def test_what_is_no_regular_file_is_refused_at_once(root: Path, make: Callable[[Path], None]) -> None:
    make(root / "x.mp4")
    with pytest.raises(PermanentError, match="only regular files") as caught:
        read(root, "x.mp4")
    assert caught.value.kind == "not_a_file"


def test_a_link_in_a_folders_place_leads_nowhere(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.mp4").write_bytes(b"secret")
    (root / "folder").symlink_to(tmp_path / "outside")
    with pytest.raises(SourceGone):
        read(root, "folder/a.mp4")


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "folder/../../outside",
        "folder/../a.mp4",
        "/outside",
        "",
        "folder//a.mp4",
        "./a.mp4",
        "a.mp4/",
        "a\0.mp4",
    ],
)
def test_a_path_that_no_scan_gives_leads_nowhere(root: Path, path: str) -> None:
    (root / "folder").mkdir()
    for there in (root / "a.mp4", root / "folder" / "a.mp4", root.parent / "outside"):
        there.write_bytes(b"secret")
    with pytest.raises(SourceGone):
        read(root, path)


@pytest.mark.parametrize("path", ["none.mp4", "none/a.mp4", "a.mp4/b.mp4"])
def test_what_is_not_there_is_gone(root: Path, path: str) -> None:
    (root / "a.mp4").touch()
    with pytest.raises(SourceGone):
        read(root, path)


def test_without_the_watched_folder_everything_is_gone(root: Path) -> None:
    with pytest.raises(SourceGone):
        read(root / "none", "a.mp4")


# ---------------------------------------------------------------------- what may not be read


@pytest.mark.parametrize("closed", ["folder/a.mp4", "folder"])
def test_a_file_that_may_not_be_read_is_unreadable_until_it_may(root: Path, closed: str) -> None:
    (root / "folder").mkdir()
    (root / "folder" / "a.mp4").write_bytes(b"content")
    (root / closed).chmod(0)
    with bound_by_file_modes(), pytest.raises(PermanentError, match="read permission") as caught:
        read(root, "folder/a.mp4")
    assert caught.value.kind == "unreadable"
    (root / closed).chmod(0o755)
    with bound_by_file_modes():
        assert read(root, "folder/a.mp4") == b"content"


def test_no_source_fails_because_the_watched_folder_cannot_be_opened(root: Path) -> None:
    (root / "a.mp4").write_bytes(b"content")
    root.chmod(0)
    try:
        with bound_by_file_modes(), pytest.raises(TransientError, match="watched folder"):
            read(root, "a.mp4")
    finally:
        root.chmod(0o755)  # so that pytest can delete it


def test_too_many_open_files_pass(root: Path) -> None:
    (root / "a.mp4").write_bytes(b"content")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(TransientError, match="Too many open files"):
            read(root, "a.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert read(root, "a.mp4") == b"content"


@pytest.mark.parametrize(
    ("number", "becomes"),
    [
        (errno.ENOENT, SourceGone),
        (errno.ENOTDIR, SourceGone),
        (errno.EACCES, PermanentError),
        (errno.EPERM, PermanentError),
        (errno.ELOOP, PermanentError),
        (errno.ENXIO, PermanentError),
        (errno.EIO, TransientError),
        (errno.ESTALE, TransientError),
        (errno.ENOTCONN, TransientError),
        (errno.ENFILE, TransientError),
        (errno.ENOMEM, TransientError),
        (errno.ENAMETOOLONG, TransientError),
    ],
)
def test_each_error_of_the_file_system_means_one_thing(number: int, becomes: type[Exception]) -> None:
    with pytest.raises(becomes) as caught, translated("a.mp4"):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is becomes


def test_a_disk_that_fails_in_the_middle_of_a_read_may_recover(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a.mp4").write_bytes(b"content")

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with open_source(str(root), "a.mp4") as source:
        monkeypatch.setattr(os, "pread", broken)
        monkeypatch.setattr(os, "preadv", broken)
        for read_it in (source.read, source.read_chunk):
            with pytest.raises(TransientError, match="Input/output error"):
                read_it(0, 10)


def test_an_error_of_other_work_is_not_taken_for_one_of_the_source(root: Path) -> None:
    (root / "a.mp4").touch()
    with pytest.raises(FileNotFoundError, match="elsewhere"), open_source(str(root), "a.mp4"):
        raise FileNotFoundError(errno.ENOENT, "elsewhere")


# ---------------------------------------------------------------------- holes


def test_what_a_preallocating_writer_has_not_filled_is_a_hole(volume: Path) -> None:
    with (volume / "a.mp4").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 4 * BLOCK)
        file.write(b"x" * BLOCK)
        file.flush()
        with open_source(str(volume), "a.mp4") as source:
            assert not source.hole_before(0, BLOCK)
            assert source.hole_before(0, BLOCK + 1)
            assert source.hole_before(BLOCK, 2 * BLOCK)
            file.write(b"x" * 3 * BLOCK)
            file.flush()
            assert not source.hole_before(0, 4 * BLOCK)


def test_a_part_that_a_parallel_writer_skipped_is_a_hole(volume: Path) -> None:
    with (volume / "a.mp4").open("wb") as file:
        file.seek(2 * BLOCK)
        file.write(b"x" * BLOCK)
        file.flush()
        with open_source(str(volume), "a.mp4") as source:
            assert source.hole_before(0, BLOCK)
            assert source.hole_before(BLOCK, 3 * BLOCK)
            assert not source.hole_before(2 * BLOCK, 3 * BLOCK)


def test_the_end_of_a_file_is_no_hole_in_it(volume: Path) -> None:
    (volume / "a.mp4").write_bytes(b"x" * BLOCK)
    with open_source(str(volume), "a.mp4") as source:
        assert not source.hole_before(0, BLOCK)
        assert not source.hole_before(BLOCK, 2 * BLOCK)
        assert not source.hole_before(5 * BLOCK, 6 * BLOCK)


def test_the_data_of_a_file_are_its_bytes_outside_holes(volume: Path) -> None:
    with (volume / "a.mp4").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 8 * BLOCK)
        os.pwrite(file.fileno(), b"x" * BLOCK, 0)
        os.pwrite(file.fileno(), b"x" * BLOCK, 4 * BLOCK)
    with open_source(str(volume), "a.mp4") as source:
        assert list(source.data_ranges()) == [(0, BLOCK), (4 * BLOCK, 5 * BLOCK)]
        assert list(source.data_ranges(100, 4 * BLOCK + 1)) == [(100, BLOCK), (4 * BLOCK, 4 * BLOCK + 1)]
        assert source.data_bytes() == 2 * BLOCK
        assert source.data_bytes(BLOCK, 4 * BLOCK) == 0
        assert source.data_bytes(7 * BLOCK, 90 * BLOCK) == 0


def test_a_file_that_was_only_reserved_has_no_data(volume: Path) -> None:
    with (volume / "reserved.mp4").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, BLOCK)
    with (volume / "cut.mp4").open("wb") as file:
        file.truncate(1 << 40)
    (volume / "empty.mp4").touch()
    for name in ("reserved.mp4", "cut.mp4", "empty.mp4"):
        with open_source(str(volume), name) as source:
            assert source.data_bytes() == 0


def test_where_no_holes_are_known_every_byte_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a.mp4").write_bytes(b"0123456789")
    monkeypatch.setattr(os, "lseek", failing(errno.EINVAL))
    with open_source(str(root), "a.mp4") as source:
        assert source.data_bytes() == 10
        assert source.data_bytes(2, 5) == 3


def test_a_disk_that_fails_while_holes_are_looked_for_may_recover(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a.mp4").write_bytes(b"0123456789")
    with open_source(str(root), "a.mp4") as source:
        monkeypatch.setattr(os, "lseek", failing(errno.EIO))
        with pytest.raises(TransientError):
            source.data_bytes()


def failing(number: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


# ---------------------------------------------------------------------- birth


def test_a_file_that_is_made_anew_has_another_birth_whatever_it_pretends(volume: Path) -> None:
    before = time.time_ns()
    (volume / "a.mp4").write_bytes(b"old")
    with open_source(str(volume), "a.mp4") as source:
        born = source.born_ns()
    # The kernel's clock for files goes in ticks of up to 10 ms.
    assert before - 20_000_000 <= born <= time.time_ns()
    (volume / "a.mp4").write_bytes(b"rewritten in place")
    os.utime(volume / "a.mp4", ns=(0, 0))
    with open_source(str(volume), "a.mp4") as source:
        assert source.born_ns() == born
    (volume / "a.mp4").rename(volume / "b.mp4")
    (volume / "a.mp4").write_bytes(b"new")
    os.utime(volume / "a.mp4", ns=(0, 0))
    with open_source(str(volume), "a.mp4") as source, open_source(str(volume), "b.mp4") as renamed:
        assert source.born_ns() >= born
        assert renamed.born_ns() == born


def test_where_no_birth_is_kept_it_is_zero(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a.mp4").touch()
    with open_source("/proc/self", "status") as source:
        assert source.born_ns() == 0
    monkeypatch.setattr(birth_time, "_statx", None)
    with open_source(str(root), "a.mp4") as source:
        assert source.born_ns() == 0


def test_where_statx_is_forbidden_the_birth_is_zero(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a.mp4").touch()
    monkeypatch.setattr(birth_time, "_statx", lambda *_: -1)
    with open_source(str(root), "a.mp4") as source:
        assert source.born_ns() == 0
