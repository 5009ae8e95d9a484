"""The watched folder: where it is, which files in it are recordings, and how it is watched."""

import errno
import os
import stat
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from settings import rules
from settings.group import SettingsGroup


def _watch_dir(value: Path) -> Path:
    try:
        path = value.expanduser()
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}:
            raise ValueError(f"must be the path of a folder: {error.strerror}") from None
        return path  # missing, unmounted or not ours to read yet: the daemon waits for it
    except (ValueError, RuntimeError):  # a zero byte; a ~user that does not exist
        raise ValueError("must be the path of a folder") from None
    if not is_folder:
        raise ValueError("must be a folder, not a file")
    return path


def _file_patterns(value: object) -> tuple[str, ...]:
    patterns = rules.parts(value)
    if not patterns or not all(pattern.isprintable() and "/" not in pattern for pattern in patterns):
        raise ValueError("must be patterns for file names without a folder, separated by commas: *.mp4,*.m4v")
    return patterns


WatchDir = Annotated[Path, AfterValidator(_watch_dir)]
FilePatterns = Annotated[tuple[str, ...], BeforeValidator(_file_patterns)]
WatchMode = Annotated[Literal["auto", "native", "polling"], rules.in_case(str.lower)]
UpToADay = Annotated[float, rules.seconds(1, 86_400)]


class FolderSettings(SettingsGroup, title="The folder"):
    """What is watched, and how."""

    watch_dir: WatchDir = Field(default=Path("input"), alias="WATCH_DIR")
    """The folder to watch, with all its sub-folders. It may be missing: the daemon waits for it."""
    file_patterns: FilePatterns = Field(default=("*.mp4",), alias="FILE_PATTERNS")
    """Which file names are recordings, separated by commas; case is ignored."""
    watch_mode: WatchMode = Field(default="auto", alias="WATCH_MODE")
    """`native` file events, `polling` (for NFS, SMB and Docker Desktop), or `auto`."""
    scan_interval_seconds: UpToADay = Field(default=60.0, alias="SCAN_INTERVAL_SECONDS")
    """Time between two full scans of the folder, which find what events missed; 1 to 86400."""
    stream_timeout_seconds: UpToADay = Field(default=30.0, alias="STREAM_TIMEOUT_SECONDS")
    """A recording that did not change for so long has ended; 1 to 86400."""

    silent_cameras: rules.Switch = Field(default="on", alias="SILENT_CAMERAS")
    """`on` tells of folders in which nothing was recorded for more than twice as long as ever before."""

    @property
    def root(self) -> str:
        """The absolute path of the folder."""
        return os.path.abspath(self.watch_dir)
