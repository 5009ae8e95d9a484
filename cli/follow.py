"""`follow`: a recording to stdout as it arrives in S3."""

import os
import select
import sys
import time

import click

from archive import follow as archive_follow
from archive.generation import Recording
from archive.listing import Archive
from archive.names import UnknownRecording
from archive.retrying_bucket import Stopped
from cli.completion import recordings
from cli.output import Output, count, size
from cli.selection import EPILOG, generation_option
from cli.session import Session, command
from errors import ExitCode

FILE_SECONDS = 300.0
"""For the first chunk of a file that is there: it may take its recorder that long to write one."""

MAX_WAIT_SECONDS = 86_400.0


@command(EPILOG, with_json=False)
@click.argument("name", shell_complete=recordings)
@generation_option
@click.option(
    "--wait",
    "seconds",
    type=click.FloatRange(0, MAX_WAIT_SECONDS),
    metavar="SECONDS",
    help=f"For its first chunk (default: {FILE_SECONDS:g} when the file is in the watched folder, else 0).",
)
def follow(session: Session, name: str, generation: int | None, seconds: float | None) -> ExitCode:
    """Write a recording to stdout as it arrives in S3, until it is complete."""
    output = session.output()
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
        if seconds is None:
            is_here = any(map(os.path.isfile, (name, os.path.join(archive.watch_dir, name))))
            seconds = FILE_SECONDS if is_here else 0
        recording = _find(archive, name, generation, seconds, output)
        done = archive_follow.follow(archive, recording, write=write, wait=wait)
    output.note(f"{done.recording.name} is {done.recording.status}: {size(done.written_bytes)} written")
    if done.changed:
        output.note(
            f"{count(done.changed, 'chunk')} changed by the recorder after it was written here:"
            " `restore` gives the finished file"
        )
    return ExitCode.OK


def _find(archive: Archive, name: str, generation: int | None, seconds: float, output: Output) -> Recording:
    """Open a recording; one of which nothing is stored yet is waited for."""
    deadline = time.monotonic() + seconds
    waiting = False
    while True:
        try:
            return archive.find(name, generation)
        except UnknownRecording:
            if time.monotonic() >= deadline:
                output.note(
                    "nothing of a recording is stored before its first chunk is full; --wait waits for it"
                )
                raise
        if not waiting:
            output.note(f"waiting up to {seconds:g} s for the first chunk of {name}…")
            waiting = True
        if archive.store.stop.wait(archive_follow.POLL_SECONDS):
            raise Stopped
