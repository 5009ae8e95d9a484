"""What a restore does in a second, beside `rclone copy` of the same chunks from the same server."""

import argparse
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.processes import Cost, Program, child_environment
from benchmarks.report import table
from object_store import utc_now
from stream import Chunk, chunk_key, chunks_prefix
from tests.archive_parts import Shelf
from tests.servers import RcloneS3

MAIN = Path(__file__).resolve().parent.parent / "main.py"
BUCKET = "bench"
NAME = "recording.mp4"
CHUNK_BYTES = 10 * 1024 * 1024
MOST_MB = 150
"""The promise: peak memory of a restore, in MB."""


def main() -> int:
    """Measure and print; the exit code is 0 also when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200 MB and one round: a smoke test")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: 5)")
    parser.add_argument("--dir", type=Path, help="where to work, on a disk with 7 GB (default: temporary)")
    chosen = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="video-chunk-uploader-bench-", dir=chosen.dir))
    server = RcloneS3(work / "s3")
    try:
        server.start()
        sha256 = _fill(server, 20 if chosen.quick else 200)
        costs = _race(server, work, sha256, 1 if chosen.quick else chosen.rounds)
    finally:
        server.close()
        shutil.rmtree(work)
    _print(costs, (20 if chosen.quick else 200) * CHUNK_BYTES)
    return 0


def _fill(server: RcloneS3, count: int) -> str:
    """Store a recording of random bytes as the daemon would; gives the SHA-256 of the whole."""
    server.client.create_bucket(Bucket=BUCKET)
    shelf = Shelf(server, BUCKET)
    under, whole, chunks = chunks_prefix("", NAME, 1), hashlib.sha256(), []
    for index in range(count):
        body = os.urandom(CHUNK_BYTES)
        whole.update(body)
        sha256 = hashlib.sha256(body).hexdigest()
        key = chunk_key(under, index, sha256)
        chunks.append(Chunk(index, len(body), sha256, shelf.put(key, body), key, utc_now()))

    def spell_whole(manifest: dict[str, Any]) -> None:
        manifest["sha256"] = whole.hexdigest()

    shelf.commit(NAME, chunks, None, chunk_size=CHUNK_BYTES, spoil=spell_whole)
    return whole.hexdigest()


def _race(server: RcloneS3, work: Path, sha256: str, rounds: int) -> dict[str, list[Cost]]:
    """Let the contenders take turns, each with a server that was just started and has hashed nothing."""
    contenders = {"restore": _restore, "rclone copy": _rclone}
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: 1 if number % 2 else -1]:
            server.restart()
            target = work / "restored"
            target.mkdir()
            os.sync()  # what the one before left to be written is not this one's work
            costs[name].append(contenders[name](server, target))
            if _hash_of(target) != sha256:
                raise RuntimeError(f"{name} brought back other bytes")
            shutil.rmtree(target)
    return costs


def _restore(server: RcloneS3, target: Path) -> Cost:
    settings = Shelf(server, BUCKET).settings()
    command = [sys.executable, str(MAIN), "restore", NAME, "--to", str(target / NAME)]
    return _run(command, target, child_environment(**settings))


def _rclone(server: RcloneS3, target: Path) -> Cost:
    env = child_environment(
        RCLONE_CONFIG=os.devnull,
        RCLONE_CONFIG_BENCH_TYPE="s3",
        RCLONE_CONFIG_BENCH_PROVIDER="Rclone",
        RCLONE_CONFIG_BENCH_ENDPOINT=server.endpoint_url,
        RCLONE_CONFIG_BENCH_ACCESS_KEY_ID=server.access_key,
        RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY=server.secret_key,
    )
    program = str(Path(sys.executable).parent / "rclone")
    return _run([program, "copy", f"bench:{BUCKET}/{NAME}/g0001/chunks", str(target)], target, env)


def _run(command: list[str], target: Path, env: dict[str, str]) -> Cost:
    with (target.parent / "program.log").open("wb") as log:
        program = Program(command, cwd=target.parent, env=env, stdout=log, stderr=log)
        try:
            return program.wait()
        finally:
            program.kill()


def _hash_of(target: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(target.iterdir()):
        with path.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                whole.update(piece)
    return whole.hexdigest()


def _print(costs: dict[str, list[Cost]], size: int) -> None:
    rows = [["", "MB/s", "slowest", "fastest", "CPU s/GB", "peak MB"]]
    for name, turns in costs.items():
        speeds = sorted(size / 1e6 / turn.wall_seconds for turn in turns)
        cpu = statistics.median(turn.cpu_seconds for turn in turns) / (size / 1e9)
        peak = max(turn.peak_mb for turn in turns)
        figures = [f"{value:.0f}" for value in (statistics.median(speeds), speeds[0], speeds[-1])]
        rows.append([name, *figures, f"{cpu:.2f}", f"{peak:.0f}"])
    print(table(rows))
    ours, theirs = (statistics.median(t.wall_seconds for t in costs[n]) for n in ("restore", "rclone copy"))
    peak = max(turn.peak_mb for turn in costs["restore"])
    print(
        f"\nat least as fast as rclone copy: {_verdict(ours <= theirs)} ({theirs / ours:.2f} times its speed)"
    )
    print(f"peak memory at most {MOST_MB} MB: {_verdict(peak <= MOST_MB)} ({peak:.0f} MB)")


def _verdict(kept: bool) -> str:  # noqa: FBT001 - it is the only thing that it takes
    return "yes" if kept else "NO"


if __name__ == "__main__":
    sys.exit(main())
