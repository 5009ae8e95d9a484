"""A short form of the drill of many hands."""

from pathlib import Path

import pytest

from tests.drills.many_hands import drill
from tests.support.servers import RcloneS3, ValkeyServer


@pytest.mark.drill
def test_whatever_was_ever_complete_comes_back_when_many_hands_use_the_same_names(
    tmp_path: Path, private_valkey: ValkeyServer, private_rclone: RcloneS3
) -> None:
    other = ValkeyServer(tmp_path / "valkey-2")
    other.start()
    try:
        report = drill(
            tmp_path, (private_valkey, other), private_rclone, names=16, rounds=2, seconds=15, seed=1
        )
    finally:
        other.close()
    assert report.complete > report.names
    assert report.kills
