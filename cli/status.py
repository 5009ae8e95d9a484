"""`status`: what every stream is doing."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import Any, NoReturn

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from cli.output import Column, Output, Rows, duration, size
from cli.session import Records, Session, command
from errors import ExitCode
from folder.scan import FolderScan
from folder.silence import look_for_silence
from recording.stream import State
from recording.timestamps import iso
from settings.folder import FolderSettings
from status.overview import Overview, StreamStatus, status_of, take_overview

WATCH_SECONDS = 2.0
"""Between two looks of `status --watch`."""

MAX_LOOK_SECONDS = 2.0
"""For a look at the folder, which may hold millions of files."""

MAX_RECENT = 10_000

RECORDS_EPILOG = """\
A recording is named by its path below the watched folder, or as `status` shows it; the newest one at that
path is meant unless `@2` at the end names the second. It needs Redis; S3 only for --purge. With --embedded
it works beside the daemon that runs on --data-dir.

\b
exit codes:
  0    done
  1    not possible for this recording as it is, or no such recording
  2    wrong settings or arguments, or --purge without a terminal and without --yes
  3    Redis, or S3 for --purge, refused us or did not answer
  4    no daemon carried the request out in time: it stands until one does
  130  interrupted; a request that was made stands
"""

_ROWS = Rows(
    Column("STATE", 10),
    Column("IN S3", -8),
    Column("OF", -8),
    Column("LAG", -8),
    Column("RATE", -10),
    Column("LEFT", -8),
)


@command(RECORDS_EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--watch", is_flag=True, help="Keep it up to date until Ctrl-C.")
@click.option(
    "--recent",
    type=click.IntRange(0, MAX_RECENT),
    default=20,
    show_default=True,
    metavar="N",
    help="Finished ones to show.",
)
def status(session: Session, *, names: tuple[str, ...], watch: bool, recent: int, as_json: bool) -> ExitCode:
    """Show what every recording is doing, or only those that are named."""
    output = session.output(as_json=as_json)
    with session.records() as records:
        if not watch:
            _print(output, _look(records, names, recent))
            if not names:
                _note_silence(output, records.settings.folder)
            return ExitCode.OK
        try:
            _watch(output, partial(_look, records, names, recent))
        except KeyboardInterrupt:
            return ExitCode.OK


def _look(records: Records, names: Sequence[str], recent: int) -> Overview:
    root = records.settings.folder.root
    taken = take_overview(records.checkpoints, root, recent=0 if names else recent)
    if not names:
        return taken
    ids = [records.steering.find(name).stream_id for name in names]
    return Overview(status_of(records.checkpoints, root, ids), taken.counts, taken.taken_at)


def _watch(output: Output, look: Callable[[], Overview]) -> NoReturn:
    pause = threading.Event()
    taken = look()  # an error is printed on the screen that stays
    with (
        Live(console=output.console, auto_refresh=False, screen=True)
        if output.terminal
        else nullcontext() as screen
    ):
        while True:
            if screen:
                screen.update(Group(*_lines(taken), Text(_summary(taken), "dim")), refresh=True)
            else:
                _print(output, taken)
            pause.wait(WATCH_SECONDS)
            taken = look()


def _print(output: Output, taken: Overview) -> None:
    if output.as_json:
        for each in taken.streams:
            output.json(fields_of(each))
        return
    for line in _lines(taken):
        output.line(line)
    output.note(_summary(taken))


def _note_silence(output: Output, settings: FolderSettings) -> None:
    """Print which cameras went silent, as far as the files tell that lie in the folder now."""
    if settings.silent_cameras == "off" or output.as_json:
        return
    sources = FolderScan(settings.root, settings.file_patterns, quiet=True).below("")
    for each in look_for_silence(sources, at_most_seconds=MAX_LOOK_SECONDS):
        since = duration(time.time() - each.last_at)
        output.note(f"{each.folder or 'the folder'} has been silent for {since} (h:mm:ss)")


def _lines(taken: Overview) -> list[Text]:
    return [_ROWS.header, *map(_row, taken.streams)] if taken.streams else []


def _row(each: StreamStatus) -> Text:
    cells = [
        "cancelled" if each.cancelled else str(each.state),
        size(each.offset),
        size(each.size),
        duration(each.lag_seconds),
        f"{size(round(each.rate))}/s" if each.rate is not None else "",
        duration(each.seconds_left),
    ]
    unplayable = each.playback.unplayable
    error = "; ".join(filter(None, (each.error.message, each.error.hint)))
    return _ROWS.row(cells, each.stream_id, f"no player can open it: {unplayable}" if unplayable else error)


def _summary(taken: Overview) -> str:
    counts = ", ".join(f"{taken.counts.get(state, 0)} {state}" for state in State if state in taken.counts)
    return f"{counts}; {size(sum(each.unsafe_bytes for each in taken.streams))} not in S3 yet"


def fields_of(each: StreamStatus) -> dict[str, Any]:
    """Return a stream as JSON; names that are no Unicode have U+FFFD in them."""
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
        "modified_at": _moment(each.modified_at_ms),
        "last_chunk_at": each.last_chunk_at,
        "repaired_chunks": each.repaired,
        "error_kind": each.error.kind,
        "error": each.error.message,
        "hint": each.error.hint,
        "owner": each.owner,
        **each.playback.as_json(),
        "lost_bytes": each.lost_bytes,
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)


def _moment(milliseconds: int) -> str:
    return iso(datetime.fromtimestamp(milliseconds / 1000, UTC))
