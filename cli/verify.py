"""`verify`: whether S3 holds recordings as their manifests say."""

from collections.abc import Iterator, Mapping

import click

from archive import verify as archive_verify
from archive.commits import complete_commits
from archive.listing import Archive, names_of
from archive.missing import Claim, unmet, vanished
from archive.verify import Report
from cli.output import Output, count, escape, size
from cli.selection import EPILOG, Selection, generation_option, revision_option, selection
from cli.session import Session, command
from errors import ConfigError, ExitCode, StoreUnavailable
from recording.layout import RecordingId
from redis_store.reader import LOOKUP_BATCH


@command(EPILOG)
@selection
@generation_option
@revision_option
@click.option("--all", "everything", is_flag=True, help="Every recording, and what others say was complete.")
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
        reports = (
            _everything(session, archive, output, deep=deep)
            if everything
            else _reports(
                archive, output, {each.id: each.name for each in selected.summaries(archive)}, deep=deep
            )
        )
        for found in reports:
            print_report(output, found)
            looked, wrong = looked + 1, wrong + bool(found.problems)
    output.note(f"{count(looked, 'recording')}, {wrong} with problems")
    return ExitCode.PROBLEM if wrong else ExitCode.OK


def _reports(
    archive: Archive,
    output: Output,
    names: Mapping[RecordingId, str],
    *,
    deep: bool,
    seen: dict[str, int] | None = None,
) -> Iterator[Report]:
    """Verify some generations; `seen` gets those that have a manifest, for `archive.missing`."""
    for place, (entry, name) in output.counted("verify", list(names.items())):
        with output.progress(f"{place}  {name}", None) as advance:
            found = archive_verify.verify_entry(archive, entry, name, deep=deep, advance=advance)
        if found:
            yield found
        if found and found.status != "growing" and seen is not None:
            complete = found.status == "complete"
            seen[archive.layout.generation(entry)] = found.revision if complete else 0


def _everything(session: Session, archive: Archive, output: Output, *, deep: bool) -> Iterator[Report]:
    """Verify all that there is, and report what others say was complete and is not there."""
    seen: dict[str, int] = {}
    yield from _reports(archive, output, names_of(archive.entries()), deep=deep, seen=seen)
    commits = complete_commits(archive.store, archive.layout.prefix)
    gone = set()
    for found in vanished(archive, commits, seen):
        gone.add(found.name)
        yield found
    claims, said = _claims(session)
    yield from (found for found in unmet(archive, claims, seen) if found.name not in gone)
    output.note(f"compared with the list of commits in the bucket ({len(commits)} complete), {said}")


def _claims(session: Session) -> tuple[list[Claim], str]:
    """Return what the records in Redis say is complete, if they can be had, and words for how many."""
    claims: list[Claim] = []
    try:
        with session.reader() as reader:
            known_lost = {each.stream_id for each in reader.findings() if each.acknowledged_by}
            ids = [each for each in reader.complete_ids() if each not in known_lost]
            for start in range(0, len(ids), LOOKUP_BATCH):
                streams = [each.stream for each in reader.records(ids[start : start + LOOKUP_BATCH])]
                claims += [Claim(each.recording, each.revision, "Redis") for each in streams]
    except ConfigError as error:  # what it says to do is not needed here
        return [], f"not with the records in Redis: {error.problems[0].partition(': ')[0]}"
    except StoreUnavailable as error:
        return claims, f"not with all of the records in Redis ({len(claims)} complete): {error}"
    left_out = [f"{len(ids) - len(claims)} that cannot be read"] if len(claims) < len(ids) else []
    left_out += [f"{len(known_lost)} whose loss was acknowledged"] if known_lost else []
    what = ", ".join([f"{len(claims)} complete", *left_out])
    return claims, f"and with the records in Redis ({what})"


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
