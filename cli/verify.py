"""`verify`: whether S3 holds recordings as their manifests say."""

from collections.abc import Iterator

import click

from archive import verify as archive_verify
from archive.listing import Archive
from archive.verify import Report
from cli.output import Output, count, escape, size
from cli.selection import EPILOG, Selection, generation_option, revision_option, selection
from cli.session import Session, command
from errors import ExitCode


@command(EPILOG)
@selection
@generation_option
@revision_option
@click.option("--all", "everything", is_flag=True, help="Every recording.")
@click.option("--deep", is_flag=True, help="Read and hash every byte.")
def verify(
    session: Session,
    *,
    selected: Selection,
    generation: int | None,
    revision: int | None,
    everything: bool,
    deep: bool,
    as_json: bool,
) -> ExitCode:
    """Check that S3 holds recordings as their manifests say."""
    check_selected("verify", selected, generation, revision, everything=everything)
    output = session.output(as_json=as_json)
    with session.archive() as archive:
        if selected.only_name is not None:
            recording = archive.find(selected.only_name, generation, revision)
            with output.progress(recording.name, recording.size if deep else None) as advance:
                report = archive_verify.verify(archive, recording, deep=deep, advance=advance)
            print_report(output, report)
            return ExitCode.PROBLEM if report.problems else ExitCode.OK
        looked = wrong = 0
        for found in _reports(archive, output, None if everything else selected, deep=deep):
            print_report(output, found)
            looked, wrong = looked + 1, wrong + bool(found.problems)
    output.note(f"{count(looked, 'recording')}, {wrong} with problems")
    return ExitCode.PROBLEM if wrong else ExitCode.OK


def _reports(archive: Archive, output: Output, selected: Selection | None, *, deep: bool) -> Iterator[Report]:
    """Verify what was chosen, or with None all that there is and what the list of commits says there was."""
    entries = [each.id for each in selected.summaries(archive)] if selected else archive.entries()
    seen = set()
    for place, entry in output.counted("verify", entries):
        with output.progress(f"{place}  {entry.stream_id}", None) as advance:
            found = archive_verify.verify_entry(archive, entry, deep=deep, advance=advance)
        if found:
            yield found
        if found and found.status != "growing":
            seen.add(archive.layout.generation(entry))
    if selected is None:
        yield from archive_verify.vanished(archive, seen)


def check_selected(
    command: str, selected: Selection, generation: int | None, revision: int | None, *, everything: bool
) -> None:
    """See that either some recordings are meant or all of them.

    Raises:
        click.UsageError: neither or both.
    """
    if bool(selected.names or selected.is_filtered) is everything:
        raise click.UsageError(f"{command} needs the name of a recording, or --all")
    if selected.only_name is None:
        for option, value in (("--generation", generation), ("--revision", revision)):
            if value:
                raise click.UsageError(f"{option} needs the name of a recording")


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
