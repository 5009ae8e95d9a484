"""`prune`: what is superseded goes from the bucket, when a person says so."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import click

from archive import prune as archive_prune
from archive.listing import Archive
from archive.prune import Pruned
from cli.cancel_retry import STAYS
from cli.completion import recordings
from cli.output import Output, count, escape, size
from cli.selection import Selection, means_several, moment
from cli.session import Session, command
from errors import ExitCode
from recording.layout import RecordingId

LEAST_AGE = timedelta(days=1)
"""Far longer than a daemon works on one commit, and than the clocks of two machines differ."""

EPILOG = """\
Superseded are: former revisions, with the chunks that only they name; chunks that no manifest names;
recordings without a manifest of which a complete recording of the same path has every chunk. The newest
complete revision and all that it names stay, and so does everything of a recording that is damaged or not
complete.

NAME is the path of a recording, with all its generations unless `@2` at the end names one. A folder with a
slash at its end (nvr/cam05/) or a pattern ('nvr/*/2026-11-20*') means all recordings there; without a name
the whole bucket is meant. It needs S3 alone, not Redis.

\b
exit codes:
  0    all is well
  1    something is wrong: a recording that is damaged or unknown, no right to delete
  2    wrong settings or arguments
  3    S3 refused us or did not answer
  130  interrupted; the same command goes on
"""


class _Age(click.ParamType[datetime]):
    """A time so long ago, such as `30d`."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read what was typed."""
        now = datetime.now().astimezone()
        try:
            before = moment(value, now, end=False)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no age: 30d, 2w, 2026-10-20", param, ctx)
        return before


@command(EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=recordings)
@click.option(
    "--older-than",
    "before",
    type=_Age(),
    required=True,
    metavar="AGE",
    help="Such as 30d; AUDIT_DAYS and a day at least.",
)
@click.option("--yes", is_flag=True, help="Remove it; without this only show what would go.")
def prune(
    session: Session, *, names: tuple[str, ...], before: datetime, yes: bool, as_json: bool
) -> ExitCode:
    """Remove what is superseded from S3; shows only what would go, without --yes."""
    session.after_interrupt = "; what is left is intact, and the same command goes on from here"
    output = session.output(as_json=as_json)
    objects = total = wrong = 0
    with session.prunable() as (archive, remover, audit_days):
        _check_age(before, audit_days)
        stays = STAYS[remover.keeps_versions()] if yes else ""
        wanted = list(_wanted(archive, names))
        found = archive_prune.prune(archive, wanted, before=before, remover=remover if yes else None)
        for each in found:
            _print(output, each, done=yes)
            objects, total = objects + len(each.keys), total + each.size
            wrong += bool(each.problem)
    what = f"{count(objects, 'object')}, {size(total)}"
    output.note(
        f"{what}, removed from the bucket{stays}"
        if yes
        else f"{what}, would be removed: add --yes if that is meant"
    )
    return ExitCode.PROBLEM if wrong else ExitCode.OK


def _check_age(before: datetime, audit_days: float) -> None:
    """Refuse what another site may still count on: one that found it in S3 looks at it once in `AUDIT_DAYS`.

    Raises:
        click.UsageError: it is too young to be removed.
    """
    least = LEAST_AGE + timedelta(days=audit_days)
    if before > datetime.now().astimezone() - least:
        raise click.UsageError(
            f"--older-than must be {least / timedelta(days=1):g}d at least, a day more than AUDIT_DAYS:"
            " daemons may be at work on what is younger, or count on it"
        )


def _wanted(archive: Archive, names: tuple[str, ...]) -> Iterator[RecordingId]:
    if not names:
        yield from archive.entries()
    for name in names:
        if means_several(name):
            yield from (each.id for each in Selection((name,), None, None, playable=False).summaries(archive))
        else:
            yield from archive.named(name)


def _print(output: Output, pruned: Pruned, *, done: bool) -> None:
    if output.as_json:
        fields = pruned._asdict()
        output.json({**fields, "ok": not pruned.problem, "removed": done, "objects": len(pruned.keys)})
        return
    if pruned.keys:
        revisions = [f"revision {number}" for number in pruned.revisions]
        what = ", ".join([*revisions, count(len(pruned.keys), "object"), size(pruned.size)])
        output.line(f"{'removed' if done else 'would remove'}  {escape(pruned.name)}  ({what})")
    if pruned.problem:
        output.line(f"PROBLEM  {escape(pruned.name)}: {escape(pruned.problem)}", "red")
