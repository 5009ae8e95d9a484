"""The daemon: what runs when no command is given."""

from typing import TYPE_CHECKING

import logs
from cli.session import Session
from errors import ExitCode

if TYPE_CHECKING:
    from config import Settings
    from embedded.servers import EmbeddedServers


def run_daemon(session: Session) -> ExitCode:
    """Run the daemon until it is stopped.

    Raises:
        ConfigError: the settings are wrong, or the data folder of `--embedded` is in use.
        ChildDied: a local server did not start.
    """
    settings = session.settings(needs_redis=True)
    logs.configure_logging(session.log_level(settings.log.level), settings.log.format)
    if not session.embedded:
        return _run(settings)
    try:
        with session.servers(settings) as (complete, servers):
            return _run(complete, servers)
    except KeyboardInterrupt:  # a signal during the start, before the daemon catches them itself
        return ExitCode.OK


def _run(settings: "Settings", servers: "EmbeddedServers | None" = None) -> ExitCode:
    from daemon import Daemon  # noqa: PLC0415 - no command needs what it imports: 0.2 s and 15 MB

    return ExitCode(Daemon(settings, servers).run())
