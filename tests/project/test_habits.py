"""What a contributor is told works."""

import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def test_every_target_and_file_that_contributors_are_told_of_exists() -> None:
    targets = {word for line in re.findall(r"`make ([a-z ]+)", CONTRIBUTING) for word in line.split()}
    assert targets <= set(re.findall(r"^(\w+):", MAKEFILE, re.MULTILINE))
    paths = re.findall(r"`((?:tests|deploy|docs)/[\w./-]+)", CONTRIBUTING)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_make_unit_runs_files_that_are_there() -> None:
    (files,) = re.findall(r"^UNIT = (.+)$", MAKEFILE, re.MULTILINE)
    assert [path for path in files.split() if not (ROOT / path).exists()] == []


def test_hosted_ci_runs_what_ci_runs_and_nothing_else() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands == [".ci/run"]


def test_ci_is_a_script_that_bash_can_read() -> None:
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_the_hooks_before_a_commit_call_the_pinned_tools_only() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    assert all(hook["entry"].startswith(".venv/bin/") for hook in local["hooks"])


def test_every_decision_has_the_four_parts_and_a_line_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    records = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        heads = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
        assert heads[1:] == ["Context", "Decision", "Consequences", "What else was looked at"], path.name
        assert f"({path.name}) | {heads[0].partition('. ')[2]} |" in index
