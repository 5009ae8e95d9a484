"""What the unavoidable work costs on this machine: reading, hashing and sending every byte once."""

import hashlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_BLOCK = 10 * 1024**2
_BLOCKS = 20


class Primitives(NamedTuple):
    """CPU seconds per GB (10^9 bytes), of one thread, with blocks of 10 MiB."""

    read_from_page_cache: float
    sha256: float
    md5: float
    send_over_loopback: float


def measure(work: Path) -> Primitives:
    """Measure each for about a tenth of a second."""
    block = os.urandom(_BLOCK)
    with tempfile.TemporaryFile(dir=work) as file:
        file.write(block)
        file.flush()
        descriptor = file.fileno()
        read = _cost(lambda: os.pread(descriptor, _BLOCK, 0))
    return Primitives(
        read,
        _cost(lambda: hashlib.sha256(block)),
        _cost(lambda: hashlib.md5(block, usedforsecurity=False)),
        _cost_of_sending(block),
    )


def _cost(step: Callable[[], object]) -> float:
    step()
    before = time.thread_time()
    for _ in range(_BLOCKS):
        step()
    return (time.thread_time() - before) / (_BLOCKS * _BLOCK / 1e9)


def _cost_of_sending(block: bytes) -> float:
    """Only the sender's side; the receiver's is the server's."""
    left, right = _connected_pair()

    def drain() -> None:
        buffer = bytearray(1024**2)
        while right.recv_into(buffer):
            pass

    receiver = threading.Thread(target=drain, daemon=True)
    receiver.start()
    with left, right:
        cost = _cost(lambda: left.sendall(block))
        left.shutdown(socket.SHUT_WR)
        receiver.join()
    return cost


def _connected_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    return left, right
