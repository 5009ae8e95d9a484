"""The way of one chunk from a worker to the store, as docs/reading.md tells it: a verb for each frame."""

import ast
import inspect
import os
import re
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient

from tests.support.harness import CHUNK, Harness

ROOT = Path(__file__).resolve().parents[2]
READING = ROOT / "docs" / "reading.md"
UPLOAD = ["work_once", "_run_job", "advance", "_upload_next_chunk", "ensure", "put"]
FINALIZE = [
    "work_once",
    "_run_job",
    "advance",
    "continue_finalization",
    "_settle_next_chunk",
    "ensure",
    "put",
]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Our functions that lead to each put of a chunk, without the thread's own loop."""
    found: list[list[str]] = []
    call = BaseClient._make_api_call  # type: ignore[attr-defined]

    def noting(client: Any, operation: str, params: dict[str, Any]) -> Any:
        if operation == "PutObject" and "/chunks/" in params["Key"]:
            frames = [each for each in inspect.stack() if is_ours(each.filename)]
            found.append([frame.function for frame in reversed(frames)])
        return call(client, operation, params)

    monkeypatch.setattr(BaseClient, "_make_api_call", noting)
    return found


def is_ours(filename: str) -> bool:
    path = Path(filename)
    own = path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / ".venv")
    return own and not path.is_relative_to(ROOT / "tests")


def test_a_full_chunk_goes_up_in_seven_frames(harness: Harness, ways: list[list[str]]) -> None:
    harness.write("a.mp4", os.urandom(CHUNK))
    harness.scan()
    assert ways == [UPLOAD]


def test_a_tail_goes_up_in_eight_frames(harness: Harness, ways: list[list[str]]) -> None:
    harness.write("a.mp4", os.urandom(100))
    harness.fall_idle()
    assert ways == [FINALIZE]


def test_the_reading_names_every_stop_and_its_code_is_the_code() -> None:
    text = READING.read_text()
    assert all(f"{verb}(" in text for verb in {*UPLOAD, *FINALIZE})
    excerpts = re.findall(r"^`(\S+\.py)`, `(\S+)`:\n\n```python\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    assert len(excerpts) > 8
    for module, name, code in excerpts:
        assert bare(ast.parse(code), name) == bare(ast.parse((ROOT / module).read_text()), name)


def bare(tree: ast.AST, name: str) -> str:
    """Return a function without its docstring and comments; the excerpts have no classes around them."""
    cls, _, function = name.rpartition(".")
    holders: list[ast.AST] = [
        node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == cls
    ] or [tree]
    [found] = (
        node
        for node in ast.iter_child_nodes(holders[0])
        if isinstance(node, ast.FunctionDef) and node.name == function
    )
    if ast.get_docstring(found):
        found.body.pop(0)
    found.decorator_list.clear()
    return ast.unparse(found)
