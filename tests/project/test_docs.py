"""The pages and pictures that are made from the code are up to date, and what the pages point to is there."""

import re
import subprocess
from pathlib import Path

import pytest

import metrics
from config import SETTINGS
from tools import make_docs, settings_page, structure

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]

_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", make_docs.made(), ids=lambda path: path.name)
def test_what_is_made_from_the_code_is_up_to_date(path: Path) -> None:
    assert path.read_text() == make_docs.made()[path], "run `make docs`"


def test_every_setting_stands_below_the_heading_of_its_group() -> None:
    _, *sections = settings_page.page().split("\n## ")
    for section in sections:
        title = section.partition("\n")[0]
        named = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        assert named == [setting.name for setting in SETTINGS if setting.group == title]
    assert len(sections) == len({setting.group for setting in SETTINGS})


# ---------------------------------------------------------------------- the structure


def test_every_module_and_package_has_one_place_in_the_picture() -> None:
    placed = [room for _, *floor in structure.FLOORS for room in floor]
    assert sorted(placed) == sorted(structure.rooms())
    assert len(placed) <= 26
    assert len(structure.FLOORS) <= 10


def test_no_import_leads_upwards_and_none_in_a_circle() -> None:
    assert structure.wrong_imports(structure.imports()) == []


def test_an_import_that_leads_upwards_is_named() -> None:
    assert structure.wrong_imports({"s3": {"upload", "errors"}}) == ["s3 imports upload"]
    assert structure.wrong_imports({"cli": {"main"}}) == ["cli imports main"]


def test_only_imports_that_no_other_way_leads_to_are_drawn() -> None:
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set[str]()}
    assert structure.direct(graph) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_the_top_folder_can_be_taken_in_at_a_glance() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no clone")
    assert len({name.partition("/")[0] for name in listed.stdout.splitlines()}) <= 48
    assert len(list(ROOT.glob("*.py"))) <= 11
    assert len(structure.rooms()) - len(list(ROOT.glob("*.py"))) <= 12


# ---------------------------------------------------------------------- pages


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for name, anchor in _LINK.findall(_FENCED.sub("", page.read_text())):
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), name
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{name}#{anchor}"


def test_every_series_stands_in_the_table_of_the_monitoring_page() -> None:
    table = (ROOT / "docs" / "monitoring.md").read_text().partition("## The series")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+?)(?:_total|_info)?(?:\{[^`]*\})?`", table))
    ours = {
        family.name.removeprefix("video_uploader_")
        for family in metrics.REGISTRY.collect()
        if family.name.startswith("video_uploader_")
    }
    assert ours - named == set()
