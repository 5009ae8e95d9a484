"""`verify`: whether S3 holds recordings as their manifests say."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import click

from archive import verify as archive_verify
from archive.commits import complete_commits
from archive.generation import Recording
from archive.listing import Archive, names_of
from archive.missing import Claim, unmet, vanished
from archive.verify import Report
from cli.output import Output, count, escape, size
from cli.report_page import ReportPage, report_page
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
@click.option("--report", metavar="FILE", help="Also write a page for people, as HTML.")
def verify(
    session: Session,
    *,
    selected: Selection,
    generation: int | None,
    revision: int | None,
    everything: bool,
    deep: bool,
    report: str | None,
    as_json: bool,
) -> ExitCode:
    """Check that S3 holds recordings as their manifests say."""
    check_selected("verify", selected, generation, revision, everything=everything)
    output = session.output(as_json=as_json)
    looked = wrong = 0
    with session.archive() as archive, report_page(report) as page:
        if page:
            _describe(page, archive, deep=deep)
        if everything:
            tell = partial(page.tell, "Compared") if page else None
            found = _everything(session, archive, output, deep=deep, tell=tell)
        elif selected.only_name is not None:
            found = _only(archive, output, archive.find(selected.only_name, generation, revision), deep=deep)
        else:
            names = {each.id: each.name for each in selected.summaries(archive)}
            found = _reports(archive, output, names, deep=deep)
        for each in found:
            print_report(output, each)
            if page:
                page.add(each)
            looked, wrong = looked + 1, wrong + bool(each.problems)
    if selected.only_name is None:
        output.note(f"{count(looked, 'recording')}, {wrong} with problems")
    return ExitCode.PROBLEM if wrong else ExitCode.OK


def _describe(page: ReportPage, archive: Archive, *, deep: bool) -> None:
    prefix = archive.layout.prefix
    page.tell("Bucket", archive.store.bucket + (f", prefix {prefix}" if prefix else ""))
    page.tell(
        "How",
        "every byte was read, and the SHA-256 of each chunk and of each whole compared"
        if deep
        else "every chunk is there, with its size and its ETag; only what was in doubt was read",
    )


def _only(archive: Archive, output: Output, recording: Recording, *, deep: bool) -> Iterator[Report]:
    with output.progress(recording.name, recording.size if deep else None) as advance:
        found = archive_verify.verify(archive, recording, deep=deep, advance=advance)
    yield found


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


def _everything(
    session: Session, archive: Archive, output: Output, *, deep: bool, tell: Callable[[str], None] | None
) -> Iterator[Report]:
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
    compared = f"with the list of commits in the bucket ({len(commits)} complete), {said}"
    output.note(f"compared {compared}")
    if tell:
        tell(compared)


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
        fields = {**report._asdict(), "ok": not problems, "problems": problems}
        output.json(fields | fields.pop("playback").as_json())
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
