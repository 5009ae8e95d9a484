"""`list`: the recordings in S3. Also the options with which all commands on recordings name them."""

from datetime import datetime, timedelta
from typing import Any

import click

from archive.listing import Summary
from cli.output import Column, Output, Rows, count, duration, local, size
from cli.session import Session, command
from errors import ExitCode

ARCHIVE_EPILOG = """\
A recording is named by its path below the watched folder, or as `list` shows it; the newest one at that
path is meant unless `@2` at the end names the second. It needs S3 alone, not Redis.

\b
exit codes:
  0    all is well
  1    something is wrong: a recording that is damaged, missing, or could not be written
  2    wrong settings or arguments
  3    S3 refused us or did not answer
  130  interrupted; restore goes on from there when it is started again
"""

MAX_GENERATION = 10**9 - 1

generation_option = click.option(
    "--generation", type=click.IntRange(1, MAX_GENERATION), metavar="N", help="The same as NAME@N."
)


class Moment(click.ParamType[datetime]):
    """A date, or a date with a time; a date alone as the end of a range means all of that day.

    Parameters:
        end: whether it ends a range.
    """

    name = "date"

    def __init__(self, *, end: bool) -> None:
        self._end = end

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read what was typed."""
        try:
            moment = datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no date: 2026-11-20 or 2026-11-20T18:30", param, ctx)
        whole_day = self._end and len(value) == len("2026-11-20")
        return moment + (timedelta(days=1, microseconds=-1) if whole_day else timedelta())


_ROWS = Rows(
    Column("STATUS", 10),
    Column("SIZE", -8),
    Column("CHUNKS", -6),
    Column("DURATION", -8),
    Column("STARTED", 16),
)


@command(ARCHIVE_EPILOG, "list")
@click.argument("prefix", default="")
@click.option(
    "--since", type=Moment(end=False), metavar="DATE", help="Only what was recorded at or after it."
)
@click.option("--until", type=Moment(end=True), metavar="DATE", help="Only what was begun at or before it.")
def list_recordings(
    session: Session, *, prefix: str, since: datetime | None, until: datetime | None, as_json: bool
) -> ExitCode:
    """List the recordings in S3; with PREFIX only those whose paths begin so."""
    output = Output(as_json=as_json)
    number = total = 0
    with session.archive() as archive:
        for each in archive.summaries(prefix):
            began, ended = each.facts.started_at, each.facts.ended_at
            if (since and ended and ended < since) or (until and began and began > until):
                continue
            if not as_json and not number:
                output.line(_ROWS.header)
            number, total = number + 1, total + each.size
            if as_json:
                output.json(_fields(each))
            else:
                output.line(_row(each))
    if not as_json:
        output.note(f"{count(number, 'recording')}, {size(total)}")
    return ExitCode.OK


def _row(each: Summary) -> Any:
    facts = each.facts
    cells = [
        each.status,
        size(each.size),
        str(each.chunk_count),
        duration(facts.duration_seconds),
        local(facts.started_at),
    ]
    return _ROWS.row(cells, each.entry.name, each.problem)


def _fields(each: Summary) -> dict[str, Any]:
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
