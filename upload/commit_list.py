"""The list of commits in S3: one tiny object for each, whose key alone says what was committed and when.

It is a cache for those who have no Redis: `verify --all` notices by it what is gone altogether. Nothing is
believed of content that it says, and it is rebuilt by the audit, which adds what it finds whole.
"""

import json

from recording.layout import BucketLayout
from recording.service_keys import commit_key
from recording.stream import Stream
from s3.bucket import ObjectStore


class CommitList:
    """Adds to the list. Safe to use from any thread.

    Parameters:
        store: the bucket.
        layout: of it.
    """

    def __init__(self, *, store: ObjectStore, layout: BucketLayout) -> None:
        self._store = store
        self._layout = layout

    def after_commit(self, stream: Stream) -> None:
        """Have a finished recording in the list; one request when it is there already, else two.

        Parameters:
            stream: its record, complete or incomplete, when S3 holds it as it was committed.

        Raises:
            StoreUnavailable: S3 does not answer, or refuses us.
            TransientError: only this request failed.
            PermanentError: S3 refuses this object.
        """
        whole = self._layout.generation(stream.recording)
        folder = whole.removeprefix(self._layout.prefix).rstrip("/")
        key = commit_key(
            self._layout.prefix, stream.updated_at_ms, str(stream.state), stream.revision, folder
        )
        body = json.dumps({"schema_version": 1, "folder": folder}).encode()
        if self._store.find(key, body) is None:
            self._store.put(key, body)
