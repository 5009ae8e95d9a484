"""The rooms: who may import whom, who knows which library, how large they may be, what may be measured."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import metrics

ROOT = Path(__file__).parent.parent

EVERYWHERE = {"errors", "logs", "metrics", "crash_points"}
"""What every room may import that is not pure; the pure ones may import `errors`."""

PURE = {
    "stream",
    "mp4",
    "manifest",
    "checkpoint_records",
    "config_rules",
    "cures",
    "byte_range",
    "errors",
    "logs",
    "metrics",
    "crash_points",
}

STORED_STREAM = {"checkpoint", "object_store", "stream"}
"""What the work on a stream stands on: its record, its objects, its keys."""

MAY_IMPORT: dict[str, set[str]] = {
    # What all stand on.
    "errors": set(),
    "logs": set(),
    "metrics": set(),
    "crash_points": set(),
    "stream": set(),
    "mp4": set(),
    "config_rules": set(),
    "config_sources": set(),
    "config": {"config_rules", "config_sources"},
    # The boundaries: Redis, S3, the disk, child processes.
    "checkpoint_scripts": set(),
    "checkpoint_records": {"stream"},
    "redis_errors": set(),
    "redis_client": {"redis_cluster", "redis_errors"},
    "redis_cluster": {"redis_errors"},
    "operator_orders": set(),
    "checkpoint_reader": {
        "checkpoint_scripts",
        "checkpoint_records",
        "operator_orders",
        "redis_errors",
        "stream",
    },
    "leases": {
        "checkpoint_reader",
        "checkpoint_scripts",
        "checkpoint_records",
        "operator_orders",
        "redis_errors",
        "stream",
    },
    "checkpoint": {
        "leases",
        "operator_orders",
        "checkpoint_reader",
        "checkpoint_scripts",
        "checkpoint_records",
        "redis_client",
        "redis_errors",
        "stream",
    },
    "s3_errors": set(),
    "s3_clients": set(),
    "object_store": {"s3_clients", "s3_errors", "stream"},
    "source": {"stream"},
    "file_systems": set(),
    "child_process": set(),
    "embedded_addresses": set(),
    "embedded": {"child_process", "embedded_addresses"},
    # The work on one stream.
    "manifest": {"mp4", "stream"},
    "manifest_store": STORED_STREAM | {"manifest"},
    "closing": STORED_STREAM | {"manifest", "manifest_store"},
    "finalization": STORED_STREAM | {"manifest", "manifest_store", "mp4", "source"},
    "stored_pieces": {"manifest", "source", "stream"},
    "cancelled_sources": {"manifest_store", "source", "stored_pieces", "stream"},
    "recognition": STORED_STREAM
    | {"cancelled_sources", "stored_pieces", "closing", "manifest_store", "source"},
    "order_taking": {"checkpoint", "closing", "operator_orders", "recognition", "source", "stream"},
    "chunk_uploader": STORED_STREAM | {"closing", "finalization", "order_taking", "recognition", "source"},
    # Whose turn it is.
    "gates": set(),
    "schedule": {"stream"},
    "prober": {"gates", "object_store"},
    "folder_scan": {"stream"},
    "folder_watch": {"folder_scan", "file_systems", "stream"},
    "stream_monitor": {"checkpoint", "stream"},
    "video_processor": {"checkpoint", "chunk_uploader", "gates", "schedule", "stream", "stream_monitor"},
    "status_server": set(),
    # The pages for people.
    "cures": set(),
    "page_access": set(),
    "byte_range": set(),
    "recording_cache": {"archive_store", "recording", "stream"},
    "player": {"archive_store", "byte_range", "chunk_reader", "manifest", "recording", "recording_cache"},
    "status_table": {"overview"},
    "status_report": {"cures", "gates", "overview", "stream", "stream_monitor"},
    "status_page": {"page_access", "player"},
    "page_wiring": {
        "archive_store",
        "config",
        "gates",
        "overview",
        "page_access",
        "player",
        "recording_cache",
        "status_page",
        "status_report",
        "status_table",
        "wiring",
    },
    "overview": {"checkpoint_reader", "stream"},
    # The archive: S3 alone, without Redis or the daemon.
    "archive_store": {"object_store", "stream"},
    "recording": {"archive_store", "manifest", "stream"},
    "recording_names": {"stream"},
    "archive": {"archive_store", "manifest", "recording", "recording_names", "stream"},
    "chunk_reader": {"archive_store", "stream"},
    "restore_target": {"chunk_reader", "stream"},
    "archive_verify": {"archive", "chunk_reader", "manifest", "recording", "stream"},
    "archive_restore": {"archive", "archive_store", "chunk_reader", "recording", "restore_target", "stream"},
    "archive_follow": {"archive_store", "archive", "chunk_reader", "recording", "stream"},
    # The doctor: everything that a set-up needs, looked at from outside.
    "doctor_finding": set(),
    "doctor_folder": {"doctor_finding", "file_systems", "folder_scan", "source"},
    "doctor_store": {"doctor_finding", "object_store"},
    "doctor_redis": {"checkpoint", "doctor_finding", "redis_errors"},
    "doctor": {"checkpoint", "config", "doctor_finding", "doctor_folder", "doctor_redis", "doctor_store"},
    # The commands.
    "steering": {
        "checkpoint",
        "leases",
        "manifest",
        "object_store",
        "operator_orders",
        "recording_names",
        "stream",
    },
    "status_output": {"command_output", "object_store", "overview", "stream"},
    "command_steering": {
        "checkpoint",
        "command_output",
        "config",
        "object_store",
        "operator_orders",
        "overview",
        "recording_names",
        "status_output",
        "steering",
        "stream",
    },
    "command_output": {"archive", "archive_follow", "archive_restore", "archive_verify", "doctor_finding"},
    "commands": {
        "archive",
        "archive_follow",
        "archive_restore",
        "archive_store",
        "archive_verify",
        "chunk_reader",
        "command_output",
        "command_steering",
        "config",
        "doctor",
        "embedded",
        "embedded_addresses",
        "object_store",
        "recording_names",
        "restore_target",
    },
    # The wiring.
    "wiring": {
        "checkpoint",
        "chunk_uploader",
        "closing",
        "config",
        "finalization",
        "folder_watch",
        "gates",
        "manifest",
        "manifest_store",
        "object_store",
        "operator_orders",
        "order_taking",
        "prober",
        "recognition",
        "schedule",
        "stream_monitor",
        "video_processor",
    },
    "daemon": {"config", "embedded", "folder_watch", "page_wiring", "status_server", "wiring"},
    "main": {"commands", "config", "daemon", "embedded", "wiring"},
}

KNOWS: dict[str, set[str]] = {
    "boto3": {"s3_clients"},
    "botocore": {"object_store", "s3_clients", "s3_errors"},
    "dotenv": {"config_sources"},
    "flask": {"page_wiring", "player", "status_page", "status_server"},
    "prometheus_client": {"metrics", "status_server"},
    "pydantic": {"commands", "config", "config_rules", "main"},
    "pydantic_settings": {"config"},
    "redis": {"checkpoint_reader", "checkpoint", "leases", "redis_client", "redis_cluster", "redis_errors"},
    "rich": {"command_output", "command_steering", "status_output"},
    "structlog": {"logs"},
    "types_boto3_s3": {"object_store", "s3_clients"},
    "waitress": {"status_server"},
    "urllib3": {"s3_errors"},
    # doctor_folder listens for a hidden probe, which folder_watch passes over by design. The other rooms
    # of the doctor stand on object_store and checkpoint, and know neither boto3 nor redis-py.
    "watchdog": {"doctor_folder", "folder_watch"},
}
"""Each library and the rooms that know it: whoever wants to exchange one looks there."""

READS_THE_ENVIRONMENT = {"config", "child_process"}  # the latter hands some of it on to its child

MOST_LINES = 400
MOST_FUNCTION_LINES = 40

ROOMS = sorted(path.stem for path in ROOT.glob("*.py"))
CODE = {room: ast.parse((ROOT / f"{room}.py").read_text()) for room in ROOMS}


def imported(room: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(CODE[room]):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{room} imports by a relative name"
            found.add(str(node.module).partition(".")[0])
    return found


# ---------------------------------------------------------------------- who imports whom


def test_the_table_names_every_room_and_no_other() -> None:
    assert sorted(MAY_IMPORT) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    allowed = MAY_IMPORT.get(room, set()) | ({"errors"} if room in PURE else EVERYWHERE)
    assert imported(room) & set(ROOMS) <= allowed


@pytest.mark.parametrize("room", ROOMS)
def test_the_table_allows_nothing_that_is_not_used(room: str) -> None:
    assert MAY_IMPORT.get(room, set()) <= imported(room)


def test_imports_go_downwards_only() -> None:
    order = list(TopologicalSorter(MAY_IMPORT).static_order())  # raises CycleError when they do not
    assert order[-1] == "main"


def test_what_all_may_import_stands_on_nothing_but_each_other() -> None:
    for room in EVERYWHERE:
        assert imported(room) & set(ROOMS) <= EVERYWHERE


@pytest.mark.parametrize("room", ROOMS)
def test_a_library_is_known_only_where_the_table_says(room: str) -> None:
    others = imported(room) - set(ROOMS) - sys.stdlib_module_names
    assert others == {library for library, rooms in KNOWS.items() if room in rooms}


@pytest.mark.parametrize("room", ROOMS)
def test_only_the_settings_read_the_environment(room: str) -> None:
    names = {node.attr for node in ast.walk(CODE[room]) if isinstance(node, ast.Attribute)}
    names |= {
        alias.name
        for node in ast.walk(CODE[room])
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    reads = not names.isdisjoint({"environ", "environb", "getenv", "getenvb"})
    assert reads == (room in READS_THE_ENVIRONMENT)


def test_the_design_tells_the_same() -> None:
    section = (ROOT / "docs" / "design.md").read_text().partition("## 2. Rooms")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|.*\| ([^|]+) \|$", section, re.MULTILINE)
    told = {room: below for names, below in rows for room in re.findall(r"`(\w+)`", names)}
    assert sorted(told) == ROOMS
    for room, below in told.items():
        if not re.search("[a-z]", re.sub(r"`\w+`", "", below)):  # else it is told in words
            assert MAY_IMPORT[room] <= set(re.findall(r"`(\w+)`", below)), room


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_not_too_large(room: str) -> None:
    assert len((ROOT / f"{room}.py").read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("room", ROOMS)
def test_a_function_is_not_too_long(room: str) -> None:
    long = {
        node.name: lines
        for node in ast.walk(CODE[room])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := _lines(node) - (_lines(node.body[0]) if ast.get_docstring(node) else 0))
        > MOST_FUNCTION_LINES
    }
    assert not long


def _lines(node: ast.stmt) -> int:
    assert node.end_lineno
    return node.end_lineno - node.lineno + 1


# ---------------------------------------------------------------------- series

LABELS = {"kind", "service", "state", "status", "type"}
"""Each has a few fixed words as values; a file name would make one series for each file."""

SERIES = {
    name: value for name, value in vars(metrics).items() if name.isupper() and hasattr(value, "describe")
}
# Settled by the collectors of prometheus_client for any process.
_NOT_OURS = re.compile(r"process_|python_")


def test_every_series_of_ours_has_our_prefix() -> None:
    for family in metrics.REGISTRY.collect():
        assert family.name.startswith("video_uploader_") or _NOT_OURS.match(family.name), family.name


def test_no_label_can_carry_a_file_name() -> None:
    for name, series in SERIES.items():
        assert set(series._labelnames) <= LABELS, name
    for room, node in _calls("labels"):
        named = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        named |= {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
        assert named.isdisjoint({"path", "stream_id", "stream", "key", "name", "folder"}), (
            room,
            ast.unparse(node),
        )


@pytest.mark.parametrize("name", SERIES)
def test_every_series_is_set_by_somebody(name: str) -> None:
    setters = ("inc", "set", "observe", "time", "info", "set_function")
    used = {
        room
        for setter in setters
        for room, node in _calls(setter)
        if room != "metrics" and ast.unparse(node.func).startswith(f"metrics.{name}.")
    }
    assert used


def _calls(method: str) -> Iterator[tuple[str, ast.Call]]:
    for room, code in CODE.items():
        for node in ast.walk(code):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == method
            ):
                yield room, node
