"""What `status`, `cancel` and `retry` print: a table on a terminal, plain lines otherwise, or JSON."""

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.output import say, shown
from recording.stream import State
from s3.bucket import iso
from status.overview import Overview, StreamStatus

_STYLES = {
    "active": "cyan",
    "finalizing": "blue",
    "complete": "green",
    "incomplete": "yellow",
    "failed": "red",
    "cancelled": "magenta",
}


class StatusOutput:
    """Prints streams to stdout.

    Parameters:
        as_json: one JSON object a line, for scripts.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(highlight=False)
        self.live = self._console.is_terminal and not as_json

    def overview(self, taken: Overview) -> None:
        """Print streams once."""
        if self.live:
            self._console.print(_table(taken))
        else:
            self._lines(taken.streams)
            if not self._as_json:
                say(_summary(taken), sys.stderr)

    def screen(self) -> Live:
        """Take the terminal for a table that is kept up to date by `update(table(…))`."""
        return Live(console=self._console, auto_refresh=False, screen=True)

    @staticmethod
    def table(taken: Overview) -> Group:
        """Make the table that `screen` shows."""
        return _table(taken)

    def _lines(self, streams: Iterable[StreamStatus]) -> None:
        for each in streams:
            say(json.dumps(fields_of(each)) if self._as_json else _line(each), sys.stdout)

    def result(self, **fields: object) -> None:
        """Print what came of an order, for scripts; nothing for people."""
        if self._as_json:
            say(json.dumps(fields), sys.stdout)


def fields_of(each: StreamStatus) -> dict[str, Any]:
    """Give a stream as JSON; names that are no Unicode have U+FFFD in them."""
    return {
        "id": each.stream_id,
        "path": each.path.encode(errors="surrogateescape").decode(errors="replace"),
        "state": str(each.state),
        "cancelled": each.cancelled,
        "generation": each.generation,
        "revision": each.revision,
        "size_bytes": each.size,
        "offset_bytes": each.offset,
        "unsafe_bytes": each.unsafe_bytes,
        "lag_seconds": _rounded(each.lag_seconds),
        "rate_bytes_per_second": _rounded(each.rate),
        "seconds_left": _rounded(each.seconds_left),
        "started_at": _moment(each.started_at_ms),
        "updated_at": _moment(each.updated_at_ms),
        "last_chunk_at": each.last_chunk_at,
        "repaired_chunks": each.repaired,
        "error": each.error,
        "owner": each.owner,
    }


def _table(taken: Overview) -> Group:
    table = Table(box=None, pad_edge=False)
    table.add_column("stream", overflow="fold")  # a name that is cut cannot be typed
    table.add_column("state", no_wrap=True)
    for right in ("in S3", "of", "lag", "rate", "left"):
        table.add_column(right, justify="right", no_wrap=True)
    table.add_column("error", overflow="fold")
    for each in taken.streams:
        state = _state(each)
        columns = [Text(text) for text in _columns(each)]
        table.add_row(
            Text(shown(each.stream_id)), Text(state, style=_STYLES[state]), *columns, Text(shown(each.error))
        )
    return Group(table, Text(_summary(taken), style="dim"))


def _line(each: StreamStatus) -> str:
    stored, size, lag, rate, left = _columns(each)
    columns = f"{_state(each):<10} {stored:>9} of {size:>9}  lag {lag:>8}  {rate:>11}  left {left:>8}"
    return f"{columns}  {shown(each.stream_id)}" + (f"  ({shown(each.error)})" if each.error else "")


def _columns(each: StreamStatus) -> list[str]:
    return [
        decimal(each.offset),
        decimal(each.size),
        _duration(each.lag_seconds),
        f"{decimal(round(each.rate))}/s" if each.rate is not None else "-",
        _duration(each.seconds_left),
    ]


def _state(each: StreamStatus) -> str:
    return "cancelled" if each.cancelled else str(each.state)


def _summary(taken: Overview) -> str:
    counts = ", ".join(f"{taken.counts.get(state, 0)} {state}" for state in State if state in taken.counts)
    unsafe = sum(each.unsafe_bytes for each in taken.streams)
    return f"{counts}; {decimal(unsafe)} not in S3 yet"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)


def _moment(milliseconds: int) -> str:
    return iso(datetime.fromtimestamp(milliseconds / 1000, UTC))
