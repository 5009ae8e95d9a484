"""What was complete once and S3 does not hold now: by the list of commits, and by what others say."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from archive.listing import Archive
from archive.verify import Problem, Report
from errors import PermanentError
from recording.layout import RecordingId
from recording.manifest import ManifestError
from recording.service_keys import Commit
from recording.stream import State


class Claim(NamedTuple):
    """That a generation is complete, in a revision or a later one. `by` says who says so."""

    id: RecordingId
    revision: int
    by: str


def vanished(
    archive: Archive, commits: Mapping[str, tuple[str, Commit]], seen: Mapping[str, int]
) -> Iterator[Report]:
    """Report generations that were complete once, as the list of commits says, and have no manifest now.

    Parameters:
        archive: where they lay.
        commits: from `complete_commits`.
        seen: the generations whose manifest was found, by key prefix.
    """
    for folder, (line, commit) in commits.items():
        under = f"{archive.layout.prefix}{folder}/"
        key = f"{under}metadata.json"
        if under in seen or archive.store.objects(key):
            continue
        recording = archive.layout.recording(under)
        detail = f"it was complete on {commit.committed_at}; if it was deleted on purpose, delete {line}, too"
        yield _report(recording.full_name if recording else folder, Problem("missing", key, detail))


def unmet(archive: Archive, claims: Iterable[Claim], seen: Mapping[str, int]) -> Iterator[Report]:
    """Report generations that are said to be complete and are not, or only in an older revision.

    What was not seen to be as it is said is looked at once more: it may have been committed since.

    Parameters:
        archive: where they should be.
        claims: what is said of it.
        seen: the generations whose manifest was found, by key prefix: the revision of a complete one, 0 of
            others.
    """
    for claim in claims:
        under = archive.layout.generation(claim.id)
        if seen.get(under, 0) < claim.revision or under not in seen:
            problem = _problem(archive, claim, seen=under in seen)
            if problem:
                yield _report(claim.id.full_name, problem)


def _problem(archive: Archive, claim: Claim, *, seen: bool) -> Problem | None:
    key = archive.layout.manifest(claim.id)
    try:
        found = archive.store.manifest(archive.layout, claim.id)
    except (ManifestError, PermanentError) as error:
        return None if seen else Problem("manifest", key, str(error))  # seen: it was reported
    if found is None:
        return Problem("missing", key, f"{claim.by} says that it is complete, revision {claim.revision}")
    if found.manifest.status is not State.COMPLETE:
        return Problem("manifest", key, f"it is incomplete, and {claim.by} says that it is complete")
    if found.manifest.revision < claim.revision:
        detail = f"it is of revision {found.manifest.revision}, and {claim.by} knows {claim.revision}"
        return Problem("manifest", key, f"{detail}: an older one was put in its place")
    return None


def _report(name: str, problem: Problem) -> Report:
    return Report(name, "damaged", 0, 0, (problem,))
