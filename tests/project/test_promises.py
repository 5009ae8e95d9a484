"""The page of promises does not rot: its tests exist, and the lines that it breaks are in the code."""

import re
import subprocess
import sys

import pytest

from tools.promise_page import PAGE, ROOT, Change, Promise, promises

PROMISES = promises(PAGE.read_text())
CHANGES = [change for promise in PROMISES for change in promise.changes]


def test_the_promises_are_numbered_in_order() -> None:
    assert [promise.number for promise in PROMISES] == list(range(1, 22))


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: str(promise.number))
def test_each_promise_has_tests_and_a_change_that_breaks_it(promise: Promise) -> None:
    assert promise.tests
    assert promise.changes
    assert len(promise.changes) == promise.diffs, "a change that is not understood"
    for change in promise.changes:
        assert change.test.partition("[")[0] in promise.tests


def test_every_test_on_the_page_exists() -> None:
    named = sorted({test for promise in PROMISES for test in promise.tests} | {one.test for one in CHANGES})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-m", "", *named]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    collected = set(re.sub(r"\[.*", "", result.stdout, flags=re.MULTILINE).splitlines())
    assert {test.partition("[")[0] for test in named} <= collected


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change.promise}-{change.module}")
def test_a_line_that_is_changed_is_in_the_code_once_and_stays_python(change: Change) -> None:
    changed = change.made_in((ROOT / change.module).read_text())
    compile(changed, change.module, "exec")
    assert changed != (ROOT / change.module).read_text()
    assert not undefined_names(changed), "its test would fail whatever it looks at"


def undefined_names(source: str) -> str:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--quiet", "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=False).stdout


def test_a_line_that_is_gone_from_the_code_is_noticed() -> None:
    gone = Change(1, "folder/source.py", "    this was a line", "", "")
    with pytest.raises(AssertionError, match="0 times"):
        gone.made_in((ROOT / "folder/source.py").read_text())
