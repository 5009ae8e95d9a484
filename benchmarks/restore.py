"""What a restore does in a second, beside `rclone copy` of the same chunks from the same server."""

import hashlib
import os
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.processes import Cost, Program, child_environment
from recording.layout import BucketLayout, RecordingId
from recording.stream import Chunk
from recording.timestamps import utc_now
from tests.support.archive_parts import OWNER, Shelf
from tests.support.servers import RcloneS3

MAIN = Path(__file__).resolve().parent.parent / "main.py"
BUCKET = "bench"
NAME = "recording.mp4"
CHUNK_BYTES = 10 * 1024 * 1024


class RestoreRace(NamedTuple):
    """A recording brought back again and again, by us and by a peer that only copies its chunks."""

    size: int
    ours: list[Cost]
    peers: list[Cost]

    @property
    def ratio(self) -> float:
        """Our median speed to the peer's."""
        ours, peers = (statistics.median(turn.wall_seconds for turn in turns) for turns in self[1:])
        return peers / ours


def measure(work: Path, *, chunks: int, rounds: int) -> RestoreRace:
    """Let both take turns, each with a server that was just started and has hashed nothing.

    Parameters:
        work: a folder with room for three times the recording.
        chunks: of the recording, 10 MiB each.
        rounds: how often each is measured.
    """
    server = RcloneS3(work / "s3-restore")
    try:
        server.start()
        sha256 = _fill(server, chunks)
        contenders = [_restore, _rclone]
        costs: list[list[Cost]] = [[], []]
        for number in range(rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                server.restart()
                target = work / "restored"
                target.mkdir()
                os.sync()  # what the one before left to be written is not this one's work
                costs[which].append(contenders[which](server, target))
                if _hash_of(target) != sha256:
                    raise RuntimeError("other bytes came back")
                shutil.rmtree(target)
    finally:
        server.close()
        shutil.rmtree(work / "s3-restore", ignore_errors=True)
    return RestoreRace(chunks * CHUNK_BYTES, *costs)


def _fill(server: RcloneS3, count: int) -> str:
    """Store a recording of random bytes as the daemon would; gives the SHA-256 of the whole."""
    server.client.create_bucket(Bucket=BUCKET)
    shelf = Shelf(server, BUCKET)
    layout, recording = BucketLayout(""), RecordingId(NAME, 1, OWNER)
    whole, chunks = hashlib.sha256(), []
    for index in range(count):
        body = os.urandom(CHUNK_BYTES)
        whole.update(body)
        sha256 = hashlib.sha256(body).hexdigest()
        key = layout.chunk(recording, index, sha256)
        chunks.append(Chunk(index, len(body), sha256, shelf.put(key, body), key, utc_now()))

    def spell_whole(manifest: dict[str, Any]) -> None:
        manifest["sha256"] = whole.hexdigest()

    shelf.commit(NAME, chunks, None, chunk_size=CHUNK_BYTES, spoil=spell_whole)
    return whole.hexdigest()


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
    return _run([program, "copy", f"bench:{BUCKET}/{NAME}/g0001-{OWNER}/chunks", str(target)], target, env)


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
