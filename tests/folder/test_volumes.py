"""A volume goes away and comes back, with real mounts: what was on it is not taken for deleted."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from folder.volumes import FolderIdentity, Volumes

IN_A_NAMESPACE = """
import os, subprocess, sys
from pathlib import Path
from folder.volumes import Volumes

base = Path(sys.argv[1])
root = base / "root"
(root / "cam1").mkdir(parents=True)
(base / "disk1").mkdir()
(base / "disk2").mkdir()

def run(*command): subprocess.run(command, check=True)
def bind(disk, point=root / "cam1"): run("mount", "--bind", base / disk, point)
def tmpfs(point): run("mount", "-t", "tmpfs", "none", point)
def umount(point=root / "cam1"): run("umount", point)
def seen(path="cam1/a.mp4"):
    volumes.refresh()
    return volumes.of(path)
def here(volume, path="cam1/a.mp4"):
    volumes.refresh()
    return volumes.holds(path, volume)

volumes = Volumes(str(root))
"""


def in_a_namespace(tmp_path: Path, program: str) -> None:
    """Run a program as root of a namespace of its own, where mounts concern nobody else."""
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespaces here: {error}")
    ended = subprocess.run(
        [*command, sys.executable, "-c", IN_A_NAMESPACE + textwrap.dedent(program), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr


def test_a_bind_mount_of_the_same_device_that_is_away_is_missed(tmp_path: Path) -> None:
    in_a_namespace(
        tmp_path,
        """
        bind("disk1")
        disk1 = seen()
        assert os.stat(root).st_dev == os.stat(root / "cam1").st_dev
        assert here(disk1) and disk1 != volumes.of("b.mp4")
        umount()
        assert not here(disk1), "the empty folder below was taken for the volume"
        assert here(volumes.of("b.mp4"), "b.mp4"), "what lies beside the mount point is not away"
        bind("disk2")
        assert not here(disk1), "another volume was taken for it"
        umount()
        bind("disk1")
        assert here(disk1)
        """,
    )


def test_another_file_system_at_the_mount_point_is_another_volume(tmp_path: Path) -> None:
    in_a_namespace(
        tmp_path,
        """
        tmpfs(root / "cam1")
        first, made = seen(), os.stat(root / "cam1").st_ctime_ns
        for _ in range(100):
            umount()
            tmpfs(root / "cam1")
            if os.stat(root / "cam1").st_ctime_ns != made:  # the kernel's clock for files goes in ticks
                break
        assert not here(first)
        """,
    )


def test_a_volume_mounted_over_a_folder_hides_what_was_in_it(tmp_path: Path) -> None:
    in_a_namespace(
        tmp_path,
        """
        below = seen()
        bind("disk1")
        assert not here(below)
        umount()
        assert here(below)
        """,
    )


def test_the_volume_of_the_root_is_that_which_it_lies_on(tmp_path: Path) -> None:
    in_a_namespace(
        tmp_path,
        """
        disk = seen("a.mp4")
        os.rename(root, base / "old")
        root.mkdir()
        assert here(disk, "a.mp4"), "a root that was made anew is on the same volume"
        tmpfs(base)
        (base / "root").mkdir()
        assert not here(disk, "a.mp4")
        """,
    )


def test_another_machine_may_see_a_volume_as_a_folder(tmp_path: Path) -> None:
    in_a_namespace(
        tmp_path,
        """
        bind("disk1")
        disk1 = seen()
        umount()
        other = Volumes(str(base))
        assert other.of("disk1/a.mp4") != disk1
        assert other.holds("disk1/a.mp4", disk1)
        assert other.holds("disk1/day/a.mp4", disk1)
        assert not other.holds("disk2/a.mp4", disk1)
        """,
    )


def test_names_with_spaces_and_links_to_the_root(tmp_path: Path) -> None:
    in_a_namespace(
        tmp_path,
        r"""
        spaced = root / "a cam\\of mine\n"
        spaced.mkdir()
        (base / "link").symlink_to(root)
        linked = Volumes(str(base / "link"))
        bind("disk1", spaced)
        linked.refresh()
        disk1 = linked.of("a cam\\of mine\n/a.mp4")
        assert disk1 != linked.of("a.mp4")
        umount(spaced)
        linked.refresh()
        assert not linked.holds("a cam\\of mine\n/a.mp4", disk1)
        """,
    )


def test_a_folder_is_known_by_its_inode_and_birth(tmp_path: Path) -> None:
    first = FolderIdentity.of(str(tmp_path))
    assert first == FolderIdentity.of(str(tmp_path))
    assert first.inode == tmp_path.stat().st_ino
    (tmp_path / "a").mkdir()
    assert FolderIdentity.of(str(tmp_path / "a")) != first
    with pytest.raises(OSError, match="No such file"):
        FolderIdentity.of(str(tmp_path / "none"))


def test_without_a_list_of_mounts_nobody_knows_the_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("folder.volumes._MOUNTS", str(tmp_path / "none"))
    assert Volumes(str(tmp_path)).of("a.mp4") == ""
