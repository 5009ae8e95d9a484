"""`completion`: what a shell needs to complete commands, options and the names of recordings."""

import logging

import click
from click.shell_completion import CompletionItem, get_completion_class

from archive.retrying_bucket import Stopped
from cli.session import Session
from errors import ConfigError, ExitCode, UploaderError

MAX_LISTS = 50
"""Requests for one press of the tab key."""

VARIABLE = "_VCU_COMPLETE"
"""Asks this program for completions instead of a command, whatever it is called."""

_LOAD = {
    "bash": 'eval "$(vcu completion bash)"',
    "zsh": 'eval "$(vcu completion zsh)"',
    "fish": "vcu completion fish | source",
}


@click.command(
    epilog="\b\nPut this into the start file of your shell:\n" + "\n".join(f"  {_LOAD[s]}" for s in _LOAD)
)
@click.argument("shell", type=click.Choice(list(_LOAD)))
@click.argument("program", default="vcu")
@click.pass_context
def completion(ctx: click.Context, shell: str, program: str) -> ExitCode:
    """Print what completes commands, options and names of recordings in a shell.

    PROGRAM is the name under which the shell starts this program.
    """
    made = get_completion_class(shell)
    assert made  # noqa: S101 - click has one for each of the choices
    click.echo(made(ctx.find_root().command, {}, program, VARIABLE).source())
    return ExitCode.OK


def recordings(ctx: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Return the names in the bucket that begin as typed; none when it cannot be asked."""
    session = ctx.ensure_object(Session)
    logging.disable()  # whatever it says would end up in the command line
    try:
        with session.archive() as archive:
            keys = {each.key_path for each in archive.entries(typed, most=MAX_LISTS)}
    except (ConfigError, UploaderError, Stopped):
        return []
    finally:
        logging.disable(logging.NOTSET)
    return [CompletionItem(name) for name in sorted(keys)]
