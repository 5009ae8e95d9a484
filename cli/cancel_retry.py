"""`cancel` and `retry`: requests to running daemons, and what came of them."""

import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import click

from cli.output import Output, count, escape, size
from cli.requests import REQUEST_SECONDS, purge_patiently
from cli.session import Records, Session, command, open_bucket
from cli.status import RECORDS_EPILOG
from errors import ExitCode
from redis_store.requests import Action

SAY_SECONDS = 1.0
"""Of silence, after which people wonder what a command waits for."""

MAX_WAIT_SECONDS = 86_400.0
"""That a command may wait for a daemon."""


STAYS = {
    False: "",
    True: ", which keeps versions: the bytes stay until a lifecycle rule or somebody removes the old ones",
    None: "; if it keeps versions, which it did not say, the bytes stay as old ones",
}
"""What becomes of deleted bytes, by whether the bucket keeps versions."""


def _request_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--wait",
            type=click.FloatRange(0, MAX_WAIT_SECONDS),
            default=REQUEST_SECONDS,
            show_default=True,
            metavar="SECONDS",
            help="For a daemon to carry it out.",
        ),
        click.argument("name"),
    ):
        function = option(function)
    return function


@command(RECORDS_EPILOG)
@_request_options
@click.option("--purge", is_flag=True, help="Also delete what S3 has of it; asks first.")
@click.option("--yes", is_flag=True, help="With --purge: do not ask.")
def cancel(session: Session, *, name: str, wait: float, as_json: bool, purge: bool, yes: bool) -> ExitCode:
    """Stop uploading a recording; chunks already in S3 are kept, with a manifest."""
    with session.records() as records:
        request = _Request(Action.CANCEL, records, name, wait, session.output(as_json=as_json))
        return request.purge(ask=not yes) if purge else request.run()


@command(RECORDS_EPILOG)
@_request_options
def retry(session: Session, *, name: str, wait: float, as_json: bool) -> ExitCode:
    """Resume a recording that failed or was cancelled."""
    with session.records() as records:
        return _Request(Action.RETRY, records, name, wait, session.output(as_json=as_json)).run()


class _Request:
    """One `cancel` or `retry` from its name to its exit code."""

    def __init__(self, action: Action, records: Records, name: str, seconds: float, output: Output) -> None:
        self._deed = action
        self._settings, _, self._steering, _ = records
        self._stream = self._steering.find(name)
        self._seconds = seconds
        self._output = output
        self._pause = threading.Event()
        self._say_at = time.monotonic() + SAY_SECONDS

    def _wait(self, seconds: float) -> None:
        if time.monotonic() >= self._say_at:
            self._output.note("waiting for a daemon…")
            self._say_at = math.inf
        self._pause.wait(seconds)

    def run(self) -> ExitCode:
        """Have a daemon carry it out."""
        self._steering.check(self._deed, self._stream)
        return self._carry_out()

    def purge(self, *, ask: bool) -> ExitCode:
        """Cancel, unless it was cancelled before, and delete what S3 has."""
        stream = self._stream
        if not stream.cancelled:
            self._steering.check(self._deed, stream)
        store = open_bucket(self._settings.s3)
        stays = STAYS[store.keeps_versions()]  # before the request: S3 may refuse us
        if ask and (refused := self._ask(stays)):
            return refused
        if not stream.cancelled and (failed := self._carry_out(last=False)):
            return failed
        number = purge_patiently(self._steering, stream, store, self._settings.s3.prefix, wait=self._wait)
        self._output.note(f"{stream.stream_id}: {count(number, 'object')} deleted from the bucket{stays}")
        self._result(done=True, outcome="purged")
        return ExitCode.OK

    def _ask(self, stays: str) -> ExitCode:
        what = f"{escape(self._stream.stream_id)}, about {size(self._stream.offset)}"
        if not sys.stdin.isatty():
            raise click.UsageError(
                f"--purge would delete {what}, from the bucket: add --yes if that is meant"
            )
        self._output.ask(f"This deletes {what}, from the bucket{stays or ' for good'}. Type yes to go on.")
        if sys.stdin.readline().strip().lower() == "yes":
            return ExitCode.OK
        self._output.note("nothing was done")
        return ExitCode.PROBLEM

    def _carry_out(self, *, last: bool = True) -> ExitCode:
        action, name = self._deed, self._stream.stream_id
        request = self._steering.request(action, self._stream)
        try:
            came = self._steering.outcome(request, self._stream, seconds=self._seconds, wait=self._wait)
        except KeyboardInterrupt:
            self._output.note(f"the request to {action} {name} stands")
            raise
        if came is None:
            self._output.error(
                f"no daemon carried it out within {self._seconds:g} s: none runs, or it waits for S3."
                f" The request stands: the next one that works will {action} {name}"
            )
            self._result(done=False, outcome="the request stands", stands=True)
            return ExitCode.PENDING
        if came.done:
            self._output.note(f"{name}: {came.said}")
        else:
            self._output.error(f"{name}: {came.said}")
        if last or not came.done:
            self._result(done=came.done, outcome=came.said)
        return ExitCode.OK if came.done else ExitCode.PROBLEM

    def _result(self, *, done: bool, outcome: str, stands: bool = False) -> None:
        if not self._output.as_json:
            return
        now = self._steering.now(self._stream)
        self._output.json(
            {
                "id": now.stream_id,
                "request": str(self._deed),
                "done": done,
                "outcome": outcome,
                "stands": stands,
                "state": str(now.state),
                "cancelled": now.cancelled,
                "offset_bytes": now.offset,
            }
        )
