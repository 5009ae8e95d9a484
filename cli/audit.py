"""`audit`: what the daemons' audit found, and accepting what cannot be mended."""

import click

from checkpoint import connect
from cli.output import Output, count, escape
from cli.session import Records, Session, command
from cli.status import RECORDS_EPILOG
from errors import ExitCode
from redis_store.audits import Audits, Finding


@command(RECORDS_EPILOG)
@click.option(
    "--acknowledge",
    metavar="NAME",
    help="Accept that this recording is not whole, so that it no longer counts as unsafe.",
)
def audit(session: Session, *, acknowledge: str | None, as_json: bool) -> ExitCode:
    """Show finished recordings that S3 does not hold as they were committed; exit with 1 if any."""
    output = session.output(as_json=as_json)
    with (
        session.records() as records,
        connect(records.settings.redis) as client,
    ):
        audits = Audits(client, namespace=records.settings.redis.namespace)
        if acknowledge is not None:
            return _acknowledge(output, records, audits, acknowledge)
        found = audits.findings()
    for finding in found:
        _print(output, finding)
    unsafe = sum(not finding.acknowledged_by for finding in found)
    output.note(f"{count(len(found), 'finding')}, {len(found) - unsafe} acknowledged")
    return ExitCode.PROBLEM if unsafe else ExitCode.OK


def _acknowledge(output: Output, records: Records, audits: Audits, name: str) -> ExitCode:
    """Accept a finding until the audit finds something else wrong with that recording."""
    stream_id = records.steering.find(name).stream_id
    finding = audits.finding(stream_id)
    if finding is None:
        output.error(f"the audit found nothing wrong with {escape(stream_id)}; `audit` shows what it found")
        return ExitCode.PROBLEM
    audits.note(finding._replace(acknowledged_by=records.by))
    _print(output, finding._replace(acknowledged_by=records.by))
    return ExitCode.OK


def _print(output: Output, finding: Finding) -> None:
    if output.as_json:
        path = finding.path.encode(errors="surrogateescape").decode(errors="replace")
        output.json(finding._asdict() | {"path": path})
        return
    accepted = f", acknowledged by {escape(finding.acknowledged_by)}" if finding.acknowledged_by else ""
    output.line(f"{escape(finding.stream_id)}: {count(finding.problem_count, 'problem')}{accepted}")
    for problem in finding.problems:
        output.line(f"  {escape(problem)}")
