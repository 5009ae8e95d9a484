"""`follow`: a recording to stdout as it arrives in S3."""

import os
import select
import sys

import click

from archive import follow as archive_follow
from cli.list import ARCHIVE_EPILOG, generation_option
from cli.output import Output, count, size
from cli.session import Session, command
from errors import ExitCode


@command(ARCHIVE_EPILOG, with_json=False)
@click.argument("name")
@generation_option
def follow(session: Session, name: str, generation: int | None) -> ExitCode:
    """Write a recording to stdout as it arrives in S3, until it is complete."""
    output = Output()
    stdout = sys.stdout.fileno()
    if os.isatty(stdout):
        raise click.UsageError(
            "follow writes video to stdout: pipe it, for example … | ffplay -, or send it to a file"
        )
    reader_gone = select.poll()
    reader_gone.register(stdout, 0)

    def write(body: memoryview) -> None:
        written = 0
        while written < len(body):
            written += os.write(stdout, body[written:])

    def wait(seconds: float) -> None:
        if any(event & select.POLLERR for _, event in reader_gone.poll(seconds * 1000)):
            raise BrokenPipeError

    with session.archive(patient=True) as archive:
        recording = archive.find(name, generation)
        done = archive_follow.follow(archive, recording, write=write, wait=wait)
    output.note(f"{done.recording.name} is {done.recording.status}: {size(done.written_bytes)} written")
    if done.changed:
        output.note(
            f"{count(done.changed, 'chunk')} changed by the recorder after it was written here:"
            " `restore` gives the finished file"
        )
    return ExitCode.OK
