"""A slow line between a client and a server: one rate for all connections together, latency, stalls."""

import asyncio
import socket
import threading
from asyncio import Queue, Task
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self

from tests.support.servers import free_port

_PIECE = 8 * 1024
_BUFFER = 16 * 1024
# Per connection: the line itself holds little, so that what it took has almost arrived.
_IN_FLIGHT = 64
_WAIT_SECONDS = 10.0


class SlowLine:
    """A TCP proxy on loopback whose connections share one uplink. Use it in a `with` statement.

    Downwards nothing is limited; latency and stalls hold for both directions.

    Parameters:
        target_port: where the server listens.
        bytes_per_second: upwards, of all connections together.
        latency_seconds: for a round trip.
        stalls: after so many seconds nothing passes for so many seconds, again and again; None for never.
    """

    def __init__(
        self,
        target_port: int,
        *,
        bytes_per_second: float,
        latency_seconds: float = 0.0,
        stalls: tuple[float, float] | None = None,
    ) -> None:
        self.port = free_port()
        self.sent_bytes = 0
        """Upwards, heads of requests included."""
        self._target_port = target_port
        self._rate = bytes_per_second
        self._one_way = latency_seconds / 2
        self._stalls = stalls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slow-line", daemon=True)
        # All below belongs to the loop's thread.
        self._began = self._loop.time()
        self._free_at = 0.0
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_WAIT_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WAIT_SECONDS)
        self._loop.close()

    def set_rate(self, bytes_per_second: float) -> None:
        """Let so many bytes pass from now on; infinity for no limit."""
        self._rate = bytes_per_second  # one word: read by the loop's thread, whole

    def stall(self) -> None:
        """Let nothing pass until `go_on`."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def go_on(self) -> None:
        """Let everything pass again."""
        self._loop.call_soon_threadsafe(self._flows.set)

    # ------------------------------------------------------------------ in the loop's thread

    async def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)  # what it accepts inherits it
        listener.settimeout(0)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self._spawn(self._accept(listener))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "Task[None]":
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end(self) -> None:
        ending = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                client, _ = await self._loop.sock_accept(listener)
                self._spawn(self._serve(client))

    async def _serve(self, client: socket.socket) -> None:
        with client, socket.socket() as server:
            for each in (client, server):
                each.settimeout(0)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with suppress(OSError):  # one side is gone, and so is the other when this ends
                await self._loop.sock_connect(server, ("127.0.0.1", self._target_port))
                both = [self._spawn(self._direction(client, server, up=True))]
                both.append(self._spawn(self._direction(server, client, up=False)))
                try:
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    # Before the sockets are closed: else a later one with the same number is not read.
                    await _cancelled(*both)

    async def _direction(self, source: socket.socket, target: socket.socket, *, up: bool) -> None:
        on_its_way: Queue[tuple[float, bytes]] = Queue(_IN_FLIGHT)
        delivering = self._spawn(self._deliver(on_its_way, target))
        try:
            with suppress(OSError):
                while piece := await self._loop.sock_recv(source, _PIECE):
                    await self._pass(len(piece) if up else 0)
                    self.sent_bytes += len(piece) if up else 0
                    await on_its_way.put((self._loop.time() + self._one_way, piece))
            await on_its_way.put((self._loop.time() + self._one_way, b""))
            await delivering
        finally:
            await _cancelled(delivering)

    async def _deliver(self, on_its_way: "Queue[tuple[float, bytes]]", target: socket.socket) -> None:
        with suppress(OSError):
            while True:
                due, piece = await on_its_way.get()
                await asyncio.sleep(due - self._loop.time())
                if not piece:
                    return
                await self._loop.sock_sendall(target, piece)

    async def _pass(self, count: int) -> None:
        """Wait for the line; those who wait are served in the order in which they came."""
        self._free_at = max(self._loop.time(), self._free_at) + count / self._rate
        await asyncio.sleep(self._free_at - self._loop.time())
        await self._flows.wait()
        if self._stalls:
            flowing, stalled = self._stalls
            into = (self._loop.time() - self._began) % (flowing + stalled)
            if into >= flowing:
                await asyncio.sleep(flowing + stalled - into)


async def _cancelled(*tasks: "Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
