"""Judges what a soak leaves behind at one site: bytes, manifests, objects, records, leases.

It reads the store's folder and the raw records, so that it trusts neither the daemon nor its S3 client.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from recording.layout import BucketLayout, RecordingId
from recording.stream import Signature, State
from tests.drills.soak_store import StoreFolder, Verdict, number_of
from tests.drills.soak_truth import NOTICED_SECONDS
from tests.support.daemon_process import DaemonProcess, Site
from tests.support.harness import CHUNK
from tests.support.writers import Written, sha256_of

_LAYOUT = BucketLayout("")
COMMIT_SECONDS = 30.0
"""For a commit that began before a daemon noticed that the bucket was made anew."""

_UNWANTED_LEVELS = {"FATAL", "CRITICAL"}


@dataclass
class Recording:
    """One turn of a recorder: the writer, what was done to its file afterwards, what must be there now.

    Every file of it has a name with its `number`. Times are in seconds since the epoch; `files` are
    those that are left, with their SHA-256. `ended` are those whose recording a action ended: their chunks
    as they were then, as keys begin to spell them.
    """

    number: int
    writer: str
    began_at: float
    action: str = ""
    files: Written = field(default_factory=dict)
    ended: dict[str, list[str]] = field(default_factory=dict)
    written_bytes: int = 0
    ended_at: float = 0.0


class Judge:
    """Compares the files of a site with its store and its records.

    Parameters:
        site: its folder and its records.
        store: the objects of its bucket, perhaps with those of other sites.
        below: where in its folder the recordings lie, empty or ending in `/`.
        chunk_bytes: of its daemons; no other site of the bucket has the same.
        wipes: when the bucket was made anew, seconds since the epoch.
        elsewhere: tells whether another site has files of a recording's number now.
    """

    def __init__(
        self,
        site: Site,
        store: StoreFolder,
        *,
        below: str = "",
        chunk_bytes: int = CHUNK,
        wipes: Sequence[float] = (),
        elsewhere: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self._site, self._store, self._below = site, store, below
        self._chunk_bytes, self._wipes, self._elsewhere = chunk_bytes, wipes, elsewhere

    # ------------------------------------------------------------------ one recording

    def problems(self, recording: Recording, losses: list[float]) -> list[str]:
        """Return all that is not, or not yet, right about a recording.

        Parameters:
            recording: finished.
            losses: when Redis lost records (seconds since the epoch). What was unfinished then and is
                gone from the folder has nobody left who could close it.
        """
        unsettled = [problem for path in recording.files for problem in self._unsettled(path)]
        if unsettled:
            return unsettled  # its bytes are not worth the time yet
        found: list[str] = []
        for generation in self._generations(recording.number):
            verdict = self._store.judge(generation)
            found += [] if self._was_cut_off(verdict) else verdict.problems
            if not verdict.closed and not any(lost >= recording.began_at for lost in losses):
                found.append(f"{_LAYOUT.generation(generation)} has no manifest")
        for path, sha256 in recording.files.items():
            record = self._site.view.parts.checkpoints.find(self._below + path.name)
            if record is None:  # lost this very moment
                found.append(f"{path.name} has no record")
                continue
            stored = self._store.judge(record.recording)
            if sha256_of(path) != sha256:
                found.append(f"the writer of {path.name} itself went wrong")
            elif stored.sha256 != sha256:
                found.append(f"{record.stream_id} is not the file: {stored.sha256} and not {sha256}")
            found += stored.problems
        return found

    def at_work(self, number: int) -> bool:
        """Return whether a record of a recording is unfinished."""
        active: Any = self._site.valkey.client.zrange(f"{{{self._site.namespace}}}:active", 0, -1)
        return any(number_of(stream_id.decode()) == number for stream_id in active)

    def unclosed(self, number: int) -> list[str]:
        """Return the generations of a recording that have no manifest."""
        return [
            _LAYOUT.generation(generation)
            for generation in self._generations(number)
            if not self._store.judge(generation).closed
        ]

    def late_puts(self, number: int) -> list[str]:
        """Return the chunks of a recording that were put after its commit and that no manifest names."""
        return [key for generation in self._generations(number) for key in self._store.judge(generation).late]

    def removable(self, number: int) -> list[RecordingId]:
        """Return the generations of a recording that no other site can need.

        An empty file of the same name may have been adopted, and a tail alone does not tell whose it is.
        """
        return [
            generation
            for generation in self._generations(number)
            if not self._elsewhere(number)
            or (self._store.judge(generation).chunk_bytes and len(self._store.keys(generation)) > 1)
        ]

    def keys(self, number: int) -> list[str]:
        """Return every object of a recording."""
        return [key for generation in self._generations(number) for key in self._store.keys(generation)]

    def _generations(self, number: int) -> list[RecordingId]:
        """Return the generations of a recording that are this site's, or can be: a tail tells nothing."""
        return [
            generation
            for generation in self._store.generations(number)
            if self._store.judge(generation).chunk_bytes in (self._chunk_bytes, None)
        ]

    def _was_cut_off(self, verdict: Verdict) -> bool:
        """Return whether a commit was under way when the bucket was exchanged, or was soon after it.

        Its manifest lies in the new bucket, and chunks that it names went with the old one. Nobody knows of
        it any more, and no file is held by it, or its problems are told with those of the file.
        """
        at = verdict.committed_at
        return any(wiped < at < wiped + NOTICED_SECONDS + COMMIT_SECONDS for wiped in self._wipes)

    def _unsettled(self, path: Path) -> list[str]:
        name = path.name
        record = self._site.view.parts.checkpoints.find(self._below + name)
        if record is None:
            return [f"{name} has no record"]
        if record.state is not State.COMPLETE:
            return [f"{name} is {record.state}"]
        if not record.settled(Signature.of(path.stat())):
            return [f"{name} changed after it was complete"]
        return []

    # ------------------------------------------------------------------ all records

    def record_problems(self) -> list[str]:
        """Return the streams that are held or at work although there is nothing to do any more."""
        client: Any = self._site.valkey.client
        now_us, found = time.time() * 1e6, []
        for key in client.scan_iter(f"{{{self._site.namespace}}}:stream:*", count=1000):
            stream_id = key.decode().partition(":stream:")[2]
            fields = client.hmget(key, "state", "owner", "lease_until")
            state, owner, lease_until = ((each or b"").decode(errors="replace") for each in fields)
            if lease_until.isdecimal() and int(lease_until) > now_us:
                found.append(f"{stream_id} is leased by {owner}")
            if state not in (State.COMPLETE, State.INCOMPLETE):
                found.append(f"{stream_id} is {state}")
        return found


def log_problems(daemon: DaemonProcess) -> list[str]:
    """Return the lines of a daemon's log that no fault excuses: tracebacks, bugs, what is fatal."""
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


def metrics_of(daemon: DaemonProcess) -> dict[str, float]:
    """Read `/metrics`: the values by name, with its label's value in brackets."""
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(daemon.get("/metrics")[1])
        for sample in family.samples
    }
