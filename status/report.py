"""The answer to "are my recordings safe?", and all that stands behind it, as the JSON of the API. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from errors import SERVICE_NAMES, hint_of
from folder.silence import Silence
from recording.stream import UNFINISHED, State
from redis_store.audits import Finding
from scheduling.backlog import Backlog
from scheduling.outages import NOT_REACHED, Outage, ServiceHealth
from status.attention import REPAIR, attention
from status.overview import Overview, StreamStatus
from status.setup import Setup
from status.spelling import clean, duration, iso, rounded, size

SCHEMA_VERSION = 2

Level = Literal["safe", "recording", "empty", "attention", "behind", "at_risk"]

SAFE: Level = "safe"
RECORDING: Level = "recording"
EMPTY: Level = "empty"

START_SECONDS = 15.0
"""Until a service that did not answer yet counts as one that does not work: a probe takes up to 10 s."""

OLD_SECONDS = 15.0
"""An older list, or none, says nothing of failures. While somebody looks it is 2 s old, of very many 10 s."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DaemonSnapshot:
    """What the daemon knows by itself, also while neither S3 nor Redis answers.

    `undone` streams are in the queue or with a worker. `overlooked` says why there may be sources that it
    does not know of, `folder` why the folder cannot be watched, `unreadable` what in it cannot be looked at,
    `unhealthy` what is wrong with which thread; "" and empty when nothing is. `findings` are those of the
    audit, None before they were read. Times are seconds since the epoch.
    """

    now: float
    started_at: float
    health: Sequence[ServiceHealth]
    outages: Sequence[Outage]
    unsafe: Backlog
    undone: int
    overlooked: str
    folder: str
    unreadable: str
    unhealthy: Mapping[str, str]
    stopping: bool
    findings: Sequence[Finding] | None
    setup: Setup
    silent: Sequence[Silence] = ()


class _Service(NamedTuple):
    name: str
    problem: str = ""
    since: float | None = None
    hint: str = ""


def report(
    snapshot: DaemonSnapshot, overview: Overview | None, *, version: str, host: str, max_streams: int
) -> Json:
    """Return the document of `/api/status`.

    Parameters:
        snapshot: as it is now.
        overview: the streams when they were last looked at; None when they never were.
        version: of the program.
        host: where it runs.
        max_streams: at most so many in the list, the first ones.
    """
    services = _services(snapshot)
    counts = overview.counts if overview else {}
    streams = overview.streams if overview else []
    all_shown = sum(counts.values())
    halted = any(service.problem and service.name != "Folder" for service in services)
    return {
        "schema_version": SCHEMA_VERSION,
        "version": version,
        "host": clean(host),
        "now": iso(snapshot.now),
        "taken_at": iso(overview.taken_at) if overview else None,
        "uptime_seconds": round(snapshot.now - snapshot.started_at),
        "answer": _answer(snapshot, services, overview),
        "services": [_described(service) for service in services],
        "setup": snapshot.setup.as_json(),
        "silent": [_silent(each, snapshot.now) for each in snapshot.silent],
        "counts": {
            "active": counts.get(State.ACTIVE, 0) + counts.get(State.FINALIZING, 0),
            "complete": counts.get(State.COMPLETE, 0),
            "incomplete": counts.get(State.INCOMPLETE, 0),
            "failed": counts.get(State.FAILED, 0),
        },
        "streams": [describe(stream, halted=halted) for stream in streams[:max_streams]],
        "streams_left_off": max(all_shown - min(len(streams), max_streams), 0),
        "findings": [_finding(each) for each in snapshot.findings or ()],
        "outages": [_told(outage) for outage in snapshot.outages],
    }


def describe(stream: StreamStatus, *, halted: bool = False) -> Json:
    """Return one stream as the API shows it.

    Parameters:
        stream: as it stands.
        halted: nothing is stored now, so what its last chunks tell of its rate is not true any more.
    """
    waits = stream.state in UNFINISHED and (halted or bool(stream.error))
    return {
        "id": clean(stream.stream_id),
        "recording": clean(stream.recording),
        "path": clean(stream.path),
        "state": str(stream.state),
        "waiting": waits,
        "generation": stream.generation,
        "revision": stream.revision,
        "size_bytes": stream.size,
        "offset_bytes": stream.offset,
        "unsafe_bytes": stream.unsafe_bytes,
        "lag_seconds": rounded(stream.lag_seconds),
        "rate_bytes_per_second": rounded(None if waits else stream.rate),
        "seconds_left": rounded(None if waits else stream.seconds_left),
        "started_at": iso(stream.started_at_ms / 1000),
        "updated_at": iso(stream.updated_at_ms / 1000),
        "modified_at": iso(stream.modified_at_ms / 1000),
        "last_chunk_at": stream.last_chunk_at,
        "repaired_chunks": stream.repaired,
        "error_kind": stream.error.kind,
        "error": clean(stream.error.message),
        "hint": REPAIR if stream.playback.unplayable else stream.error.hint,
        "owner": clean(stream.owner),
        "cancelled": stream.cancelled,
        **stream.playback.as_json(),
        "lost_bytes": stream.lost_bytes,
        "play_url": f"/play/{quote(stream.recording, errors='replace')}" if stream.offset else None,
    }


def _silent(silence: Silence, now: float) -> Json:
    name = silence.folder or "The folder"
    return {
        "folder": clean(silence.folder),
        "since": iso(silence.last_at),
        "usual_seconds": rounded(silence.usual_seconds),
        "title": f"{clean(name)} has been silent for {duration(max(now - silence.last_at, 0))}",
    }


def _finding(finding: Finding) -> Json:
    return {
        "id": clean(finding.stream_id),
        "path": clean(finding.path),
        "problems": [clean(text) for text in finding.problems],
        "problem_count": finding.problem_count,
        "found_at": finding.found_at,
        "acknowledged_by": clean(finding.acknowledged_by),
    }


def _told(outage: Outage) -> Json:
    return {
        "service": SERVICE_NAMES[outage.service],
        "began_at": iso(outage.began_at),
        "ended_at": None if outage.ended_at is None else iso(outage.ended_at),
        "reason": clean(outage.reason),
    }


# ---------------------------------------------------------------------- what works


def _described(service: _Service) -> Json:
    return {
        "name": service.name,
        "ok": not service.problem,
        "problem": clean(service.problem),
        "since": None if service.since is None else iso(service.since),
        "hint": service.hint,
    }


def _services(snapshot: DaemonSnapshot) -> list[_Service]:
    found = [_service(each, snapshot.setup) for each in snapshot.health]
    hint = "mount or create it; it is taken up within a second" if snapshot.folder else ""
    found.append(_Service("Folder", snapshot.folder, None, hint))
    unhealthy = "; ".join(f"{part}: {problem}" for part, problem in snapshot.unhealthy.items())
    if snapshot.stopping:
        return [*found, _Service("Daemon", "stopping", None, "start it again to go on")]
    hint = "if it does not end by itself, restart it: the disk may hang" if unhealthy else ""
    return [*found, _Service("Daemon", unhealthy, None, hint)]


def _service(health: ServiceHealth, setup: Setup) -> _Service:
    name = SERVICE_NAMES[health.service]
    if health.problem and setup.store_disk and setup.store_is_full:  # its own words for it are vague
        problem = f"the disk of the embedded store is full: {size(setup.store_disk.free)} are left"
        return _Service(name, problem, health.since, hint_of("full"))
    return _Service(name, health.problem, health.since, health.hint)


# ---------------------------------------------------------------------- the answer


def _answer(snapshot: DaemonSnapshot, services: Sequence[_Service], overview: Overview | None) -> Json:
    unsafe = snapshot.unsafe
    level, title, detail = _verdict(snapshot, [each for each in services if each.problem], overview)
    oldest = unsafe.oldest_seconds if unsafe.bytes else None
    all_in_s3 = level in (SAFE, EMPTY)
    silent = [_silent(each, snapshot.now)["title"] for each in snapshot.silent]
    if overview and level in (SAFE, RECORDING) and (noted := attention(overview, silent)):
        level, title, detail = "attention", noted.title, f"{noted.detail} {title}. {detail}"
    return {
        "level": level,
        "all_in_s3": all_in_s3,
        "title": title,
        "detail": clean(detail),
        "oldest_unsafe_seconds": rounded(oldest),
        "unsafe_bytes": unsafe.bytes,
    }


def _verdict(
    snapshot: DaemonSnapshot, broken: Sequence[_Service], overview: Overview | None
) -> tuple[Level, str, str]:
    failed = overview.counts.get(State.FAILED, 0) if overview else 0
    only_here = _only_here(snapshot.unsafe)
    starting = snapshot.now - snapshot.started_at < START_SECONDS
    if broken and starting and all(each.problem == NOT_REACHED for each in broken):
        return "behind", "Starting", f"S3 and Redis are asked whether they work. {only_here}"
    if broken:
        return _broken(broken, snapshot.now, only_here)
    return _not_stored(snapshot, failed, only_here) or _well(snapshot, overview, only_here)


def _not_stored(snapshot: DaemonSnapshot, failed: int, only_here: str) -> tuple[Level, str, str] | None:
    """Return what is wrong although all services work; None when nothing is."""
    if failed:
        title = "One recording cannot be stored" if failed == 1 else f"{failed} recordings cannot be stored"
        return "at_risk", title, f"The reason and what to do stand beside each. {only_here}"
    if snapshot.unsafe.away:
        return _away(snapshot.unsafe, only_here)
    damaged = [each for each in snapshot.findings or () if not each.acknowledged_by]
    if damaged:
        return "at_risk", *_not_whole(damaged, only_here)
    if snapshot.unreadable:
        detail = f"{snapshot.unreadable}. Nothing in there is stored: let the daemon read it. {only_here}"
        return "at_risk", "A part of the folder cannot be read", detail
    return None


def _away(unsafe: Backlog, only_here: str) -> tuple[Level, str, str]:
    count = "One recording" if unsafe.away == 1 else f"{unsafe.away} recordings"
    detail = f"{count}, such as {unsafe.away_path}: not ended, and the volume is not mounted. {only_here}"
    return "at_risk", "A volume is away", detail


def _well(snapshot: DaemonSnapshot, overview: Overview | None, only_here: str) -> tuple[Level, str, str]:
    unsafe = snapshot.unsafe
    if snapshot.overlooked:
        return "behind", "Looking through the folder", f"{snapshot.overlooked} {only_here}"
    if overview is None or snapshot.findings is None or snapshot.now - overview.taken_at > OLD_SECONDS:
        unread = "Whether a recording failed, or is not whole in S3, is not known yet."
        return "behind", "Reading the records", f"{unread} {only_here}"
    counts = overview.counts
    if unsafe.behind:
        return "behind", "Catching up", f"Nothing is wrong, it takes some time. {only_here}"
    unfinished = max(unsafe.sources, counts.get(State.ACTIVE, 0) + counts.get(State.FINALIZING, 0))
    if not (unfinished or snapshot.undone or any(counts.values())):
        return EMPTY, "Nothing recorded yet", f"{snapshot.setup.watching}. {snapshot.setup.note}".strip()
    title, detail, level = "Everything is in S3", _safe_detail(counts), SAFE
    if unfinished:
        title = "Recording" if unfinished == 1 else f"{unfinished} recordings are going on"
        detail, level = f"All but the newest bytes are in S3. {only_here}", RECORDING
    elif snapshot.undone:
        title, detail, level = "Looking at new files", only_here, RECORDING
    return level, title, detail


def _not_whole(damaged: Sequence[Finding], only_here: str) -> tuple[str, str]:
    first, number = damaged[0], len(damaged)
    title = "One recording is not whole in S3" if number == 1 else f"{number} recordings are not whole in S3"
    more = f", and {number - 1} more" if number > 1 else ""
    hint = "If its file is still here it is sent again; see `not whole in S3` in the log."
    return (
        title,
        f"{first.stream_id}{more}: {first.problems[0] if first.problems else ''}. {hint} {only_here}",
    )


def _safe_detail(counts: Mapping[State, int]) -> str:
    complete, incomplete = counts.get(State.COMPLETE, 0), counts.get(State.INCOMPLETE, 0)
    detail = f"Nothing waits to be stored. Complete, byte for byte: {complete}."
    if incomplete:
        detail += f" Deleted, replaced or cancelled before the end: {incomplete}; what was stored is kept."
    return detail


def _broken(broken: Sequence[_Service], now: float, only_here: str) -> tuple[Level, str, str]:
    title = " and ".join(_failing(service, now) for service in broken)
    return "at_risk", title, f"{only_here} Nothing more is stored until it works again."


def _failing(service: _Service, now: float) -> str:
    if service.since is None:
        return f"{service.name} does not work"
    return f"{service.name} has been failing for {duration(max(now - service.since, 0))}"


def _only_here(unsafe: Backlog) -> str:
    if not unsafe.bytes:
        return "No bytes are known that are only on this disk."
    of = "one recording" if unsafe.sources == 1 else f"{unsafe.sources} recordings"
    age = duration(unsafe.oldest_seconds)
    return f"{size(unsafe.bytes)} of {of} are only on this disk, the oldest for {age}."
