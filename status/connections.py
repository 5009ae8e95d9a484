"""Who may hold a connection to the HTTP server, and for how long: waitress, with a bound for each."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher
from waitress.wasyncore import dispatcher

from errors import OUT_OF_FILES
from status.access import site_of

REQUEST_SECONDS = 20.0
"""A connection must bring a whole request within this time, from its start or from the last answer, however
steadily its bytes arrive. Browsers and Prometheus connect again when they find it closed."""

STALLED_SECONDS = 60.0
"""A client that takes nothing of its answer for so long is cut off: its download holds a thread."""

MAX_CONNECTIONS = 100
"""At a time. For one more, the address with most connections loses its oldest idle one."""

MAX_HEAD_BYTES = 16 * 1024
"""Of a request: browsers send about 1 kB, and each connection may hold so much in memory."""

MAINTENANCE_SECONDS = 5
"""Between two looks for connections that have had their time."""

PAUSE_SECONDS = 0.1
"""Until a connection is accepted that there was no descriptor for; it stays in the queue meanwhile."""

_NEVER = 2**31  # waitress would stop to accept at its own limit, and with it blind the health checks


class Connection(HTTPChannel):
    """One connection, which knows since when it waits for a whole request."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        self.waiting_since = time.time()
        super().__init__(*args, **keywords)

    @property
    def site(self) -> str:
        """Whom it counts for."""
        return site_of(str(self.addr[0]))

    def received(self, data: bytes) -> bool:
        """Take bytes in, one request at a time: nobody pipelines but who wants to fill all threads."""
        taken = super().received(data)
        if len(self.requests) > 1:
            self.handle_close()
        return taken

    def service(self) -> None:
        """Answer a request; the time for the next one begins."""
        super().service()
        self.waiting_since = time.time()


class ConnectionServer(TcpWSGIServer):
    """Waitress on one listening socket. All but `stop` runs in the thread that calls `run`.

    Parameters:
        app: a WSGI application.
        listener: bound and listening.
        threads: that answer requests.
        limits: waitress's own settings.
    """

    channel_class = Connection

    def __init__(self, app: Any, listener: socket.socket, *, threads: int, **limits: Any) -> None:
        workers = ThreadedTaskDispatcher()
        workers.set_thread_count(threads)
        adjustments = Adjustments(
            sockets=[listener],
            threads=threads,
            ident="",
            connection_limit=_NEVER,
            cleanup_interval=MAINTENANCE_SECONDS,
            max_request_header_size=MAX_HEAD_BYTES,
            asyncore_use_poll=True,  # select() knows no descriptor above 1023
            **limits,
        )
        self._sockets: dict[int, Any] = {}  # by descriptor
        super().__init__(
            app,
            map=self._sockets,
            _sock=listener,
            dispatcher=workers,
            adj=adjustments,
            bind_socket=False,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
        )

    def held(self) -> Sequence[Connection]:
        """Return the open connections."""
        channels: Any = self.active_channels
        return list(channels.values())

    def accept(self) -> Any:
        """Accept a connection, and make room for it; without descriptors, pause before the next try."""
        try:
            accepted = super().accept()
        except OSError as error:
            if error.errno not in OUT_OF_FILES:
                raise
            threading.Event().wait(PAUSE_SECONDS)
            return None
        if accepted and not self._has_room():
            accepted[0].close()
            return None
        return accepted

    def _has_room(self) -> bool:
        """Have room for one more connection; false when all answer a request at this moment."""
        held = self.held()
        if len(held) < MAX_CONNECTIONS:
            return True
        idle = [connection for connection in held if not connection.requests]
        if not idle:
            return False
        counts = Counter(connection.site for connection in held)
        min(idle, key=lambda each: (-counts[each.site], each.waiting_since)).handle_close()
        return True

    def maintenance(self, now: float) -> None:
        """End the connections that have had their time.

        Parameters:
            now: seconds since 1970.
        """
        for connection in self.held():
            if connection.total_outbufs_len:
                overdue = connection.last_activity < now - STALLED_SECONDS
            else:
                overdue = not connection.requests and connection.waiting_since < now - REQUEST_SECONDS
            if overdue:
                connection.handle_close()

    def stop(self) -> None:
        """Have `run` return, with all connections closed. Called by any thread."""
        trigger: Any = self.trigger
        trigger.pull_trigger(self.close_all)

    def close_all(self) -> None:
        """Close the listener and every connection, also those that are kept open or wait for a thread."""
        for connection in self.held():
            connection.handle_close()
        dispatcher.close(self)  # its own method would close the trigger, which workers still pull
        self._sockets.clear()

    def end_workers(self, timeout: int) -> None:
        """Wait for the requests under way."""
        self.task_dispatcher.shutdown(timeout=timeout)

    def release(self) -> None:
        """Close the last descriptors, when nothing runs any more."""
        with suppress(OSError):
            trigger: Any = self.trigger
            trigger.close()
