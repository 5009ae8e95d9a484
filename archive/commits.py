"""What the list of commits in S3 says was once complete, for those who have no Redis."""

from archive.retrying_bucket import ArchiveStore
from errors import PermanentError
from recording.bounded_json import members_of
from recording.service_keys import Commit, commits_folder, parse_commit_key

MAX_LINE_BYTES = 64 * 1024
"""Of one object of the list: a path has at most a few thousand."""


def complete_commits(store: ArchiveStore, prefix: str) -> dict[str, tuple[str, Commit]]:
    """Return key and commit of each generation that the list says was complete last, by its folder.

    The list is a cache: nothing but that there was a commit is taken from it. One request for each 1,000
    commits, and one more for each path that is too long for a key.

    Parameters:
        store: the bucket.
        prefix: `S3_PREFIX`.
    """
    newest: dict[str, tuple[str, Commit]] = {}
    for found in store.objects(commits_folder(prefix)):  # in order of time
        commit = parse_commit_key(prefix, found.key)
        folder = commit and (commit.folder if commit.folder[0] != "~" else _folder_in(store, found.key))
        if commit and folder:
            newest[folder] = found.key, commit._replace(folder=folder)
    return {folder: line for folder, line in newest.items() if line[1].state == "complete"}


def _folder_in(store: ArchiveStore, key: str) -> str:
    try:
        folder = members_of(store.get(key, at_most=MAX_LINE_BYTES))["folder"]
    except (KeyError, TypeError, ValueError, PermanentError):
        return ""
    return folder if isinstance(folder, str) else ""
