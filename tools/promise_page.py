"""The promises of `docs/promises.md`: their tests, and the changes to the code that break them, tried out."""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "promises.md"

_NODE = r"`(tests/\w+/test_\w+\.py::test_\w+(?:\[[^]`]+\])?)`"
_SECTION = re.compile(r"^## (\d+)\. (.+)$", re.MULTILINE)
_HELD_BY = re.compile(rf"^- {_NODE}$", re.MULTILINE)
_BREAK = re.compile(
    r"^(With this [^\n]*(?:\n(?!\n|```)[^\n]*)*)\n\n"
    r"```diff\n\+\+\+ ([\w/]+\.py)\n-([^\n]+)\n(?:\+([^\n]*)\n)?```$",
    re.MULTILINE,
)
_NOT_COPIED = (".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "data", "input")
_PYTEST_SECONDS = 300.0


@dataclass(frozen=True)
class Change:
    """One line of the code that is replaced, or deleted if `after` is "", and the test that then fails."""

    promise: int
    module: str
    before: str
    after: str
    test: str

    def made_in(self, source: str) -> str:
        """Return a module's text with this change.

        Raises:
            AssertionError: the line is not there exactly once.
        """
        lines = source.splitlines()
        found = lines.count(self.before)
        assert found == 1, f"{self.module} has this line {found} times: {self.before}"
        number = lines.index(self.before)
        lines[number : number + 1] = [self.after] if self.after else []
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Promise:
    """One section of the page."""

    number: int
    title: str
    tests: tuple[str, ...]
    changes: tuple[Change, ...]
    diffs: int


def promises(page: str) -> list[Promise]:
    """Read the page."""
    heads = list(_SECTION.finditer(page))
    ends = [head.start() for head in heads[1:]] + [len(page)]
    return [_promise(head, page[head.end() : end]) for head, end in zip(heads, ends, strict=True)]


def _promise(head: re.Match[str], section: str) -> Promise:
    number = int(head[1])
    changes = []
    for said, module, before, after in _BREAK.findall(section):
        [test] = re.findall(_NODE, said)
        changes.append(Change(number, module, before, after, test))
    return Promise(
        number, head[2], tuple(_HELD_BY.findall(section)), tuple(changes), section.count("```diff")
    )


# ---------------------------------------------------------------------- trying


@dataclass(frozen=True)
class Trial:
    """What became of a change: `problem` is "" when its test passes without it and fails with it."""

    change: Change
    seconds: float
    problem: str


def tried(changes: list[Change], jobs: int) -> Iterator[Trial]:
    """Make each change in a copy of the tree and run its test there.

    Parameters:
        changes: of the page.
        jobs: how many at a time.
    """
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(_tried, changes)


def unchanged_problem(changes: list[Change]) -> str:
    """Run the tests of all changes without any; gives "" when all pass, else what pytest said."""
    result, _ = _pytest(ROOT, *dict.fromkeys(change.test for change in changes))
    return "" if result.returncode == 0 else result.stdout


def _tried(change: Change) -> Trial:
    with tempfile.TemporaryDirectory(prefix="promise-") as folder:
        tree = Path(folder, "tree")
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*_NOT_COPIED))
        module = tree / change.module
        changed = change.made_in(module.read_text())
        compile(changed, change.module, "exec")
        module.write_text(changed)
        result, seconds = _pytest(tree, change.test)
    # 1 and "failed": a test ran and failed. Any other end, as of an import that fails, proves nothing.
    failed = result.returncode == 1 and re.search(r"^\d+ failed", result.stdout, re.MULTILINE)
    return Trial(change, seconds, "" if failed else result.stdout or result.stderr)


def _pytest(tree: Path, *tests: str) -> tuple[subprocess.CompletedProcess[str], float]:
    command = [sys.executable, "-m", "pytest", "--tb=line", "-m", "", *tests]
    began = time.monotonic()
    result = subprocess.run(
        command, cwd=tree, capture_output=True, text=True, check=False, timeout=_PYTEST_SECONDS
    )
    return result, time.monotonic() - began
