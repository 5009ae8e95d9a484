"""The commands `list`, `verify`, `restore`, `follow` and `doctor`: arguments, wiring, exit codes of all."""

import argparse
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import FrameType

from pydantic import SecretStr

import config
import logs
from archive.chunks import WORKERS
from archive.follow import follow
from archive.listing import Archive, Summary
from archive.names import UnknownRecording
from archive.restore import Failed, destination, restore, restore_all
from archive.retrying_bucket import ATTEMPTS, ArchiveStore, Stopped
from archive.target_file import open_target
from archive.verify import verify, verify_entry
from cli import steering as command_steering
from cli.output import Output
from config import Settings
from doctor.run import run_checks
from embedded.data_folder import EmbeddedAddresses, running_servers
from embedded.servers import EmbeddedServers, serve_objects
from errors import ConfigError, StoreUnavailable, UploaderError
from s3.bucket import ObjectStore

EXIT_FINE = 0
EXIT_PROBLEM = 1
EXIT_ARGUMENTS = 2
EXIT_REFUSED = 3
EXIT_INTERRUPTED = 130

SPARE_CONNECTIONS = 8
"""Beside one for each reading worker: as many lists are in flight while the bucket is walked."""

SERVERS_GRACE_SECONDS = 10.0
"""For the local servers of `--embedded doctor` to leave."""

_WITH_REDIS = ("doctor", *command_steering.COMMANDS)

EPILOG = """\
A recording is named by its path below the watched folder, or as `list` shows it; the newest one at
that path is meant unless `@2` at the end names the second. It needs S3 alone, not Redis.

exit codes:
  0    all is well
  1    something is wrong: a recording that is damaged, missing, or could not be written
  2    wrong settings or arguments
  3    S3 refused us or did not answer
  130  interrupted; restore goes on from there when it is started again
"""


DOCTOR_EPILOG = """\
It looks at the folder, S3 and Redis with the settings of the daemon, which need not run. What it writes
for that (a hidden file, an object, a key of Redis) it deletes. Each finding names its cure.

exit codes:
  0    recording is safe; there may be warnings
  1    recording would not be safe
  2    wrong settings or arguments, or --embedded while a daemon uses that data
  130  interrupted
"""


def add_commands(parser: argparse.ArgumentParser, shared: argparse.ArgumentParser) -> None:
    """Add the commands to the command line; without one the daemon runs.

    Parameters:
        parser: the main one.
        shared: options that may stand behind the command too.
    """
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    def command(name: str, about: str, epilog: str = EPILOG) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[shared],
        )

    listing = command("list", "list the recordings in S3")
    listing.add_argument("start", nargs="?", default="", metavar="PREFIX", help="only paths that begin so")
    listing.add_argument(
        "--since", type=_moment, metavar="DATE", help="only what was recorded at or after it"
    )
    listing.add_argument(
        "--until", type=_last_moment, metavar="DATE", help="only what was begun at or before it"
    )
    _add_json(listing)

    checking = command("verify", "check that S3 holds a recording as its manifest says")
    _add_name(checking, or_all="every recording")
    checking.add_argument("--deep", action="store_true", help="read and hash every byte")
    _add_json(checking)

    restoring = command("restore", "write a recording to a file")
    _add_name(restoring, or_all="the newest recording of every path; needs --to")
    restoring.add_argument("--to", metavar="FILE", help="where to; a folder with --all (default: here)")
    restoring.add_argument("--force", action="store_true", help="replace a file that is there")
    _add_json(restoring)

    following = command("follow", "write a recording to stdout as it arrives in S3, until it is complete")
    _add_name(following)

    _add_json(command("doctor", "check the set-up before anyone records with it", DOCTOR_EPILOG))

    command_steering.add_commands(command)


def _add_name(parser: argparse.ArgumentParser, or_all: str = "") -> None:
    parser.add_argument(
        "name", nargs="?" if or_all else None, metavar="NAME", help="path, or path@generation"
    )
    parser.add_argument("--generation", type=_generation, metavar="N", help="the same as NAME@N")
    if or_all:
        parser.add_argument("--all", action="store_true", help=or_all)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def wrong_arguments(chosen: argparse.Namespace) -> str:
    """Say what does not go together on the command line; "" if all does."""
    if chosen.command not in ("verify", "restore"):
        return ""
    if (chosen.name is None) is not chosen.all:
        return f"{chosen.command} needs the name of a recording, or --all"
    if chosen.all and chosen.generation:
        return "--generation needs the name of a recording"
    if chosen.command == "restore" and chosen.all and not chosen.to:
        return "restore --all needs --to and a folder"
    return ""


def run(chosen: argparse.Namespace) -> int:
    """Do what a command says; gives the exit code.

    Raises:
        ConfigError: the settings are wrong.
        ChildDied: the local S3 server of `--embedded` did.
    """
    settings = config.load_settings(embedded=chosen.embedded, needs_redis=chosen.command in _WITH_REDIS)
    logs.configure_logging("WARNING", settings.log_format, settings.secret_values())
    output = Output(as_json=getattr(chosen, "json", False))
    stop = threading.Event()
    try:
        with _stopped_by_signals(stop), _connected(settings, chosen) as complete:
            return _run(complete, chosen, stop, output)
    except ConfigError:
        raise
    except BrokenPipeError:
        # Whoever read our output has enough. Python would complain about it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FINE
    except (KeyboardInterrupt, Stopped):
        later = "; the same command goes on from here" if chosen.command == "restore" else ""
        output.note(f"interrupted{later}")
        return EXIT_INTERRUPTED
    except UnknownRecording as error:
        hint = ", ".join(error.suggestions)
        output.error(
            f"{error}"
            + (f"; did you mean {hint}?" if hint else f"; `{error.all_shown_by}` shows all there are")
        )
        return EXIT_PROBLEM
    except StoreUnavailable as error:
        output.error(str(error))
        return EXIT_REFUSED
    except UploaderError as error:
        output.error(str(error))
        return EXIT_PROBLEM


def _run(settings: Settings, chosen: argparse.Namespace, stop: threading.Event, output: Output) -> int:
    if chosen.command == "doctor":
        return _doctor(settings, output)
    if chosen.command in command_steering.COMMANDS:
        return command_steering.run(settings, chosen, output, lambda: _store(settings))
    return _COMMANDS[chosen.command](_archive(settings, chosen, stop), chosen, output)


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """End at SIGINT and SIGTERM, worker threads too; at the second one at once."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(EXIT_INTERRUPTED)
        stop.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _connected(settings: Settings, chosen: argparse.Namespace) -> Iterator[Settings]:
    """Complete the settings with the addresses of the servers that `--embedded` starts."""
    if not chosen.embedded:
        yield settings
        return
    with _servers(settings, chosen) as addresses:
        logs.add_secret(addresses.secret_key)
        yield settings.model_copy(
            update={
                "redis_url": SecretStr(addresses.redis_url),
                "s3_endpoint_url": addresses.s3_endpoint_url,
                "s3_addressing_style": "path",
                "aws_access_key_id": SecretStr(addresses.access_key),
                "aws_secret_access_key": SecretStr(addresses.secret_key),
            }
        )


@contextmanager
def _servers(settings: Settings, chosen: argparse.Namespace) -> Iterator[EmbeddedAddresses]:
    """Serve what is stored for reading; for `doctor` start all that the daemon would start."""
    if chosen.command in command_steering.COMMANDS:
        yield running_servers(chosen.data_dir)
        return
    if chosen.command != "doctor":
        with serve_objects(chosen.data_dir, settings.s3_bucket) as addresses:
            yield addresses
        return
    servers = EmbeddedServers(chosen.data_dir, settings.s3_bucket)
    try:
        started = servers.start()
        assert started  # noqa: S101 - None comes only when a stop was asked for
        yield started
    finally:
        servers.stop(SERVERS_GRACE_SECONDS)


def _store(settings: Settings) -> ObjectStore:
    return ObjectStore(
        bucket=settings.s3_bucket,
        endpoint_url=settings.s3_endpoint_url,
        region=settings.s3_region,
        addressing_style=settings.s3_addressing_style,
        checksums=settings.s3_checksums,
        credentials=settings.s3_credentials,
        connections=WORKERS + SPARE_CONNECTIONS,
    )


def _archive(settings: Settings, chosen: argparse.Namespace, stop: threading.Event) -> Archive:
    store = _store(settings)
    # Who follows a live recording waits for it anyway.
    attempts = None if chosen.command == "follow" else ATTEMPTS
    reader = ArchiveStore(store, stop=stop, attempts=attempts)
    reader.prepare()
    return Archive(reader, prefix=settings.s3_prefix, watch_dir=str(settings.watch_dir))


# ---------------------------------------------------------------------- the commands


def _list(archive: Archive, chosen: argparse.Namespace, output: Output) -> int:
    def wanted(each: Summary) -> bool:
        began, ended = each.facts.started_at, each.facts.ended_at
        early = chosen.since and ended and ended < chosen.since
        late = chosen.until and began and began > chosen.until
        return not early and not late

    output.summaries(filter(wanted, archive.summaries(chosen.start)))
    return EXIT_FINE


def _verify(archive: Archive, chosen: argparse.Namespace, output: Output) -> int:
    if not chosen.all:
        recording = archive.find(chosen.name, chosen.generation)
        with output.progress(recording.name, recording.size if chosen.deep else None) as advance:
            report = verify(archive, recording, deep=chosen.deep, advance=advance)
        output.report(report)
        return EXIT_PROBLEM if report.problems else EXIT_FINE
    looked = wrong = 0
    for entry in archive.entries():
        with output.progress(entry.name, None) as advance:
            found = verify_entry(archive, entry, deep=chosen.deep, advance=advance)
        if found:
            output.report(found)
            looked, wrong = looked + 1, wrong + bool(found.problems)
    output.note(f"{looked} recordings, {wrong} with problems")
    return EXIT_PROBLEM if wrong else EXIT_FINE


def _restore(archive: Archive, chosen: argparse.Namespace, output: Output) -> int:
    if chosen.all:
        return _restore_all(archive, chosen, output)
    recording = archive.find(chosen.name, chosen.generation)
    folder, name = os.path.split(chosen.to or ".")
    if os.path.isdir(chosen.to or "."):
        folder, name = chosen.to or ".", destination(recording)[-1]
    with (
        output.progress(recording.name, recording.size) as advance,
        open_target(folder or ".", [name], create=False) as target,
    ):
        done = restore(archive, recording, target, force=chosen.force, advance=advance)
    output.restored(done)
    return EXIT_FINE


def _restore_all(archive: Archive, chosen: argparse.Namespace, output: Output) -> int:
    finished = failed = 0
    with output.progress("restore", None) as advance:
        for done in restore_all(archive, chosen.to, force=chosen.force, advance=advance):
            output.restored(done)
            finished, failed = finished + 1, failed + isinstance(done, Failed)
    output.note(f"{finished - failed} recordings restored to {chosen.to}, {failed} failed")
    return EXIT_PROBLEM if failed else EXIT_FINE


def _follow(archive: Archive, chosen: argparse.Namespace, output: Output) -> int:
    stdout = sys.stdout.fileno()
    if os.isatty(stdout):
        output.error("follow writes video to stdout: pipe it, for example … | ffplay -, or send it to a file")
        return EXIT_ARGUMENTS
    reader_gone = select.poll()
    reader_gone.register(stdout, 0)

    def write(body: memoryview) -> None:
        written = 0
        while written < len(body):
            written += os.write(stdout, body[written:])

    def wait(seconds: float) -> None:
        if any(event & select.POLLERR for _, event in reader_gone.poll(seconds * 1000)):
            raise BrokenPipeError

    output.followed(follow(archive, archive.find(chosen.name, chosen.generation), write=write, wait=wait))
    return EXIT_FINE


def _doctor(settings: Settings, output: Output) -> int:
    with output.status() as doing:
        found = run_checks(settings, doing=doing)
    output.findings(found)
    problems = sum(each.level == "problem" for each in found)
    warnings = sum(each.level == "warning" for each in found)
    verdict = "recording would not be safe" if problems else "recording is safe"
    output.note(f"{verdict}: {len(found)} checks, {problems} problems, {warnings} warnings")
    return EXIT_PROBLEM if problems else EXIT_FINE


_COMMANDS: dict[str, Callable[[Archive, argparse.Namespace, Output], int]] = {
    "list": _list,
    "verify": _verify,
    "restore": _restore,
    "follow": _follow,
}


# ---------------------------------------------------------------------- values on the command line


def _generation(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no generation: 1, 2, …")
    return int(text)


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no date: 2026-11-20 or 2026-11-20T18:30") from None


def _last_moment(text: str) -> datetime:
    """Read a date; a day without a time means all of it."""
    whole_day = len(text) == len("2026-11-20")
    return _moment(text) + (timedelta(days=1, microseconds=-1) if whole_day else timedelta())
