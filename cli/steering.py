"""The commands `status`, `cancel` and `retry`: arguments, wiring, exit codes."""

import argparse
import getpass
import os
import socket
import sys
import threading
import uuid
from collections.abc import Callable
from functools import partial

from rich.filesize import decimal

from archive.names import Names
from checkpoint import Checkpoints, connect, home_of
from cli.output import Output, shown
from cli.requests import ORDER_SECONDS, Steering, purge_patiently
from cli.status import StatusOutput
from config import Settings
from recording.stream import Stream
from redis_store.requests import Deed
from s3.bucket import ObjectStore
from status.overview import Overview, status_of, take_overview

COMMANDS = ("status", "cancel", "retry")

EXIT_FINE = 0
EXIT_PROBLEM = 1
EXIT_ARGUMENTS = 2
EXIT_STANDS = 4

MOST_SECONDS = 86_400.0
"""That a command may wait for a daemon."""

WATCH_SECONDS = 2.0
"""Between two looks of `status --watch`."""

EPILOG = """\
A stream is named by its path below the watched folder, or as `status` shows it; the newest one at
that path is meant unless `@2` at the end names the second. It needs Redis; S3 only for --purge.
With --embedded it works beside the daemon that runs on --data-dir.

exit codes:
  0    done
  1    not possible for this stream as it is, or no such stream
  2    wrong settings or arguments, or --purge without a terminal and without --yes
  3    Redis, or S3 for --purge, refused us or did not answer
  4    no daemon carried the order out in time: it stands until one does
  130  interrupted; an order that was given stands
"""


def add_commands(command: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    """Add these commands to the command line.

    Parameters:
        command: makes the parser of one, from its name, a sentence about it and its epilog.
    """
    status = command("status", "show what every stream is doing", EPILOG)
    status.add_argument("name", nargs="*", metavar="NAME", help="only these")
    status.add_argument("--watch", action="store_true", help="keep it up to date until Ctrl-C")
    status.add_argument(
        "--recent", type=_count, default=20, metavar="N", help="finished ones to show (default: 20)"
    )
    status.add_argument("--json", action="store_true", help="print one JSON object a line")

    cancel = command("cancel", "end a stream now: what is in S3 stays, with a manifest", EPILOG)
    cancel.add_argument("--purge", action="store_true", help="delete what S3 has of it, too; asks first")
    cancel.add_argument("--yes", action="store_true", help="with --purge: do not ask")
    retry = command("retry", "go on with a stream that failed or was cancelled", EPILOG)
    for each in (cancel, retry):
        each.add_argument("name", metavar="NAME", help="path, or path@generation")
        each.add_argument(
            "--wait",
            type=_seconds,
            default=ORDER_SECONDS,
            metavar="SECONDS",
            help=f"for a daemon to carry it out (default: {ORDER_SECONDS:g})",
        )
        each.add_argument("--json", action="store_true", help="print one JSON object")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 10**4:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 10000")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def run(
    settings: Settings, chosen: argparse.Namespace, output: Output, make_store: Callable[[], ObjectStore]
) -> int:
    """Do what a command says; gives the exit code.

    Parameters:
        settings: complete, with the address of Redis.
        chosen: the arguments.
        output: says what is no result.
        make_store: connects to the bucket, for --purge.
    """
    host, user = socket.gethostname(), _user()
    with connect(settings.redis_url.get_secret_value()) as client:
        checkpoints = Checkpoints(
            client,
            namespace=settings.redis_namespace,
            owner=f"command:{host}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
        )
        if problem := checkpoints.misfit(home_of(settings.s3_bucket, settings.s3_prefix)):
            output.error(problem)
            return EXIT_ARGUMENTS
        names = Names(prefix=settings.s3_prefix, watch_dir=str(settings.watch_dir))
        steering = Steering(checkpoints, names, by=f"{user}@{host}")
        printed = StatusOutput(as_json=chosen.json)
        if chosen.command == "status":
            return _status(partial(_look, checkpoints, steering, settings, chosen), chosen, printed)
        return _Order(steering, chosen, output, printed).run(make_store, settings.s3_prefix)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        return str(os.getuid())


# ---------------------------------------------------------------------- status


def _look(
    checkpoints: Checkpoints, steering: Steering, settings: Settings, chosen: argparse.Namespace
) -> Overview:
    root = os.path.abspath(settings.watch_dir)
    taken = take_overview(checkpoints, root, recent=0 if chosen.name else chosen.recent)
    if not chosen.name:
        return taken
    ids = [steering.find(name).stream_id for name in chosen.name]
    return Overview(status_of(checkpoints, root, ids), taken.counts, taken.taken_at)


def _status(look: Callable[[], Overview], chosen: argparse.Namespace, printed: StatusOutput) -> int:
    if not chosen.watch:
        printed.overview(look())
        return EXIT_FINE
    pause = threading.Event()
    taken = look()
    try:
        if not printed.live:
            while True:
                printed.overview(taken)
                pause.wait(WATCH_SECONDS)
                taken = look()
        with printed.screen() as screen:
            while True:
                screen.update(printed.table(taken), refresh=True)
                pause.wait(WATCH_SECONDS)
                taken = look()
    except KeyboardInterrupt:
        return EXIT_FINE


# ---------------------------------------------------------------------- cancel and retry


class _Order:
    """One `cancel` or `retry` from its name to its exit code."""

    def __init__(
        self, steering: Steering, chosen: argparse.Namespace, output: Output, printed: StatusOutput
    ) -> None:
        self._steering = steering
        self._chosen = chosen
        self._output = output
        self._printed = printed
        self._deed = Deed(chosen.command)
        self._said = ""
        self._wait = threading.Event().wait

    def run(self, make_store: Callable[[], ObjectStore], prefix: str) -> int:
        stream = self._steering.find(self._chosen.name)
        purge = self._deed is Deed.CANCEL and self._chosen.purge
        cancelled_before = purge and stream.cancelled
        if not cancelled_before:
            self._steering.check(self._deed, stream)
        if purge and not self._chosen.yes and (refused := self._ask(stream)):
            return refused
        store = make_store() if purge else None  # before the order: S3 may refuse us
        if not cancelled_before:
            exit_code = self._carry_out(stream)
            if exit_code:
                return exit_code
        if store:
            number = purge_patiently(self._steering, stream, store, prefix, wait=self._wait)
            self._output.note(f"{stream.stream_id}: {number} objects deleted from the bucket")
        self._result(stream, done=True, said="purged" if purge else self._said)
        return EXIT_FINE

    def _ask(self, stream: Stream) -> int:
        what = f"{shown(stream.stream_id)}, about {decimal(stream.offset)}"
        if not sys.stdin.isatty():
            self._output.error(f"--purge would delete {what}, from the bucket: add --yes if that is meant")
            return EXIT_ARGUMENTS
        self._output.note(f"This deletes {what}, from the bucket for good. Type yes to go on.")
        if sys.stdin.readline().strip().lower() == "yes":
            return EXIT_FINE
        self._output.note("nothing was done")
        return EXIT_PROBLEM

    def _carry_out(self, stream: Stream) -> int:
        order = self._steering.order(self._deed, stream)
        try:
            came = self._steering.outcome(order, stream, seconds=self._chosen.wait, wait=self._wait)
        except KeyboardInterrupt:
            self._output.note(f"the order to {self._deed} {stream.stream_id} stands")
            raise
        if came is None:
            self._output.error(
                f"no daemon carried it out within {self._chosen.wait:g} s: none runs, or it waits for S3."
                f" The order stands: the next one that works will {self._deed} {stream.stream_id}"
            )
            self._result(stream, done=False, said="the order stands", stands=True)
            return EXIT_STANDS
        if not came.done:
            self._output.error(f"{stream.stream_id}: {came.said}")
            self._result(stream, done=False, said=came.said)
            return EXIT_PROBLEM
        self._said = came.said
        self._output.note(f"{stream.stream_id}: {came.said}")
        return EXIT_FINE

    def _result(self, stream: Stream, *, done: bool, said: str, stands: bool = False) -> None:
        now = self._steering.now(stream)
        self._printed.result(
            id=stream.stream_id,
            order=str(self._deed),
            done=done,
            outcome=said,
            stands=stands,
            state=str(now.state),
            cancelled=now.cancelled,
            offset_bytes=now.offset,
        )
