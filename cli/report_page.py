"""`verify --report`: what was found, as a page for people that needs nothing else to be shown."""

import html
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import IO, NamedTuple

from archive.verify import Report
from cli.output import count, escape, size
from errors import ConfigError
from settings.version import VERSION

MARK = "<!doctype html>\n<!-- Video Chunk Uploader: a report of verify -->\n"
"""With this a report begins. A file that begins otherwise is not replaced: it may be somebody's recording."""

_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em }
h1 { border-left: .4em solid #1a7f37; padding-left: .5em } h1.bad { border-color: #cf222e }
dl { display: grid; grid-template-columns: max-content auto; gap: .1em 1.5em }
dt { opacity: .7 } dd { margin: 0 }
table { border-collapse: collapse; width: 100% } th { text-align: left }
th, td { padding: .3em .6em; border-bottom: 1px solid #8886; vertical-align: top }
.number { text-align: right; white-space: nowrap } .bad { color: #cf222e } td.bad { font-weight: bold }
code { font-size: .85em; overflow-wrap: anywhere } ul { margin: .2em 0; padding-left: 1.2em }
"""

_HEAD = (
    "<tr><th>Result<th>Recording<th>Recorded (UTC)<th class=number>Size<th class=number>Chunks"
    "<th class=number>Revision<th>SHA-256\n"
)


class Totals(NamedTuple):
    """What was looked at in all."""

    looked: int = 0
    wrong: int = 0
    size: int = 0


class ReportPage:
    """Collects what is found; rows go to the disk, for a bucket may hold a million recordings.

    Parameters:
        bad: takes the rows with problems, which come first on the page.
        good: takes the others.
    """

    def __init__(self, bad: IO[str], good: IO[str]) -> None:
        self._bad, self._good = bad, good
        self._facts: list[tuple[str, str]] = []
        self.totals = Totals()
        self._began = _now()

    def tell(self, name: str, fact: str) -> None:
        """Return one sentence about the whole."""
        self._facts.append((name, fact))

    def add(self, report: Report) -> None:
        """Add what was found at one recording."""
        looked, wrong, total = self.totals
        self.totals = Totals(looked + 1, wrong + bool(report.problems), total + report.size)
        (self._bad if report.problems else self._good).write(_row(report))

    def write(self, file: IO[str]) -> None:
        """Write the page."""
        looked, wrong, total = self.totals
        title = f"{count(looked, 'recording')}, {wrong} with problems"
        facts = [
            *self._facts,
            ("Looked at", f"{self._began} to {_now()}, {size(total)}"),
            ("By", f"Video Chunk Uploader {VERSION} on {socket.gethostname()}"),
        ]
        listed = "".join(f"<dt>{_text(name)}<dd>{_text(fact)}\n" for name, fact in facts)
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        file.write(
            f'{MARK}<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            f"<style>{_STYLE}</style></head><body>\n"
            f'<h1 class="{"bad" if wrong else "good"}">{title}</h1>\n<dl>\n{listed}</dl>\n<table>\n{_HEAD}'
        )
        for rows in (self._bad, self._good):
            rows.seek(0)
            file.writelines(rows)
        file.write("</table></body></html>\n")


@contextmanager
def report_page(path: str | None) -> Iterator[ReportPage | None]:
    """Collect a report, and put it at its path when all went well: a whole one, or none.

    Parameters:
        path: of the file; None for no report.

    Raises:
        ConfigError: it cannot be written, or another file is there.
    """
    if path is None:
        yield None
        return
    try:
        _refuse_other(path)
        folder, name = os.path.split(path)
        fd, partial = tempfile.mkstemp(".writing", f".{name[:50]}.", folder or ".")
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with (
            open(fd, "w", encoding="utf-8") as file,
            tempfile.TemporaryFile("w+", encoding="utf-8") as bad,
            tempfile.TemporaryFile("w+", encoding="utf-8") as good,
        ):
            page = ReportPage(bad, good)
            yield page
            try:
                page.write(file)
                file.flush()
                os.fsync(fd)
                _refuse_other(path)
                os.replace(partial, path)
            except OSError as error:
                raise _unwritable(path, error) from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)


def _refuse_other(path: str) -> None:
    try:
        with open(path, "rb") as file:
            if file.read(len(MARK)) == MARK.encode():
                return
    except FileNotFoundError:
        if not os.path.lexists(path):
            return
    raise ConfigError([f"--report: {path} exists and is no report: choose another name"])


def _unwritable(path: str, error: OSError) -> ConfigError:
    return ConfigError([f"--report: {path} cannot be written ({error.strerror}): choose another place"])


def _row(report: Report) -> str:
    verdict = "PROBLEM" if report.problems else "ok"
    says = [
        f"<li class=bad>{problem.kind}: <code>{_text(problem.key)}</code>: {_text(problem.detail)}"
        for problem in report.problems
    ]
    says += [f"<li>{_text(note)}" for note in report.notes]
    says += [f"<li>no manifest names <code>{_text(key)}</code>" for key in report.surplus]
    listed = f"<ul>{''.join(says)}</ul>" if says else ""
    cells = [
        f'<td class="{"bad" if report.problems else "good"}">{verdict}<br>{report.status}',
        f"<td>{_text(report.name)}{listed}",
        f"<td>{_moment(report.recorded_from)}<br>{_moment(report.recorded_until)}",
        f"<td class=number>{size(report.size)}",
        f"<td class=number>{report.chunk_count}",
        f"<td class=number>{report.revision or ''}",
        f"<td><code>{report.sha256 or ''}</code>",
    ]
    return f"<tr>{''.join(cells)}\n"


def _text(text: str) -> str:
    return html.escape(escape(text))


def _moment(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
