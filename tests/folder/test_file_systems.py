"""What the kernel says of mounts and watches."""

import os
from pathlib import Path
from typing import Any

import pytest

from folder.file_systems import is_silent, watch_limit_reached


def test_a_local_disk_and_memory_tell_of_changes(tmp_path: Path) -> None:
    assert not is_silent(str(tmp_path))
    assert not is_silent("/dev/shm")  # noqa: S108 - a mount of the kernel's


ROWS = b"""\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:50 / /mnt/nas\\040one rw shared:7 master:2 - nfs4 server:/a rw
23 21 0:51 / /mnt/local rw - xfs /dev/vdb rw
24 23 0:52 / /mnt/local/share rw - fuse.sshfs me@host: rw
25 21 0:53 / /mnt/localhost rw - cifs //host/x rw
"""


@pytest.mark.parametrize(
    ("mount", "folder", "silent"),
    [
        (b"21", "/srv/input", False),
        (b"22", "/mnt/nas one/input", True),
        (b"24", "/mnt/local/share", True),
        (b"23", "/mnt/local", True),  # it holds a share
        (b"23", "/mnt/local/other", False),
        (b"21", "/mnt", True),
        (b"21", "/mnt/nas", False),
        (b"99", "/mnt/elsewhere", False),
    ],
)
def test_the_file_system_of_the_folder_and_those_mounted_below_it_decide(
    mount: bytes, folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, silent: bool
) -> None:
    (tmp_path / "mountinfo").write_bytes(ROWS)
    (tmp_path / "fdinfo").write_bytes(b"pos:\t0\nflags:\t0100000\nmnt_id:\t" + mount + b"\nino:\t3\n")
    real_open, real_os_open = open, os.open

    def replaced(path: str, mode: str) -> Any:
        return real_open(tmp_path / ("mountinfo" if path.endswith("mountinfo") else "fdinfo"), mode)

    monkeypatch.setattr("builtins.open", replaced)
    monkeypatch.setattr(os, "open", lambda _path, flags: real_os_open(tmp_path, flags))
    found = is_silent(folder)
    monkeypatch.undo()
    assert found is silent


def test_with_watches_left_the_limit_is_not_reached(tmp_path: Path) -> None:
    assert not watch_limit_reached(str(tmp_path))
