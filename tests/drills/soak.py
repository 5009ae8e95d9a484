"""A soak: two daemons, recorders of all kinds, faults of everything at once; then every byte is compared."""

import heapq
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.drills import soak_faults
from tests.drills.soak_faults import Actor
from tests.drills.soak_figures import WARM_SECONDS, Growth, Sample, growth_problems, sample
from tests.drills.soak_judge import Judge, Recording, log_problems, lost_chunks, metric_problems
from tests.drills.soak_recorders import Recorders
from tests.support.daemon_process import CountingRclone, DaemonProcess, Site
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import ValkeyServer, wait_until

WORKERS = 4
RECORDERS = 5
BYTES_PER_SECOND = 2_000_000
MOST_LIVE_BYTES = 1_500_000_000
"""Of recordings that are not yet removed; their objects need as much again."""

KEPT_SECONDS = 20.0
"""How long a recording is left in peace before it may be removed."""

SETTLE_SECONDS = 300.0
_SAMPLE_SECONDS = 5.0
_HARVEST_SECONDS = 2.0


@dataclass
class Report:
    """What a soak did and found. `problems` is empty when every promise was kept.

    `repeated_puts` are begun puts of a chunk beyond its first, `most_repeated` one for each worker and
    each fault that can break a put off. `late_puts` are chunks that came after their commit, or after
    their recording was removed: no manifest names them. `unclosed` generations have no manifest: Redis
    had lost their record, and they had lost their file, by the same time.
    """

    seed: int
    minutes: float
    problems: list[str]
    journal: list[str]
    faults: dict[str, int]
    writers: dict[str, int]
    deeds: dict[str, int]
    recordings: int
    written_bytes: int
    chunk_puts: int
    repeated_puts: int
    most_repeated: int
    late_puts: int
    unclosed: int
    settle_seconds: float
    growth: Growth


class Soak:
    """The parts of a soak, and what has happened to them so far. One thread owns it.

    Parameters:
        base: an empty folder for everything; a failed soak can be looked at there.
        seed: of everything that is left to chance.
        tell: is given each line of the journal.
    """

    def __init__(self, base: Path, *, seed: int, tell: Callable[[str], None] = lambda _: None) -> None:
        self._seed, self._tell, self._began = seed, tell, time.monotonic()
        self._running = ExitStack()
        self.valkey, self.store = ValkeyServer(base / "valkey"), CountingRclone(base / "rclone")
        for server in (self.valkey, self.store):
            self._running.callback(server.close)
            server.start()
        settings = {
            "STREAM_TIMEOUT_SECONDS": "3",
            "SCAN_INTERVAL_SECONDS": "10",
            "UPLOAD_WORKERS": str(WORKERS),
        }
        self.site = Site(base, self.valkey, self.store, "soak", **settings)
        self._running.callback(self.site.close)
        ports = {"redis": self.valkey.port, "s3": self.store.port}
        self.proxies = {
            (name, service): self._running.enter_context(FaultProxy(port))
            for name in "AB"
            for service, port in ports.items()
        }
        self.recorders = Recorders(
            self.site.folder, seed=seed, threads=RECORDERS, bytes_per_second=BYTES_PER_SECOND
        )
        self.judge = Judge(self.site, self.store.data_dir / "soak")
        self.journal: list[str] = []
        self.faults: Counter[str] = Counter()
        self.down: set[str] = set()
        self.stopped: set[str] = set()
        self.losses: list[float] = []
        """When records were lost, in seconds since the epoch."""
        self.done: list[Recording] = []
        """Finished and not yet removed."""
        self.removed: list[Recording] = []
        self.kept: dict[int, list[str]] = {}
        """The objects of those, when they were removed."""
        self.unclosed: list[str] = []
        self.samples: list[Sample] = []
        self.daemons: list[DaemonProcess] = []
        self.b = self._start("B")
        self.start_a()

    def close(self) -> None:
        """End everything."""
        self._running.close()

    def say(self, event: str, details: str = "") -> None:
        """Count an event and write it into the journal."""
        self.faults[event] += 1
        self._note(f"{event} {details}".rstrip())

    def _note(self, text: str) -> None:
        line = f"{time.monotonic() - self._began:7.1f} s  {text}"
        self.journal.append(line)
        self._tell(line)

    def lost_records(self) -> None:
        """Note that Redis may have lost records from now on."""
        self.losses.append(time.time())

    # ------------------------------------------------------------------ parts

    def start_a(self) -> None:
        self.a = self._start("A")

    def _start(self, name: str) -> DaemonProcess:
        proxies = {service: self.proxies[name, service].port for service in ("redis", "s3")}
        daemon = self.site.daemon(
            REDIS_URL=self.valkey.url.replace(f":{self.valkey.port}/", f":{proxies['redis']}/"),
            S3_ENDPOINT_URL=f"http://127.0.0.1:{proxies['s3']}",
        )
        self.daemons.append(daemon)
        return daemon

    # ------------------------------------------------------------------ the run

    def run(self, minutes: float) -> Report:
        """Record under faults, let everything settle, judge.

        Parameters:
            minutes: how long recorders record and faults strike.
        """
        for daemon in (self.a, self.b):
            daemon.wait_for_ready()
        self.samples.append(self._sample(self.b))
        self.recorders.start()
        try:
            act([*soak_faults.all_of(self, self._seed), self._harvester(), self._sampler()], 60 * minutes)
        finally:
            self.recorders.stop()
        self._note("all faults are over")
        self.done += self.recorders.finished()
        began = time.monotonic()
        problems = self._settle() + self._closing_problems(minutes)
        return self._report(minutes, problems, time.monotonic() - began)

    def _harvester(self) -> Actor:
        """Remove recordings that were found right, with their objects, so that the disk suffices."""
        while True:
            yield _HARVEST_SECONDS
            self.done += self.recorders.finished()
            self.recorders.set_room(there_is=sum(one.written_bytes for one in self.done) < MOST_LIVE_BYTES)
            for recording in [one for one in self.done if one.ended_at < time.time() - KEPT_SECONDS]:
                yield 0.0
                if self.down or self.judge.problems(recording, self.losses):
                    continue
                if self.judge.at_work(recording.number):
                    continue
                unclosed = self.judge.unclosed(recording.number)
                # Nobody is left who could close it: not because somebody waits for S3, after so long.
                if not unclosed or recording.ended_at < time.time() - SETTLE_SECONDS:
                    self.unclosed += unclosed
                    self._remove(recording)

    def _remove(self, recording: Recording) -> None:
        for path in recording.files:
            path.unlink()
        self.kept[recording.number] = self.judge.keys(recording.number)
        for key in self.kept[recording.number]:
            self.store.client.delete_object(Bucket=self.site.bucket, Key=key)
        self.done.remove(recording)
        self.removed.append(recording)

    def _sampler(self) -> Actor:
        """Look at B's process and at its health."""
        while True:
            yield _SAMPLE_SECONDS
            if "B" not in self.stopped:
                self.samples.append(self._sample(self.b))
                assert self.b.get("/healthz") == (200, "ok\n"), "an outage is no illness of the daemon"

    def _sample(self, daemon: DaemonProcess) -> Sample:
        return sample(daemon.pid, time.monotonic() - self._began)

    # ------------------------------------------------------------------ the end

    def _settle(self) -> list[str]:
        """Wait until nothing is wrong any more, and give what still is."""
        found: list[str] = []
        pending = list(self.done)

        def settled() -> bool:
            nonlocal pending
            pending = [one for one in pending if self.judge.problems(one, self.losses)]
            found[:] = self.judge.record_problems() + self._page_problems()
            return not pending and not found

        try:
            wait_until(settled, SETTLE_SECONDS)
        except AssertionError:
            return found + [
                f"recording {one.number}, {one.deed or 'left alone'}: {problem}"
                for one in pending
                for problem in self.judge.problems(one, self.losses)
            ]
        # Once more, now that nobody has anything to do: what was right must have stayed right.
        return [problem for one in self.done for problem in self.judge.problems(one, self.losses)]

    def _page_problems(self) -> list[str]:
        records = self.site.view.parts.checkpoints.counts()
        found = metric_problems(metrics_of(self.b), {str(state): count for state, count in records.items()})
        return found + [
            f"/readyz of {name}: {daemon.get('/readyz')}"
            for name, daemon in (("A", self.a), ("B", self.b))
            if daemon.get("/readyz")[0] != 200
        ]

    def _closing_problems(self, minutes: float) -> list[str]:
        """Measure both daemons, stop them, and read their logs."""
        load = [one for one in self.samples if one.at_seconds >= min(WARM_SECONDS, 30 * minutes)]
        end = self._sample(self.b)
        self.growth = Growth(self.samples[0], (load or self.samples)[0], end, self._sample(self.a))
        found = growth_problems(self.growth, WORKERS)
        for name, daemon in (("A", self.a), ("B", self.b)):
            code = daemon.terminate()
            if code:
                found.append(f"{name} ended with exit code {code}")
        for daemon in self.daemons:
            found += log_problems(daemon)
            daemon.may_fail = True  # it was said
        return found

    def _report(self, minutes: float, problems: list[str], settle_seconds: float) -> Report:
        puts = self.store.chunk_puts(self.site.bucket)
        repeated = puts.total() - len(puts)
        breaking = ("A ", "B ", "s3 ", "rclone ")
        most = WORKERS * sum(count for name, count in self.faults.items() if name.startswith(breaking))
        if repeated > most:
            problems = [*problems, f"{repeated} puts were repeated, and not {most} at the most"]
        recordings = self.done + self.removed
        kept = {one.number: self.judge.keys(one.number) for one in self.done} | self.kept
        lost = [key for one in recordings for key in lost_chunks(one, puts, kept[one.number])]
        problems = [*problems, *(f"{key} was stored and is not there any more" for key in lost)]
        late = [key for one in self.done for key in self.judge.late_puts(one.number)]
        late += [key for one in self.removed for key in self.judge.keys(one.number)]
        if len(late) > most:
            problems = [*problems, f"{len(late)} objects belong to nothing, and not {most} at the most"]
        return Report(
            seed=self._seed,
            minutes=minutes,
            problems=problems,
            journal=self.journal,
            faults=dict(self.faults),
            writers=dict(Counter(one.writer for one in recordings)),
            deeds=dict(Counter(one.deed for one in recordings if one.deed)),
            recordings=len(recordings),
            written_bytes=sum(one.written_bytes for one in recordings),
            chunk_puts=puts.total(),
            repeated_puts=repeated,
            most_repeated=most,
            late_puts=len(late),
            unclosed=len(self.unclosed) + sum(len(self.judge.unclosed(one.number)) for one in self.done),
            settle_seconds=round(settle_seconds, 1),
            growth=self.growth,
        )


def act(actors: list[Actor], seconds: float) -> None:
    """Step each actor whenever the seconds that it yielded are over; end them all after `seconds`."""
    ends_at, pause = time.monotonic() + seconds, threading.Event()
    due = [(time.monotonic(), number) for number in range(len(actors))]
    try:
        while due and due[0][0] < ends_at:
            at, number = heapq.heappop(due)
            pause.wait(max(0.0, at - time.monotonic()))
            heapq.heappush(due, (time.monotonic() + next(actors[number]), number))
    finally:
        for actor in actors:
            actor.close()


def metrics_of(daemon: DaemonProcess) -> dict[str, float]:
    """Read `/metrics`: the values by name, with its label's value in brackets."""
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(daemon.get("/metrics")[1])
        for sample in family.samples
    }
