"""The commands that a newcomer types first."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


def make(
    *arguments: str, path: str = os.environ["PATH"], cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    command = [str(shutil.which("make")), "-f", str(ROOT / "Makefile"), *arguments]
    return subprocess.run(
        command, cwd=cwd, env={"PATH": path}, capture_output=True, text=True, check=False, timeout=30
    )


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH with little on it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "mkdir", "touch"):
        (folder / name).symlink_to(str(shutil.which(name)))
    return folder


def test_make_alone_explains_every_command() -> None:
    phony = re.search(r"^\.PHONY: help (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    explained = re.findall(r"^make (\w+)  ", make().stdout, re.MULTILINE)
    assert explained == phony[1].split()


def test_a_machine_without_a_python_that_is_new_enough_is_told_so(programs: Path, tmp_path: Path) -> None:
    for name in ("python3.13", "python3"):  # as pyenv's shims do, and as an old system does
        (programs / name).write_text("#!/bin/sh\nexit 1\n")
        (programs / name).chmod(0o700)
    result = make(".venv/bin/python", path=str(programs), cwd=tmp_path)
    assert result.returncode == 2
    assert "error: this needs Python 3.11 or newer with its venv module" in result.stderr


def test_the_first_python_that_is_new_enough_makes_the_venv(programs: Path, tmp_path: Path) -> None:
    (programs / "python3.13").write_text("#!/bin/sh\nexit 1\n")
    (programs / "python3.11").write_text(
        f'#!/bin/sh\necho "$@" >>called\nexec {sys.executable} -I "$1" "pass"\n'
    )
    for program in programs.glob("python*"):
        program.chmod(0o700)
    make(".venv/bin/python", path=str(programs), cwd=tmp_path)
    assert (tmp_path / "called").read_text().splitlines()[-1] == "-m venv .venv"


@pytest.fixture
def stores(programs: Path, tmp_path: Path) -> Path:
    """A folder with a .venv in which the stores are not built yet, and what the recipe needs on the PATH."""
    for name in ("ln", "tail"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    (tmp_path / "Makefile").symlink_to(ROOT / "Makefile")
    return tmp_path


def build_stores(folder: Path, go: str = "") -> subprocess.CompletedProcess[str]:
    """Run the recipe with a program in Go's place."""
    programs = folder / "bin"
    if go:
        (programs / "go").write_text(f"#!/bin/sh\n{go}\n")
        (programs / "go").chmod(0o700)
    cache = f"XDG_CACHE_HOME={folder / 'cache'}"
    return make(".venv/stores.stamp", cache, "GO_FOLDER=/nowhere", path=str(programs), cwd=folder)


def test_without_go_the_stores_that_it_builds_are_left_out(stores: Path) -> None:
    result = build_stores(stores)
    assert (result.returncode, result.stderr) == (0, "")
    assert "note: without Go the tests of MinIO and versitygw are skipped" in result.stdout
    assert not (stores / ".venv/stores.stamp").exists()


def test_a_store_that_cannot_be_built_is_left_out_and_tried_again(stores: Path) -> None:
    result = build_stores(stores, "echo dial tcp: no route to host >&2; exit 1")
    assert result.returncode == 0
    assert "note: the tests of minio are skipped" in result.stdout
    assert "no route to host" in result.stdout
    assert not (stores / ".venv/stores.stamp").exists()


def test_stores_are_built_once_and_linked(stores: Path) -> None:
    building = (
        'for module; do :; done; name=${module##*/}; name=${name%@*}; mkdir -p "$GOBIN"'
        ' && echo "$module" >>built && echo "#!/bin/sh" >"$GOBIN/$name" && chmod +x "$GOBIN/$name"'
    )
    (stores / "bin/chmod").symlink_to(str(shutil.which("chmod")))
    assert build_stores(stores, building).returncode == 0
    assert [(stores / ".venv/bin" / name).resolve().exists() for name in ("minio", "versitygw")] == [True] * 2
    (stores / ".venv/stores.stamp").unlink()
    assert build_stores(stores, building).returncode == 0
    assert len((stores / "built").read_text().splitlines()) == 2
    assert (stores / ".venv/stores.stamp").exists()


def test_the_test_pattern_is_recorded_at_a_rate_that_fills_chunks(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "tools/record_test_pattern.py",
        "--seconds",
        "1",
        "--folder",
        str(tmp_path),
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (recording,) = tmp_path.iterdir()
    assert re.fullmatch(r"test-pattern-\d{8}-\d{6}\.mp4", recording.name)
    assert 1_200_000 < recording.stat().st_size < 2_000_000
    assert b"moov" in recording.read_bytes()
    assert f"data/objects/videos/{recording.name}/g0001-*/metadata.json" in result.stdout
