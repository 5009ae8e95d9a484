"""Alert rules, panels, the series that they ask for, and recordings of series for promtool."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import metrics
from tests.support.missing import skip_or_fail

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
RULES = PROMETHEUS / "rules/video-uploader.yml"
RULE_TESTS = PROMETHEUS / "rule_tests/video-uploader.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboards/video-uploader.json"
GUIDE = ROOT / "docs/monitoring.md"

ADDED_BY_PROMETHEUS = {"job", "instance"}
JOB = {"job": "video-uploader", "instance": "a:8000"}

_WORDS = {"and", "or", "unless", "bool", "offset"}
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_TOKEN = re.compile(
    r"""(?P<skipped> "[^"]*" | \[[^\]]*\] | [a-zA-Z_:][\w:]* (?=\s*\() | \d[\w.]* )
      | (?P<name> [a-zA-Z_:][\w:]* ) (?: \{ (?P<matchers> [^}]* ) \} )?""",
    re.VERBOSE,
)

Labels = dict[str, str]


class Selector(NamedTuple):
    """A series that an expression asks for; only labels that must be equal to something."""

    name: str
    labels: Labels


def selectors(expression: str) -> list[Selector]:
    """Return every series that an expression in PromQL asks for, in order."""
    found = []
    for token in _TOKEN.finditer(_GROUPING.sub(" ", expression)):
        if token["name"] and token["name"] not in _WORDS:
            equal = dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', token["matchers"] or ""))
            found.append(Selector(token["name"], equal))
    return found


def grouping_labels(expression: str) -> set[str]:
    """Return every label that an expression groups or joins by."""
    return {label.strip() for group in _GROUPING.findall(expression) for label in group.split(",")}


def alerts() -> list[dict[str, Any]]:
    """Return every alert rule."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return every panel of the dashboard that shows something; rows are only headings."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries(rate_interval: str = "40s") -> Iterator[tuple[str, str]]:
    """Yield title and expression of every query of the dashboard, its variables filled in as by Grafana.

    Parameters:
        rate_interval: four scrapes.
    """
    for panel in panels():
        for target in panel["targets"]:
            filled = target["expr"].replace("$job", ".*").replace("$__rate_interval", rate_interval)
            yield panel["title"], filled


def program(name: str) -> str:
    """Find `promtool` or `prometheus` in the virtual environment or on the machine; skipped without it."""
    places = os.pathsep.join([str(Path(sys.prefix, "bin")), os.environ["PATH"]])
    found = shutil.which(name, path=places)
    if found is None:
        message = f"{name} is not there: `make test` fetches it, or install Debian's package prometheus"
        skip_or_fail(message)
    return found


def promtool(*arguments: str) -> None:
    """Run promtool.

    Raises:
        AssertionError: it found something wrong; with what it said.
    """
    command = [program("promtool"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


class Recording:
    """Series as a Prometheus would have scraped them from a daemon that has this process for itself.

    Parameters:
        interval_seconds: between two scrapes, in the time of the daemon.
    """

    def __init__(self, interval_seconds: int) -> None:
        self.interval_seconds = interval_seconds
        self.scrapes = 0
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], list[str]] = {}
        # What other tests have counted in this process before.
        self._before = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in metrics.REGISTRY.collect()
            for sample in family.samples
            if family.type == "counter"
        }

    def scrape(self) -> None:
        """Read every series of the daemon now."""
        self._note("up", {}, 1)
        for family in metrics.REGISTRY.collect():
            for sample in family.samples:
                before = self._before.get((sample.name, frozenset(sample.labels.items())), 0.0)
                self._note(sample.name, sample.labels, sample.value - before)
        self.scrapes += 1

    def _note(self, name: str, labels: Labels, value: float) -> None:
        values = self._values.setdefault((name, frozenset(labels.items())), [])
        values += ["_"] * (self.scrapes - len(values))
        values.append(repr(float(value)))

    def holds(self, selector: Selector) -> bool:
        """Return whether a series was ever there."""
        wanted = {pair for pair in selector.labels.items() if pair[0] not in ADDED_BY_PROMETHEUS}
        return any(name == selector.name and wanted <= labels for name, labels in self._values)

    def labels(self) -> set[str]:
        """Return the names of all labels."""
        return {label for _, labels in self._values for label, _ in labels}

    def alerts_that_fire(self, folder: Path) -> set[str]:
        """Have promtool run the rules over the series; gives the names of the alerts that fired at any time.

        Parameters:
            folder: for promtool's file.
        """
        end = f"{self.interval_seconds * self.scrapes}s"
        fired = f'count_over_time(ALERTS{{alertstate="firing"}}[{end}])'
        test = {
            "interval": f"{self.interval_seconds}s",
            "input_series": self._input_series(),
            "promql_expr_test": [{"expr": fired, "eval_time": end, "exp_samples": []}],
        }
        path = folder / "recording.yml"
        path.write_text(
            yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": [test]})
        )
        command = [program("promtool"), "test", "rules", str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        names = set(re.findall(r'alertname="(\w+)"', result.stdout + result.stderr))
        assert bool(names) == (result.returncode != 0), result.stdout + result.stderr
        return names

    def _input_series(self) -> list[dict[str, str]]:
        wanted = {selector.name for rule in alerts() for selector in selectors(rule["expr"])}
        return [
            {"series": f"{name}{{{_spelled(dict(labels) | JOB)}}}", "values": " ".join(values)}
            for (name, labels), values in self._values.items()
            if name in wanted
        ]


def _spelled(labels: Labels) -> str:
    return ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
