"""What was measured, as plain tables for people and as JSON for programs, and the targets."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.live_lag import Lag
from benchmarks.many_files import Idle, Start
from benchmarks.primitives import Primitives
from benchmarks.restore import RestoreRace
from benchmarks.throughput import DAEMON, DAEMON_WATCHING, PEERS, Race

LEAST_SPEED_RATIO = 1.0
MAX_PEAK_MB = 150.0
MAX_LAG_SECONDS = 1.0
MAX_IDLE_PERCENT = 1.0
MAX_RESTORE_MB = 150.0


class Target(NamedTuple):
    """One promise of a figure."""

    name: str
    wanted: str
    found: str
    met: bool


@dataclass
class Results:
    """All that one run has measured so far; None for a part that was left out."""

    race: Race | None = None
    lag: Lag | None = None
    start: Start | None = None
    idle: Idle | None = None
    restore: RestoreRace | None = None
    primitives: Primitives | None = None

    def targets(self) -> list[Target]:
        """Compare with the targets, as far as they were measured."""
        return [
            *_race_targets(self.race),
            *_other_targets(self.lag, self.start, self.idle),
            *_restore_targets(self.restore),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return every single figure."""
        return {
            "throughput": self.race and _race_json(self.race),
            "live_lag": self.lag and self.lag._asdict(),
            "start": self.start and self.start._asdict(),
            "idle": self.idle and self.idle._asdict(),
            "restore": self.restore and _restore_json(self.restore),
            "primitives": self.primitives and self.primitives._asdict(),
            "targets": [target._asdict() for target in self.targets()],
        }

    def tables(self) -> list[str]:
        """Return the tables, in the order in which they are measured."""
        tables = [
            self.primitives and _primitives_text(self.primitives),
            self.race and _race_text(self.race),
            self.lag and _lag_text(self.lag),
            self.start and _start_text(self.start),
            self.idle and _idle_text(self.idle),
            self.restore and _restore_text(self.restore),
        ]
        return [table for table in tables if table]

    def verdict(self) -> str:
        """Return the table of targets."""
        rows = [
            [name, wanted, found, "OK" if met else "MISSED"] for name, wanted, found, met in self.targets()
        ]
        return table([["Targets", "wanted", "found", ""], *rows])


def table(rows: Iterable[Sequence[str]]) -> str:
    """Line cells up: the first column to the left, the others to the right."""
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first, *others = row
        aligned = [first.ljust(widths[0])]
        aligned += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def _race_targets(race: Race | None) -> list[Target]:
    if race is None:
        return []
    found = []
    for name in (DAEMON, DAEMON_WATCHING):
        ratio = statistics.median(race.ratios(name))
        found.append(
            Target(
                f"throughput of the {name}",
                f">= {LEAST_SPEED_RATIO:.2f} x the fastest peer",
                f"{ratio:.2f} x {race.fastest_peer()}",
                ratio >= LEAST_SPEED_RATIO,
            )
        )
    peak = max(turn.peak_mb for turn in race.turns[DAEMON])
    found.append(
        Target(
            f"peak memory with {race.workers} workers",
            f"<= {MAX_PEAK_MB:.0f} MB",
            f"{peak:.0f} MB",
            peak <= MAX_PEAK_MB,
        )
    )
    return found


def _other_targets(lag: Lag | None, start: Start | None, idle: Idle | None) -> list[Target]:
    found = []
    if lag:
        worst = lag.percentile(99)
        found.append(
            Target(
                "live lag, p99, with its transfer",
                f"<= {MAX_LAG_SECONDS:.0f} s + transfer",
                f"{worst:.2f} s",
                worst <= MAX_LAG_SECONDS + lag.put_seconds,
            )
        )
    if start:
        found.append(
            Target(
                f"S3 requests of a start with {start.files:,} known files",
                "0",
                str(len(start.requests)),
                not start.requests,
            )
        )
    if idle:
        found.append(
            Target(
                f"CPU while idle with {idle.files:,} complete files",
                f"< {MAX_IDLE_PERCENT:.0f} % of a core",
                f"{idle.cpu_percent:.2f} %",
                idle.cpu_percent < MAX_IDLE_PERCENT,
            )
        )
    return found


def _restore_targets(race: RestoreRace | None) -> list[Target]:
    if race is None:
        return []
    peak = max(turn.peak_mb for turn in race.ours)
    return [
        Target("speed of a restore", ">= 1.00 x rclone copy", f"{race.ratio:.2f} x", race.ratio >= 1),
        Target(
            "peak memory of a restore",
            f"<= {MAX_RESTORE_MB:.0f} MB",
            f"{peak:.0f} MB",
            peak <= MAX_RESTORE_MB,
        ),
    ]


# ---------------------------------------------------------------------- text


def _race_text(race: Race) -> str:
    fastest = race.fastest_peer()
    head = ["", "MB/s", "lowest", "highest", "ratio", "CPU s/GB", "server's", "peak MB"]
    rows = [head]
    for name in (DAEMON, DAEMON_WATCHING, *PEERS):
        speeds, turns = race.speeds(name), race.turns[name]
        gigabytes = race.total_bytes / 1e9
        rows.append(
            [
                name,
                f"{statistics.median(speeds):.0f}",
                f"{min(speeds):.0f}",
                f"{max(speeds):.0f}",
                f"{statistics.median(race.ratios(name)):.2f}",
                f"{statistics.median(turn.cpu_seconds for turn in turns) / gigabytes:.2f}",
                f"{statistics.median(turn.server_cpu_seconds for turn in turns) / gigabytes:.2f}",
                f"{max(turn.peak_mb for turn in turns):.0f}",
            ]
        )
    rounds = len(race.turns[DAEMON])
    return (
        f"Throughput: {race.count} files of {race.size / 1e6:.0f} MB, {rounds} rounds; medians,"
        f" the ratio to {fastest} in the same round\n{table(rows)}"
    )


def _primitives_text(primitives: Primitives) -> str:
    rows = [["CPU seconds per GB on this machine", ""]]
    rows += [[name.replace("_", " "), f"{value:.2f}"] for name, value in primitives._asdict().items()]
    return table(rows)


def _lag_text(lag: Lag) -> str:
    pace = f"{lag.writers} files grow by {lag.bytes_per_second / 1e6:.0f} MB/s each"
    rows = [
        ["Live lag in seconds", "p50", "p90", "p99", "highest", "chunks"],
        [
            "last byte written -> confirmed by S3",
            *(f"{lag.percentile(percent):.3f}" for percent in (50, 90, 99)),
            f"{max(lag.seconds):.3f}",
            str(len(lag.seconds)),
        ],
    ]
    return (
        f"{table(rows)}\nof which one put takes {lag.put_seconds:.3f} s on average; {pace},"
        f" the daemon uses {lag.cpu_percent:.0f} % of a core"
    )


def _start_text(start: Start) -> str:
    requests = f"{len(start.requests)} requests to S3"
    return (
        f"Start with {start.files:,} known complete files: {start.seconds:.2f} s until the last one"
        f" was looked up, {start.cpu_seconds:.2f} CPU s, {requests}"
    )


def _idle_text(idle: Idle) -> str:
    return (
        f"Idle with {idle.files:,} complete files: {idle.cpu_percent:.2f} % of a core"
        f" over {idle.seconds:.0f} s, {idle.resident_mb:.0f} MB, {len(idle.requests)} requests to S3;"
        f" with the status page open {idle.viewed_cpu_percent:.1f} %, {idle.viewed_resident_mb:.0f} MB"
    )


def _restore_text(race: RestoreRace) -> str:
    title = f"Restore of {race.size / 1e9:.1f} GB, {len(race.ours)} rounds"
    rows = [[title, "MB/s", "lowest", "highest", "CPU s/GB", "peak MB"]]
    contenders = {"restore": race.ours, "rclone copy": race.peers}
    for name, turns in contenders.items():
        speeds = [race.size / 1e6 / turn.wall_seconds for turn in turns]
        figures = [f"{value:.0f}" for value in (statistics.median(speeds), min(speeds), max(speeds))]
        cpu = statistics.median(turn.cpu_seconds for turn in turns) / (race.size / 1e9)
        rows.append([name, *figures, f"{cpu:.2f}", f"{max(turn.peak_mb for turn in turns):.0f}"])
    return table(rows)


# ---------------------------------------------------------------------- JSON


def _restore_json(race: RestoreRace) -> dict[str, Any]:
    return {
        "bytes": race.size,
        "ratio_to_rclone": race.ratio,
        "restore": [turn._asdict() for turn in race.ours],
        "rclone copy": [turn._asdict() for turn in race.peers],
    }


def _race_json(race: Race) -> dict[str, Any]:
    contenders = {
        name: {
            "megabytes_per_second": race.speeds(name),
            "ratio_to_fastest_peer": race.ratios(name),
            "turns": [turn._asdict() for turn in turns],
        }
        for name, turns in race.turns.items()
    }
    return {
        "files": race.count,
        "file_bytes": race.size,
        "workers": race.workers,
        "fastest_peer": race.fastest_peer(),
        "contenders": contenders,
    }
