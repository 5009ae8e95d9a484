"""What the commands print: tables and progress bars on a terminal, plain lines otherwise, or JSON."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TextIO

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

from archive.follow import Followed
from archive.listing import Summary
from archive.restore import Failed, Restored
from archive.verify import Report
from doctor.finding import Finding

PLAIN_PROGRESS_SECONDS = 10.0
"""Between two lines of progress where there is no terminal: a log should not fill up."""

_LEVEL_STYLES = {"ok": "green", "warning": "yellow", "problem": "red", "unchecked": "cyan"}
_STYLES = {"complete": "green", "incomplete": "yellow", "growing": "cyan", "damaged": "red"}


class Output:
    """Prints results to stdout, and progress and errors to stderr.

    Parameters:
        as_json: one JSON object a line, for scripts.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(highlight=False, soft_wrap=True)
        self._terminal = self._console.is_terminal and not as_json

    # ------------------------------------------------------------------ results

    def summaries(self, found: Iterable[Summary]) -> None:
        """Print the list of recordings."""
        count = total = 0
        table = Table("recording", "status", box=None, pad_edge=False)
        for right in ("size", "chunks", "duration"):
            table.add_column(right, justify="right")
        table.add_column("started")
        for each in found:
            count, total = count + 1, total + each.size
            if self._as_json:
                self._json(_summary_fields(each))
            elif self._terminal:
                table.add_row(*_summary_row(each))
            else:
                self._line(_summary_line(each))
        if self._terminal and count:
            self._console.print(table)
        if not self._as_json:
            self.note(f"{count} recordings, {decimal(total)}")

    def report(self, report: Report) -> None:
        """Print what a verification found."""
        if self._as_json:
            problems = [problem._asdict() for problem in report.problems]
            self._json({**report._asdict(), "ok": not problems, "problems": problems})
            return
        verdict = "PROBLEM" if report.problems else "ok"
        chunks = f"{report.chunk_count} chunks, {decimal(report.size)}, {report.status}"
        self._line(f"{verdict:<8} {shown(report.name)}  ({chunks})", "red" if report.problems else "green")
        for problem in report.problems:
            self._line(f"  {problem.kind:<9} {shown(problem.key)}: {shown(problem.detail)}")
        for note in report.notes:
            self._line(f"  note: {shown(note)}")

    def restored(self, done: Restored | Failed) -> None:
        """Print what a restore did."""
        if self._as_json:
            self._json({**done._asdict(), "ok": isinstance(done, Restored)})
        elif isinstance(done, Failed):
            self._line(f"FAILED   {shown(done.name)}: {shown(done.reason)}", "red")
        else:
            how = f"{decimal(done.fetched_bytes)} fetched, {decimal(done.kept_bytes)} there already"
            self._line(
                f"restored {shown(done.name)} to {shown(done.to)}  ({decimal(done.size)}: {how})", "green"
            )
            if done.sha256:
                self._line(f"  sha256 {done.sha256}, as in the manifest")
            for note in done.notes:
                self._line(f"  note: {shown(note)}")

    def followed(self, done: Followed) -> None:
        """Say on stderr how a recording ended that was written to stdout."""
        self.note(f"{done.recording.name} is {done.recording.status}: {done.written_bytes} bytes written")
        if done.changed:
            self.note(
                f"{done.changed} chunks were changed by the recorder after they were written here:"
                f" `restore` gives the finished file"
            )

    def findings(self, found: Iterable[Finding]) -> None:
        """Print what `doctor` found."""
        table = Table("", "check", "what was found, and what to do", box=None, pad_edge=False)
        for each in found:
            said, cure = shown(each.said), shown(each.cure)
            if self._as_json:
                self._json(each._asdict())
            elif self._terminal:
                told = Text(said + (f"\n→ {cure}" if cure else ""))
                table.add_row(Text(each.level, style=_LEVEL_STYLES[each.level]), Text(each.check), told)
            else:
                self._line(f"{each.level:<10} {each.check:<17} {said}")
                if cure:
                    self._line(f"{'':<10} {'':<17} cure: {cure}")
        if self._terminal:
            self._console.print(table)

    def note(self, text: str) -> None:
        """Say something on stderr that is no result."""
        say(shown(text), sys.stderr)

    def error(self, text: str) -> None:
        """Say on stderr why a command failed."""
        self.note(f"error: {text}")

    # ------------------------------------------------------------------ progress

    @contextmanager
    def progress(self, doing: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show on stderr how far something is; gives a function that takes the bytes that were done.

        Parameters:
            doing: a word or two.
            total: bytes in all; None: not known.
        """
        errors = Console(stderr=True)
        if not errors.is_terminal:
            yield _plain_progress(doing, total)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=errors, transient=True) as bar:
            task = bar.add_task(Text(shown(doing)).plain, total=total)
            yield lambda done: bar.advance(task, done)

    @contextmanager
    def status(self) -> Iterator[Callable[[str], None]]:
        """Show on a terminal's stderr what is under way; gives a function that takes it."""
        errors = Console(stderr=True)
        if not errors.is_terminal:
            yield lambda _: None
            return
        with errors.status("") as status:
            yield status.update

    # ------------------------------------------------------------------ spelling

    def _json(self, fields: dict[str, Any]) -> None:
        say(json.dumps(fields, default=_plain), sys.stdout)

    def _line(self, text: str, style: str | None = None) -> None:
        if self._terminal:
            self._console.print(Text(text, style=style or ""))
        else:
            say(text, sys.stdout)


def say(text: str, stream: TextIO) -> None:
    """Print a line at once."""
    print(text, file=stream, flush=True)


def shown(text: str) -> str:
    """Spell out what a terminal would obey or could not show: names come from strangers."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _plain_progress(doing: str, total: int | None) -> Callable[[int], None]:
    began = said = time.monotonic()
    done = 0

    def advance(more: int) -> None:
        nonlocal done, said
        done += more
        now = time.monotonic()
        if now - said >= PLAIN_PROGRESS_SECONDS:
            said = now
            of = f" of {decimal(total)}" if total is not None else ""
            speed = decimal(int(done / (now - began)))
            say(f"{shown(doing)}: {decimal(done)}{of}, {speed}/s", sys.stderr)

    return advance


def _summary_fields(each: Summary) -> dict[str, Any]:
    facts = each.facts
    return {
        "name": each.entry.name,
        "key_path": each.entry.key_path,
        "generation": each.entry.generation,
        "path": facts.path,
        "status": each.status,
        "size_bytes": each.size,
        "chunk_count": each.chunk_count,
        "duration_seconds": facts.duration_seconds,
        "started_at": facts.started_at,
        "ended_at": facts.ended_at,
        "problem": each.problem or None,
    }


def _summary_row(each: Summary) -> list[Text]:
    return [
        Text(shown(each.entry.name)),
        Text(each.status, style=_STYLES[each.status]),
        Text(decimal(each.size)),
        Text(str(each.chunk_count)),
        Text(_duration(each.facts.duration_seconds)),
        Text(_local(each.facts.started_at)),
    ]


def _summary_line(each: Summary) -> str:
    facts = each.facts
    size, duration, began = decimal(each.size), _duration(facts.duration_seconds), _local(facts.started_at)
    columns = f"{each.status:<10} {size:>9} {each.chunk_count:>6} chunks {duration:>10} {began:<16}"
    return f"{columns}  {shown(each.entry.name)}" + (f"  ({shown(each.problem)})" if each.problem else "")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _local(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else "-"


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    raise TypeError(f"{value!r} has no JSON form")
