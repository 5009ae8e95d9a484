"""The sites of a soak: each with a folder, recorders, records, daemons, and the judge of all that."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from redis_store.audits import Audits
from redis_store.client import connect_url
from tests.drills.soak_judge import Judge, Recording, metric_problems, metrics_of
from tests.drills.soak_recorders import Recorders
from tests.drills.soak_store import StoreFolder, number_of
from tests.drills.soak_truth import KNOWN_SECONDS, NOTICED_SECONDS, SCAN_INTERVAL_SECONDS, Blind, PageTruth
from tests.support.daemon_process import CountingRclone, DaemonProcess, Site
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import ValkeyServer
from tests.support.slow_line import SlowLine

WORKERS = 4
"""Of each daemon."""

BUCKET = "soak"
CAMERA = "cam1"
"""The folder of all recordings at each site: names collide, and at one site it is a volume of its own."""

KEPT_SECONDS = 20.0
"""How long a recording is left in peace before it may be removed."""

SETTLE_SECONDS = 300.0


class Plan(NamedTuple):
    """What a site is: its namespace, a letter for each daemon, and what is recorded there.

    `bytes_per_second` is of each recorder. `most_live_bytes` are of recordings that are not yet removed;
    their objects need as much again.
    """

    name: str
    daemons: str
    chunk_bytes: int
    recorders: int
    bytes_per_second: float
    most_live_bytes: int


class Volume:
    """A folder that is mounted into another one, and can be away. Only root may do this.

    Parameters:
        disk: what is on it; it stays there for the recorders.
        mounted_at: a folder.
    """

    def __init__(self, disk: Path, mounted_at: Path) -> None:
        self._disk, self._mounted_at = disk, mounted_at
        self.is_mounted = False

    def mount(self) -> bool:
        """Mount it; return whether that was allowed."""
        command = ["mount", "--bind", str(self._disk), str(self._mounted_at)]
        self.is_mounted = not subprocess.run(command, capture_output=True, check=False).returncode
        return self.is_mounted

    def unmount(self) -> None:
        """Take it away, also while files in it are open."""
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self._mounted_at)], check=True)
        self.is_mounted = False


class SoakSite:
    """One site and what has happened there so far. One thread owns it.

    Parameters:
        base: an empty folder for everything of it.
        valkey: keeps its records, perhaps with those of another site.
        store: keeps its objects, with those of all others.
        plan: what it is.
        objects: the objects of the bucket as files.
        seed: of everything that is left to chance.
        wipes: when the bucket was made anew, seconds since the epoch; it grows.
        elsewhere: tells whether another site has files of a recording's number now.
        slow: whether a line that can be slow leads to S3.
    """

    def __init__(
        self,
        base: Path,
        valkey: ValkeyServer,
        store: CountingRclone,
        plan: Plan,
        *,
        objects: StoreFolder,
        seed: int,
        wipes: list[float],
        elsewhere: Callable[[int], bool],
        slow: bool = False,
    ) -> None:
        self.plan, self.valkey, self._store, self._objects = plan, valkey, store, objects
        self._running = ExitStack()
        base.mkdir(exist_ok=True)
        self.site = Site(base, valkey, store, plan.name, bucket=BUCKET, **_settings(plan))
        self._running.callback(self.site.close)
        self.line = (
            self._running.enter_context(SlowLine(store.port, bytes_per_second=float("inf"))) if slow else None
        )
        ports = {"redis": valkey.port, "s3": self.line.port if self.line else store.port}
        self.proxies = {
            (letter, service): self._running.enter_context(FaultProxy(port))
            for letter in plan.daemons
            for service, port in ports.items()
        }
        self.folder, self.volume = self._camera(base, on_volume=slow)
        self.recorders = Recorders(
            self.folder,
            seed=seed,
            threads=plan.recorders,
            bytes_per_second=plan.bytes_per_second,
            chunk_bytes=plan.chunk_bytes,
            key_folder=f"{CAMERA}/",
        )
        self.judge = Judge(
            self.site,
            objects,
            below=f"{CAMERA}/",
            chunk_bytes=plan.chunk_bytes,
            wipes=wipes,
            elsewhere=elsewhere,
        )
        self.losses: list[float] = []
        """When records were lost, in seconds since the epoch."""
        self.damaged: dict[int, float] = {}
        """Of which recordings a record was damaged, and when that happened last."""
        self.done: list[Recording] = []
        """Finished and not yet removed."""
        self.removed: list[Recording] = []
        self.kept: dict[int, tuple[int, list[str]]] = {}
        """Of those: how often the bucket had been made anew when they were removed, and their objects."""
        self.unclosed: list[str] = []
        self._audits = Audits(connect_url(valkey.url), namespace=plan.name)
        self._wipes = wipes
        self._started_at: dict[str, float] = {}
        self.blind = {letter: Blind() for letter in plan.daemons}
        self.away = Blind()
        self.daemons = {letter: self._started(letter) for letter in reversed(plan.daemons)}
        self.pages = {letter: self._page(letter) for letter in plan.daemons}

    def close(self) -> None:
        """End its daemons and connections, and take its volume away."""
        self.volume.unmount()
        self._running.close()

    def _camera(self, base: Path, *, on_volume: bool) -> tuple[Path, Volume]:
        """Make the folder of the recordings; the recorders write on the disk itself, mounted or not."""
        mounted_at, disk = self.site.folder / CAMERA, base / "disk" / CAMERA
        mounted_at.mkdir()
        disk.mkdir(parents=True)
        volume = Volume(disk, mounted_at)
        return (disk if on_volume and volume.mount() else mounted_at), volume

    # ------------------------------------------------------------------ daemons

    def saw_its_folder(self) -> bool:
        """Return whether every daemon had the time to see what is there, and that the bucket was made anew.

        What nobody has seen yet, or has a record of, cannot be known of a volume that is away.
        """
        now = time.time()
        seen = all(now - began > KNOWN_SECONDS for began in self._started_at.values())
        return seen and not any(now - wiped < NOTICED_SECONDS + KNOWN_SECONDS for wiped in self._wipes)

    def knows_alone(self) -> bool:
        """Return whether only the daemon itself can know what is on a volume that is away: Redis lost it."""
        since = self.away.since
        return since is not None and any(
            lost > since - KNOWN_SECONDS for lost in (*self.losses, *self.damaged.values())
        )

    def start(self, letter: str) -> None:
        """Start the next daemon of that letter."""
        self.daemons[letter] = self._started(letter)

    def _started(self, letter: str) -> DaemonProcess:
        self._started_at[letter] = time.time()
        proxies = {service: self.proxies[letter, service].port for service in ("redis", "s3")}
        return self.site.daemon(
            REDIS_URL=self.valkey.url.replace(f":{self.valkey.port}/", f":{proxies['redis']}/"),
            S3_ENDPOINT_URL=f"http://127.0.0.1:{proxies['s3']}",
        )

    def _page(self, letter: str) -> PageTruth:
        return PageTruth(
            letter,
            log_path=lambda: self.daemons[letter].log_path,
            folder=self.folder,
            store=self._objects,
            blind=[self.blind[letter], self.away],
            wipes=self._wipes,
        )

    # ------------------------------------------------------------------ recordings

    def has_files_of(self, number: int) -> bool:
        """Return whether there are files of a recording now."""
        return any(number_of(path.name) == number for path in self.folder.iterdir())

    def harvest(self, *, may_remove: Callable[[], bool]) -> Iterator[None]:
        """Remove recordings that were found right, with their objects, so that the disk suffices."""
        self.done += self.recorders.finished()
        live_bytes = sum(one.written_bytes for one in self.done)
        self.recorders.set_room(there_is=live_bytes < self.plan.most_live_bytes)
        for recording in [one for one in self.done if one.ended_at < time.time() - KEPT_SECONDS]:
            yield
            if not may_remove() or self._problems(recording):
                continue
            if self.judge.at_work(recording.number):
                continue
            unclosed = self.judge.unclosed(recording.number)
            # Nobody is left who could close it: not because somebody waits for S3, after so long.
            if not unclosed or recording.ended_at < time.time() - SETTLE_SECONDS:
                self.unclosed += unclosed
                self._remove(recording)

    def _problems(self, recording: Recording) -> list[str]:
        # A record that was damaged is as good as lost, at any time.
        damaged = [float("inf")] if recording.number in self.damaged else []
        return self.judge.problems(recording, self.losses + damaged)

    def _remove(self, recording: Recording) -> None:
        removable = self.judge.removable(recording.number)
        for path in recording.files:
            path.unlink()
        self.kept[recording.number] = len(self._wipes), self.judge.keys(recording.number)
        for generation in removable:
            self._objects.forget(generation)
            for key in self._objects.keys(generation):
                self._store.client.delete_object(Bucket=BUCKET, Key=key)
        self.done.remove(recording)
        self.removed.append(recording)

    def leftovers(self, recording: Recording) -> list[str]:
        """Return the objects of a removed recording that came afterwards and are surely this site's."""
        number = recording.number
        return [] if self.has_files_of(number) else self.judge.keys(number)

    def acknowledge(self) -> None:
        """Accept that what was removed is not in S3, as an operator would."""
        gone = {one.number for one in self.removed}
        for finding in self._audits.findings():
            if not finding.acknowledged_by and number_of(finding.path) in gone:
                self._audits.note(finding._replace(acknowledged_by="soak"))

    # ------------------------------------------------------------------ the end

    def unsettled(self, pending: list[Recording]) -> list[str]:
        """Return what is not right yet; `pending` loses the recordings that are."""
        pending[:] = [one for one in pending if self._problems(one)]
        found = [
            f"{self.plan.name}: recording {one.number}, {one.action or 'left alone'}: {problem}"
            for one in pending
            for problem in self._problems(one)
        ]
        return found or [f"{self.plan.name}: {problem}" for problem in self._page_problems()]

    def _page_problems(self) -> list[str]:
        self.acknowledge()
        counts = self.site.view.parts.checkpoints.counts()
        records = {str(state): count for state, count in counts.items()}
        found = self.judge.record_problems()
        for letter, daemon in self.daemons.items():
            found += [f"{letter}: {problem}" for problem in metric_problems(metrics_of(daemon), records)]
            ready, answer = daemon.get("/readyz"), daemon.get("/api/status")[1]
            if ready[0] != 200:
                found.append(f"/readyz of {letter}: {ready}")
            elif '"all_in_s3":true' not in answer.replace(" ", ""):
                found.append(f"the page of {letter}: {answer[:1000]}")
        return found


def _settings(plan: Plan) -> dict[str, str]:
    return {
        "CHUNK_SIZE": str(plan.chunk_bytes),
        "STREAM_TIMEOUT_SECONDS": "3",
        "SCAN_INTERVAL_SECONDS": str(SCAN_INTERVAL_SECONDS),
        "UPLOAD_WORKERS": str(WORKERS),
        "STORE_CHANGED": "rebuild",  # the bucket is made anew, and here is no operator to say go on
    }
