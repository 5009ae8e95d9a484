"""What a command runs in: its settings, the servers of `--embedded`, the bucket and the records, signals."""

import getpass
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import click

import config
import logs
from archive.chunks import WORKERS
from archive.listing import Archive
from archive.names import Names, UnknownRecording
from archive.retrying_bucket import ATTEMPTS, ArchiveStore, Remover
from checkpoint import Checkpoints, connect, describe_store
from cli.output import Output
from cli.requests import Steering
from config import Settings
from embedded.data_folder import EmbeddedAddresses, running_servers
from embedded.servers import EmbeddedServers, serve_objects
from errors import ConfigError, ExitCode
from recording.layout import BucketLayout
from redis_store.audits import Audits
from s3.bucket import ObjectStore
from settings.group import Secret
from settings.s3 import S3Settings

SPARE_CONNECTIONS = 8
"""Beside one for each reading worker: as many lists are in flight while the bucket is walked."""

SERVERS_GRACE_SECONDS = 10.0
"""For the local servers of `--embedded` to leave, when no daemon that ran has stopped them."""


class Records(NamedTuple):
    """The records in Redis: to be read, and to be steered by. `by` says who asks, for people."""

    settings: Settings
    checkpoints: Checkpoints
    steering: Steering
    by: str


class Session:
    """The options that every command has, and what is made from them."""

    def __init__(self) -> None:
        self.embedded = False
        self.data_dir = Path("data")
        self.env_file: Path | None = None
        self.verbose = False
        self.quiet = False
        self.stop = threading.Event()
        self.after_interrupt = ""
        """What else to say when a signal ended the command."""

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """End at SIGINT and SIGTERM, worker threads too; at the second one at once."""

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            if self.stop.is_set():
                os._exit(ExitCode.INTERRUPTED)
            self.stop.set()
            raise KeyboardInterrupt

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                if signal.getsignal(number) is on_signal:  # not the daemon's, which stays to the end
                    signal.signal(number, handler)

    def log_level(self, usual: str) -> str:
        """Return how much is logged: what `-v` or `-q` say, else the usual."""
        return "DEBUG" if self.verbose else "ERROR" if self.quiet else usual

    def output(self, *, as_json: bool = False) -> Output:
        """Return what prints the results of a command."""
        return Output(as_json=as_json, quiet=self.quiet)

    def settings(self, *, needs_redis: bool = False) -> Settings:
        """Read the settings, and log what matters to a person at a terminal.

        Raises:
            ConfigError: they are wrong.
        """
        env_file = self.env_file or ".env"
        settings = config.load_settings(env_file=env_file, embedded=self.embedded, needs_redis=needs_redis)
        logs.configure_logging(self.log_level("WARNING"), settings.log.format, settings.secret_values())
        return settings

    def servers(self, settings: Settings) -> AbstractContextManager[tuple[Settings, EmbeddedServers]]:
        """Start all local servers of `--embedded` for as long as the context lasts.

        Raises:
            ConfigError: the data folder cannot be used, or a daemon uses it.
            ChildDied: a server did not start.
        """
        return _servers(settings, self.data_dir)

    @contextmanager
    def archive(self, *, patient: bool = False) -> Iterator[Archive]:
        """Open the recordings in the bucket; with `--embedded` on a server that is started for that.

        Parameters:
            patient: outages are waited out, however long they last.

        Raises:
            ConfigError: the settings are wrong, or nothing was ever stored in the data folder.
            StoreUnavailable: S3 refuses us, or does not answer.
        """
        settings = self.settings()
        with ExitStack() as stack:
            if self.embedded:
                addresses = stack.enter_context(serve_objects(self.data_dir, settings.s3.bucket))
                settings = with_embedded(settings, addresses)
            try:
                yield self._archive(settings, patient=patient)
            except UnknownRecording as error:
                error.look_for_suggestions()
                raise

    @contextmanager
    def prunable(self) -> Iterator[tuple[Archive, Remover, float]]:
        """Open the recordings in the bucket and what deletes there, with `AUDIT_DAYS`; Redis is not needed.

        With `--embedded` on the server of the daemon that runs: a second one would not see what it does.

        Raises:
            ConfigError: the settings are wrong, or with `--embedded` no daemon runs.
            StoreUnavailable: S3 refuses us, or does not answer.
        """
        settings = self.settings()
        if self.embedded:
            settings = with_embedded(settings, running_servers(self.data_dir))
        remover = Remover(open_bucket(settings.s3), stop=self.stop)
        remover.prepare()
        archive = Archive(remover, prefix=settings.s3.prefix, watch_dir=str(settings.folder.watch_dir))
        yield archive, remover, settings.upload.audit_days

    @contextmanager
    def reader(self) -> Iterator[Audits]:
        """Open the records in Redis to be read, as `records` does; damaged ones stay as they are."""
        with self.records() as records, connect(records.settings.redis) as client:
            yield Audits(client, namespace=records.settings.redis.namespace)

    @contextmanager
    def records(self) -> Iterator[Records]:
        """Open the records in Redis; with `--embedded` those of the daemon that runs on the data folder.

        Raises:
            ConfigError: the settings are wrong, or the records are about another bucket.
            StoreUnavailable: Redis refuses us, or does not answer.
        """
        settings = self.settings(needs_redis=True)
        if self.embedded:
            settings = with_embedded(settings, running_servers(self.data_dir))
        host = socket.gethostname()
        with connect(settings.redis) as client:
            checkpoints = Checkpoints(
                client,
                namespace=settings.redis.namespace,
                owner=f"command:{host}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
            )
            identity = describe_store(settings.s3.bucket, settings.s3.prefix)
            if incompatible := checkpoints.incompatibility(identity):
                raise ConfigError([f"{incompatible.message}: {incompatible.hint}"])
            names = Names(BucketLayout(settings.s3.prefix), watch_dir=str(settings.folder.watch_dir))
            by = f"{_user()}@{host}"
            yield Records(settings, checkpoints, Steering(checkpoints, names, by=by), by)

    def _archive(self, settings: Settings, *, patient: bool) -> Archive:
        attempts = None if patient else ATTEMPTS
        reader = ArchiveStore(open_bucket(settings.s3), stop=self.stop, attempts=attempts)
        reader.prepare()
        return Archive(reader, prefix=settings.s3.prefix, watch_dir=str(settings.folder.watch_dir))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        return str(os.getuid())


@contextmanager
def _servers(settings: Settings, data_dir: Path) -> Iterator[tuple[Settings, EmbeddedServers]]:
    servers = EmbeddedServers(data_dir, settings.s3.bucket)
    try:
        addresses = servers.start()
        assert addresses  # noqa: S101 - None comes only when a stop was asked for
        yield with_embedded(settings, addresses), servers
    finally:
        servers.stop(SERVERS_GRACE_SECONDS)


def with_embedded(settings: Settings, servers: EmbeddedAddresses) -> Settings:
    """Return the settings completed with the addresses and keys of local servers."""
    for secret in (servers.access_key, servers.secret_key):
        logs.add_secret(secret)
    return settings.replaced(
        redis={"url": Secret(servers.redis_url)},
        s3={
            "endpoint_url": servers.s3_endpoint_url,
            "addressing_style": "path",
            "access_key_id": Secret(servers.access_key),
            "secret_access_key": Secret(servers.secret_key),
        },
    )


def open_bucket(settings: S3Settings) -> ObjectStore:
    """Return the bucket with connections for the commands; nothing is asked of it yet."""
    return ObjectStore(settings, connections=WORKERS + SPARE_CONNECTIONS)


# ---------------------------------------------------------------------- options that every command has


def _note(ctx: click.Context, option: click.Parameter, value: object) -> None:
    session = ctx.ensure_object(Session)
    if value is not None:
        setattr(session, str(option.name), value)


def _shared(*names: str, **how: Any) -> click.Option:
    return click.Option(names, expose_value=False, callback=_note, **how)


COMMON_OPTIONS: list[click.Parameter] = [
    _shared(
        "--embedded",
        is_flag=True,
        default=None,
        help="Use a local Valkey and S3 server with their data in --data-dir.",
    ),
    _shared(
        "--data-dir", type=click.Path(path_type=Path), help="The data folder of --embedded (default: ./data)."
    ),
    _shared(
        "--env-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Read settings from this file (default: ./.env).",
    ),
    _shared("-v", "--verbose", is_flag=True, default=None, help="Log everything."),
    _shared("-q", "--quiet", is_flag=True, default=None, help="Print results and errors only."),
]
"""May stand before a command and behind it, where people add them."""


def command(
    epilog: str, name: str | None = None, *, with_json: bool = True
) -> Callable[[Callable[..., ExitCode]], click.Command]:
    """Make a command of a function that takes the session first.

    Parameters:
        epilog: what stands behind its help, such as its exit codes.
        name: if it is not the function's.
        with_json: whether it has `--json`, as `as_json`.
    """

    def decorate(function: Callable[..., ExitCode]) -> click.Command:
        made = click.command(name, epilog=epilog)(click.pass_obj(function))
        if with_json:
            made.params.append(
                click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object a line.")
            )
        made.params += COMMON_OPTIONS
        return made

    return decorate
