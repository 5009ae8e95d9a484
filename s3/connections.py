"""The connections under boto3's clients: on them a timeout is for progress, not for a whole body.

`socket.sendall` has one deadline for all that it is given, and the time for an answer begins when the kernel
has taken the last byte, not when that byte has left. On a slow line no chunk would ever arrive like that.
"""

import fcntl
import math
import select
import ssl
import struct
import sys
import termios
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from botocore.awsrequest import AWSConnection, AWSHTTPConnectionPool, AWSHTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from urllib3.response import HTTPResponse

STALL_SECONDS = 60.0
"""Without a byte that leaves, until a send is given up. A line that was away for 25 s is used again after as
much as 51 s: TCP doubles the time between two tries (RFC 6298)."""

LOOK_SECONDS = 1.0
"""Between two looks whether bytes leave, while the kernel takes no more."""

TICKET_LOOK_SECONDS = 0.01
"""The same before the first answer over TLS: tickets of the session look like the beginning of one."""

MOVES_SECONDS = 10.0
"""With a body byte that left in this time the line works: what timed out met too many others."""

HEAD_BYTES = 64 * 1024
"""More than any head of a request has, and less than boto3 gives of a body at a time."""

SEND_BYTES = 256 * 1024
"""At a time: with less a fast line was slower, and with more nothing was faster (measured)."""


class Line:
    """What the connections of one store have in common. Safe to use from any thread.

    Parameters:
        stall_seconds: without a byte that leaves, until a send is given up.
    """

    def __init__(self, stall_seconds: float = STALL_SECONDS) -> None:
        self.stall_seconds = stall_seconds
        self.moved_at = -math.inf
        """Monotonic seconds when bytes of a body last left; written by any thread."""

    def moves(self) -> bool:
        """Return whether bytes of a body left in the last `MOVES_SECONDS`."""
        return time.monotonic() - self.moved_at < MOVES_SECONDS

    def carry(self, client: "S3Client") -> None:
        """Have a client use connections of this line; to be called before its first request."""
        pools: Any = client._endpoint.http_session._pool_classes_by_scheme  # type: ignore[attr-defined] # noqa: SLF001 - boto3 has no other way to choose them
        pools["http"] = self._pool(AWSHTTPConnectionPool, _PatientHTTPConnection)
        pools["https"] = self._pool(AWSHTTPSConnectionPool, _PatientHTTPSConnection)

    def _pool(self, pool: type, connection: type) -> type:
        mine = type(connection.__name__, (connection,), {"line": self})
        return type(pool.__name__, (pool,), {"ConnectionCls": mine})


class _Patient(HTTPConnection):
    """Sends and waits for as long as bytes leave. What the system takes counts where it tells no more."""

    line: ClassVar[Line]
    _answered = False
    _bulky = False

    def connect(self) -> None:
        self._answered = False
        super().connect()

    def send(self, data: Any) -> None:
        """Send bytes; given up when none has left for `Line.stall_seconds`.

        Raises:
            TimeoutError: none did.
        """
        if self.sock is None:
            self.connect()
        self._bulky = self._bulky or len(data) > HEAD_BYTES
        sock, start, progress = self.sock, 0, self._progress(self.line.stall_seconds)
        before = sock.gettimeout()
        sock.settimeout(LOOK_SECONDS)
        with memoryview(data) as whole:
            while start < len(whole):
                taken = 0
                with suppress(TimeoutError):
                    taken = sock.send(whole[start : start + SEND_BYTES])
                start += taken
                progress.look(taken)
        sock.settimeout(before)  # what a proxy answers is read before `getresponse`

    def getresponse(self) -> "HTTPResponse":  # type: ignore[override] # as urllib3 does
        """Wait for the answer; the time for it begins when the last byte of the request was acknowledged.

        Raises:
            TimeoutError: for so long no byte left, or no answer came.
        """
        self._wait_until_sent()
        answer = super().getresponse()
        self._answered, self._bulky = True, False
        return answer

    def _wait_until_sent(self) -> None:
        progress = self._progress(self.timeout or self.line.stall_seconds)
        readable = self._answered or not isinstance(self.sock, ssl.SSLSocket)
        poller = select.poll()
        poller.register(self.sock, select.POLLIN if readable else 0)
        while _unsent(self.sock):
            progress.look()
            if poller.poll((LOOK_SECONDS if readable else TICKET_LOOK_SECONDS) * 1000):
                return

    def _progress(self, max_seconds: float) -> "_Progress":
        # The head of a question says nothing: a server that is frozen has a kernel that acknowledges it.
        return _Progress(self.sock, max_seconds, self.line if self._bulky else Line())


class _Progress:
    """Whether bytes leave one socket.

    Parameters:
        sock: connected.
        max_seconds: without one.
        line: is told when they do.
    """

    def __init__(self, sock: Any, max_seconds: float, line: Line) -> None:
        self._sock = sock
        self._most_seconds = max_seconds
        self._line = line
        self._at = time.monotonic()
        self._taken = 0
        self._left = -(_unsent(sock) or 0)

    def look(self, taken: int = 0) -> None:
        """See whether more bytes have left than at any look before.

        Parameters:
            taken: how many the system took since the last look.

        Raises:
            TimeoutError: none did for too long.
        """
        self._taken += taken
        unsent, now = _unsent(self._sock), time.monotonic()
        left = self._taken - (unsent or 0)
        if left > self._left:
            self._left, self._at = left, now
            if unsent is not None:
                self._line.moved_at = now
        elif now - self._at > self._most_seconds:
            raise TimeoutError(f"no byte left for {self._most_seconds:g} s")


def _unsent(sock: Any) -> int | None:
    """Return how many bytes the other side has not acknowledged; None where the system does not tell."""
    if sys.platform != "linux":  # the same request has another meaning
        return None
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):  # ValueError: it is closed
        return None
    return int(count)


class _PatientHTTPConnection(AWSConnection, _Patient):  # type: ignore[misc] # botocore does the same
    pass


class _PatientHTTPSConnection(AWSConnection, _Patient, HTTPSConnection):  # type: ignore[misc] # likewise
    pass
