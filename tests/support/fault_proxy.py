"""A TCP proxy that refuses, swallows, stalls, resets, loses replies, slows down and corrupts."""

import asyncio
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Literal, Self

from tests.support.servers import free_port

To = Literal["server", "client"]

_PIECE = 64 * 1024
_WAIT_SECONDS = 10.0
_BACKLOG = 128
# Most connections that a black hole's own backlog can hold; one that hangs ends the filling.
_MAX_FILLERS = 8


class _Kind(Enum):
    NONE = auto()
    REFUSE = auto()
    BLACK_HOLE = auto()
    STALL = auto()
    RESET = auto()
    LOSE = auto()
    THROTTLE = auto()
    FLIP = auto()


@dataclass(eq=False, slots=True)
class _Link:
    """One connection of a client and its own connection to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    losing: bool = False
    asked: bool = False  # the client sent something since the server last answered


@dataclass(eq=False, slots=True)
class _Fault:
    """`after` bytes pass in direction `to` on each connection, counted since the fault was set."""

    kind: _Kind = _Kind.NONE
    to: To = "server"
    after: int = 0
    times: float = float("inf")
    containing: bytes = b""
    rate: float = 0.0
    passed: defaultdict[tuple[_Link, To], int] = field(default_factory=lambda: defaultdict(int))


class FaultProxy:
    """Stands between a client and a server on loopback. Use it in a `with` statement.

    One fault at a time: it holds for open and new connections, from its call until `heal` or the next
    one. `struck` counts how often it did something, so that a test can tell that it happened.

    Parameters:
        target_port: where the server listens.
    """

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self.struck = 0
        self.connections = 0
        """How many were accepted."""
        self.requests = 0
        """How often a client sent something after an answer, or as its first: round trips."""
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        # All below belongs to the loop's thread.
        self._fault = _Fault()
        self._changed = asyncio.Event()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._fillers: list[socket.socket] = []
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._set(_Fault()))
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WAIT_SECONDS)
        self._loop.close()

    # ------------------------------------------------------------------ faults

    def heal(self) -> None:
        """Pass everything; what stalled goes on."""
        self._do(self._set(_Fault()))

    def refuse(self) -> None:
        """Nobody listens any more, and open connections are reset."""
        self._do(self._set(_Fault(_Kind.REFUSE)))

    def black_hole(self) -> None:
        """Every packet vanishes: open connections stay silent, new ones hang in their connect."""
        self._do(self._set(_Fault(_Kind.BLACK_HOLE)))

    def stall_after(self, passed_bytes: int, *, to: To = "server") -> None:
        """Stop passing bytes on each connection after so many; `to="client"` and 0 is a silent server."""
        self._do(self._set(_Fault(_Kind.STALL, to, passed_bytes)))

    def reset_after(self, passed_bytes: int, *, to: To = "server", times: float = float("inf")) -> None:
        """Reset each connection after so many bytes."""
        self._do(self._set(_Fault(_Kind.RESET, to, passed_bytes, times)))

    def lose_reply(self, *, containing: bytes = b"", times: float = 1) -> None:
        """Let a request through, wait for its answer, and reset the connection instead of passing it.

        Parameters:
            containing: bytes that the request must have, all in one piece of at most 64 KiB.
            times: how many answers are lost.
        """
        self._do(self._set(_Fault(_Kind.LOSE, times=times, containing=containing)))

    def throttle(self, bytes_per_second: float) -> None:
        """Pass no more than that on each connection and direction."""
        self._do(self._set(_Fault(_Kind.THROTTLE, rate=bytes_per_second)))

    def flip_byte(self, after_bytes: int, *, to: To = "server", times: float = 1) -> None:
        """Change one byte: the one after so many on a connection."""
        self._do(self._set(_Fault(_Kind.FLIP, to, after_bytes, times)))

    # ------------------------------------------------------------------ in the loop's thread

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_SECONDS)

    async def _set(self, fault: _Fault) -> None:
        self._fault = fault
        self._changed.set()
        self._changed = asyncio.Event()
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        if fault.kind is _Kind.REFUSE:
            await self._stop_listening()
            for link in list(self._links):
                _reset(link)
            return
        listener = self._listener = self._listener or self._listen()
        if fault.kind is _Kind.BLACK_HOLE:
            await self._stop_accepting()
            self._fill(listener)
        elif self._accepting is None:
            listener.listen(_BACKLOG)
            self._accepting = self._loop.create_task(self._accept(listener))

    def _listen(self) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Small, and inherited by what it accepts: a stall is felt at once and not after megabytes.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE)
        listener.settimeout(0)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(_BACKLOG)
        return listener

    def _fill(self, listener: socket.socket) -> None:
        """Fill the backlog: the kernel drops further requests to connect, as a black hole does."""
        listener.listen(0)
        for _ in range(_MAX_FILLERS):
            filler = socket.socket()
            filler.settimeout(0)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    async def _stop_accepting(self) -> None:
        if self._accepting:
            self._accepting.cancel()
            with suppress(asyncio.CancelledError):
                await self._accepting
        self._accepting = None

    async def _stop_listening(self) -> None:
        await self._stop_accepting()
        if self._listener:
            self._listener.close()
        self._listener = None

    async def _end(self) -> None:
        await self._set(_Fault(_Kind.REFUSE))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            accepted, _ = await self._loop.sock_accept(listener)
            self.connections += 1
            task = self._loop.create_task(self._serve(accepted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, accepted: socket.socket) -> None:
        from_client, client = await asyncio.open_connection(sock=accepted)
        try:
            from_server, server = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            client.transport.abort()
            return
        link = _Link(client, server)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(link, "server", from_client, server))
                both.create_task(self._pump(link, "client", from_server, client))
        except* OSError:
            _reset(link)  # one side is gone; the other learns of it
        finally:
            self._links.discard(link)
            client.transport.abort()
            server.transport.abort()

    async def _pump(
        self, link: _Link, to: To, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while piece := await reader.read(_PIECE):
            if to == "server" and not link.asked:
                self.requests += 1
            link.asked = to == "server"
            await self._pass(link, to, piece, writer)
        writer.write_eof()

    async def _pass(self, link: _Link, to: To, piece: bytes, writer: asyncio.StreamWriter) -> None:
        fault = self._fault
        passed = fault.passed[link, to]
        fault.passed[link, to] += len(piece)
        room = max(fault.after - passed, 0)
        concerned = to == fault.to and room < len(piece) and fault.times > 0
        if fault.kind is _Kind.BLACK_HOLE or (fault.kind is _Kind.STALL and concerned):
            first = piece[: room if fault.kind is _Kind.STALL else 0]
            await self._stall(fault, first, writer)
            piece = piece[len(first) :]
        elif fault.kind is _Kind.RESET and concerned:
            self._strike(fault)
            writer.write(piece[:room])
            await writer.drain()
            _reset(link)
            raise ConnectionResetError
        elif fault.kind is _Kind.FLIP and concerned and passed <= fault.after:
            self._strike(fault)
            piece = piece[:room] + bytes([piece[room] ^ 1]) + piece[room + 1 :]
        elif fault.kind is _Kind.LOSE:
            self._lose(fault, link, to, piece)
        elif fault.kind is _Kind.THROTTLE:
            self._strike(fault)
            await asyncio.sleep(len(piece) / fault.rate)
        writer.write(piece)
        await writer.drain()

    async def _stall(self, fault: _Fault, first: bytes, writer: asyncio.StreamWriter) -> None:
        self._strike(fault)
        writer.write(first)
        await writer.drain()
        while self._fault is fault:
            await self._changed.wait()

    def _lose(self, fault: _Fault, link: _Link, to: To, piece: bytes) -> None:
        if to == "server":
            link.losing = link.losing or (fault.times > 0 and fault.containing in piece)
        elif link.losing:
            self._strike(fault)
            _reset(link)
            raise ConnectionResetError

    def _strike(self, fault: _Fault) -> None:
        fault.times -= 1
        self.struck += 1


def _reset(link: _Link) -> None:
    for writer in (link.client, link.server):
        opened = writer.get_extra_info("socket")
        with suppress(OSError):  # it is closed already
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
