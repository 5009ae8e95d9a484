"""The daemon as a process of its own: started, watched by its log and its pages, ended in every way."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from embedded import child_process
from recording.layout import BucketLayout
from recording.stream import Signature, State
from tests.support.harness import CHUNK, Harness
from tests.support.servers import RcloneS3, S3Server, ValkeyServer, wait_until

ROOT = Path(__file__).parents[2]
MAIN = ROOT / "main.py"

TIMEOUT_SECONDS = 30.0
"""For anything that takes a second on an idle machine."""

Event = dict[str, Any]


def prelude_of(values: dict[str, float]) -> str:
    """Return the prelude that changes constants of the daemon's modules; one that is not there ends it.

    Parameters:
        values: by module and name, such as `scheduling.outages.BACKOFF_CAP_SECONDS`.
    """
    modules = {name.rpartition(".")[0] for name in values}
    return "\n".join(
        [
            *(f"import {module}" for module in modules),
            *(f"{name}; {name} = {value}" for name, value in values.items()),
        ]
    )


SHORT_LEASES = prelude_of(
    {
        "redis_store.leases.TTL_MS": 3000,
        "redis_store.leases.LEASE_FRESH_SECONDS": 2.0,
        "upload.upkeep.RENEWAL_SECONDS": 1.0,
    }
)
"""The next daemon waits 3 s, not 30, for the leases of a killed one."""


class DaemonProcess:
    """`python main.py` with its log as JSON and its pages on a free port.

    Parameters:
        folder: where it runs, and `<name>.log` with all its output lies; no `.env` may be there.
        settings: its environment, beside PATH and HOME.
        arguments: of the command line.
        prelude: Python that its process runs before main.py: provokes a bug, shortens a wait.
        name: of its log.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, str],
        *arguments: str,
        prelude: str = "",
        name: str = "daemon",
    ) -> None:
        self.log_path = folder / f"{name}.log"
        self.may_fail = False
        """Whether tracebacks in its log are what the test wants."""
        self._read_bytes = 0
        self._events: list[Event] = []
        self._other_lines: list[str] = []
        program = [str(MAIN)]
        if prelude:
            run = f"import runpy; runpy.run_path({str(MAIN)!r}, run_name='__main__')"
            program = ["-c", f"{prelude}\n{run}"]
        command = [sys.executable, *program, *arguments]
        # The kernel's death signal follows the thread that starts a process, not the whole process.
        if threading.current_thread() is threading.main_thread():
            command = child_process.launched(command)
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment |= {"PYTHONPATH": str(ROOT), "LOG_FORMAT": "json", "HTTP_PORT": "0", **settings}
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    # ------------------------------------------------------------------ what it says

    def output(self) -> str:
        """All that it printed so far."""
        return self.log_path.read_text(errors="replace")

    def events(self, event: str | None = None, **fields: object) -> list[Event]:
        """Return the events of its log so far, all of them or those with this name and these values."""
        with self.log_path.open("rb") as log:
            log.seek(self._read_bytes)
            fresh = log.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            if line.startswith('{"time"'):
                self._events.append(json.loads(line))
            else:
                self._other_lines.append(line)
        wanted = fields if event is None else fields | {"event": event}
        return [found for found in self._events if wanted.items() <= found.items()]

    def other_lines(self) -> list[str]:
        """The lines that are no events: messages for the person who typed the command."""
        self.events()
        return self._other_lines

    def wait_for(
        self, event: str, *, count: int = 1, timeout_seconds: float = TIMEOUT_SECONDS, **fields: object
    ) -> Event:
        """Wait for an event, or for the `count`th of its kind, and give it."""

        def found() -> Event | None:
            matching = self.events(event, **fields)
            if len(matching) >= count:
                return matching[count - 1]
            code = self._process.poll()
            assert code is None, f"it ended with {code} before {event!r} {fields}:\n{self.output()}"
            return None

        message = f"no {event!r} {fields} within {timeout_seconds:g} s"
        try:
            event_found = wait_until(found, timeout_seconds, message)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()[-8000:]}") from None
        assert event_found
        return event_found

    # ------------------------------------------------------------------ its pages

    def get(self, path: str, *, timeout_seconds: float = 10) -> tuple[int, str]:
        """Ask for a page: status and text."""
        address = urlsplit(self.wait_for("serving")["url"])
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout_seconds)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of one series."""
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        raise AssertionError(f"there is no {name} {labels}")

    def wait_for_ready(self) -> None:
        """Wait until it says that recordings would be stored now."""
        wait_until(lambda: self.get("/readyz")[0] == 200, TIMEOUT_SECONDS, "it never became ready")

    # ------------------------------------------------------------------ its end

    @property
    def pid(self) -> int:
        return self._process.pid

    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; SIGSTOP is awaited, so that it stands still when this returns."""
        os.kill(self.pid, number)
        if number is signal.SIGSTOP:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def exit_code(self, timeout_seconds: float = TIMEOUT_SECONDS) -> int:
        """Wait for its end and give its exit code, negative for a signal."""
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            message = f"it still runs after {timeout_seconds:g} s:\n{self.output()[-8000:]}"
            raise AssertionError(message) from None

    def terminate(self) -> int:
        """Ask it to stop (SIGTERM) and give its exit code; before it serves, a signal just ends it."""
        wait_until(lambda: "serving" in self.output() or not self.running(), TIMEOUT_SECONDS)
        self.send(signal.SIGTERM)
        return self.exit_code()

    def kill(self) -> None:
        """End it at once (kill -9)."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it if it still runs, and look for bugs that nobody asked for."""
        if self.running():
            self.kill()
        if not self.may_fail:
            assert "Traceback" not in self.output(), self.output()
            assert not self.events("a thread died of a bug"), self.output()


class CountingRclone(RcloneS3):
    """An rclone that notes every put as it begins, also those that are broken off."""

    def _command(self) -> list[str]:
        return [*super()._command(), "-vv"]

    def puts(self, bucket: str, *, since: int = 0, until: int | None = None) -> Counter[str]:
        """Count the puts of each key; what the server copies by itself is none.

        Parameters:
            bucket: its name.
            since: bytes of the log before which nothing counts.
            until: bytes of the log behind which nothing counts.
        """
        mark, copied = f"serve s3: CREATE OBJECT: {bucket} ", f" TO {bucket} "
        lines = self.log_path.read_bytes()[since:until].decode(errors="replace").splitlines()
        begun = Counter(line.partition(mark)[2] for line in lines if mark in line)
        copies = [
            line.partition(copied)[2] for line in lines if "serve s3: COPY: " in line and copied in line
        ]
        return begun - Counter(copies)

    def chunk_puts(self, bucket: str, *, since: int = 0, until: int | None = None) -> Counter[str]:
        """Count the puts of each chunk, as `puts` does."""
        puts = self.puts(bucket, since=since, until=until)
        return Counter({key: count for key, count in puts.items() if key.endswith(".part")})


class Site:
    """One watched folder, its bucket and its namespace, and the daemons that work on it in turn.

    Parameters:
        base: a folder of the test's own; `base/input` is the one that is watched.
        valkey: keeps the records.
        s3: keeps the objects.
        name: of the namespace.
        bucket: None for one that is called as the namespace.
        settings: of all its daemons, beside what `environment` sets. `WATCH_DIR` and `REDIS_NAMESPACE` are
            the site's, too.
    """

    def __init__(
        self,
        base: Path,
        valkey: ValkeyServer,
        s3: S3Server,
        name: str,
        *,
        bucket: str | None = None,
        **settings: str,
    ) -> None:
        self.base, self.bucket = base, bucket or name
        self.folder = Path(settings.get("WATCH_DIR", base / "input"))
        self.namespace = settings.get("REDIS_NAMESPACE", name)
        self.valkey, self.s3 = valkey, s3
        self.folder.mkdir(exist_ok=True)
        self._settings = settings
        self.daemons: list[DaemonProcess] = []
        self.view = Harness(self.folder, valkey, s3, self.bucket, self.namespace)
        """Looks into Redis and S3; it is not stepped."""

    def environment(self) -> dict[str, str]:
        """Return the settings of a daemon that is quick to see the end of a recording."""
        return {
            "WATCH_DIR": str(self.folder),
            "CHUNK_SIZE": str(CHUNK),
            "STREAM_TIMEOUT_SECONDS": "1",
            "SCAN_INTERVAL_SECONDS": "2",
            "REDIS_URL": self.valkey.url,
            "REDIS_NAMESPACE": self.namespace,
            "S3_ENDPOINT_URL": self.s3.endpoint_url,
            "S3_BUCKET": self.bucket,
            "AWS_ACCESS_KEY_ID": self.s3.access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3.secret_key,
        } | self._settings

    def daemon(self, *arguments: str, prelude: str = "", **settings: str) -> DaemonProcess:
        """Start a daemon here; `close` ends it."""
        daemon = DaemonProcess(
            self.base,
            self.environment() | settings,
            *arguments,
            prelude=prelude,
            name=f"daemon-{len(self.daemons) + 1}",
        )
        self.daemons.append(daemon)
        return daemon

    def output(self) -> str:
        """All that its daemons printed."""
        return "".join(daemon.output() for daemon in self.daemons)

    def stored(self, *paths: str) -> bool:
        """Return whether files are complete as they are now, and nobody works on them any more."""
        return all(map(self._stored, paths))

    def _stored(self, path: str) -> bool:
        record = self.view.parts.checkpoints.find(path)
        if record is None or record.state is not State.COMPLETE:
            return False
        key = f"{{{self.namespace}}}:stream:{record.stream_id}"
        finished = self.valkey.client.hget(key, "lease_until") == b"0"
        return finished and record.settled(Signature.of((self.folder / path).stat()))

    def wait_until_stored(self, *paths: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Wait until these files are complete as they are now; the newest daemon must not end meanwhile."""

        def done() -> bool:
            assert self.daemons[-1].running(), "the daemon ended"
            return self.stored(*paths)

        try:
            wait_until(done, timeout_seconds)
        except AssertionError as error:
            left = [path for path in paths if not self._stored(path)]
            raise AssertionError(f"{error}, not stored: {left}\n{self.output()[-8000:]}") from None

    def generations(self) -> list[tuple[str, int]]:
        """Return key path and number of every generation that has a manifest."""
        layout = BucketLayout("")
        folders = [key.removesuffix("metadata.json") for key in self._manifests()]
        found = filter(None, map(layout.recording, folders))
        return [(recording.key_path, recording.generation) for recording in found]

    def _manifests(self) -> list[str]:
        """Return the key of every manifest, also of those that were superseded and kept."""
        return [key for key in self.view.keys() if "/metadata." in key and not key.startswith(".vcu/")]  # noqa: SIM118

    def unnamed_objects(self) -> set[str]:
        """Return every object of recordings that is neither a manifest nor named by one."""
        keys = {key for key in self.view.keys() if not key.startswith(".vcu/")}  # noqa: SIM118
        manifests = self._manifests()
        named = {chunk["key"] for key in manifests for chunk in json.loads(self.view.read(key))["chunks"]}
        assert named <= keys, f"manifests name objects that are not there: {named - keys}"
        return keys - named - set(manifests)

    def history(self, key: str) -> list[str]:
        """Return what its daemons said about the stream of an object, for a test that failed."""
        key_path = key.rpartition("/chunks/")[0].rpartition("/g")[0]
        lines = ((daemon.log_path.stem, line) for daemon in self.daemons for line in daemon.events())
        return [
            f"  {name} {event}"
            for name, event in lines
            if str(event.get("stream", "")).startswith(f"{key_path}@")
        ]

    def close(self) -> None:
        """End its daemons, all of them also when one has a bug to show."""
        with ExitStack() as daemons:
            for daemon in self.daemons:
                daemons.callback(daemon.close)
