"""A short form of the drill of slow lines."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drills.slow_line import drill
from tests.support.daemon_process import Site
from tests.support.servers import RcloneS3, ValkeyServer


@pytest.fixture
def site(
    tmp_path: Path, private_valkey: ValkeyServer, private_rclone: RcloneS3, redis_namespace: str
) -> Iterator[Site]:
    site = Site(tmp_path, private_valkey, private_rclone, redis_namespace)
    yield site
    site.close()


@pytest.mark.drill
@pytest.mark.parametrize("workers", [1, 4])
def test_growing_files_arrive_on_a_line_on_which_a_chunk_takes_longer_than_it_was_given(
    workers: int, site: Site
) -> None:
    drill(site, bytes_per_second=300_000, workers=workers, files=8, full_chunks=2)
