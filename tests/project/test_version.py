"""The version stands in pyproject.toml; whatever else names one must agree."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from settings.version import VERSION

ROOT = Path(__file__).parents[2]


def test_the_program_prints_the_version_of_its_project_from_any_folder(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    command = [sys.executable, str(ROOT / "main.py"), "--version"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == project["version"] == VERSION


def test_what_is_deployed_is_of_that_version() -> None:
    named = {
        page: re.findall(r"video-chunk-uploader:(\d[\w.]*)", (ROOT / page).read_text())
        for page in ("deploy/kubernetes/deployment.yaml", "docs/operations.md")
    }
    assert all(versions and set(versions) == {VERSION} for versions in named.values()), named


def test_no_other_line_of_the_code_has_it() -> None:
    packages = {path.parent for path in ROOT.glob("*/__init__.py")} - {ROOT / "tests"}
    files = [*ROOT.glob("*.py"), *(file for package in packages for file in package.rglob("*.py"))]
    assert [file.name for file in files if f'"{VERSION}"' in file.read_text()] == []


def test_a_release_can_be_cut_from_the_changelog() -> None:
    """By renaming one heading: what is new stands under it, in the sections of Keep a Changelog."""
    heads = re.findall(r"^##+ .+$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == "## [Unreleased]"
    release = r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d"
    section = "### (Added|Changed|Deprecated|Removed|Fixed|Security)"
    assert [head for head in heads[1:] if not re.fullmatch(f"{release}|{section}", head)] == []
