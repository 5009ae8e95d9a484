"""What is watched and where it goes, and what to say before anything was recorded. Pure."""

from typing import Any, NamedTuple

from folder.disk_space import DiskSpace
from folder.other_videos import OtherVideos
from status.spelling import clean


class Setup(NamedTuple):
    """What is watched and where it goes, and by which checksum the store confirms puts.

    `store_disk` is the room on the disk of the embedded store; None when the store is elsewhere.
    """

    folder: str
    patterns: tuple[str, ...]
    bucket: str
    prefix: str
    confirmed_by: str
    embedded: bool = False
    store_disk: DiskSpace | None = None
    other_videos: OtherVideos = OtherVideos()

    @property
    def watching(self) -> str:
        """In a sentence."""
        return f"Watching {self.folder} for {', '.join(self.patterns)} → s3://{self.bucket}/{self.prefix}"

    @property
    def note(self) -> str:
        """What may be amiss with it, in a sentence; "" for nothing."""
        number, example = self.other_videos
        if not number:
            return ""
        one, many = "1 file looks like a video but matches", f"{number} files look like videos but match"
        which = one if number == 1 else many
        told = f"{which} no pattern, such as {example}: not uploaded."
        return f"{told} If it is a recording, extend FILE_PATTERNS."

    @property
    def store_is_full(self) -> bool:
        """Whether the embedded store has no room."""
        return self.store_disk is not None and self.store_disk.is_full

    def as_json(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {
            "folder": clean(self.folder),
            "patterns": list(self.patterns),
            "bucket": self.bucket,
            "prefix": self.prefix,
            "confirmed_by": self.confirmed_by,
            "embedded": self.embedded,
            "watching": clean(self.watching),
            "note": clean(self.note),
            "other_videos": self.other_videos.number,
        }
