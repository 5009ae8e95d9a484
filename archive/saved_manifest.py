"""A manifest as a file beside the recording that was restored by it."""

import hashlib
from collections.abc import Callable
from typing import Self

from archive.generation import Recording
from archive.listing import Archive
from archive.target_file import Target
from errors import UploaderError
from recording.stream import Chunk

ENDING = ".metadata.json"
"""Behind the recording's name: `cam.mp4.metadata.json`."""


class SavedManifest:
    """A manifest, and the file that it becomes; all of it or nothing, as the recording itself.

    Parameters:
        target: of the recording.
        raw: the manifest's bytes.
    """

    def __init__(self, target: Target, raw: bytes) -> None:
        self._target = target.beside(ENDING)
        self._raw = raw
        self._whole = Chunk(0, len(raw), hashlib.sha256(raw).hexdigest(), "", "", "")

    @classmethod
    def of(
        cls, archive: Archive, recording: Recording, target: Target, *, fail: Callable[[str], UploaderError]
    ) -> Self | None:
        """Read the manifest by which a recording was opened; None while it has none.

        Parameters:
            archive: where it lies.
            recording: as it was opened.
            target: of the recording.
            fail: makes the error when another manifest lies there by now.
        """
        if recording.status == "growing":
            return None
        layout, key = archive.layout, ""
        if recording.superseded:
            key = layout.former_manifest(recording.id, recording.revision)
        found = archive.store.manifest(layout, recording.id, key=key)
        if found is None or (found.manifest.revision, found.manifest.chunks) != (
            recording.revision,
            recording.chunks,
        ):
            raise fail(f"{recording.name} was committed again this very moment: try again")
        return cls(target, found.raw)

    @property
    def shown(self) -> str:
        """The path of its file, for people."""
        return self._target.shown

    def is_free(self) -> bool:
        """Return whether nothing else has the name of its file."""
        return not self._target.exists() or self._target.holds([self._whole])

    def write(self, recording: Recording, mark: str, *, force: bool) -> None:
        """Write the file, unless it is there already.

        Parameters:
            recording: whose.
            mark: names what is restored, see `Target.partial`.
            force: whether another file there may be replaced.

        Raises:
            TargetError: the name is taken or cannot be written.
        """
        if self._target.exists() and self._target.holds([self._whole]):
            self._target.discard_partial(mark)
            return
        with self._target.partial(mark) as partial:
            partial.prepare([self._whole])
            partial.write(0, memoryview(self._raw))
            partial.finish(recording.facts.modified_at)
            self._target.publish(partial, force=force)
