"""The components, made from the settings and connected; nothing runs here."""

import os
import socket
import time
import uuid
from collections.abc import Callable
from typing import NamedTuple

import metrics
from checkpoint import Checkpoints, connect
from chunk_uploader import ChunkUploader
from config import Settings
from folder.scan import ScanRequests
from folder.volumes import Volumes
from folder.watch import FolderWatch
from recording.layout import BucketLayout
from recording.manifest import Uploader
from redis_store.audits import Audits
from redis_store.requests import PendingRequests
from redis_store.store_claim import StoreClaim
from s3.bucket import ObjectStore
from scheduling.outages import CircuitBreakers
from scheduling.put_limit import PutLimit
from scheduling.schedule import Schedule
from settings.version import VERSION
from stream_monitor import StreamMonitor
from upload.audit import Auditor
from upload.crash_points import Hook, no_op
from upload.left_behind import LeftBehind
from upload.manifests import ManifestStore
from upload.prober import Prober
from upload.services import Services
from upload.site import Site
from upload.store_marker import StoreMarker
from upload.upkeep import RecordUpkeep
from video_processor import Intake, VideoProcessor

SPARE_CONNECTIONS = 4
"""Beside one for each worker: lists and reads of manifests."""


DAY_SECONDS = 86_400.0


class Parts(NamedTuple):
    """The components, connected. Whoever has them may step them: `Daemon` does so in threads."""

    site: Site
    schedule: Schedule
    breakers: CircuitBreakers
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
    clock: Callable[[], float] = time.monotonic,
    at: Hook = no_op,
    alone: bool = False,
) -> Parts:
    """Make the components from the settings and connect them; nothing is contacted yet.

    Parameters:
        settings: complete, with the addresses of Redis and S3.
        clock: monotonic seconds.
        at: called at each crash point.
        alone: no other daemon can use this Redis, so leases in it are those of dead ones.
    """
    site = _site(settings, at)
    schedule = Schedule(max_finishing=4 * settings.upload.workers, clock=clock)
    metrics.QUEUE_LENGTH.set_function(schedule.__len__)
    breakers = CircuitBreakers(schedule, clock=clock)
    marker = _marker(settings, site, breakers)
    scans, pending = ScanRequests(), PendingRequests()
    left_behind = LeftBehind(site.checkpoints, Volumes(site.root))
    upkeep = RecordUpkeep(
        site, schedule=schedule, breakers=breakers, pending=pending, left_behind=left_behind, clock=clock
    )
    timeout_seconds = settings.folder.stream_timeout_seconds
    monitor = StreamMonitor(
        site.root, timeout_seconds=timeout_seconds, schedule=schedule, scans=scans, upkeep=upkeep, clock=clock
    )
    processor = VideoProcessor(
        site,
        uploader=ChunkUploader(site, pending, left_behind),
        schedule=schedule,
        breakers=breakers,
        services=Services(site, marker=marker, breakers=breakers, scans=scans, alone=alone),
        monitor=monitor,
    )
    prober = Prober(store=site.store, marker=marker, breakers=breakers, clock=clock)
    intake = Intake(site, schedule=schedule, breakers=breakers, monitor=monitor)
    watch = FolderWatch(settings.folder, requests=scans, schedule=schedule, listener=intake, clock=clock)
    audits = Audits(connect(settings.redis), namespace=settings.redis.namespace)
    interval_seconds = settings.upload.audit_days * DAY_SECONDS
    auditor = Auditor(
        site, audits, marker, breakers, schedule, interval_seconds=interval_seconds, clock=clock
    )
    return Parts(site, schedule, breakers, monitor, processor, prober, watch, marker, auditor)


def _site(settings: Settings, at: Hook) -> Site:
    store = ObjectStore(
        settings.s3,
        connections=settings.upload.workers + SPARE_CONNECTIONS,
        puts=PutLimit(settings.upload.workers),
    )
    layout = BucketLayout(settings.s3.prefix)
    uploader = Uploader(VERSION, socket.gethostname())
    return Site(
        root=settings.folder.root,
        chunk_size=settings.upload.chunk_size,
        checkpoints=Checkpoints(
            connect(settings.redis),
            namespace=settings.redis.namespace,
            owner=f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
        ),
        store=store,
        layout=layout,
        manifests=ManifestStore(store=store, layout=layout, uploader=uploader, at=at),
        at=at,
    )


def _marker(settings: Settings, site: Site, breakers: CircuitBreakers) -> StoreMarker:
    return StoreMarker(
        store=site.store.for_probes(),
        claim=StoreClaim(connect(settings.redis), namespace=settings.redis.namespace),
        prefix=settings.s3.prefix,
        rebuild=settings.s3.store_changed == "rebuild",
        checksums=settings.s3.checksums,
        breakers=breakers,
    )
