"""All Prometheus series of the daemon. No file names in labels: a label is one of a few fixed words."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_NS = "video_uploader"

BUILD = Info("build", "Version of the daemon.", namespace=_NS, registry=REGISTRY)

STREAMS = Gauge("streams", "Streams by state.", ["state"], namespace=_NS, registry=REGISTRY)
BACKLOG_BYTES = Gauge(
    "backlog_bytes",
    "Bytes of known sources that are not yet in S3, without those of failed recordings.",
    namespace=_NS,
    registry=REGISTRY,
)
FAILED_BYTES = Gauge(
    "failed_bytes", "Bytes of failed recordings that are not in S3.", namespace=_NS, registry=REGISTRY
)
OLDEST_UNSAFE_AGE = Gauge(
    "oldest_unsafe_byte_age_seconds",
    "Age of the oldest byte that is not yet in S3, also of failed recordings; 0 when there is none.",
    namespace=_NS,
    registry=REGISTRY,
)
OLDEST_WAITING_AGE = Gauge(
    "oldest_waiting_byte_age_seconds",
    "Age of the oldest byte that waits to be sent to S3; 0 when there is none.",
    namespace=_NS,
    registry=REGISTRY,
)

SOURCES_AWAY = Gauge(
    "sources_away",
    "Unfinished sources whose volume is not mounted.",
    namespace=_NS,
    registry=REGISTRY,
)

UNPLAYABLE = Gauge(
    "unplayable_recordings",
    "Recordings that ended within the last day and that no player can open.",
    namespace=_NS,
    registry=REGISTRY,
)

DISK_FREE = Gauge(
    "disk_free_bytes", "Room on the disk of the watched folder.", namespace=_NS, registry=REGISTRY
)
DISK_SIZE = Gauge(
    "disk_size_bytes", "Size of the disk of the watched folder.", namespace=_NS, registry=REGISTRY
)

SILENT_FOLDERS = Gauge(
    "silent_folders",
    "Folders of cameras in which nothing was recorded for much longer than usual.",
    namespace=_NS,
    registry=REGISTRY,
)

CHUNKS_UPLOADED = Counter(
    "chunks_uploaded", "Chunks put into S3 and confirmed.", namespace=_NS, registry=REGISTRY
)
UPLOADED_BYTES = Counter("uploaded_bytes", "Bytes of those chunks.", namespace=_NS, registry=REGISTRY)
CHUNKS_ADOPTED = Counter(
    "chunks_adopted", "Chunks found in S3 already and not sent again.", namespace=_NS, registry=REGISTRY
)
CHUNKS_COPIED = Counter(
    "chunks_copied",
    "Chunks that S3 copied from an earlier generation, without sending them.",
    namespace=_NS,
    registry=REGISTRY,
)
DAMAGED_RECORDS = Counter(
    "damaged_records",
    "Records in Redis that could not be true; S3 was asked instead.",
    namespace=_NS,
    registry=REGISTRY,
)
CHUNKS_REPAIRED = Counter(
    "chunks_repaired",
    "Chunks sent again because the recorder changed them after they were stored.",
    namespace=_NS,
    registry=REGISTRY,
)
FINALIZED = Counter(
    "streams_finalized", "Manifests committed, by status.", ["status"], namespace=_NS, registry=REGISTRY
)
# A 10 MiB chunk takes 0.02 s on loopback and 80 s at 1 Mbit/s.
PUT_SECONDS = Histogram(
    "put_seconds",
    "Time of one chunk's put, until S3 confirmed it.",
    buckets=(0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 80),
    namespace=_NS,
    registry=REGISTRY,
)
# Re-reading runs at 0.5 to 2 GB/s from cache and 0.1 GB/s from a disk: 1 MB to 100 GB.
FINALIZE_SECONDS = Histogram(
    "finalize_seconds",
    "Time from the begin of the final re-read until the manifest was committed.",
    buckets=(0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1200),
    namespace=_NS,
    registry=REGISTRY,
)

ERRORS = Counter("errors", "Failures by kind.", ["kind"], namespace=_NS, registry=REGISTRY)
RETRIES = Counter("retries", "Turns that will be tried again.", namespace=_NS, registry=REGISTRY)
SERVICE_UP = Gauge(
    "service_up", "1 while S3 or Redis works for us.", ["service"], namespace=_NS, registry=REGISTRY
)
OUTAGES = Counter("outages", "Outages that began.", ["service"], namespace=_NS, registry=REGISTRY)

AUDITS = Counter(
    "audits",
    "Finished recordings that were compared with S3, by what came of it.",
    ["status"],
    namespace=_NS,
    registry=REGISTRY,
)
AUDIT_FINDINGS = Gauge(
    "audit_findings",
    "Finished recordings that S3 does not hold as they were committed, unless somebody acknowledged it.",
    namespace=_NS,
    registry=REGISTRY,
)
AUDIT_OVERDUE_SECONDS = Gauge(
    "audit_overdue_seconds",
    "For how long the next audit of a recording is due; 0 when none is.",
    namespace=_NS,
    registry=REGISTRY,
)

OPERATOR_REQUESTS = Counter(
    "operator_requests",
    "Requests of operators that were carried out.",
    ["kind"],
    namespace=_NS,
    registry=REGISTRY,
)

WATCHER_EVENTS = Counter(
    "watcher_events", "File events about sources, by type.", ["type"], namespace=_NS, registry=REGISTRY
)
WATCHER_RESTARTS = Counter(
    "watcher_restarts", "Times the observer was started anew.", namespace=_NS, registry=REGISTRY
)
WATCHER_OVERFLOWS = Counter(
    "watcher_overflows", "Times the kernel lost file events.", namespace=_NS, registry=REGISTRY
)
WATCHER_MISSED = Counter(
    "watcher_missed",
    "Changes that scans found and no event announced.",
    namespace=_NS,
    registry=REGISTRY,
)
HEALTHY = Gauge(
    "healthy", "1 while no thread of the daemon is dead or hangs.", namespace=_NS, registry=REGISTRY
)
FOLDER_WATCHED = Gauge(
    "folder_watched", "1 while the watched folder is there and observed.", namespace=_NS, registry=REGISTRY
)
SCANS = Counter("scans", "Full scans of the watched folder.", namespace=_NS, registry=REGISTRY)
SCAN_SECONDS = Histogram("scan_seconds", "Time of a full scan.", namespace=_NS, registry=REGISTRY)
SKIPPED = Gauge(
    "entries_skipped",
    "Entries that the last full scan left out: links, devices, what cannot be read.",
    namespace=_NS,
    registry=REGISTRY,
)
QUEUE_LENGTH = Gauge("queue_length", "Streams that wait for a worker.", namespace=_NS, registry=REGISTRY)

HEALTHY.set(1)
for _service in ("s3", "redis"):
    SERVICE_UP.labels(_service).set(0)
    OUTAGES.labels(_service)
for _action in ("cancel", "retry"):
    OPERATOR_REQUESTS.labels(_action)
for _status in ("whole", "damaged"):
    AUDITS.labels(_status)
for _status in ("complete", "incomplete"):
    FINALIZED.labels(_status)
