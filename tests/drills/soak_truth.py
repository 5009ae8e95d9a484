"""Asks the page of each daemon every second, and compares a "safe" with what lies on the disks."""

import http.client
import json
import os
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from tests.drills.soak_store import FileHashes, StoreFolder, number_of
from tests.support.writers import sha256_of
from upload.prober import MARKER_SECONDS

SCAN_INTERVAL_SECONDS = 10
"""Of all daemons of a soak."""

KNOWN_SECONDS = SCAN_INTERVAL_SECONDS + 5.0
"""After a change until a daemon must know of it. Events tell at once, but no event tells of a write through
mmap: the next full scan sees it, and takes some seconds on a busy machine. So long a page may be wrong."""

NOTICED_SECONDS = MARKER_SECONDS + 10.0
"""After the bucket was made anew until a daemon must know: it reads the marker so often, and a question
takes up to 10 s (5 to connect, 5 to answer)."""

_ASK_SECONDS = 1.0
_ANSWER_SECONDS = 5.0
_SERVING = re.compile(r'"event":\s*"serving".*?"url":\s*"([^"]+)"')
_NOTICED = ("records begin anew", "known store", "store marked")


class Blind:
    """When a daemon stood still, or its volume was away. Written by one thread, read by any."""

    def __init__(self) -> None:
        self._times: list[tuple[float, float]] = []
        self.since: float | None = None
        """When the present one began; None while there is none."""

    def begin(self) -> None:
        self.since = time.time()

    def end(self) -> None:
        if self.since is not None:
            self._times.append((self.since, time.time()))
        self.since = None

    def seconds(self, since: float, until: float) -> float:
        """Return how much of that time it was."""
        began = self.since
        times = [*self._times, *([] if began is None else [(began, until)])]
        return sum(max(min(until, end) - max(since, begin), 0.0) for begin, end in times)


class PageTruth:
    """Asks one daemon after another of one name, each second, in a thread of its own.

    Parameters:
        name: of the daemon.
        log_path: gives the log of the one that runs now.
        folder: the recordings, also while their volume is away.
        store: what is in S3.
        blind: when changes could not be seen.
        wipes: when the bucket was made anew, seconds since the epoch; it only grows.
    """

    def __init__(
        self,
        name: str,
        *,
        log_path: Callable[[], Path],
        folder: Path,
        store: StoreFolder,
        blind: list[Blind],
        wipes: list[float],
    ) -> None:
        self.name, self._log_path, self._folder = name, log_path, folder
        self._store, self._blind, self._wipes = store, blind, wipes
        self._hashes = FileHashes(sha256_of)
        self._addresses: dict[Path, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"page-{name}", daemon=True)
        self.levels: dict[str, int] = {}
        """How often each was said."""
        self.compared = 0
        """Files that were compared with the store because "safe" was said."""
        self.problems: list[str] = []
        self._error: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the asking.

        Raises:
            Exception: what went wrong in the thread.
        """
        self._stop.set()
        self._thread.join()
        if self._error:
            raise self._error

    def _run(self) -> None:
        while not self._stop.wait(_ASK_SECONDS):
            try:
                self.ask()
            except Exception as error:  # noqa: BLE001 - raised again by `stop`
                self._error = error
                return

    def ask(self) -> str:
        """Ask once, and compare; return the level that was said, "" when nobody answered."""
        asked_at = time.time()
        level = self._answer()
        self.levels[level] = self.levels.get(level, 0) + 1
        if level == "safe":
            self.problems += self._false(asked_at)
        return level

    def _answer(self) -> str:
        log_path = self._log_path()
        if log_path not in self._addresses:
            found = _SERVING.search(log_path.read_text(errors="replace"))
            if not found:
                return ""
            self._addresses[log_path] = found[1]
        address = urlsplit(self._addresses[log_path])
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", "/api/status")
            answer = json.loads(connection.getresponse().read())["answer"]
            return "safe" if answer["all_in_s3"] else str(answer["level"])
        except (OSError, http.client.HTTPException, ValueError):
            return ""  # it was killed, or stands still
        finally:
            connection.close()

    def _false(self, asked_at: float) -> list[str]:
        """Return the files that were not in S3 when the page said that all are."""
        if self._unnoticed_wipe(asked_at):
            return []
        return [
            f"{self.name} said safe at {datetime.fromtimestamp(asked_at, UTC).isoformat()}, and {path.name}"
            f" ({seen:.0f} s old) was not in S3"
            for path in sorted(self._folder.glob("*.mp4"))
            if (seen := self._seen_seconds(path, asked_at)) >= KNOWN_SECONDS
            and not self._is_stored(path)
            and self._seen_seconds(path, asked_at) >= KNOWN_SECONDS  # it was not removed or changed meanwhile
            and not self._unnoticed_wipe(asked_at)
        ]

    def _seen_seconds(self, path: Path, asked_at: float) -> float:
        """Return for how long the daemon could see a file as it is; negative for one that is not there."""
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return -1.0
        changed = max(status.st_mtime, status.st_ctime)
        return asked_at - changed - sum(blind.seconds(changed, asked_at) for blind in self._blind)

    def _is_stored(self, path: Path) -> bool:
        sha256 = self._hashes.of(path)
        self.compared += 1
        return any(
            sha256 in self._store.judge(each).complete
            for each in self._store.generations(number_of(path.name))
        )

    def _unnoticed_wipe(self, asked_at: float) -> bool:
        """Return whether the bucket was made anew so lately that the daemon need not know."""
        if not self._wipes or asked_at < self._wipes[-1]:
            return bool(self._wipes)
        wiped_at = self._wipes[-1]
        seen = asked_at - wiped_at - sum(blind.seconds(wiped_at, asked_at) for blind in self._blind)
        return seen < NOTICED_SECONDS and not self._noticed(wiped_at, asked_at)

    def _noticed(self, wiped_at: float, asked_at: float) -> bool:
        for line in self._log_path().read_text(errors="replace").splitlines():
            if any(f'"{event}"' in line for event in _NOTICED):
                at = datetime.fromisoformat(json.loads(line)["time"]).timestamp()
                if wiped_at < at < asked_at:
                    return True
        return False
