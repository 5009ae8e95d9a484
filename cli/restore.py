"""`restore`: recordings back as files."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import click

from archive import restore as archive_restore
from archive.restore import Failed, Restored, destination, restore_all
from archive.target_file import open_target
from cli.output import Output, count, escape, size
from cli.selection import EPILOG, Selection, generation_option, revision_option, selection
from cli.session import Session, command
from cli.verify import check_selected
from errors import ExitCode


@command(EPILOG)
@selection
@generation_option
@revision_option
@click.option("--all", "everything", is_flag=True, help="The newest recording of every path; needs --to.")
@click.option("--to", metavar="FILE", help="Where to; a folder if several are restored (default: here).")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--with-manifest", is_flag=True, help="Save the manifest beside it, as FILE.metadata.json.")
@click.option("--allow-hidden", is_flag=True, help="Use names that begin with a dot as they are.")
def restore(
    session: Session,
    *,
    selected: Selection,
    generation: int | None,
    revision: int | None,
    everything: bool,
    to: str | None,
    force: bool,
    with_manifest: bool,
    allow_hidden: bool,
    as_json: bool,
) -> ExitCode:
    """Write recordings to files; of several at one path the newest."""
    check_selected("restore", selected, generation, revision, everything=everything)
    name = selected.only_name
    if name is None and not to:
        raise click.UsageError("restoring several recordings needs --to and a folder")
    session.after_interrupt = "; the same command goes on from here"
    output = session.output(as_json=as_json)
    how: dict[str, Any] = {"force": force, "with_manifest": with_manifest}
    with session.archive() as archive:
        if name is None:
            wanted = None if everything else {each.id: each.name for each in selected.summaries(archive)}
            several = partial(restore_all, archive, to or "", wanted=wanted, allow_hidden=allow_hidden, **how)
            return _restore_several(several, output, to or "")
        recording = archive.find(name, generation, revision)
        folder, file_name = os.path.split(to or ".")
        if os.path.isdir(to or "."):
            folder, file_name = to or ".", destination(recording, allow_hidden=allow_hidden)[-1]
        with (
            output.progress(recording.name, recording.size) as advance,
            open_target(folder or ".", [file_name], create=False) as target,
        ):
            done = archive_restore.restore(archive, recording, target, advance=advance, **how)
    _print(output, done)
    return ExitCode.OK


def _restore_several(
    restored: Callable[..., Iterable[Restored | Failed]], output: Output, to: str
) -> ExitCode:
    finished = failed = 0
    with output.progress("restore", None) as advance:
        for done in restored(advance=advance):
            _print(output, done)
            finished, failed = finished + 1, failed + isinstance(done, Failed)
    output.note(f"{count(finished - failed, 'recording')} restored to {to}, {failed} failed")
    return ExitCode.PROBLEM if failed else ExitCode.OK


def _print(output: Output, done: Restored | Failed) -> None:
    if output.as_json:
        fields = {**done._asdict(), "ok": isinstance(done, Restored)}
        playback = fields.pop("playback", None)
        output.json(fields | (playback.as_json() if playback else {}))
    elif isinstance(done, Failed):
        output.line(f"FAILED   {escape(done.name)}: {escape(done.reason)}", "red")
    else:
        how = f"{size(done.fetched_bytes)} fetched, {size(done.kept_bytes)} there already"
        output.line(f"restored {escape(done.name)} to {escape(done.to)}  ({size(done.size)}: {how})", "green")
        if done.sha256:
            output.line(f"  sha256 {done.sha256}, as in the manifest")
        if done.manifest:
            output.line(f"  manifest saved as {escape(done.manifest)}")
        for note in done.notes:
            output.line(f"  note: {escape(note)}")
