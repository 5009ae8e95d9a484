"""The way of one chunk from a worker to the store, as docs/reading.md tells it: a verb for each frame."""

import inspect
import os
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


def test_the_reading_names_every_stop() -> None:
    text = READING.read_text()
    assert all(f"{verb}(" in text for verb in {*UPLOAD, *FINALIZE})
