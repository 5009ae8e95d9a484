"""The picture of the structure in docs/design.md, made from the imports of the code.

Every module at the top and every package is a room on a floor. Imports lead downwards, or to the right on one
floor; every import counts, also one inside a function.
"""

import ast
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_THE_PROGRAM = {"tests", "tools", "benchmarks"}

FLOORS = [
    ("command", "main", "cli"),
    ("process", "daemon", "status", "wiring"),
    ("threads", "video_processor", "stream_monitor"),
    ("one turn", "chunk_uploader"),
    ("work", "doctor", "upload", "archive"),
    ("stores", "s3", "checkpoint"),
    ("edges", "config", "embedded", "redis_store", "folder"),
    ("rules", "scheduling", "recording", "settings"),
    ("ground", "logs", "errors", "metrics"),
]
"""From the roof down: the name of a floor, and its rooms from left to right."""

_ROOM_WIDTH, _ROOM_HEIGHT, _GAP, _FLOOR, _LABEL = 126, 30, 16, 66, 76
_STYLE = (
    "svg{background:#fff}rect{fill:#fff;stroke:#5b6b7b;rx:5}rect.spine{fill:#e3eefa}"
    "text{font:13px sans-serif;fill:#1c2733;text-anchor:middle}"
    "text.floor{fill:#6b7a89;text-anchor:start}line{stroke:#8896a5;marker-end:url(#arrow)}"
)
_ARROW = (
    '<marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#8896a5"/></marker>'
)

Imports = dict[str, set[str]]


def rooms() -> dict[str, list[Path]]:
    """Return the files of each module at the top and of each package of the program."""
    packages = {path.parent for path in ROOT.glob("*/__init__.py")}
    found = {path.stem: [path] for path in ROOT.glob("*.py")}
    return found | {
        package.name: sorted(package.rglob("*.py"))
        for package in packages
        if package.name not in NOT_THE_PROGRAM
    }


def imports() -> Imports:
    """Return for each room which other rooms it imports."""
    files = rooms()
    return {
        room: {name for path in paths for name in _imported(path)} & (files.keys() - {room})
        for room, paths in sorted(files.items())
    }


def _imported(path: Path) -> Iterable[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def wrong_imports(graph: Imports) -> list[str]:
    """Return the imports that lead upwards, or to the left on one floor; without any there is no circle."""
    place = {room: (number, at) for number, (_, *floor) in enumerate(FLOORS) for at, room in enumerate(floor)}
    return [
        f"{room} imports {below}"
        for room, imported in graph.items()
        for below in sorted(imported)
        if place[below] <= place[room]
    ]


def direct(graph: Imports) -> Imports:
    """Return the imports that no longer way through other rooms leads to: the arrows worth drawing."""
    reach: Imports = {}
    for room in TopologicalSorter(graph).static_order():
        reach[room] = graph[room].union(*(reach[below] for below in graph[room]))
    return {
        room: {one for one in below if not any(one in reach[other] for other in below)}
        for room, below in graph.items()
    }


def svg() -> str:
    """Return the picture."""
    graph = imports()
    width = _LABEL + max(len(floor) - 1 for floor in FLOORS) * (_ROOM_WIDTH + _GAP)
    height = len(FLOORS) * _FLOOR
    centre: dict[str, tuple[float, float]] = {}
    labels = []
    for number, (name, *floor) in enumerate(FLOORS):
        y = (number + 0.5) * _FLOOR
        labels.append(f'<text class="floor" x="{_GAP}" y="{y + 4.5:g}">{name}</text>')
        for place, room in enumerate(floor):
            middle = _LABEL + (width - _LABEL) / 2
            centre[room] = (middle + (place - (len(floor) - 1) / 2) * (_ROOM_WIDTH + _GAP), y)
    lines = [
        _line(centre[room], centre[below])
        for room, imported in sorted(direct(graph).items())
        for below in sorted(imported)
    ]
    boxes = [_box(room, *centre[room]) for room in sorted(centre)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">'
    return "\n".join([head, f"<style>{_STYLE}</style>", _ARROW, *labels, *lines, *boxes, "</svg>", ""])


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    if y1 == y2:
        x1, x2 = x1 + _ROOM_WIDTH / 2, x2 - _ROOM_WIDTH / 2
    else:
        y1, y2 = y1 + _ROOM_HEIGHT / 2, y2 - _ROOM_HEIGHT / 2
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def _box(room: str, x: float, y: float) -> str:
    spine = (ROOT / f"{room}.py").exists()
    kind, name = (' class="spine"', room) if spine else ("", f"{room}/")
    return (
        f'<rect{kind} x="{x - _ROOM_WIDTH / 2:g}" y="{y - _ROOM_HEIGHT / 2:g}" width="{_ROOM_WIDTH}"'
        f' height="{_ROOM_HEIGHT}"/><text x="{x:g}" y="{y + 4.5:g}">{name}</text>'
    )
