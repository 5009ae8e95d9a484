"""How recordings are uploaded: in which pieces, how many at once, and how often they are looked at again."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from settings import rules
from settings.group import SettingsGroup

MIB = 1024**2
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 1024,
    "MIB": MIB,
    "GIB": 1024 * MIB,
}


def _chunk_size(value: object) -> int:
    match = re.fullmatch(r"([0-9]{1,12})\s*([A-Z]*)", str(value).upper())
    size = int(match[1]) * _SIZE_UNITS.get(match[2], 0) if match else 0
    if not 5 * MIB <= size <= 512 * MIB:
        raise ValueError("must be a size from 5MiB to 512MiB, for example 10MiB, 10MB or 10485760")
    return size


ChunkSize = Annotated[int, BeforeValidator(_chunk_size)]
Workers = Annotated[int, rules.whole_number(1, 64)]
Days = Annotated[float, rules.days(0.01, 365)]
Grace = Annotated[float, rules.seconds(1, 600)]


class UploadSettings(SettingsGroup, title="Upload"):
    """How much is done at once, and when."""

    chunk_size: ChunkSize = Field(default=10 * MIB, alias="CHUNK_SIZE")
    """Size of a chunk, 5MiB to 512MiB. 10MB means 10,000,000 bytes, a bare number means bytes."""
    workers: Workers = Field(default=4, alias="UPLOAD_WORKERS")
    """How many recordings are uploaded at once, 1 to 64. Each worker holds up to two chunks in memory."""
    audit_days: Days = Field(default=7.0, alias="AUDIT_DAYS")
    """Within so many days every finished recording is compared with S3 once more; 0.01 to 365."""
    shutdown_grace_seconds: Grace = Field(default=20.0, alias="SHUTDOWN_GRACE_SECONDS")
    """After SIGTERM, time to finish the chunks in flight; 1 to 600."""
