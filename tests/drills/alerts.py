"""A real Prometheus scrapes real daemons: no alert while they are well, then one fault after the other.

For the faults the rules are loaded a second time with every duration and every age divided by 60, so that
a drill takes minutes and not hours.
"""

import math
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.drills.outage import SHORT_BACKOFF
from tests.support import monitoring
from tests.support.daemon_process import SHORT_LEASES, DaemonProcess, Site
from tests.support.harness import CHUNK
from tests.support.pacing import at_rate, wait_until
from tests.support.prometheus_server import PrometheusServer
from tests.support.servers import RcloneS3, ValkeyServer, free_port
from tests.support.writers import WRITERS

RECORDERS = ("ffmpeg_default", "ffmpeg_fragmented", "appended_and_closed", "copied")
BYTES_PER_SECOND = 2_000_000
FASTER = 60
ALERT_SECONDS = 150.0
"""Within which an alert must fire or end; the slowest one needs 62 s."""

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}


HANGING = """
import os, threading, daemon, stream_monitor
daemon.STALLED_SECONDS = 5.0
tick = stream_monitor.StreamMonitor.tick
def tick_or_hang(monitor):
    while os.path.exists("hang"):
        threading.Event().wait(0.1)
    tick(monitor)
stream_monitor.StreamMonitor.tick = tick_or_hang
"""
"""Have the monitor hang, as a file system would make it, while there is a file of that name."""


class Fired(NamedTuple):
    """How long after a fault its alert fired, and how long after the cure it ended."""

    alert: str
    fault: str
    seconds: float
    ended_seconds: float


def faster(rules: str) -> str:
    """Divide every duration and every age in the rules by `FASTER`, and mark them with the label `fast`."""

    def shorter(duration: re.Match[str]) -> str:
        return f"{max(int(duration[1]) * _UNIT_SECONDS[duration[2]] // FASTER, 1)}s"

    def younger(age: re.Match[str]) -> str:
        return f"{age[1]}{int(age[2]) // FASTER}"

    rules = re.sub(r"(?<=[ \[:])(\d+)([smh])(?=[\n\]:])", shorter, rules)
    rules = re.sub(r"(age_seconds\) > )(\d+)", younger, rules)
    return rules.replace("labels: {", "labels: {scale: fast, ")


class Drill:
    """Two daemons that share a folder, their stores, and a Prometheus.

    Parameters:
        folder: empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.valkey, self.store = ValkeyServer(folder / "valkey"), RcloneS3(folder / "rclone")
        self.site = Site(folder, self.valkey, self.store, "alerts")
        self.ports = [free_port(), free_port()]
        self.daemons: list[DaemonProcess] = []
        fast = folder / "fast.yml"
        fast.write_text(faster(monitoring.RULES.read_text()))
        self.prometheus = PrometheusServer(
            folder / "prometheus",
            targets=[f"127.0.0.1:{port}" for port in self.ports],
            rule_files=[monitoring.RULES, fast],
        )
        self.fired: list[Fired] = []
        self._lost = ("", b"")
        self.began = time.time()

    def start(self) -> None:
        """Start everything."""
        self.valkey.start()
        self.store.start()
        self.daemons = [self.daemon(port) for port in self.ports]
        self.prometheus.start()
        self.began = time.time()

    def close(self) -> None:
        """Stop everything."""
        self.prometheus.close()
        self.site.close()
        self.store.close()
        self.valkey.close()

    def daemon(self, port: int) -> DaemonProcess:
        """Start a daemon with its pages on this port."""
        daemon = self.site.daemon(prelude=f"{SHORT_LEASES}\n{SHORT_BACKOFF}\n{HANGING}", HTTP_PORT=str(port))
        daemon.wait_for_ready()
        return daemon

    # ------------------------------------------------------------------ the healthy part

    def record(self, seconds: float) -> int:
        """Have recorders write one file after the other; gives how many files there are in the end."""
        stop = threading.Event()
        with ThreadPoolExecutor(len(RECORDERS)) as pool:
            recorders = [pool.submit(self._record, name, stop) for name in RECORDERS]
            stop.wait(seconds)
            stop.set()
        names = [path.name for recorder in recorders for path in recorder.result()]
        self.site.wait_until_stored(*names, timeout_seconds=ALERT_SECONDS)
        return len(names)

    def _record(self, name: str, stop: threading.Event) -> list[Path]:
        written: list[Path] = []
        while not stop.is_set():
            path = self.site.folder / f"{name}-{len(written)}.mp4"
            pace = at_rate(BYTES_PER_SECOND, 0.5, stop)
            written += WRITERS[name](path, 3 * CHUNK + 1_000_000, pace)
        return written

    def check_health(self) -> None:
        """Check that Prometheus could work out every rule, and that none of the real ones ever fired.

        Raises:
            AssertionError: with what is wrong.
        """
        bad = [
            (rule["name"], rule["lastError"]) for rule in self.prometheus.rules() if rule["health"] != "ok"
        ]
        assert not bad, bad
        fired = self.prometheus.query('count_over_time(ALERTS{alertstate="firing", scale=""}[1h])')
        assert not fired, fired

    # ------------------------------------------------------------------ the faults

    def all_faults(self) -> None:
        """Break one thing after the other, and wait for its alerts; meanwhile look at the dashboard."""
        # This alert looks back for a minute, so the longest fault comes before its end is awaited.
        vanishing = self.site.folder / "vanishing.mp4"
        with self.fault("a recording is deleted", lambda: self._vanish(vanishing), lambda: None) as alert:
            alert("VideoUploaderIncomplete")
            self._outages()
        bad = self.site.folder.joinpath(*["x" * 100] * 11, "key-too-long.mp4")
        with self.fault("a file with too long a key", lambda: _write(bad), bad.unlink) as alert:
            alert("VideoUploaderStreamFailed")
        with self.fault("four restarts", self._restart_four_times, lambda: None) as alert:
            alert("VideoUploaderRestarts")
        damaged = self.site.folder / "damaged.mp4"
        with self.fault("a record is damaged", lambda: self._damage(damaged), lambda: None) as alert:
            alert("VideoUploaderDamagedRecords")
        lost = self.site.folder / "lost.mp4"
        with self.fault("a manifest is lost", lambda: self._lose(lost), self._bring_back) as alert:
            alert("VideoUploaderNotWhole")
        self._unmount_a_volume()
        hang = self.folder / "hang"
        with self.fault("a file system hangs", hang.touch, hang.unlink) as alert:
            alert("VideoUploaderHangs")
        self.show_dashboard()
        with self.fault("one of two daemons stops", self.daemons[0].terminate, self._start_first) as alert:
            alert("VideoUploaderDaemonDown")
        with self.fault("both daemons stop", self._stop_all, self._start_first) as alert:
            alert("VideoUploaderAbsent")

    def _outages(self) -> None:
        with self.fault("S3 is away", self.store.stop, self.store.start) as alert:
            (self.site.folder / "waiting.mp4").write_bytes(bytes(2 * CHUNK))
            alert("VideoUploaderServiceDown", service="s3")
            alert("VideoUploaderOldestByteOld")
            alert("VideoUploaderNoProgress")
            alert("VideoUploaderOldestByteVeryOld")
        with self.fault("Redis is away", self.valkey.stop, self.valkey.start) as alert:
            alert("VideoUploaderServiceDown", service="redis")
        folder, away = self.site.folder, self.folder / "away"
        with self.fault(
            "the folder is away", lambda: folder.rename(away), lambda: away.rename(folder)
        ) as alert:
            alert("VideoUploaderFolderNotWatched")

    @contextmanager
    def fault(
        self, fault: str, begin: Callable[[], object], end: Callable[[], object]
    ) -> Iterator[Callable[..., None]]:
        """Break something while the block runs; it calls what it is given for each alert that must fire."""
        began, awaited = time.monotonic(), []
        begin()

        def alert(name: str, **labels: str) -> None:
            wanted = "".join(f', {label}="{value}"' for label, value in labels.items())
            series = f'ALERTS{{alertname="{name}", alertstate="firing", scale="fast"{wanted}}}'
            wait_until(lambda: self.prometheus.query(series), ALERT_SECONDS, f"{name} did not fire: {fault}")
            awaited.append((name, series, time.monotonic() - began))

        yield alert
        cured = time.monotonic()
        end()
        for name, series, seconds in awaited:
            self._wait_until_silent(series)
            fired = Fired(name, fault, seconds, time.monotonic() - cured)
            self.fired.append(fired)
            print(f"{name:<32}{fault:<28}{seconds:>8.1f} s{fired.ended_seconds:>10.1f} s", flush=True)

    def _wait_until_silent(self, series: str) -> None:
        wait_until(lambda: not self.prometheus.query(series), ALERT_SECONDS, f"{series} did not end")

    def _vanish(self, path: Path) -> None:
        path.write_bytes(bytes(CHUNK + 7))
        wait_until(lambda: self.site.view.parts.checkpoints.find(path.name), ALERT_SECONDS)
        path.unlink()

    def _damage(self, path: Path) -> None:
        """Write nonsense into the record of a complete recording, and have a daemon look it up."""
        path.write_bytes(bytes(CHUNK))
        self.site.wait_until_stored(path.name, timeout_seconds=ALERT_SECONDS)
        checkpoints = self.site.view.parts.checkpoints
        found = checkpoints.find(path.name)
        assert found
        self.valkey.client.hset(checkpoints._stream_key(found.stream_id), "offset", "abc")
        path.touch()

    def _lose(self, path: Path) -> None:
        """Delete the manifest of a complete recording whose file is gone, and have it looked at."""
        path.write_bytes(bytes(CHUNK))
        self.site.wait_until_stored(path.name, timeout_seconds=ALERT_SECONDS)
        path.unlink()
        view = self.site.view
        key = f"{view.generation(path.name)}metadata.json"
        self._lost = key, view.s3.get_object(Bucket=view.bucket, Key=key)["Body"].read()
        view.s3.delete_object(Bucket=view.bucket, Key=key)
        self._audit(path.name)

    def _bring_back(self) -> None:
        key, body = self._lost
        self.site.view.s3.put_object(Bucket=self.site.view.bucket, Key=key, Body=body)
        self._audit("lost.mp4")

    def _audit(self, path: str) -> None:
        """Have the next look at a recording now, and not in a month."""
        checkpoints = self.site.view.parts.checkpoints
        found = checkpoints.find(path)
        assert found
        self.valkey.client.zadd(checkpoints._base + "audits", {found.stream_id: 0})

    def _unmount_a_volume(self) -> None:
        """Take a volume away under a recording; only root can."""
        disk, place = self.folder / "disk", self.site.folder / "card"
        disk.mkdir()
        place.mkdir()
        mount, unmount = ("mount", "--bind", str(disk), str(place)), ("umount", str(place))
        if os.geteuid() or subprocess.run(mount, check=False).returncode:
            print("no volume can be mounted here: VideoUploaderSourcesAway is not tried", flush=True)
            return
        try:
            growing = place / "growing.mp4"
            growing.write_bytes(bytes(CHUNK + 7))
            wait_until(lambda: self.site.view.parts.checkpoints.find("card/growing.mp4"), ALERT_SECONDS)
            # Between two writes of its recorder: a mount that is in use cannot be taken away.
            with self.fault(
                "a volume is unmounted",
                lambda: wait_until(
                    lambda: not subprocess.run(unmount, check=False, capture_output=True).returncode, 30
                ),
                lambda: subprocess.run(mount, check=True),
            ) as alert:
                alert("VideoUploaderSourcesAway")
            self.site.wait_until_stored("card/growing.mp4", timeout_seconds=ALERT_SECONDS)
        finally:
            subprocess.run(unmount, check=False)

    def _restart_four_times(self) -> None:
        for _ in range(4):
            self._restart()

    def _restart(self) -> None:
        """Restart a daemon, and wait until Prometheus knows: it scrapes no faster than a daemon starts."""
        before = self._newest_start()
        assert self.daemons[0].terminate() == 0
        self._start_first()
        wait_until(lambda: self._newest_start() > before, ALERT_SECONDS, "the new daemon was not scraped")

    def _newest_start(self) -> float:
        return float(self.prometheus.query("max(process_start_time_seconds)")[0]["value"][1])

    def _start_first(self) -> None:
        self.daemons[0] = self.daemon(self.ports[0])

    def _stop_all(self) -> None:
        for daemon in self.daemons:
            assert daemon.terminate() == 0

    # ------------------------------------------------------------------ the dashboard

    def show_dashboard(self) -> None:
        """Ask every query of the dashboard, over the whole run.

        Raises:
            AssertionError: some have no data.
        """
        print(f"\n{'query of the dashboard':<36}{'series':>8}{'values':>8}{'last or largest':>18}")
        empty = []
        for title, query in monitoring.queries(rate_interval="4s"):
            series = self.prometheus.query_range(query, start=self.began, end=time.time())
            values = [float(value) for each in series for _, value in each["values"]]
            finite = [value for value in values if math.isfinite(value)]
            print(f"{title:<36}{len(series):>8}{len(finite):>8}{max(finite, default=math.nan):>18,.3f}")
            empty += [] if finite else [(title, query)]
        print(flush=True)
        assert not empty, empty

    def show_costs(self) -> None:
        """Print what a scrape and the rules cost."""
        figures = {
            "scrapes": "sum(count_over_time(up[1h]))",
            "failed scrapes": "sum(count_over_time(up[1h]) - sum_over_time(up[1h]))",
            "series of a daemon": "max(max_over_time(scrape_samples_scraped[1h]))",
            "seconds of a scrape, average": "avg(avg_over_time(scrape_duration_seconds[1h]))",
            "seconds of a scrape, longest": "max(max_over_time(scrape_duration_seconds[1h]))",
        }
        for name, query in figures.items():
            print(f"{name}: {float(self.prometheus.query(query)[0]['value'][1]):,.4g}")


def _write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"video")
