"""The modules: who may import whom, who knows which library, how large they may be, what may be measured."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import metrics

ROOT = Path(__file__).parents[2]

PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
CODE_PACKAGES = [name for name in PACKAGES if name not in {"tests", "tools", "benchmarks"}]

SPINE = [
    "main",
    "daemon",
    "wiring",
    "video_processor",
    "chunk_uploader",
    "stream_monitor",
    "checkpoint",
    "config",
    "metrics",
    "logs",
    "errors",
]
"""The modules at the top, each above those that follow it."""

SETTINGS_WITH_RULES = ("folder", "group", "http", "log", "redis", "rules", "s3", "upload")

KNOWS: dict[str, set[str]] = {
    "boto3": {"s3.clients"},
    "botocore": {"s3.bucket", "s3.checksums", "s3.opening", "s3.clients", "s3.connections", "s3.errors"},
    "click": {f"cli.{path.stem}" for path in (ROOT / "cli").glob("*.py")}
    - {"cli.__init__", "cli.doctor", "cli.output", "cli.report_page", "cli.requests", "cli.run"},
    "dotenv": {"settings.sources"},
    "flask": {"status.wiring", "status.player", "status.pages", "status.server"},
    "prometheus_client": {"metrics", "status.server"},
    "pydantic": {"config"} | {f"settings.{name}" for name in SETTINGS_WITH_RULES},
    "redis": {
        "redis_store.reader",
        "checkpoint",
        "redis_store.folders",
        "redis_store.index",
        "redis_store.leases",
        "redis_store.client",
        "redis_store.cluster",
        "redis_store.errors",
        "redis_store.store_claim",
        "redis_store.audits",
    },
    "rich": {"cli.doctor", "cli.list", "cli.output", "cli.status"},
    "structlog": {"logs"},
    "types_boto3_s3": {"s3.bucket", "s3.checksums", "s3.clients", "s3.connections", "s3.opening"},
    "waitress": {"status.connections"},
    "urllib3": {"s3.connections", "s3.errors"},
    # doctor.folder listens for a hidden probe, which folder.watch passes over by design. The other modules
    # of the doctor stand on s3.bucket and checkpoint, and know neither boto3 nor redis-py.
    "watchdog": {"doctor.folder", "folder.watch"},
}
"""Each library and the modules that know it: whoever wants to exchange one looks there."""

READS_THE_ENVIRONMENT = {"config", "embedded.child_process"}  # the latter hands some of it on to its child

MAX_LINES = 380
MAX_FUNCTION_LINES = 40

FILES = [*ROOT.glob("*.py"), *(file for name in CODE_PACKAGES for file in (ROOT / name).rglob("*.py"))]
PATHS = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in FILES}
MODULES = sorted(PATHS)
CODE = {module: ast.parse(path.read_text()) for module, path in PATHS.items()}


def imported(module: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(CODE[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative name"
            found.add(str(node.module).partition(".")[0])
    return found


# ---------------------------------------------------------------------- who imports whom
# That packages import downwards only is checked by import-linter: see pyproject.toml and `make check`.


def test_the_spine_is_what_lies_at_the_top() -> None:
    assert sorted(SPINE) == sorted(path.stem for path in ROOT.glob("*.py"))


@pytest.mark.parametrize("module", SPINE)
def test_a_module_of_the_spine_imports_only_those_below_it(module: str) -> None:
    assert imported(module) & set(SPINE) <= set(SPINE[SPINE.index(module) + 1 :])


def test_the_design_names_every_package_and_module_of_the_spine() -> None:
    section = (ROOT / "docs" / "design.md").read_text().partition("## 2. Packages")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[\w/]+`(?:, `[\w/]+`)*) \|", section, re.MULTILINE)
    assert sorted(name.rstrip("/") for row in rows for name in re.findall(r"`([\w/]+)`", row)) == sorted(
        [*CODE_PACKAGES, *SPINE]
    )


@pytest.mark.parametrize("module", MODULES)
def test_a_library_is_known_only_where_the_table_says(module: str) -> None:
    others = imported(module) - set(SPINE) - set(CODE_PACKAGES) - sys.stdlib_module_names
    assert others == {library for library, modules in KNOWS.items() if module in modules}


@pytest.mark.parametrize("module", MODULES)
def test_only_the_settings_read_the_environment(module: str) -> None:
    names = {node.attr for node in ast.walk(CODE[module]) if isinstance(node, ast.Attribute)}
    names |= {
        alias.name
        for node in ast.walk(CODE[module])
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    reads = not names.isdisjoint({"environ", "environb", "getenv", "getenvb"})
    assert reads == (module in READS_THE_ENVIRONMENT)


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_not_too_large(module: str) -> None:
    assert len(PATHS[module].read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", MODULES)
def test_a_function_is_not_too_long(module: str) -> None:
    long = {
        node.name: lines
        for node in ast.walk(CODE[module])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := _lines(node) - (_lines(node.body[0]) if ast.get_docstring(node) else 0))
        > MAX_FUNCTION_LINES
    }
    assert not long


MAX_PARAMETERS, MAX_ATTRIBUTES = 6, 10
LARGER = {
    "Auditor": "what it needs of the site, and when its three rounds are due next",
    "CheckpointReader": "the names of its keys in Redis",
    "Checkpoints": "one registered script for each operation",
    "Daemon": "all that lives as long as the process",
    "FolderScan": "what the last scan counted, for the pages",
    "FolderWatch": "the state of the observer, which one thread supervises",
    "RecordUpkeep": "when its two looks are due next",
    "Schedule": "all places where a path can wait, under one lock",
    "StreamMonitor": "the watched sources and what follows from them, for the pages",
    "_Verification": "what one verification has found so far",
}
"""Classes that hold more, each with its reason."""


@pytest.mark.parametrize("module", MODULES)
def test_a_class_holds_few_things_or_has_a_reason(module: str) -> None:
    classes = [node for node in ast.walk(CODE[module]) if isinstance(node, ast.ClassDef)]
    large = {
        node.name
        for node in classes
        if _parameters(node) > MAX_PARAMETERS or _attributes(node) > MAX_ATTRIBUTES
    }
    assert large == {node.name for node in classes} & LARGER.keys()


def _parameters(node: ast.ClassDef) -> int:
    found = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    return sum(len(each.args.args) - 1 + len(each.args.kwonlyargs) for each in found)


def _attributes(node: ast.ClassDef) -> int:
    return len(
        {
            each.attr
            for each in ast.walk(node)
            if isinstance(each, ast.Attribute)
            and isinstance(each.ctx, ast.Store)
            and isinstance(each.value, ast.Name)
            and each.value.id == "self"
        }
    )


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
    for module, node in _calls("labels"):
        named = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        named |= {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
        assert named.isdisjoint({"path", "stream_id", "stream", "key", "name", "folder"}), (
            module,
            ast.unparse(node),
        )


@pytest.mark.parametrize("name", SERIES)
def test_every_series_is_set_by_somebody(name: str) -> None:
    setters = ("inc", "set", "observe", "time", "info", "set_function")
    used = {
        module
        for setter in setters
        for module, node in _calls(setter)
        if module != "metrics" and ast.unparse(node.func).startswith(f"metrics.{name}.")
    }
    assert used


CALLS = [
    (module, node)
    for module, code in CODE.items()
    for node in ast.walk(code)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
]


def _calls(method: str) -> Iterator[tuple[str, ast.Call]]:
    for module, node in CALLS:
        if isinstance(node.func, ast.Attribute) and node.func.attr == method:
            yield module, node
