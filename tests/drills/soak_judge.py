"""Judges what a soak leaves behind: bytes, manifests, objects, records, leases.

It reads the store's folder and the raw records, so that it trusts neither the daemon nor its S3 client.
"""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from embedded.servers import _RCLONE_LEFTOVER
from recording.layout import BucketLayout, RecordingId
from recording.stream import (
    Signature,
    State,
)
from tests.support.daemon_process import DaemonProcess, Site
from tests.support.writers import Written, sha256_of

_LAYOUT = BucketLayout("")
_NUMBER = re.compile(r"(?:before-)?([0-9]{5})-")
_UNWANTED_LEVELS = {"FATAL", "CRITICAL"}


@dataclass
class Recording:
    """One turn of a recorder: the writer, what was done to its file afterwards, what must be there now.

    Every file of it has a name with its `number`. Times are in seconds since the epoch; `files` are
    those that are left, with their SHA-256. `ended` are those whose recording a deed ended: their chunks
    as they were then, as keys begin to spell them.
    """

    number: int
    writer: str
    began_at: float
    deed: str = ""
    files: Written = field(default_factory=dict)
    ended: dict[str, list[str]] = field(default_factory=dict)
    written_bytes: int = 0
    ended_at: float = 0.0


class Verdict(NamedTuple):
    """What is to be said of one generation in the store.

    `late` are chunks that came after the commit: a put that was on its way when its daemon was stopped
    or cut off. `closed` is false where no manifest is.
    """

    problems: list[str]
    late: list[str]
    closed: bool
    sha256: str | None = None


class Judge:
    """Compares the files of a site with its store and its records.

    Parameters:
        site: its folder and its records.
        objects: the folder that holds the objects of its bucket as files.
    """

    def __init__(self, site: Site, objects: Path) -> None:
        self._site, self._objects = site, objects

    # ------------------------------------------------------------------ one recording

    def problems(self, recording: Recording, losses: list[float]) -> list[str]:
        """Give all that is not, or not yet, right about a recording.

        Parameters:
            recording: finished.
            losses: when Redis lost records (seconds since the epoch). What was unfinished then and is
                gone from the folder has nobody left who could close it.
        """
        unsettled = [problem for path in recording.files for problem in self._unsettled(path)]
        if unsettled:
            return unsettled  # its bytes are not worth the time yet
        found: list[str] = []
        verdicts = {
            generation: judge_generation(self._objects, generation)
            for generation in self.generations(recording.number)
        }
        for generation, verdict in verdicts.items():
            found += verdict.problems
            if not verdict.closed and not any(lost >= recording.began_at for lost in losses):
                found.append(f"{_LAYOUT.generation(generation)} has no manifest")
        for path, sha256 in recording.files.items():
            record = self._site.view.stream(path.name)
            verdict = verdicts.get(record.recording, Verdict([], [], closed=False))
            if sha256_of(path) != sha256:
                found.append(f"the writer of {path.name} itself went wrong")
            elif verdict.sha256 != sha256:
                found.append(f"{record.stream_id} is not the file: {verdict.sha256} and not {sha256}")
        return found

    def at_work(self, number: int) -> bool:
        """Tell whether a record of a recording is unfinished."""
        active: Any = self._site.valkey.client.zrange(f"{{{self._site.namespace}}}:active", 0, -1)
        return any(number_of(stream_id.decode()) == number for stream_id in active)

    def unclosed(self, number: int) -> list[str]:
        """Give the generations of a recording that have no manifest."""
        return [
            _LAYOUT.generation(generation)
            for generation in self.generations(number)
            if not judge_generation(self._objects, generation).closed
        ]

    def late_puts(self, number: int) -> list[str]:
        """Give the chunks of a recording that were put after its commit and that no manifest names."""
        generations = self.generations(number)
        return [key for generation in generations for key in judge_generation(self._objects, generation).late]

    def _unsettled(self, path: Path) -> list[str]:
        record = self._site.view.parts.checkpoints.find(path.name)
        if record is None:
            return [f"{path.name} has no record"]
        if record.state is not State.COMPLETE:
            return [f"{path.name} is {record.state}"]
        if not record.settled(Signature.of(path.stat())):
            return [f"{path.name} changed after it was complete"]
        return []

    def generations(self, number: int) -> list[RecordingId]:
        """Give key path and number of every generation of a recording, also under its earlier names."""
        return [
            generation
            for key_path in sorted(os.listdir(self._objects))
            if number_of(key_path) == number
            for name in sorted(os.listdir(self._objects / key_path))
            if (generation := _LAYOUT.recording(f"{key_path}/{name}/")) is not None
        ]

    def keys(self, number: int) -> list[str]:
        """Give every object of a recording."""
        return [
            str(Path(folder, name).relative_to(self._objects))
            for generation in self.generations(number)
            for folder, _, names in os.walk(self._objects / _LAYOUT.generation(generation))
            for name in names
            if not name.startswith(_RCLONE_LEFTOVER)
        ]

    # ------------------------------------------------------------------ all records

    def record_problems(self) -> list[str]:
        """Give the streams that are held or at work although there is nothing to do any more."""
        client: Any = self._site.valkey.client
        seconds, micros = client.time()
        now_us = seconds * 1_000_000 + micros
        found = []
        for key in client.scan_iter(f"{{{self._site.namespace}}}:stream:*", count=1000):
            stream_id = key.decode().partition(":stream:")[2]
            state, owner, lease_until = client.hmget(key, "state", "owner", "lease_until")
            if int(lease_until or 0) > now_us:
                found.append(f"{stream_id} is leased by {(owner or b'').decode()}")
            if state.decode() not in (State.COMPLETE, State.INCOMPLETE):
                found.append(f"{stream_id} is {state.decode()}")
        return found


def judge_generation(objects: Path, recording: RecordingId) -> Verdict:
    """Compare a generation's manifest, and those of its former revisions, with the objects that are there.

    Parameters:
        objects: the folder that holds the objects of the bucket as files.
        recording: the generation.
    """
    under = _LAYOUT.chunks(recording)
    there = {
        under + name
        for name in _names(objects / under)
        if _LAYOUT.chunk_index(recording, under + name) is not None
    }
    try:
        manifest = _manifest(objects / _LAYOUT.manifest(recording))
    except FileNotFoundError:
        return Verdict([], [], closed=not there)
    former = [
        _manifest(objects / _LAYOUT.generation(recording) / name)
        for name in _names(objects / _LAYOUT.generation(recording))
        if _LAYOUT.former_revision(recording, _LAYOUT.generation(recording) + name)
    ]
    problems = [
        problem for each in (manifest, *former) for problem in _manifest_problems(objects, each, under)
    ]
    unnamed = sorted(there - {chunk["key"] for each in (manifest, *former) for chunk in each["chunks"]})
    committed_at = datetime.fromisoformat(manifest["completed_at"]).timestamp()
    came = {key: _came_at(objects / key) for key in unnamed}
    late = [key for key, at in came.items() if at > committed_at]
    problems += [f"no manifest names {key}" for key, at in came.items() if 0 < at <= committed_at]
    return Verdict(problems, late, closed=True, sha256=manifest["sha256"])


def _manifest(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def _manifest_problems(objects: Path, manifest: dict[str, Any], under: str) -> list[str]:
    """Compare one revision with the objects that it names, which must all lie in its own folder."""
    problems, whole, total = [], hashlib.sha256(), 0
    for chunk in manifest["chunks"]:
        if not chunk["key"].startswith(under):
            problems.append(f"{chunk['key']} is named by a manifest of {under}")
        try:
            body = (objects / chunk["key"]).read_bytes()
        except FileNotFoundError:
            problems.append(f"{chunk['key']} is named by a manifest and not there")
            continue
        if (len(body), hashlib.sha256(body).hexdigest()) != (chunk["size_bytes"], chunk["sha256"]):
            problems.append(f"{chunk['key']} holds other bytes than its manifest says")
        if chunk["offset"] != total:
            problems.append(f"{chunk['key']} does not follow the chunk before it")
        whole.update(body)
        total += len(body)
    prefix = f"{manifest['prefix']} revision {manifest['revision']}"
    if total != manifest["total_size_bytes"]:
        problems.append(f"{prefix} has {total} bytes, its manifest says {manifest['total_size_bytes']}")
    if manifest["sha256"] not in (whole.hexdigest(), None):
        problems.append(f"{prefix} does not have the SHA-256 of its manifest")
    if (manifest["status"] == "complete") != (manifest["sha256"] is not None):
        problems.append(f"{prefix} is {manifest['status']} with SHA-256 {manifest['sha256']}")
    return problems


def lost_chunks(recording: Recording, puts: Iterable[str], kept: Collection[str]) -> list[str]:
    """Give the chunks that S3 had of files whose recording was ended by a deed, and has no more.

    One that was followed by a later chunk of its generation was confirmed, or that would not have come.

    Parameters:
        recording: what was done to it is `ended`.
        puts: the keys of all chunks, in the order in which they were begun.
        kept: the keys of all its objects in the end.
    """
    followed: dict[str, list[tuple[int, str]]] = {}
    lost = []
    for key in puts:
        generation, _, name = key.rpartition("/chunks/")
        chunks = recording.ended.get(generation.rpartition("/")[0])
        if chunks is None:
            continue
        index = int(name[:6])
        before = followed.setdefault(generation, [])
        lost += [old for at, old in before if at < index and old not in kept]
        before[:] = [(at, old) for at, old in before if at >= index]
        if index < len(chunks) and name[7:19] == chunks[index]:
            before.append((index, key))
    return lost


def number_of(name: str) -> int | None:
    """Tell which recording a file or key path belongs to."""
    match = _NUMBER.match(name)
    return int(match[1]) if match else None


def log_problems(daemon: DaemonProcess) -> list[str]:
    """Give the lines of a daemon's log that no fault excuses: tracebacks, bugs, what is fatal."""
    found = [
        f"{daemon.log_path.stem}: {event}"
        for event in daemon.events()
        if event["level"] in _UNWANTED_LEVELS or "bug" in event["event"] or "exception" in event
    ]
    lines = daemon.other_lines()
    return found + [
        f"{daemon.log_path.stem}: {line}" for line in lines if "Traceback" in line or "Error" in line
    ]


def metric_problems(metrics: dict[str, float], records: dict[str, int]) -> list[str]:
    """Compare the metrics of a daemon that has nothing to do with what that means.

    Parameters:
        metrics: by name, with its labels' values behind it in brackets.
        records: how many streams Redis has in each state.
    """
    wanted = {
        "video_uploader_queue_length": 0,
        "video_uploader_backlog_bytes": 0,
        "video_uploader_oldest_unsafe_byte_age_seconds": 0,
        "video_uploader_folder_watched": 1,
        "video_uploader_service_up[s3]": 1,
        "video_uploader_service_up[redis]": 1,
        **{f"video_uploader_streams[{state}]": count for state, count in records.items()},
    }
    return [
        f"{name} is {metrics.get(name)} and not {value}"
        for name, value in wanted.items()
        if metrics.get(name) != value
    ]


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _came_at(path: Path) -> float:
    """Give when an object was put; 0 when it was removed meanwhile."""
    try:
        return path.stat().st_ctime
    except FileNotFoundError:
        return 0.0
