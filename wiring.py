"""The components, made from the settings and connected; nothing runs here."""

import os
import socket
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import metrics
from checkpoint import Checkpoints, connect, describe_store
from chunk_uploader import ChunkUploader
from config import Settings
from errors import Service, StoreUnavailable
from folder.scan import ScanRequests
from folder.silence import SilentFolders
from folder.volumes import Volumes
from folder.watch import FolderWatch
from recording.layout import BucketLayout
from recording.manifest import Uploader
from redis_store.audits import Audits
from redis_store.requests import StandingOrders
from redis_store.store_claim import StoreClaim
from s3.bucket import ObjectStore
from s3.prober import Prober
from scheduling.outages import Gates
from scheduling.put_limit import PutLimit
from scheduling.schedule import Schedule
from settings.version import VERSION
from stream_monitor import Orders, StreamMonitor
from upload.audit import Auditor
from upload.commit_list import CommitList
from upload.crash_points import Hook, no_op
from upload.folder_claim import claim_folder
from upload.left_behind import LeftBehind
from upload.manifests import ManifestStore
from upload.site import Site
from upload.store_marker import StoreMarker
from upload.stored_whole import StoredRecordings
from video_processor import VideoProcessor

SPARE_CONNECTIONS = 4
"""Beside one for each worker: lists and reads of manifests."""


DAY_SECONDS = 86_400.0


class Parts(NamedTuple):
    """The components, connected. Whoever has them may step them: `Daemon` does so in threads."""

    site: Site
    schedule: Schedule
    gates: Gates
    monitor: StreamMonitor
    processor: VideoProcessor
    prober: Prober
    watch: FolderWatch
    marker: StoreMarker
    auditor: Auditor

    @property
    def checkpoints(self) -> Checkpoints:
        """The records."""
        return self.site.checkpoints

    @property
    def store(self) -> ObjectStore:
        """The bucket."""
        return self.site.store


def wire(
    settings: Settings,
    *,
    refused: Callable[[StoreUnavailable], None],
    clock: Callable[[], float] = time.monotonic,
    at: Hook = no_op,
    alone: bool = False,
) -> Parts:
    """Make the components from the settings and connect them; nothing is contacted yet.

    Parameters:
        settings: complete, with the addresses of Redis and S3.
        refused: called when a service refuses us that was never reached.
        clock: monotonic seconds.
        at: called at each crash point.
        alone: no other daemon can use this Redis, so leases in it are those of dead ones.
    """
    site = _site(settings, at)
    store, checkpoints = site.store, site.checkpoints
    schedule = Schedule(most_finishing=4 * settings.upload.workers, clock=clock)
    metrics.QUEUE_LENGTH.set_function(schedule.__len__)
    gates = Gates(waiting=schedule.__len__, clock=clock)
    marker = _marker(settings, store, gates)
    scans, standing = ScanRequests(), StandingOrders()
    orders = Orders(
        grown=schedule.grown,
        idle=schedule.idle,
        gone=schedule.gone,
        scan=scans.add,
        steered=partial(_steer, checkpoints, standing, schedule),
        outage=gates.fail,
    )
    monitor = _monitor(settings, checkpoints, gates, orders, clock)
    processor = VideoProcessor(
        checkpoints=checkpoints,
        uploader=ChunkUploader(site, standing, monitor.left_behind),
        schedule=schedule,
        gates=gates,
        probes=_probes(settings, checkpoints, store, marker, gates, alone=alone),
        monitor=monitor,
        request_scan=scans.add,
        refused=refused,
        store=store,
    )
    prober = Prober(store=store, check=marker.check, gates=gates, clock=clock)
    seen = _folder_seen(settings, checkpoints, gates)
    watch = _watch(settings, scans, schedule, processor, seen=seen, clock=clock)
    auditor = _auditor(settings, checkpoints, store, marker, gates=gates, schedule=schedule, clock=clock)
    return Parts(site, schedule, gates, monitor, processor, prober, watch, marker, auditor)


def _marker(settings: Settings, store: ObjectStore, gates: Gates) -> StoreMarker:
    return StoreMarker(
        store=store.for_probes(),
        claim=StoreClaim(connect(settings.redis), namespace=settings.redis.namespace),
        prefix=settings.s3.prefix,
        rebuild=settings.s3.store_changed == "rebuild",
        checksums=settings.s3.checksums,
        begun_anew=gates.fail,
    )


def _auditor(
    settings: Settings,
    checkpoints: Checkpoints,
    store: ObjectStore,
    marker: StoreMarker,
    *,
    gates: Gates,
    schedule: Schedule,
    clock: Callable[[], float],
) -> Auditor:
    return Auditor(
        root=_root(settings),
        checkpoints=checkpoints,
        audits=Audits(connect(settings.redis), namespace=settings.redis.namespace),
        stored=StoredRecordings(store=store.for_viewers(), layout=BucketLayout(settings.s3.prefix)),
        commits=CommitList(store=store.for_viewers(), layout=BucketLayout(settings.s3.prefix)),
        marker=marker,
        gates=gates,
        schedule=schedule,
        interval_seconds=settings.upload.audit_days * DAY_SECONDS,
        clock=clock,
    )


def _monitor(
    settings: Settings,
    checkpoints: Checkpoints,
    gates: Gates,
    orders: Orders,
    clock: Callable[[], float],
) -> StreamMonitor:
    return StreamMonitor(
        root=_root(settings),
        checkpoints=checkpoints,
        timeout_seconds=settings.folder.stream_timeout_seconds,
        orders=orders,
        left_behind=LeftBehind(checkpoints, Volumes(_root(settings))),
        redis_open=lambda: gates.open("redis"),
        clock=clock,
    )


def _steer(checkpoints: Checkpoints, standing: StandingOrders, schedule: Schedule, ids: list[str]) -> None:
    """Have a turn for each stream for which an operator ordered something."""
    found = {each.stream.path: each.stream.stream_id for each in checkpoints.records(ids)}
    standing.replace(found)
    for path in found:
        schedule.grown(path)


def _store(settings: Settings) -> ObjectStore:
    return ObjectStore(
        settings.s3,
        connections=settings.upload.workers + SPARE_CONNECTIONS,
        puts=PutLimit(settings.upload.workers),
    )


def _checkpoints(settings: Settings) -> Checkpoints:
    return Checkpoints(
        connect(settings.redis),
        namespace=settings.redis.namespace,
        owner=f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
    )


def _watch(
    settings: Settings,
    scans: ScanRequests,
    schedule: Schedule,
    processor: VideoProcessor,
    *,
    seen: Callable[[], None],
    clock: Callable[[], float],
) -> FolderWatch:
    watch = FolderWatch(
        root=_root(settings),
        patterns=settings.folder.file_patterns,
        mode=settings.folder.watch_mode,
        requests=scans,
        scan_interval_seconds=settings.folder.scan_interval_seconds,
        seen=seen,
        notice=schedule.touched,
        found=processor.found,
        scanned=processor.scanned,
        clock=clock,
    )
    if settings.folder.silent_cameras == "on":
        watch.scanner.silences = SilentFolders()
    return watch


def _folder_seen(settings: Settings, checkpoints: Checkpoints, gates: Gates) -> Callable[[], None]:
    """Make what a folder must pass before it is watched: it is the one that the records are about."""

    def seen() -> None:
        if gates.open("redis"):  # else the probe asks
            try:
                claim_folder(checkpoints, _root(settings))
            except StoreUnavailable as error:
                gates.fail(error)

    return seen


def _root(settings: Settings) -> str:
    return settings.folder.root


def _site(settings: Settings, at: Hook) -> Site:
    store, layout = _store(settings), BucketLayout(settings.s3.prefix)
    uploader = Uploader(VERSION, socket.gethostname())
    return Site(
        root=settings.folder.root,
        chunk_size=settings.upload.chunk_size,
        checkpoints=_checkpoints(settings),
        store=store,
        layout=layout,
        manifests=ManifestStore(store=store, layout=layout, uploader=uploader, at=at),
        at=at,
    )


def _probes(
    settings: Settings,
    checkpoints: Checkpoints,
    store: ObjectStore,
    marker: StoreMarker,
    gates: Gates,
    *,
    alone: bool,
) -> dict[Service, Callable[[], None]]:
    def redis() -> None:
        checkpoints.prepare(describe_store(settings.s3.bucket, settings.s3.prefix))
        checkpoints.mend_index()
        claim_folder(checkpoints, _root(settings))
        if alone and not gates.reached("redis"):
            checkpoints.end_all()

    def s3() -> None:
        store.renew_credentials()
        marker.open()

    return {"redis": redis, "s3": s3}
