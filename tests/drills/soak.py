"""A soak: three sites with one bucket, all kinds of recorders and faults; then every byte is compared."""

import heapq
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.drills import soak_faults
from tests.drills.soak_faults import Actor
from tests.drills.soak_figures import WARM_SECONDS, Growth, Sample, growth_problems, sample
from tests.drills.soak_judge import log_problems
from tests.drills.soak_sites import BUCKET, CAMERA, SETTLE_SECONDS, WORKERS, Plan, SoakSite
from tests.drills.soak_store import StoreFolder, lost_chunks
from tests.support.daemon_process import CountingRclone, DaemonProcess
from tests.support.harness import CHUNK
from tests.support.servers import ValkeyServer, wait_until

PLANS = (
    Plan("soak", "AB", CHUNK, 5, 2_000_000, 1_500_000_000),
    Plan("soak-2", "C", 7 * 1024 * 1024, 2, 2_000_000, 300_000_000),
    Plan("soak-3", "D", 10 * 1024 * 1024, 1, 1_000_000, 100_000_000),
)
"""Two namespaces on one Valkey, and a site with its own. Each has its folder; the file names are equal."""

_SAMPLE_SECONDS = 5.0
_HARVEST_SECONDS = 2.0


@dataclass
class Report:
    """What a soak did and found. `problems` is empty when every promise was kept.

    `repeated_puts` are begun puts of a chunk beyond its first, `most_repeated` one for each worker and
    each fault that can break a put off. `late_puts` are chunks that came after their commit, or after
    their recording was removed: no manifest names them. `unclosed` generations have no manifest: Redis
    had lost their record, and they had lost their file, by the same time. `pages` counts for each daemon
    what its page answered, and `compared` how many files were compared with the store when it was "safe".
    `slow_bytes` went to S3 while the line was slow.
    """

    seed: int
    minutes: float
    problems: list[str]
    journal: list[str]
    faults: dict[str, int]
    writers: dict[str, int]
    actions: dict[str, int]
    recordings: dict[str, int]
    written_bytes: int
    chunk_puts: int
    repeated_puts: int
    most_repeated: int
    late_puts: int
    unclosed: int
    pages: dict[str, dict[str, int]]
    compared: dict[str, int]
    slow_bytes: int
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
        self.store = CountingRclone(base / "rclone")
        self.valkeys = [ValkeyServer(base / "valkey"), ValkeyServer(base / "valkey-2")]
        for server in (self.store, *self.valkeys):
            self._running.callback(server.close)
            server.start()
        sizes = [plan.chunk_bytes for plan in PLANS]
        self.objects = StoreFolder(self.store.data_dir / BUCKET, below=f"{CAMERA}/", chunk_sizes=sizes)
        self.wipes: list[float] = []
        """When the bucket was made anew, in seconds since the epoch."""
        self._wiped_at_bytes: list[int] = []  # of the store's log
        self.journal: list[str] = []
        self.faults: Counter[str] = Counter()
        self.down: set[str] = set()
        self.stopped: set[str] = set()
        self.line_is_slow = False
        self.slow_bytes = 0
        """Sent to S3 while the line was slow."""
        self.samples: list[Sample] = []
        self.sites: list[SoakSite] = []
        for plan, valkey in zip(PLANS, (self.valkeys[0], *self.valkeys), strict=True):
            self.sites.append(self._site(base / plan.name, valkey, plan))

    def _site(self, base: Path, valkey: ValkeyServer, plan: Plan) -> SoakSite:
        def elsewhere(number: int) -> bool:
            return any(site.has_files_of(number) for site in self.sites if site.plan is not plan)

        site = SoakSite(
            base,
            valkey,
            self.store,
            plan,
            objects=self.objects,
            seed=self._seed,
            wipes=self.wipes,
            elsewhere=elsewhere,
            slow=plan is PLANS[-1],
        )
        self._running.callback(site.close)
        return site

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

    # ------------------------------------------------------------------ parts

    def site_of(self, letter: str) -> SoakSite:
        """Return the site of a daemon."""
        return next(site for site in self.sites if letter in site.plan.daemons)

    def lost_records(self, *valkeys: ValkeyServer) -> None:
        """Note that these servers may have lost records from now on."""
        for site in self.sites:
            if site.valkey in valkeys:
                site.losses.append(time.time())

    def make_bucket_anew(self) -> None:
        """Exchange the bucket for an empty one. The store must not run.

        What has its source must come again. What was in S3 alone is lost, and nobody's fault.
        """
        bucket = self.objects.objects
        self.objects.note_complete()
        problems = self.objects.not_restored()
        assert not problems, problems
        self.wipes.append(time.time())
        self._wiped_at_bytes.append(self.store.log_path.stat().st_size)
        self.lost_records(*self.valkeys)
        shutil.rmtree(bucket)
        bucket.mkdir()
        self.objects.forget()

    # ------------------------------------------------------------------ the run

    def run(self, minutes: float) -> Report:
        """Record under faults, let everything settle, judge.

        Parameters:
            minutes: how long recorders record and faults strike.
        """
        for daemon in self._daemons().values():
            daemon.wait_for_ready()
        self.samples.append(self._sample(self._daemons()["B"]))
        for site in self.sites:
            site.recorders.start()
            for page in site.pages.values():
                page.start()
        try:
            act([*soak_faults.all_of(self, self._seed), self._harvester(), self._sampler()], 60 * minutes)
        finally:
            for site in self.sites:
                site.recorders.stop()
        self._note("all faults are over")
        began = time.monotonic()
        problems = self._settle() + self._closing_problems(minutes)
        return self._report(minutes, problems, time.monotonic() - began)

    def _daemons(self) -> dict[str, DaemonProcess]:
        return {letter: daemon for site in self.sites for letter, daemon in sorted(site.daemons.items())}

    def _harvester(self) -> Actor:
        """Remove recordings that were found right, with their objects, so that the disk suffices."""
        while True:
            yield _HARVEST_SECONDS
            if self.down:
                continue
            self.objects.note_complete()
            for site in self.sites:
                if not self.down:
                    site.acknowledge()
                for _ in site.harvest(may_remove=lambda: not self.down):
                    yield 0.0

    def _sampler(self) -> Actor:
        """Look at B's process and at its health."""
        while True:
            yield _SAMPLE_SECONDS
            if "B" not in self.stopped:
                daemon = self._daemons()["B"]
                self.samples.append(self._sample(daemon))
                assert daemon.get("/healthz") == (200, "ok\n"), "an outage is no illness of the daemon"

    def _sample(self, daemon: DaemonProcess) -> Sample:
        return sample(daemon.pid, time.monotonic() - self._began)

    # ------------------------------------------------------------------ the end

    def _settle(self) -> list[str]:
        """Wait until nothing is wrong any more, and give what still is."""
        for site in self.sites:
            site.done += site.recorders.finished()
        pending = {site.plan.name: list(site.done) for site in self.sites}
        found: list[str] = []

        def settled() -> bool:
            self.objects.note_complete()
            found[:] = [problem for site in self.sites for problem in site.unsettled(pending[site.plan.name])]
            return not found

        try:
            wait_until(settled, SETTLE_SECONDS)
        except AssertionError:
            return found
        # Once more, now that nobody has anything to do: what was right must have stayed right.
        for site in self.sites:
            for page in site.pages.values():
                page.ask()
        self.objects.note_complete()
        again = [problem for site in self.sites for problem in site.unsettled(list(site.done))]
        return again + self.objects.not_restored()

    def _closing_problems(self, minutes: float) -> list[str]:
        """End the asking, measure both daemons of the first site, stop all, and read their logs."""
        pages = [page for site in self.sites for page in site.pages.values()]
        for page in pages:
            page.stop()
        found = [problem for page in pages for problem in page.problems]
        found += [
            f"the page of {page.name} was never safe with a file" for page in pages if not page.compared
        ]
        daemons = self._daemons()
        load = [one for one in self.samples if one.at_seconds >= min(WARM_SECONDS, 30 * minutes)]
        end = self._sample(daemons["B"])
        self.growth = Growth(self.samples[0], (load or self.samples)[0], end, self._sample(daemons["A"]))
        found += growth_problems(self.growth, WORKERS)
        for name, daemon in daemons.items():
            code = daemon.terminate()
            if code:
                found.append(f"{name} ended with exit code {code}")
        for site in self.sites:
            for daemon in site.site.daemons:
                found += [f"{site.plan.name}: {problem}" for problem in log_problems(daemon)]
                daemon.may_fail = True  # it was said
        return found

    def _epochs(self) -> Iterator[tuple[int, Counter[str]]]:
        """Yield the puts of chunks between one bucket and the next."""
        ends = [0, *self._wiped_at_bytes, self.store.log_path.stat().st_size]
        for number, (since, until) in enumerate(pairwise(ends)):
            yield number, self.store.chunk_puts(BUCKET, since=since, until=until)

    def _lost_chunks(self, site: SoakSite, epoch: int, puts: Counter[str]) -> list[str]:
        """Find what S3 had of ended recordings, in one bucket, and had not when they were removed or now."""
        kept = {number: keys for number, (at, keys) in site.kept.items() if at == epoch}
        if epoch == len(self.wipes):
            kept |= {one.number: site.judge.keys(one.number) for one in site.done}
        return [
            key
            for one in site.done + site.removed
            if one.number in kept
            for key in lost_chunks(one.ended, puts, kept[one.number])
        ]

    def _report(self, minutes: float, problems: list[str], settle_seconds: float) -> Report:
        epochs = dict(self._epochs())
        repeated = sum(puts.total() - len(puts) for puts in epochs.values())
        breaking = ("A ", "B ", "C ", "D ", "s3 ", "rclone ", "line ", "bucket ")
        most = WORKERS * sum(count for name, count in self.faults.items() if name.startswith(breaking))
        if repeated > most:
            problems = [*problems, f"{repeated} puts were repeated, and not {most} at the most"]
        for epoch, puts in epochs.items():
            lost = [key for site in self.sites for key in self._lost_chunks(site, epoch, puts)]
            problems = [*problems, *(f"{key} was stored and is not there any more" for key in lost)]
        late = [key for site in self.sites for one in site.done for key in site.judge.late_puts(one.number)]
        late += [key for site in self.sites for one in site.removed for key in site.leftovers(one)]
        if len(late) > most:
            problems = [*problems, f"{len(late)} objects belong to nothing, and not {most} at the most"]
        recordings = [one for site in self.sites for one in site.done + site.removed]
        unclosed = [
            key for site in self.sites for one in site.done for key in site.judge.unclosed(one.number)
        ]
        pages = {page.name: page for site in self.sites for page in site.pages.values()}
        return Report(
            seed=self._seed,
            minutes=minutes,
            problems=problems,
            journal=self.journal,
            faults=dict(self.faults),
            writers=dict(Counter(one.writer for one in recordings)),
            actions=dict(Counter(one.action for one in recordings if one.action)),
            recordings={site.plan.name: len(site.done + site.removed) for site in self.sites},
            written_bytes=sum(one.written_bytes for one in recordings),
            chunk_puts=sum(puts.total() for puts in epochs.values()),
            repeated_puts=repeated,
            most_repeated=most,
            late_puts=len(late),
            unclosed=len(unclosed) + sum(len(site.unclosed) for site in self.sites),
            pages={name: page.levels for name, page in pages.items()},
            compared={name: page.compared for name, page in pages.items()},
            slow_bytes=self.slow_bytes,
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
