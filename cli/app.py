"""The command line as a whole: its commands, the options that all of them have, what an error ends with."""

import os
import sys
from collections.abc import Sequence

import click

import logs
from archive.names import UnknownRecording
from archive.retrying_bucket import Stopped
from cli.audit import audit
from cli.cancel_retry import cancel, retry
from cli.completion import VARIABLE, completion
from cli.doctor import doctor
from cli.follow import follow
from cli.list import list_recordings
from cli.output import escape
from cli.prune import prune
from cli.restore import restore
from cli.run import run_daemon
from cli.session import COMMON_OPTIONS, Session
from cli.status import status
from cli.verify import verify
from errors import ConfigError, ExitCode, StoreUnavailable, UploaderError

log = logs.get_logger(__name__)

EPILOG = """\
\b
exit codes of the daemon (`COMMAND --help` has those of a command):
  0  stopped as asked
  1  internal error: a thread or an embedded server crashed
  2  wrong settings or arguments
  3  Redis or S3 refused us at the start (credentials, bucket)
"""


class _Commands(click.Group):
    """Lists its commands in the order in which they are wanted, and turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> ExitCode:
        session = ctx.ensure_object(Session)
        try:
            with session.stopped_by_signals():
                return ExitCode(super().invoke(ctx))
        except BrokenPipeError:
            session.stop.set()
            # Whoever read our output has enough. Python would complain about it once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.OK
        except (KeyboardInterrupt, Stopped):
            return _failed(ExitCode.INTERRUPTED, f"interrupted{session.after_interrupt}")
        except (ConfigError, UploaderError) as error:
            return _failed(_exit_code(error), *(f"error: {problem}" for problem in _problems(error)))


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's
    if wanted:
        from settings.version import VERSION  # noqa: PLC0415 - no other command needs it

        click.echo(VERSION)
        ctx.exit()


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def root(ctx: click.Context) -> ExitCode:
    """Upload MP4 recordings into S3 while they are still being recorded, byte for byte.

    Without a command the daemon runs. Settings come from the environment and from .env in the current folder;
    .env.example lists them all.
    """
    return ExitCode.OK if ctx.invoked_subcommand else run_daemon(ctx.obj)


root.params += COMMON_OPTIONS
for each in (
    list_recordings,
    verify,
    restore,
    follow,
    status,
    cancel,
    retry,
    audit,
    prune,
    doctor,
    completion,
):
    root.add_command(each)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, or the daemon until it is stopped.

    Returns:
        The exit code, an `ExitCode`.
    """
    logs.configure_logging("INFO", "text")
    try:
        return int(root.main(args=arguments, complete_var=VARIABLE, standalone_mode=False))
    except click.UsageError as error:
        usage = [error.ctx.get_usage()] if error.ctx else []
        return _failed(ExitCode.USAGE, *usage, f"error: {error.format_message()}")
    except click.Abort:
        return _failed(ExitCode.INTERRUPTED, "interrupted")
    except Exception:
        log.critical("ended by a bug", exc_info=True)
        return ExitCode.PROBLEM


def _failed(code: ExitCode, *lines: str) -> ExitCode:
    for line in lines:
        print("\n".join(map(escape, line.splitlines())), file=sys.stderr)  # noqa: T201 - for the person who typed it
    return code


def _exit_code(error: UploaderError) -> ExitCode:
    if isinstance(error, ConfigError):
        return ExitCode.USAGE
    return ExitCode.REFUSED if isinstance(error, StoreUnavailable) else ExitCode.PROBLEM


def _problems(error: UploaderError) -> list[str]:
    if isinstance(error, ConfigError):
        return error.problems
    if isinstance(error, UnknownRecording):
        error.look_for_suggestions()
        near = ", ".join(error.suggestions)
        return [
            f"{error}; did you mean {near}?"
            if near
            else f"{error}; `{error.all_shown_by}` shows all there are"
        ]
    return [str(error)]
