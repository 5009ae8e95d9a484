"""Following a source to another path: its recording goes on there, its keys stay."""

import logs
from errors import PermanentError, SourceGone
from folder.source import open_source
from recording.stream import UNFINISHED, Signature, State, Stream
from upload.comparison import SourceView
from upload.content_match import continues, pieces_of, shares_content
from upload.crash_points import CrashPoint
from upload.site import Site

log = logs.get_logger(__name__)


class RenameFollower:
    """Moves the stream of a source that is at another path now.

    Parameters:
        site: where recordings come from and go to.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def follow(self, view: SourceView, replaces: Stream | None) -> bool:
        """Return whether the source's stream was known under another path, and has been moved to this one.

        Parameters:
            view: of the path where the source is now.
            replaces: the finished stream that was the newest there.
        """
        other = self._site.checkpoints.find_inode(view.signature.dev, view.signature.ino)
        if other is None or other.path == view.path or other.state is State.FAILED:
            return False
        # An inode number is used again after a delete, so the bytes must agree as well.
        if view.signature.size < other.signature.size or self._leads_to(other.path, view.signature):
            return False
        if not self._holds_recording(view, other):
            return False
        with self._site.checkpoints.leased(other.stream_id) as (lease, _):
            self._site.checkpoints.move(lease, view.path, replaces=replaces.stream_id if replaces else "")
            self._site.at(CrashPoint.MOVED)
        log.info("renamed", stream=other.stream_id, old_path=other.path, new_path=view.path)
        return True

    def _leads_to(self, path: str, signature: Signature) -> bool:
        try:
            with open_source(self._site.root, path) as there:
                return there.signature().same_file(signature)
        except (SourceGone, PermanentError):
            return False

    def _holds_recording(self, view: SourceView, other: Stream) -> bool:
        born_ns = view.source.born_ns()
        if other.born_ns and born_ns and other.born_ns != born_ns:
            return False
        untouched = view.signature[:2] == other.signature[:2] and born_ns == other.born_ns != 0
        if untouched:
            return True
        if other.state in UNFINISHED:
            pieces = pieces_of(self._site.checkpoints.chunks(other, self._site.layout), other.chunk_size)
            return shares_content(view.source, pieces)
        committed = self._site.manifests.read(other.recording)
        return committed is not None and continues(view.source, view.signature, committed)
