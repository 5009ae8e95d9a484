"""`doctor`: the checks of a set-up."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from cli.output import Output, count, escape
from cli.session import Session, command
from doctor.finding import Finding
from doctor.run import run_checks
from errors import ExitCode

EPILOG = """\
\b
exit codes:
  0    recording is safe; there may be warnings
  1    recording would not be safe
  2    wrong settings or arguments, or --embedded while a daemon uses that data
  130  interrupted
"""

_STYLES = {"ok": "green", "warning": "yellow", "problem": "red", "unchecked": "cyan"}


@command(EPILOG)
def doctor(session: Session, *, as_json: bool) -> ExitCode:
    """Check the set-up before anyone records with it.

    It looks at the folder, S3 and Redis with the settings of the daemon, which need not run. What it writes
    for that (a hidden file, an object, a key of Redis) it deletes. Each finding says what to do about it.
    """
    output = session.output(as_json=as_json)
    settings = session.settings(needs_redis=True)
    with output.status() as doing:
        if session.embedded:
            with session.servers(settings) as (complete, _):
                found = run_checks(complete, doing=doing)
        else:
            found = run_checks(settings, doing=doing)
    print_findings(output, found)
    problems = sum(each.level == "problem" for each in found)
    warnings = sum(each.level == "warning" for each in found)
    verdict = "recording would not be safe" if problems else "recording is safe"
    figures = (count(len(found), "check"), count(problems, "problem"), count(warnings, "warning"))
    output.note(f"{verdict}: {', '.join(figures)}")
    return ExitCode.PROBLEM if problems else ExitCode.OK


def print_findings(output: Output, found: Iterable[Finding]) -> None:
    """Print what was found: a table on a terminal, else lines or JSON."""
    table = Table("", "check", "what was found, and what to do", box=None, pad_edge=False)
    for each in found:
        said, hint = escape(each.said), escape(each.hint)
        if output.as_json:
            output.json(each._asdict())
        elif output.terminal:
            text = Text(said + (f"\n→ {hint}" if hint else ""))
            table.add_row(Text(each.level, style=_STYLES[each.level]), Text(each.check), text)
        else:
            output.line(f"{each.level:<10} {each.check:<17} {said}")
            if hint:
                output.line(f"{'':<10} {'':<17} hint: {hint}")
    if output.terminal:
        output.table(table)
