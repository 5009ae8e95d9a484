"""Whether the records are about the watched folder: two folders in one namespace undo each other's work."""

from checkpoint import Checkpoints
from folder.volumes import FolderIdentity


def claim_folder(checkpoints: Checkpoints, root: str) -> None:
    """Make sure that the records are about the watched folder, if that is there.

    Parameters:
        checkpoints: the records.
        root: the watched folder, absolute.

    Raises:
        StoreUnavailable: `folder` when they are about another one.
    """
    try:
        found = FolderIdentity.of(root)
    except OSError:
        return  # the watcher says so
    checkpoints.claim_folder(*found, root)
