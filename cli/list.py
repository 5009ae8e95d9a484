"""`list`: the recordings in S3."""

from contextlib import closing
from typing import Any

import click
from rich.text import Text

from archive.listing import Summary
from cli.output import Column, Rows, count, duration, local, size
from cli.selection import EPILOG, Selection, name_of, selection
from cli.session import Session, command
from errors import ExitCode

_ROWS = Rows(
    Column("STATUS", 10),
    Column("SIZE", -8),
    Column("CHUNKS", -6),
    Column("DURATION", -8),
    Column("RECORDED", 16),
    Column("UPLOADED", 16),
)


@command(EPILOG, "list")
@selection
@click.option("--keys", is_flag=True, help="Show the names as keys of the bucket have them.")
def list_recordings(session: Session, *, selected: Selection, keys: bool, as_json: bool) -> ExitCode:
    """List the recordings in S3; NAME may also be the beginning of a path."""
    output = session.output(as_json=as_json)
    number = total = 0
    with (
        session.archive() as archive,
        # Closed before the server of `--embedded`, which its requests under way would miss.
        closing(selected.summaries(archive, prefixes=True)) as found,
    ):
        for each in found:
            if not as_json and not number:
                output.line(_ROWS.header)
            number, total = number + 1, total + each.size
            if as_json:
                output.json(_fields(each))
            else:
                output.line(_row(each, keys=keys))
    if not as_json:
        output.note(f"{count(number, 'recording')}, {size(total)}")
    return ExitCode.OK


def _row(each: Summary, *, keys: bool) -> Text:
    facts = each.facts
    cells = [
        each.status,
        size(each.size),
        str(each.chunk_count),
        "~" * facts.playback.estimated + duration(facts.playback.duration_seconds),
        local(facts.recorded[0]),
        local(facts.ended_at),
    ]
    return _ROWS.row(cells, each.name if keys else name_of(each), _remark(each))


def _remark(each: Summary) -> str:
    """Return what is wrong with a recording; "" for nothing."""
    facts = each.facts
    if each.problem:
        return each.problem
    if facts.playback.unplayable:
        return f"no player can open it: {facts.playback.unplayable}"
    return facts.cut_short and f"cut short: {facts.cut_short}"


def _fields(each: Summary) -> dict[str, Any]:
    facts = each.facts
    return {
        "name": each.name,
        "key_path": each.id.key_path,
        "generation": each.id.generation,
        "owner": each.id.owner,
        "path": facts.path,
        "status": each.status,
        "size_bytes": each.size,
        "chunk_count": each.chunk_count,
        **facts.playback.as_json(),
        "recorded_from": facts.recorded[0],
        "recorded_until": facts.recorded[1],
        "cut_short": facts.cut_short or None,
        "started_at": facts.started_at,
        "ended_at": facts.ended_at,
        "problem": each.problem or None,
    }
