"""Many hands on one bucket: sites, namespaces, chunk sizes and folders that use the same names.

Two sites share a bucket and nothing else. Each has two namespaces: `shared` on a folder that both sites
watch, `own` on a folder of the site. On each namespace work two daemons with different chunk sizes. People
write the same names into all three folders and go on changing what is there, daemons are killed, and Redis is
emptied. Whatever was complete at any moment must come back in the end, from S3 alone.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from archive.generation import Recording
from archive.listing import Archive
from archive.restore import restore
from archive.target_file import open_target
from recording.layout import RecordingId
from recording.stream import Signature
from tests.support.archive_parts import Shelf
from tests.support.daemon_process import MAIN, SHORT_LEASES, DaemonProcess, Site
from tests.support.harness import CHUNK
from tests.support.servers import RcloneS3, ValkeyServer, wait_until
from tests.support.writers import sha256_of

BUCKET = "hands"
CHUNK_SIZES = (CHUNK, 8 * 1024 * 1024)
SIZES = (200_000, 300_000, 400_000, 500_000, 600_000, 700_000, CHUNK, CHUNK + 300_000, CHUNK_SIZES[1] + 1)
"""Of what is written; most recordings are small, so that there can be many."""

SETTLE_SECONDS = 300.0
_BETWEEN_KILLS = (0.5, 2.5)
_BETWEEN_LOSSES = (6.0, 15.0)
_AWAY_SECONDS = (0.0, 0.0, 4.0)


class Complete(NamedTuple):
    """What a manifest in S3, or a line in a daemon's log, once called complete."""

    key_path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Report:
    """What a drill did. `complete` are all recordings and revisions that were ever complete.

    `grown_into` are those of which the bytes are now the beginning of another one that is complete.
    """

    seed: int
    names: int
    written: int
    kills: int
    losses: int
    complete: int
    grown_into: int
    restored: int
    restored_bytes: int
    seconds: float


class Folder:
    """One folder with people at work in it. Every content that a name ever had is remembered."""

    def __init__(self, path: Path, names: list[str], rng: random.Random) -> None:
        self.path, self._names, self._rng = path, names, rng
        self.contents: dict[str, set[str]] = defaultdict(set)
        """The names by the SHA-256 of what they had."""
        self._kin = {name: {name} for name in names}
        self.changes = 0
        path.mkdir()

    def change_all(self, seconds: float) -> None:
        """Do something to the file of every name, spread over some time."""
        names, pause = self._rng.sample(self._names, len(self._names)), threading.Event()
        for name in names:
            target = self.path / name
            action = self._rng.choice(_DEEDS) if target.exists() else _written
            touched = action(self, target)
            for path in filter(Path.exists, touched):
                self.contents[sha256_of(path)].add(path.name)
            self.changes += 1
            pause.wait(seconds / len(names))

    def exchanged(self, one: str, other: str) -> None:
        """Note that the files of two names took each other's place: their recordings may go with them."""
        kin = self._kin[one] | self._kin[other]
        self._kin.update(dict.fromkeys(kin, kin))

    def ever_had(self, found: Complete) -> bool:
        """Return whether a recording's content was ever at its path, or where its file went."""
        return not self._kin[found.key_path].isdisjoint(self.contents.get(found.sha256, ()))

    def noise(self) -> bytes:
        return self._rng.randbytes(self._rng.choice(SIZES))

    def another(self, target: Path) -> Path | None:
        """Return the file of another name, if there is one."""
        there = [path for name in self._names if (path := self.path / name).exists() and path != target]
        return self._rng.choice(there) if there else None


# ---------------------------------------------------------------------- what people do


def _written(folder: Folder, target: Path) -> tuple[Path, ...]:
    target.write_bytes(folder.noise())
    return (target,)


def _replaced(folder: Folder, target: Path) -> tuple[Path, ...]:
    new = target.with_name(f".{target.name}.new")
    new.write_bytes(folder.noise())
    new.replace(target)
    return (target,)


def _rewritten_from_its_head(folder: Folder, target: Path) -> tuple[Path, ...]:
    with target.open("r+b") as file:
        file.write(folder.noise())
    return (target,)


def _grown(folder: Folder, target: Path) -> tuple[Path, ...]:
    with target.open("ab") as file:
        file.write(folder.noise())
    return (target,)


def _patched(folder: Folder, target: Path) -> tuple[Path, ...]:
    with target.open("r+b") as file:
        file.seek(40)
        file.write(os.urandom(4))
    return (target,)


def _copied_back(folder: Folder, target: Path) -> tuple[Path, ...]:
    copy = target.with_name(f".{target.name}.copy")
    copy.write_bytes(target.read_bytes())
    copy.replace(target)
    return (target,)


def _deleted(folder: Folder, target: Path) -> tuple[Path, ...]:
    target.unlink()
    return ()


def _exchanged(folder: Folder, target: Path) -> tuple[Path, ...]:
    other, aside = folder.another(target), target.with_name(f".{target.name}.aside")
    if other is None:
        return ()
    target.rename(aside)
    other.rename(target)
    aside.rename(other)
    folder.exchanged(target.name, other.name)
    return target, other


Action = Callable[[Folder, Path], tuple[Path, ...]]
_DEEDS: tuple[Action, ...] = (
    _written,
    _replaced,
    _rewritten_from_its_head,
    _grown,
    _patched,
    _copied_back,
    _deleted,
    _exchanged,
)


# ---------------------------------------------------------------------- the daemons and their troubles


class Team:
    """Two daemons with different chunk sizes on one folder and one namespace."""

    def __init__(self, base: Path, valkey: ValkeyServer, store: RcloneS3, name: str, folder: Folder) -> None:
        base.mkdir()
        self.valkey, self.folder = valkey, folder
        self.site = Site(base, valkey, store, BUCKET, WATCH_DIR=str(folder.path), REDIS_NAMESPACE=name)
        self.daemons = [self._start(size) for size in CHUNK_SIZES]

    def _start(self, chunk_size: int) -> DaemonProcess:
        return self.site.daemon(prelude=SHORT_LEASES, CHUNK_SIZE=str(chunk_size))

    def restart(self, number: int, rng: random.Random) -> None:
        """Start another daemon in the place of one that was killed, with any chunk size."""
        self.daemons[number] = self._start(rng.choice(CHUNK_SIZES))

    def settle(self) -> None:
        """Wait until every file of the folder is complete as it is now.

        Raises:
            AssertionError: a daemon ended, or it took longer than `SETTLE_SECONDS`.
        """
        left = [path.name for path in self.folder.path.glob("*.mp4")]

        def stored() -> bool:
            assert all(daemon.running() for daemon in self.daemons), self.site.output()[-8000:]
            left[:] = [name for name in left if not self.site.stored(name)]
            return not left

        try:
            wait_until(stored, SETTLE_SECONDS)
        except AssertionError:
            lines = [line for name in left[:3] for line in self.site.history(f"{name}/g/chunks/")]
            lines += [str(self.site.view.parts.checkpoints.find(name)) for name in left[:3]]
            lines += [str(Signature.of((self.folder.path / name).stat())) for name in left[:3]]
            told = "\n".join(lines[-60:])
            raise AssertionError(f"{self.site.base} did not store {left}\n{told}") from None

    def complete(self) -> Iterator[Complete]:
        """Yield all that its daemons called complete."""
        for daemon in self.site.daemons:
            for event in daemon.events("complete"):
                key_path = event["stream"].rpartition("@")[0]
                yield Complete(key_path, event["sha256"], event["size_bytes"])


class Trouble:
    """Kills daemons and empties the Redis of a site, in a thread, until `stop` is set."""

    def __init__(self, teams: list[Team], rng: random.Random) -> None:
        self._teams, self._rng = teams, rng
        self.stop = threading.Event()
        self.kills = self.losses = 0

    def run(self) -> None:
        """Cause trouble; every daemon runs again when this returns."""
        rng, loss_at = self._rng, time.monotonic() + self._rng.uniform(*_BETWEEN_LOSSES)
        while not self.stop.wait(rng.uniform(*_BETWEEN_KILLS)):
            team = rng.choice(self._teams)
            numbers = rng.choice(([0], [1], [0, 1]))
            for number in numbers:
                assert team.daemons[number].running(), team.daemons[number].output()[-8000:]
                team.daemons[number].kill()
                self.kills += 1
            if time.monotonic() > loss_at:  # also while nobody is there to notice
                rng.choice(self._teams).valkey.client.flushall()
                self.losses += 1
                loss_at = time.monotonic() + rng.uniform(*_BETWEEN_LOSSES)
            self.stop.wait(rng.choice(_AWAY_SECONDS))
            for number in numbers:
                team.restart(number, rng)


class Witness:
    """Notes every complete manifest that lies in the store's folder, in a thread, until `stop` is set."""

    def __init__(self, objects: Path) -> None:
        self._objects = objects
        self.stop = threading.Event()
        self._seen: set[tuple[str, int, int]] = set()
        self.complete: set[Complete] = set()

    def run(self) -> None:
        """Look every second."""
        while not self.stop.wait(1.0):
            self.look()

    def look(self) -> None:
        """Read the manifests that are new since the last look."""
        for path in self._objects.glob("*.mp4/g*/metadata*.json"):
            try:
                at = path.stat()
                mark = (str(path), at.st_mtime_ns, at.st_size)
                content = json.loads(path.read_bytes()) if mark not in self._seen else {}
            except (FileNotFoundError, ValueError):
                continue  # it is being replaced: the next look sees it
            self._seen.add(mark)
            if content.get("status") == "complete":
                self.complete.add(Complete(path.parts[-3], content["sha256"], content["total_size_bytes"]))


# ---------------------------------------------------------------------- the drill


def drill(
    base: Path,
    valkeys: Sequence[ValkeyServer],
    store: RcloneS3,
    *,
    names: int,
    rounds: int,
    seconds: float,
    seed: int,
) -> Report:
    """Let everybody work, let it settle, restore all that was ever complete, and compare.

    Parameters:
        base: an empty folder.
        valkeys: one for each of the two sites; nobody else's.
        store: of both; nobody else's.
        names: how many, in each of the three folders.
        rounds: how often each name is changed, each time followed by peace until all is stored.
        seconds: of a round, in which every name is changed once, daemons are killed and Redis is emptied.
        seed: of contents, actions and kills.

    Raises:
        AssertionError: a recording was lost, mixed or damaged; or it did not settle.
    """
    began, rng = time.monotonic(), random.Random(seed)
    recordings = [f"cam{number:03d}.mp4" for number in range(names)]
    shared, *own = folders = [
        Folder(base / name, recordings, random.Random(rng.random())) for name in ("shared", "one", "two")
    ]
    witness = Witness(store.data_dir / BUCKET)
    with ExitStack() as running:
        teams: list[Team] = []
        for site, (valkey, folder) in enumerate(zip(valkeys, own, strict=True)):
            for name, watched in (("shared", shared), ("own", folder)):
                teams.append(Team(base / f"site-{site}-{name}", valkey, store, name, watched))
                running.callback(teams[-1].site.close)
        troubles = [Trouble(teams, random.Random(rng.random())) for _ in range(rounds)]
        for trouble in troubles:
            _work(folders, trouble, witness, seconds)
            for team in teams:
                team.settle()
            witness.look()
        complete = witness.complete | {each for team in teams for each in team.complete()}
        for daemon in (daemon for team in teams for daemon in team.daemons):
            assert daemon.terminate() == 0
        verified = _verify(teams[0].site)
        assert verified.returncode == 0, verified.stdout[-4000:] + verified.stderr[-4000:]
    restored = list(_restored(Shelf(store, BUCKET).archive(), base / "restored", complete))
    missing = sorted(complete - {each for found in restored for each in found.complete})
    assert not missing, (
        f"{len(missing)} of {len(complete)} were complete and do not come back: {missing[:20]}"
    )
    strange = [found for found in restored if not any(each.ever_had(found.whole) for each in folders)]
    assert not strange, f"what nobody ever wrote under these names: {strange[:20]}"
    whole = {found.whole for found in restored}
    return Report(
        seed=seed,
        names=names,
        written=sum(each.changes for each in folders),
        kills=sum(each.kills for each in troubles),
        losses=sum(each.losses for each in troubles),
        complete=len(complete),
        grown_into=len(complete - whole),
        restored=len(restored),
        restored_bytes=sum(found.whole.size for found in restored),
        seconds=round(time.monotonic() - began, 1),
    )


def _work(folders: list[Folder], trouble: Trouble, witness: Witness, seconds: float) -> None:
    """Change every name once, in trouble; every daemon runs again when this returns."""
    with ThreadPoolExecutor() as pool:
        watching, causing = pool.submit(witness.run), pool.submit(trouble.run)
        try:
            for working in [pool.submit(each.change_all, seconds) for each in folders]:
                working.result()
        finally:
            trouble.stop.set()
            witness.stop.set()
        causing.result()
        watching.result()
    witness.stop.clear()


# ---------------------------------------------------------------------- from S3 alone


class Found(NamedTuple):
    """One revision that was restored; `complete` are it and all of the wanted that it begins with."""

    whole: Complete
    complete: set[Complete]


def _restored(archive: Archive, folder: Path, wanted: set[Complete]) -> Iterator[Found]:
    """Restore every complete recording of every owner, with every revision that is kept, one at a time."""
    by_path: dict[str, set[Complete]] = defaultdict(set)
    for each in wanted:
        by_path[each.key_path].add(each)
    for recording in archive.entries():
        for opened in _revisions(archive, recording):
            if opened.status != "complete":
                continue
            with open_target(str(folder), [recording.key_path], create=True) as target:
                restore(archive, opened, target, force=True)
            path = folder / recording.key_path
            found = Complete(recording.key_path, sha256_of(path), path.stat().st_size)
            yield Found(found, {found, *_beginnings(path, by_path[recording.key_path])})
            path.unlink()


def _revisions(archive: Archive, recording: RecordingId) -> Iterator[Recording]:
    yield archive.find(recording.full_name)
    _, beside = archive.store.level(archive.layout.generation(recording))
    for each in beside:
        revision = archive.layout.former_revision(recording, each.key)
        if revision is not None:
            yield archive.find(recording.full_name, revision=revision)


def _beginnings(path: Path, wanted: set[Complete]) -> Iterator[Complete]:
    """Yield those of the wanted whose bytes a file begins with: it was complete, and grew."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        for each in sorted(wanted, key=lambda one: one.size):
            whole.update(file.read(each.size - file.tell()))
            if file.tell() == each.size and whole.hexdigest() == each.sha256:
                yield each


def _verify(site: Site) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(MAIN), "verify", "--all", "--deep", "--quiet"]
    environment = {"PATH": os.environ["PATH"], **site.environment()}
    return subprocess.run(
        command, cwd=site.base, env=environment, capture_output=True, text=True, check=False, timeout=540
    )
