"""Files that have the name of a video and match no pattern: perhaps recordings that nobody uploads."""

from typing import NamedTuple

import logs

log = logs.get_logger(__name__)

VIDEO_ENDINGS = (
    *(".3gp", ".asf", ".avi", ".dav", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m4v"),
    *(".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv"),
)


def is_video_name(name: str) -> bool:
    """Return whether a file name is that of a video; hidden ones are temporary files of others."""
    return name.lower().endswith(VIDEO_ENDINGS) and not name.startswith(".")


class OtherVideos(NamedTuple):
    """How many there are, and one of them, relative to the watched folder; "" for none."""

    number: int = 0
    example: str = ""


class OtherVideosCount:
    """Counts them during a full scan, and logs once that there are any. Owned by the scanner's thread.

    Parameters:
        patterns: that they do not match.
    """

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._patterns = patterns
        self._count, self._first = 0, ""
        self._logged = False
        self.last = OtherVideos()
        """As the last full scan found them. For any thread."""

    def begin(self) -> None:
        """Begin a full scan."""
        self._count, self._first = 0, ""

    def note(self, path: str, name: str) -> None:
        """Take note of a file that matches no pattern."""
        if is_video_name(name):
            self._count += 1
            self._first = min(self._first or path, path)

    def end(self) -> None:
        """End a full scan."""
        self.last = OtherVideos(self._count, self._first)
        if self._count and not self._logged:
            self._logged = True
            log.warning(
                "videos that match no pattern are not uploaded",
                files=self._count,
                path=self._first,
                patterns=",".join(self._patterns),
                hint="if they are recordings, add their ending to FILE_PATTERNS",
            )
