"""A short form of the drill of slow lines, and the line itself."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drills.slow_line import drill
from tests.support.daemon_process import Site
from tests.support.servers import RcloneS3, ValkeyServer
from tests.support.slow_line import SlowLine


@pytest.fixture
def site(
    tmp_path: Path, private_valkey: ValkeyServer, private_rclone: RcloneS3, redis_namespace: str
) -> Iterator[Site]:
    site = Site(tmp_path, private_valkey, private_rclone, redis_namespace)
    yield site
    site.close()


@pytest.mark.drill
@pytest.mark.parametrize("workers", [1, 4])
def test_growing_files_arrive_on_a_line_on_which_a_chunk_takes_longer_than_it_was_given(
    workers: int, site: Site
) -> None:
    drill(site, bytes_per_second=300_000, workers=workers, files=8, full_chunks=2)


def test_a_line_passes_bytes_after_its_server_ended_a_connection() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        SlowLine(server.getsockname()[1], bytes_per_second=float("inf")) as line,
        socket.socket() as first,
        socket.socket() as second,  # made now, so that what the line closes is left for the line's next ones
    ):
        for client in (first, second):
            client.settimeout(10)
        first.connect(("127.0.0.1", line.port))
        first.sendall(b"x")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b"x"
        assert first.recv(1) == b""
        second.connect(("127.0.0.1", line.port))
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(10)
            for byte in (b"y", b"z"):
                second.sendall(byte)
                assert accepted.recv(1) == byte
