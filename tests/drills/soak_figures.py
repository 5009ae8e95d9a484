"""What a soak measures of a daemon's process: memory, threads, descriptors; and how much each may grow."""

import os
from dataclasses import dataclass

from benchmarks.processes import peak_mb, resident_mb
from tests.support.harness import CHUNK

MAX_GROWN_MB = 30.0
"""Of the quiet end above the peak of the first five minutes: what malloc keeps goes up and down by 20."""

WARM_SECONDS = 300.0
"""Before that malloc still keeps more and more for the threads: a shorter soak judges only the peak."""

MAX_CONSTANT_MB = 100.0
"""The part of the peak that does not depend on workers and chunks (docs/operations.md, section 1)."""

MAX_CHUNKS = 3
"""Of each worker: two to work with, and what malloc keeps for its thread (measured: 156 MB in all)."""

_MORE_CONNECTIONS = 4  # beside one for each worker, as the S3 client's pool may have


@dataclass(frozen=True)
class Sample:
    """A process at one moment; `at_seconds` after the soak began."""

    at_seconds: float
    resident_mb: float
    peak_mb: float
    threads: int
    descriptors: int


@dataclass(frozen=True)
class Growth:
    """A daemon that was never killed: when it was ready, at 5 minutes or half of the load, at its end.

    `last_a` is the other daemon's last process at the end.
    """

    ready: Sample
    reference: Sample
    end: Sample
    last_a: Sample


def sample(pid: int, at_seconds: float) -> Sample:
    """Look at a process."""
    threads = len(os.listdir(f"/proc/{pid}/task"))
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return Sample(at_seconds, resident_mb(pid), peak_mb(pid), threads, descriptors)


def growth_problems(growth: Growth, workers: int) -> list[str]:
    """Compare with the bounds.

    Parameters:
        growth: of a daemon that has nothing to do any more.
        workers: its `UPLOAD_WORKERS`; each may have, in the pools, one connection to S3 and one to Redis.
    """
    found = []
    grown = growth.end.resident_mb - growth.reference.peak_mb
    if growth.reference.at_seconds >= WARM_SECONDS and grown > MAX_GROWN_MB:
        found.append(f"memory has grown by {grown:.0f} MB since the fifth minute")
    most_mb = MAX_CONSTANT_MB + workers * MAX_CHUNKS * CHUNK / 1e6
    if growth.end.peak_mb > most_mb:
        found.append(f"the peak of memory was {growth.end.peak_mb:.0f} MB and not {most_mb:.0f}")
    most_descriptors = growth.ready.descriptors + 2 * (workers + _MORE_CONNECTIONS)
    for name, last in (("B", growth.end), ("A", growth.last_a)):
        if last.threads > growth.ready.threads:
            found.append(
                f"{name} has {last.threads} threads, and had {growth.ready.threads} when it was ready"
            )
        if last.descriptors > most_descriptors:
            found.append(f"{name} has {last.descriptors} descriptors open and not {most_descriptors}")
    return found
