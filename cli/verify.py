"""`verify`: whether S3 holds recordings as their manifests say."""

import click

from archive import verify as archive_verify
from archive.verify import Report
from cli.list import ARCHIVE_EPILOG, generation_option
from cli.output import Output, count, escape, size
from cli.session import Session, command
from errors import ExitCode
from recording.stream import generation_prefix


@command(ARCHIVE_EPILOG)
@click.argument("name", required=False)
@generation_option
@click.option("--all", "everything", is_flag=True, help="Every recording.")
@click.option("--deep", is_flag=True, help="Read and hash every byte.")
def verify(
    session: Session, *, name: str | None, generation: int | None, everything: bool, deep: bool, as_json: bool
) -> ExitCode:
    """Check that S3 holds a recording as its manifest says."""
    check_named("verify", name, generation, everything=everything)
    output = Output(as_json=as_json)
    with session.archive() as archive:
        if name is not None:
            recording = archive.find(name, generation)
            with output.progress(recording.name, recording.size if deep else None) as advance:
                report = archive_verify.verify(archive, recording, deep=deep, advance=advance)
            print_report(output, report)
            return ExitCode.PROBLEM if report.problems else ExitCode.OK
        looked = wrong = 0
        seen = set()
        for entry in archive.entries():
            with output.progress(entry.name, None) as advance:
                found = archive_verify.verify_entry(archive, entry, deep=deep, advance=advance)
            if found:
                print_report(output, found)
                looked, wrong = looked + 1, wrong + bool(found.problems)
            if found and found.status != "growing":
                seen.add(generation_prefix(archive.prefix, *entry))
        for gone in archive_verify.vanished(archive, seen):
            print_report(output, gone)
            looked, wrong = looked + 1, wrong + 1
    output.note(f"{count(looked, 'recording')}, {wrong} with problems")
    return ExitCode.PROBLEM if wrong else ExitCode.OK


def check_named(command: str, name: str | None, generation: int | None, *, everything: bool) -> None:
    """See that either a recording was named or all are meant.

    Raises:
        click.UsageError: neither or both.
    """
    if (name is None) is not everything:
        raise click.UsageError(f"{command} needs the name of a recording, or --all")
    if everything and generation:
        raise click.UsageError("--generation needs the name of a recording")


def print_report(output: Output, report: Report) -> None:
    """Print what a verification found."""
    if output.as_json:
        problems = [problem._asdict() for problem in report.problems]
        output.json({**report._asdict(), "ok": not problems, "problems": problems})
        return
    verdict = "PROBLEM" if report.problems else "ok"
    what = f"{count(report.chunk_count, 'chunk')}, {size(report.size)}, {report.status}"
    output.line(f"{verdict:<8} {escape(report.name)}  ({what})", "red" if report.problems else "green")
    for problem in report.problems:
        output.line(f"  {problem.kind:<9} {escape(problem.key)}: {escape(problem.detail)}")
    notes = [*report.notes]
    if report.surplus:
        notes.append(
            f"{count(len(report.surplus), 'object')} that no manifest names: {', '.join(report.surplus)}"
        )
    for note in notes:
        output.line(f"  note: {escape(note)}")
