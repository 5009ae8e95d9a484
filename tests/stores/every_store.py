"""On which stores a test runs: on all with `make stores`, without MinIO and versitygw in the quick run."""

import pytest

LATER = pytest.mark.stores

EVERY_STORE = [
    pytest.param("rclone"),
    pytest.param("moto"),
    pytest.param("seaweedfs", marks=LATER),
    pytest.param("minio", marks=LATER),
    pytest.param("versitygw", marks=LATER),
]
"""The names of the fixtures of all stores; rclone and moto are quick enough for every run."""

REAL_STORES = [one for one in EVERY_STORE if one.values != ("moto",)]
"""Those that keep what they were given."""

quick_on_seaweedfs = pytest.mark.parametrize(
    "server",
    [pytest.param("rclone"), pytest.param("moto"), pytest.param("seaweedfs"), *EVERY_STORE[3:]],
    indirect=True,
)
"""For the core of the contract, which every run tries on SeaweedFS, too."""
