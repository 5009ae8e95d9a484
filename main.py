"""The command line: arguments, settings, exit codes."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

import config
import logs
from cli import parser as commands
from config import Settings
from embedded.servers import EmbeddedServers
from errors import ChildDied, ConfigError

if TYPE_CHECKING:
    from daemon import Daemon

log = logs.get_logger(__name__)

EXIT_STOPPED = 0
EXIT_BUG = 1
EXIT_SETTINGS = 2

EMBEDDED_GRACE_SECONDS = 10.0
"""For the local servers after a start that failed; a daemon that ran has stopped them before."""

EPILOG = """\
Without a command the daemon runs. Settings come from the environment and from .env in the current
folder; .env.example lists them all.

exit codes of the daemon (`main.py COMMAND --help` has those of a command):
  0  stopped as asked
  1  a bug, a thread or an embedded server that died
  2  wrong settings or arguments
  3  Redis or S3 refused us at the start (credentials, bucket)
"""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a wrong one ends the process with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="main.py",
        description="Uploads MP4 recordings into S3 while they are still being recorded, byte for byte.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="show program's version number and exit")
    _add_embedded(parser, embedded=False, data_dir=Path("data"))
    # Behind a command too, where people add them; a default there would undo what stands before it.
    shared = argparse.ArgumentParser(add_help=False)
    _add_embedded(shared, embedded=argparse.SUPPRESS, data_dir=argparse.SUPPRESS)
    commands.add_commands(parser, shared)
    chosen = parser.parse_args(arguments)
    if problem := commands.wrong_arguments(chosen):
        parser.error(problem)
    return chosen


def _add_embedded(parser: argparse.ArgumentParser, *, embedded: object, data_dir: object) -> None:
    parser.add_argument(
        "--embedded",
        action="store_true",
        default=embedded,
        help="start a local Valkey and a local S3 server and store everything under --data-dir",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=data_dir,
        help="where --embedded keeps its data (default: ./data)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command says, or run the daemon until it is stopped; gives the exit code."""
    chosen = parse_arguments(arguments)
    if chosen.version:
        from wiring import VERSION  # noqa: PLC0415 - likewise

        print(VERSION)  # noqa: T201 - for the person who typed it
        return EXIT_STOPPED
    logs.configure_logging("INFO", "text")
    try:
        return commands.run(chosen) if chosen.command else _run_daemon(chosen)
    except ConfigError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)  # noqa: T201 - for the person who typed it
        return EXIT_SETTINGS
    except ChildDied as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - likewise
        return EXIT_BUG
    except Exception:
        log.critical("ended by a bug", exc_info=True)
        return EXIT_BUG


def _run_daemon(chosen: argparse.Namespace) -> int:
    settings = config.load_settings(embedded=chosen.embedded)
    logs.configure_logging(settings.log_level, settings.log_format, settings.secret_values())
    if chosen.embedded:
        return _run_embedded(settings, chosen.data_dir)
    return _daemon(settings).run()


def _daemon(settings: Settings, servers: EmbeddedServers | None = None) -> "Daemon":
    from daemon import Daemon  # noqa: PLC0415 - no command needs what it imports: 0.2 s and 15 MB

    return Daemon(settings, servers)


def _run_embedded(settings: Settings, data_dir: Path) -> int:
    servers = EmbeddedServers(data_dir, settings.s3_bucket)
    # Until the daemon catches signals itself, one of them just ends the start.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_STOPPED))
    try:
        addresses = servers.start()
        if addresses is None:
            return EXIT_STOPPED
        logs.add_secret(addresses.secret_key)
        complete = settings.model_copy(
            update={
                "redis_url": SecretStr(addresses.redis_url),
                "s3_endpoint_url": addresses.s3_endpoint_url,
                "s3_addressing_style": "path",
                "aws_access_key_id": SecretStr(addresses.access_key),
                "aws_secret_access_key": SecretStr(addresses.secret_key),
            }
        )
        return _daemon(complete, servers).run()
    except KeyboardInterrupt:
        return EXIT_STOPPED
    finally:
        servers.stop(EMBEDDED_GRACE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
