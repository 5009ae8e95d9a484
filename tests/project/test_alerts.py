"""The alert rules: each fires when it should, none does in a healthy run, and what they ask for exists."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from recording.stream import State
from tests.support import monitoring
from tests.support.harness import CHUNK, Harness
from tests.support.monitoring import Recording, Selector, selectors
from tests.support.servers import RcloneS3, ValkeyServer

pytestmark = pytest.mark.xdist_group("alerts")

STEP_SECONDS = 10
CAMERA_BYTES_PER_SECOND = 32_000
OF_PROMETHEUS = {"up", "ALERTS"}


class Site:
    """A daemon that is stepped through hours of recording in seconds, and scraped at every step."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.recording = Recording(STEP_SECONDS)

    def live(self, minutes: float, each_step: Callable[[], None] = lambda: None) -> None:
        """Let time pass."""
        for _ in range(round(minutes * 60 / STEP_SECONDS)):
            each_step()
            self.harness.clock.now += STEP_SECONDS
            self.harness.work()
            self.harness.parts.watch.step()
            self.harness.parts.monitor.tick()
            self.harness.work()
            self.recording.scrape()

    def record(self, path: str, minutes: float) -> None:
        """Record like a slow camera whose muxer patches its head at the end."""
        target = self.harness.write(path, b"")

        def grow() -> None:
            with target.open("ab") as file:
                file.write(os.urandom(STEP_SECONDS * CAMERA_BYTES_PER_SECOND))

        self.live(minutes, grow)
        with target.open("r+b") as file:
            file.seek(40)
            file.write(b"\1\2\3\4")


@pytest.fixture(scope="module")
def healthy(
    tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer, rclone: RcloneS3
) -> Iterator[Site]:
    """An hour with three recordings, pauses and a clean restart."""
    folder = tmp_path_factory.mktemp("healthy")
    first = Harness(folder / "input", valkey, rclone, "healthy", "healthy")
    site = Site(first)
    site.live(2)
    site.record("a.mp4", 20)
    site.live(8)
    first.parts.watch.stop()
    site.harness = first.restarted()
    site.record("b.mp4", 10)
    site.record("cam/c.mp4", 10)
    site.live(10)
    yield site
    site.harness.parts.watch.stop()


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer) -> Iterator[Site]:
    """Half an hour in which S3 and the folder are away, a record is damaged, a file has too long a name and
    another one vanishes.
    """
    folder = tmp_path_factory.mktemp("troubled")
    store = RcloneS3(folder / "rclone")
    store.start()
    harness = Harness(folder / "input", valkey, store, "troubled", "troubled")
    site = Site(harness)
    site.record("a.mp4", 5)
    store.stop()
    site.record("b.mp4", 6)
    store.start()
    valkey.client.hset(harness.parts.checkpoints._stream_key("a.mp4@1"), "offset", "abc")
    site.live(2)
    harness.folder.rename(folder / "away")
    site.live(6)
    (folder / "away").rename(harness.folder)
    harness.write("/".join(["x" * 100] * 11 + ["key-too-long.mp4"]), b"video")
    vanishing = harness.write("c.mp4", os.urandom(CHUNK + 7))
    site.live(STEP_SECONDS / 60)
    vanishing.unlink()
    site.live(3)
    yield site
    harness.parts.watch.stop()
    store.close()


def test_promtool_accepts_configuration_and_rules() -> None:
    monitoring.promtool("check", "config", str(monitoring.PROMETHEUS / "prometheus.yml"))
    monitoring.promtool("check", "rules", str(monitoring.RULES))


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    monitoring.promtool("test", "rules", str(monitoring.RULE_TESTS))


def test_each_alert_has_a_rule_test_in_which_it_fires() -> None:
    firing = [
        sample["labels"]
        for group in yaml.safe_load(monitoring.RULE_TESTS.read_text())["tests"]
        for test in group["promql_expr_test"]
        for sample in test["exp_samples"]
    ]
    for rule in monitoring.alerts():
        wanted = f'alertname="{rule["alert"]}", alertstate="firing"'
        assert any(wanted in labels for labels in firing), rule["alert"]


def test_no_alert_fires_in_a_healthy_hour(healthy: Site, tmp_path: Path) -> None:
    assert {healthy.harness.state(path) for path in ("a.mp4", "b.mp4", "cam/c.mp4")} == {State.COMPLETE}
    assert healthy.recording.alerts_that_fire(tmp_path) == set()


def test_just_the_alerts_fire_that_a_troubled_run_deserves(troubled: Site, tmp_path: Path) -> None:
    assert troubled.recording.alerts_that_fire(tmp_path) == {
        "VideoUploaderServiceDown",
        "VideoUploaderFolderNotWatched",
        "VideoUploaderStreamFailed",
        "VideoUploaderIncomplete",
        "VideoUploaderDamagedRecords",
    }


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule["alert"]) for rule in monitoring.alerts()])
def test_every_series_that_an_alert_asks_for_exists(rule: dict[str, str], healthy: Site) -> None:
    asked = selectors(rule["expr"])
    assert asked
    for selector in asked:
        assert selector.name in OF_PROMETHEUS or healthy.recording.holds(selector), selector


@pytest.mark.parametrize("query", [pytest.param(query, id=title) for title, query in monitoring.queries()])
def test_every_series_that_the_dashboard_asks_for_exists(query: str, troubled: Site) -> None:
    asked = selectors(query)
    assert asked
    for selector in asked:
        assert selector.name in OF_PROMETHEUS or troubled.recording.holds(selector), selector


def test_rules_and_dashboard_group_by_labels_that_exist(troubled: Site) -> None:
    expressions = [rule["expr"] for rule in monitoring.alerts()] + [
        query for _, query in monitoring.queries()
    ]
    used = {label for expression in expressions for label in monitoring.grouping_labels(expression)}
    assert used - monitoring.ADDED_BY_PROMETHEUS <= troubled.recording.labels()


def test_no_label_could_hold_the_name_of_a_file(troubled: Site) -> None:
    words = {"state", "status", "service", "kind", "type", "le", "generation"}
    of_the_build = {"version", "implementation", "major", "minor", "patchlevel"}
    assert troubled.recording.labels() <= words | of_the_build


def test_every_alert_says_how_bad_it_is_and_where_what_to_do_stands() -> None:
    guide = monitoring.GUIDE.read_text()
    for rule in monitoring.alerts():
        name = rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"] == f"docs/monitoring.md#{name.lower()}"
        assert f"\n### {name}\n" in guide


def test_no_summary_spells_a_number_as_it_comes() -> None:
    for rule in monitoring.alerts():
        for text in rule["annotations"].values():
            for value in re.findall(r"{{ \$value(.*?) }}", text):
                assert value.startswith(" | "), rule["alert"]


def test_the_dashboard_adds_up_installations_and_counts_bytes_as_page_and_command_line_do() -> None:
    of_the_records = ("backlog_bytes", "failed_bytes", "streams", "audit_findings", "sources_away")
    for title, query in monitoring.queries():
        if any(f"max(video_uploader_{name}" in query for name in of_the_records):
            raise AssertionError(f"{title} shows one installation of several: sum(max by (job) (…))")
    units = {panel["fieldConfig"]["defaults"]["unit"] for panel in monitoring.panels()}
    assert "decbytes" in units
    assert "bytes" not in units, "that is KiB in Grafana"


def test_the_guide_tells_of_no_alert_that_is_gone() -> None:
    told = {line[4:] for line in monitoring.GUIDE.read_text().splitlines() if line.startswith("### Video")}
    assert told == {rule["alert"] for rule in monitoring.alerts()}


def test_the_series_of_an_expression_are_found() -> None:
    expression = """
        max by (job) (a_total{state="failed", job=~".*"}) - min_over_time(max by (job) (b)[1h:1m]) > 0
        and on (job, instance) rate(c_bucket{le="+Inf"}[5m]) * 60 or vector(0) unless d offset 5m
    """
    assert selectors(expression) == [
        Selector("a_total", {"state": "failed"}),
        Selector("b", {}),
        Selector("c_bucket", {"le": "+Inf"}),
        Selector("d", {}),
    ]
    assert monitoring.grouping_labels(expression) == {"job", "instance"}
