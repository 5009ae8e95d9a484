"""MB/s, CPU seconds per GB and peak memory: the daemon against s5cmd, rclone and the AWS CLI."""

import hashlib
import json
import os
import shutil
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.daemon_process import DaemonProcess, logged_at
from benchmarks.processes import Cost, Program, child_environment, cpu_seconds, peak_mb
from tests.support.servers import RcloneS3, ValkeyServer

BUCKET = "bench"

OLD_SECONDS = 3600.0
"""Age of the files: the daemon takes them for finished at first sight, as after a copy with `cp -p`."""

TIMEOUT_SECONDS = 600.0

DAEMON = "daemon"
DAEMON_WATCHING = "daemon, from its first scan"


class Turn(NamedTuple):
    """One contender in one round. `server_cpu_seconds` is what the S3 server used meanwhile."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    server_cpu_seconds: float


@dataclass(frozen=True)
class Place:
    """Where a turn runs: the files, the new and empty server, and a folder for what the program writes."""

    files: Path
    server: RcloneS3
    valkey: ValkeyServer
    work: Path


def make_files(folder: Path, count: int, size: int) -> dict[str, str]:
    """Write files of random bytes with an old modification time; gives name and SHA-256 of each."""
    folder.mkdir()
    then = time.time() - OLD_SECONDS
    hashes = {}
    for number in range(count):
        path = folder / f"recording-{number:03d}.mp4"
        content = os.urandom(size)
        path.write_bytes(content)
        os.utime(path, (then, then))
        hashes[path.name] = hashlib.sha256(content).hexdigest()
    return hashes


# ---------------------------------------------------------------------- the contenders


def _s5cmd(place: Place) -> Cost:
    s5cmd = Path(sysconfig.get_paths()["purelib"]) / "s5cmd/bin/s5cmd"
    return _run(
        [str(s5cmd), "--endpoint-url", place.server.endpoint_url, "cp", f"{place.files}/", f"s3://{BUCKET}/"],
        place,
    )


def _rclone(place: Place) -> Cost:
    remote = {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_BENCH_TYPE": "s3",
        "RCLONE_CONFIG_BENCH_PROVIDER": "Rclone",
        "RCLONE_CONFIG_BENCH_ENDPOINT": place.server.endpoint_url,
        "RCLONE_CONFIG_BENCH_ACCESS_KEY_ID": place.server.access_key,
        "RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY": place.server.secret_key,
    }
    return _run([_script("rclone"), "copy", str(place.files), f"bench:{BUCKET}"], place, **remote)


def _aws(place: Place) -> Cost:
    command = [
        sys.executable,
        _script("aws"),
        "--endpoint-url",
        place.server.endpoint_url,
        "--region",
        "us-east-1",
    ]
    return _run(
        [*command, "s3", "cp", "--recursive", "--no-progress", str(place.files), f"s3://{BUCKET}/"], place
    )


PEERS: dict[str, Callable[[Place], Cost]] = {
    "s5cmd cp": _s5cmd,
    "rclone copy": _rclone,
    "aws s3 cp --recursive": _aws,
}
"""With their own default settings. Each command ends when all files are stored."""


def missing_peers() -> list[str]:
    """Name the peers that are not installed."""
    found = {
        "s5cmd cp": Path(sysconfig.get_paths()["purelib"]) / "s5cmd/bin/s5cmd",
        "rclone copy": Path(_script("rclone")),
        "aws s3 cp --recursive": Path(_script("aws")),
    }
    return [name for name, program in found.items() if not program.exists()]


def _script(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _run(command: list[str], place: Place, **more: str) -> Cost:
    env = child_environment(
        AWS_ACCESS_KEY_ID=place.server.access_key, AWS_SECRET_ACCESS_KEY=place.server.secret_key, **more
    )
    log_path = place.work / "peer.log"
    with log_path.open("wb") as log:
        program = Program(command, cwd=place.work, env=env, stdout=log, stderr=log)
        try:
            return program.wait()
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{log_path.read_text(errors='replace')[-2000:]}") from error
        finally:
            program.kill()


def _daemon(place: Place, workers: int) -> tuple[Cost, float]:
    """Run the daemon until every manifest is committed; gives its cost and the seconds since its first scan.

    The wall seconds count from the start of the process to the last `complete` in its log, which is
    written after the manifest was read back and the record says so; the CPU seconds are of its whole life.
    """
    server = place.server
    daemon = DaemonProcess(
        watch_dir=place.files,
        work_dir=place.work,
        redis_url=place.valkey.url,
        s3=(server.endpoint_url, server.access_key, server.secret_key, BUCKET),
        UPLOAD_WORKERS=str(workers),
    )
    try:
        files = len(list(place.files.iterdir()))
        ended = max(map(logged_at, daemon.wait_for("complete", files, TIMEOUT_SECONDS)))
        scanned = logged_at(daemon.events("watching")[0])
        highest = peak_mb(daemon.pid)
        cost = daemon.stop()
    finally:
        daemon.program.kill()
    started = daemon.program.started_at
    return Cost(ended - started, cost.cpu_seconds, max(cost.peak_mb, highest)), ended - scanned


# ---------------------------------------------------------------------- rounds


class Race:
    """Runs the contenders in turn, each on a new server with an empty bucket.

    Parameters:
        work: an empty folder on a disk.
        valkey: the daemon's.
        count: of files.
        size: of each, in bytes.
        workers: `UPLOAD_WORKERS` of the daemon.
    """

    def __init__(self, work: Path, valkey: ValkeyServer, *, count: int, size: int, workers: int) -> None:
        self._work = work
        self._valkey = valkey
        self.workers, self.count, self.size = workers, count, size
        self._files = work / "files"
        self._hashes = make_files(self._files, count, size)
        self.turns: dict[str, list[Turn]] = {name: [] for name in (DAEMON, DAEMON_WATCHING, *PEERS)}

    def run(self, rounds: int) -> None:
        """Run every contender once a round, each round beginning with another one."""
        names = [DAEMON, *PEERS]
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                print(f"  round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
                self._turn(name)

    def _turn(self, name: str) -> None:
        for path in self._files.iterdir():  # into the page cache, for everyone
            path.read_bytes()
        stored = self._work / "objects"
        server = RcloneS3(stored)
        server.start()
        try:
            server.client.create_bucket(Bucket=BUCKET)
            place = Place(self._files, server, self._valkey, self._work)
            os.sync()
            before = cpu_seconds(server.pid)
            watched = 0.0
            if name == DAEMON:
                cost, watched = _daemon(place, self.workers)
            else:
                cost = PEERS[name](place)
            server_cpu = cpu_seconds(server.pid) - before
            self._check(name, stored / BUCKET)
        finally:
            server.close()
            shutil.rmtree(stored)
        self.turns[name].append(Turn(cost.wall_seconds, cost.cpu_seconds, cost.peak_mb, server_cpu))
        if name == DAEMON:
            self.turns[DAEMON_WATCHING].append(Turn(watched, cost.cpu_seconds, cost.peak_mb, server_cpu))

    def _check(self, name: str, bucket: Path) -> None:
        """See that everything arrived: by the manifests' hashes, or by the sizes of the files."""
        if name == DAEMON:
            found = {
                manifest.parts[-3]: json.loads(manifest.read_bytes())["sha256"]
                for manifest in bucket.glob("*/g0001-*/metadata.json")
            }
            good = found == self._hashes
        else:
            good = {path.name: path.stat().st_size for path in bucket.iterdir()} == {
                path.name: path.stat().st_size for path in self._files.iterdir()
            }
        if not good:
            raise RuntimeError(f"{name} did not store everything")

    # ------------------------------------------------------------------ figures

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return self.count * self.size

    def speeds(self, name: str) -> list[float]:
        """Return MB/s of each round."""
        return [self.total_bytes / 1e6 / turn.seconds for turn in self.turns[name]]

    def fastest_peer(self) -> str:
        """Name the peer with the highest median."""
        return max(PEERS, key=lambda name: statistics.median(self.speeds(name)))

    def ratios(self, name: str) -> list[float]:
        """Return the speed of each round as a multiple of the fastest peer's in the same round."""
        pairs = zip(self.speeds(name), self.speeds(self.fastest_peer()), strict=True)
        return [mine / peers for mine, peers in pairs]
