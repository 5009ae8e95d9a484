"""What commands print: results on stdout, the rest on stderr; how numbers and times are spelled."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

PLAIN_PROGRESS_SECONDS = 10.0
"""Between two lines of progress where there is no terminal: a log should not fill up."""

STYLES = {
    "active": "cyan",
    "growing": "cyan",
    "finalizing": "blue",
    "complete": "green",
    "incomplete": "yellow",
    "cancelled": "magenta",
    "failed": "red",
    "damaged": "red",
}
"""Of a recording's state, on a terminal."""


Item = TypeVar("Item")


class Output:
    """Prints results to stdout, and progress and notes to stderr.

    Parameters:
        as_json: one JSON object a line, for scripts.
        quiet: neither notes nor progress.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self._quiet = quiet
        self.console = Console(highlight=False, soft_wrap=True)
        self.terminal = self.console.is_terminal and not as_json
        self._errors = Console(stderr=True)
        self._progress_bars = self._errors.is_terminal and not quiet

    def json(self, fields: dict[str, Any]) -> None:
        """Print an object for scripts."""
        print(json.dumps(fields, default=_plain), flush=True)  # noqa: T201 - results go to stdout

    def line(self, text: str | Text, style: str = "") -> None:
        """Print a line for people; its style shows on a terminal."""
        if self.terminal:
            self.console.print(Text(text, style) if isinstance(text, str) else text)
        else:
            print(text, flush=True)  # noqa: T201 - results go to stdout

    def table(self, table: Table) -> None:
        """Print a table whose cells wrap."""
        self.console.print(table)

    def note(self, text: str) -> None:
        """Print on stderr what is no result."""
        if not self._quiet:
            self.ask(text)

    def error(self, text: str) -> None:
        """Print on stderr why a command failed."""
        self.ask(f"error: {text}")

    def ask(self, text: str) -> None:
        """Print on stderr what must be read."""
        print(escape(text), file=sys.stderr, flush=True)  # noqa: T201 - for the person who typed it

    def counted(self, doing: str, items: Sequence[Item]) -> Iterator[tuple[str, Item]]:
        """Yield items with their places, `3 of 218`; a log gets one now and then.

        Parameters:
            doing: a word.
            items: in order.
        """
        printed_at = time.monotonic()
        for number, item in enumerate(items, 1):
            place = f"{number} of {len(items)}"
            yield place, item
            if not self._progress_bars and time.monotonic() - printed_at >= PLAIN_PROGRESS_SECONDS:
                printed_at = time.monotonic()
                self.note(f"{doing}: {place}")

    @contextmanager
    def progress(self, doing: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show on stderr how far something is.

        Parameters:
            doing: a word or two.
            total: bytes in all; None: not known.

        Yields:
            A function that takes the bytes that were done.
        """
        if self._quiet:
            yield lambda _: None
            return
        if not self._progress_bars:
            yield _plain_progress(doing, total)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=self._errors, transient=True) as bar:
            task = bar.add_task(Text(escape(doing)).plain, total=total)
            yield lambda done: bar.advance(task, done)

    @contextmanager
    def status(self) -> Iterator[Callable[[str], None]]:
        """Show on a terminal's stderr what is under way; yields a function that takes it."""
        if not self._progress_bars:
            yield lambda _: None
            return
        with self._errors.status("") as status:
            yield status.update


def _plain_progress(doing: str, total: int | None) -> Callable[[int], None]:
    began = printed_at = time.monotonic()
    done = 0

    def advance(more: int) -> None:
        nonlocal done, printed_at
        done += more
        now = time.monotonic()
        if now - printed_at >= PLAIN_PROGRESS_SECONDS:
            printed_at = now
            of = f" of {size(total)}" if total is not None else ""
            speed = size(int(done / (now - began)))
            print(f"{escape(doing)}: {size(done)}{of}, {speed}/s", file=sys.stderr, flush=True)  # noqa: T201

    return advance


# ---------------------------------------------------------------------- rows


class Column(NamedTuple):
    """A column of fixed width, so that rows can be printed as they are found; < 0 aligns to the right."""

    title: str
    width: int


class Rows:
    """Rows under a header. The name comes last: it is never cut, and can be copied.

    Parameters:
        columns: those before the name; the first one is the state, which has a colour.
    """

    def __init__(self, *columns: Column) -> None:
        self._columns = columns
        self.header = Text(self._line([column.title for column in columns], "NAME"), "bold")

    def row(self, cells: list[str], name: str, remark: str = "") -> Text:
        """Return one row.

        Parameters:
            cells: of the columns before the name; "" where nothing is known.
            name: of the recording.
            remark: what is wrong with it.
        """
        line = Text(self._line(cells, escape(name)) + (f"  ({escape(remark)})" if remark else ""))
        line.stylize(STYLES.get(cells[0], ""), 0, len(cells[0]))
        return line

    def _line(self, cells: list[str], name: str) -> str:
        padded = (
            cell.rjust(-column.width) if column.width < 0 else cell.ljust(column.width)
            for column, cell in zip(self._columns, cells, strict=True)
        )
        return "  ".join([*padded, name])


# ---------------------------------------------------------------------- spelling


def escape(text: str) -> str:
    """Spell out what a terminal would obey or could not show: names come from strangers."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def count(number: int, what: str) -> str:
    """Return a number with its noun: `1 recording`, `2 recordings`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def size(number: int) -> str:
    """Return bytes in units of a thousand, such as `16.7 MB`."""
    return decimal(number)


def duration(seconds: float | None) -> str:
    """Return hours, minutes and seconds, such as `0:16:40`; "" when it is not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def local(moment: datetime | None) -> str:
    """Return a time as the clock on the wall shows it, to the minute; "" when it is not known."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else ""


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    raise TypeError(f"{value!r} has no JSON form")
