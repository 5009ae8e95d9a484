"""The daemon as a user starts it, as a process of its own, and what its log and its pages say."""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.processes import Cost, Program, child_environment

MAIN = Path(__file__).resolve().parent.parent / "main.py"

Event = dict[str, Any]


class DaemonProcess:
    """`python main.py`, started at once.

    Parameters:
        watch_dir: the folder with the recordings.
        work_dir: where it runs; must hold no `.env`.
        redis_url: of the Valkey.
        s3: endpoint URL, access key, secret key and bucket.
        namespace: the one with the records; a new one by default.
        settings: more of the daemon's settings.
    """

    def __init__(
        self,
        *,
        watch_dir: Path,
        work_dir: Path,
        redis_url: str,
        s3: tuple[str, str, str, str],
        namespace: str = "",
        **settings: str,
    ) -> None:
        self.namespace = namespace or f"bench-{uuid4().hex}"
        endpoint_url, access_key, secret_key, bucket = s3
        env = child_environment(
            WATCH_DIR=str(watch_dir),
            REDIS_URL=redis_url,
            REDIS_NAMESPACE=self.namespace,
            S3_ENDPOINT_URL=endpoint_url,
            S3_BUCKET=bucket,
            AWS_ACCESS_KEY_ID=access_key,
            AWS_SECRET_ACCESS_KEY=secret_key,
            HTTP_PORT="0",
            LOG_FORMAT="json",
            **settings,
        )
        self._changed = threading.Condition()
        self._events: list[Event] = []  # guarded by _changed
        self._closed = False  # likewise
        self.program = Program(
            [sys.executable, str(MAIN)],
            cwd=work_dir,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.program.pid

    def events(self, name: str) -> list[Event]:
        """Return the events of one name so far, in order."""
        with self._changed:
            return [event for event in self._events if event["event"] == name]

    def wait_for(self, name: str, count: int, timeout_seconds: float) -> list[Event]:
        """Wait until an event was logged so often.

        Raises:
            RuntimeError: the daemon ended, or it took too long; with the end of its log.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while len(found := [event for event in self._events if event["event"] == name]) < count:
                if self._closed or not self._changed.wait(max(deadline - time.monotonic(), 0)):
                    last = "\n".join(map(str, self._events[-20:]))
                    raise RuntimeError(f"{len(found)} of {count} times {name!r} in the log:\n{last}")
        return found

    def metrics(self) -> dict[str, float]:
        """Read its `/metrics`: series with labels, as text, and value."""
        lines = self._get("/metrics").decode().splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
        return {name: float(value) for name, value in pairs}

    def look_at_page(self) -> None:
        """Ask what an open status page asks."""
        self._get("/api/status")

    def _get(self, path: str) -> bytes:
        url = self.wait_for("serving", 1, 30)[0]["url"]
        with urllib.request.urlopen(url + path, timeout=10) as reply:  # noqa: S310 - our own daemon's page
            found: bytes = reply.read()
        return found

    def stop(self) -> Cost:
        """Ask it to stop and give what it cost in all."""
        self.program.terminate()
        cost = self.program.wait()
        self._reader.join()
        return cost

    def _read(self) -> None:
        for line in self.program.lines():
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": "no log line", "text": line.decode(errors="replace")}
            with self._changed:
                self._events.append(event)
                self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def logged_at(event: Event) -> float:
    """Return the time of a log line as seconds since the epoch, to the millisecond."""
    return datetime.fromisoformat(event["time"]).timestamp()
