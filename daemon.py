"""The running daemon: threads, signals, health, and the order in which it stops."""

import ctypes
import faulthandler
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType

import logs
import metrics
from config import Settings
from embedded.servers import EmbeddedServers
from errors import ChildDied, ExitCode
from folder.watch import SUPERVISION_SECONDS, alarm_on_overflow
from settings.version import VERSION
from status.server import StatusServer, create_app
from status.wiring import wire_page
from upload.crash_points import Hook, no_op
from wiring import wire

log = logs.get_logger(__name__)

TICK_SECONDS = 1.0
"""Between two looks of the monitor, and of the main thread at its children."""

WORKER_WAIT_SECONDS = 0.5
"""How long an idle worker waits before it looks whether it shall stop."""

LAST_RELEASE_SECONDS = 1.0
"""For giving the leases back when the grace period is over already."""

STALLED_SECONDS = 120.0
"""The monitor or the watcher without a step: a hung file system. Redis holds a step up for 7 s at most."""

LARGE_BLOCK_BYTES = 1024**2
"""Memory of this size and more goes back to the system when it is freed. Unless it is told, glibc raises
that size to the largest block it has seen, and each thread keeps some chunks: up to 27 MB in a soak."""

_M_MMAP_THRESHOLD = -3  # malloc.h


class Daemon:
    """Everything that runs, from the settings to the exit code. `run` is called once, in the main thread.

    Parameters:
        settings: complete, with the addresses of Redis and S3.
        embedded: the local servers, when they were started; they stop last.
        at: called at each crash point.
    """

    def __init__(
        self, settings: Settings, embedded: EmbeddedServers | None = None, *, at: Hook = no_op
    ) -> None:
        self._settings = settings
        self._embedded = embedded
        self._stop = threading.Event()
        self._exit_code = ExitCode.OK  # written by `end`
        self._signals = 0  # written by the signal handler, in the main thread
        self._bell, self._bell_push = socket.socketpair()
        self._bell_push.settimeout(0)
        self._threads: list[threading.Thread] = []
        self._stepped: dict[str, float] = {}  # each entry written by its own thread
        self._parts = wire(settings, at=at, alone=embedded is not None)
        self._page = wire_page(
            settings,
            self._parts,
            unhealthy=self._unhealthy,
            stop=self._stop,
            data_dir=embedded.data_dir if embedded else None,
        )
        self._server = StatusServer(
            host=settings.http.host,
            port=settings.http.port,
            app=create_app(
                unhealthy=self._unhealthy,
                unready=self._unready,
                pages=[self._page.blueprint] if self._page else [],
            ),
        )

    # ------------------------------------------------------------------ running

    def run(self) -> ExitCode:
        """Work until a signal, a refusal, a dead server or a bug ends it.

        Returns:
            The exit code.
        """
        self._catch_signals()
        give_large_blocks_back()
        metrics.BUILD.info({"version": VERSION})
        metrics.HEALTHY.set_function(lambda: not self._unhealthy())
        log.info("starting", version=VERSION, pid=os.getpid(), **self._settings.redacted())
        for risk in self._settings.warnings():
            log.warning("risky setting", reason=risk)
        if self._embedded:
            log.warning("the store is on this disk: no off-site copy", folder=str(self._embedded.data_dir))
        self._server.start()
        log.info(
            "serving",
            url=f"http://{self._settings.http.host}:{self._server.port}",
            pages="/ /metrics /healthz /readyz" if self._page else "/metrics /healthz /readyz",
            status_page=self._page.who if self._page else "off",
        )
        with alarm_on_overflow(self._parts.watch):
            self._start_threads()
            self._wait()
            self._stop_all()
        return self._exit_code

    def end(self, exit_code: ExitCode) -> None:
        """Have the daemon stop; called by any thread. The first reason that is no signal decides the code."""
        self._exit_code = self._exit_code or exit_code
        self._stop.set()
        self._ring()

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # full: it rings already
            self._bell_push.send(b"!")

    def _catch_signals(self) -> None:
        signal.set_wakeup_fd(self._bell_push.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        faulthandler.register(signal.SIGUSR1)  # prints what each thread does: operations.md, "A thread hangs"

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # Only flags here: a handler that takes a lock could wait for the very code it interrupted.
        self._signals += 1
        if self._signals > 1:
            os._exit(ExitCode.PROBLEM)

    def _wait(self) -> None:
        while not self._signals and not self._stop.is_set():
            if select.select([self._bell], [], [], TICK_SECONDS)[0]:
                self._bell.recv(64)
            if self._parts.breakers.refusal:
                self.end(ExitCode.REFUSED)
            if self._embedded:
                try:
                    self._embedded.check()
                except ChildDied as error:
                    log.critical("an embedded server died", reason=str(error))
                    self.end(ExitCode.PROBLEM)

    def _start_threads(self) -> None:
        parts, stop = self._parts, self._stop
        scan_or_supervise = partial(parts.watch.requests.wait, SUPERVISION_SECONDS)
        self._thread("watcher", parts.watch.step, scan_or_supervise, at_end=parts.watch.stop)
        self._thread("monitor", parts.monitor.tick, partial(stop.wait, TICK_SECONDS))
        self._thread("prober", parts.prober.step, partial(stop.wait, TICK_SECONDS))
        self._thread("auditor", parts.auditor.step, partial(stop.wait, TICK_SECONDS))
        for number in range(self._settings.upload.workers):
            self._thread(f"worker-{number + 1}", partial(parts.processor.work_once, WORKER_WAIT_SECONDS))

    def _thread(
        self,
        name: str,
        step: Callable[[], object],
        wait: Callable[[], object] = lambda: None,
        *,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        def loop() -> None:
            try:
                while not self._stop.is_set():
                    self._stepped[name] = time.monotonic()
                    step()
                    wait()
            except Exception:
                log.critical("a thread died of a bug", thread_name=name, exc_info=True)
                self.end(ExitCode.PROBLEM)
            finally:
                at_end()

        # Daemon threads: a put that hangs must not outlive the grace period.
        thread = threading.Thread(target=loop, name=f"vcu-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)  # not before: the health check would call it dead

    # ------------------------------------------------------------------ stopping

    def _stop_all(self) -> None:
        """Stop intake and workers, then give the leases back, then the pages, then the local servers."""
        deadline = time.monotonic() + self._settings.upload.shutdown_grace_seconds
        log.info("stopping", grace_seconds=self._settings.upload.shutdown_grace_seconds)
        self._stop.set()
        self._parts.schedule.close()
        self._parts.breakers.wake()
        self._parts.auditor.stop()
        self._parts.watch.requests.add()  # wakes the watcher
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
        left = [thread.name for thread in self._threads if thread.is_alive()]
        if left:
            log.warning(
                "abandoned", threads=left, reason="the grace period ended; the next start goes on there"
            )
        self._release_leases(max(deadline - time.monotonic(), LAST_RELEASE_SECONDS))
        self._server.stop()
        if self._embedded:
            self._embedded.stop(max(deadline - time.monotonic(), 5))
        log.info("stopped", exit_code=self._exit_code)

    def _release_leases(self, seconds: float) -> None:
        """Release the leases, in a thread because Redis may hang; what is left ends by itself."""
        if self._parts.breakers.works("redis") and self._parts.checkpoints.held():
            thread = threading.Thread(target=self._parts.checkpoints.release_all, daemon=True)
            thread.start()
            thread.join(seconds)

    # ------------------------------------------------------------------ health, for the pages

    def _unhealthy(self) -> dict[str, str]:
        problems = {thread.name: "dead" for thread in self._threads if not thread.is_alive()}
        now = time.monotonic()
        for name in ("watcher", "monitor"):
            silent = now - self._stepped.get(name, now)
            if silent > STALLED_SECONDS:
                problems[name] = f"no step for {silent:.0f} s"
        return problems

    def _unready(self) -> dict[str, str]:
        problems: dict[str, str] = {
            str(service): why for service, why in self._parts.breakers.failures().items()
        }
        if problem := self._parts.watch.problem():
            problems["folder"] = f"{self._settings.folder.watch_dir} {problem}"
        if self._stop.is_set():
            problems["daemon"] = "stopping"
        return problems


def give_large_blocks_back() -> None:
    """Have memory of chunks given back to the system when it is freed, where the C library can be told."""
    with suppress(AttributeError, OSError):  # musl and macOS have no mallopt
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
