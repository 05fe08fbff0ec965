"""Branches in lakeFS that the platform could not delete, could not make, or does not know."""

import re
from collections.abc import Iterator
from contextlib import closing

from client.doctor.findings import Finding, Level
from client.doctor.scene import Scene
from shared.errors import LifecycleError, NotFoundError
from shared.lakefs.connection import base_url
from shared.lakefs.listing import RepositoryListing
from shared.ledger import BranchFailure, JobBranch, Ledger, OwnedBranches

_PART = "Branches"
_JOB = re.compile(r"job-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
#: Branches that one finding names; the doctor lists the next ones when these are gone.
_NAMED = 20


def branches(scene: Scene) -> list[Finding]:
    """Look for recorded failures, and for branches of jobs without a record; delete nothing."""
    client, lakefs = scene.redis(), scene.lakefs()
    try:
        owned = OwnedBranches(client, scene.settings.ledger)
        found = [_failure(scene, each) for each in owned.failures().values()]
        recorded = {branch.address for branch in owned.of_jobs()}
        with closing(RepositoryListing(lakefs)) as listing:
            left = dict(_unrecorded(listing, Ledger(client, scene.settings.ledger), recorded))
    except LifecycleError as error:
        return [Finding(_PART, Level.UNKNOWN, error.detail)]
    finally:
        client.close()
    found += [_left(scene, repo, names) for repo, names in left.items()]
    return found or [Finding(_PART, Level.OK, "none is left behind, and every version is held")]


def _unrecorded(
    listing: RepositoryListing, ledger: Ledger, recorded: set[str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield each repository with its branches of jobs that have ended and that nobody recorded."""
    for repo in listing.repositories():
        try:
            names = listing.branches(repo.name, "job-")
        except NotFoundError:  # it was deleted meanwhile
            continue
        left = [
            name
            for name in names
            if f"{repo.name}/{name}" not in recorded
            and (job := _JOB.fullmatch(name))
            and ledger.ended(job[1])
        ]
        if left:
            yield repo.name, left


def _left(scene: Scene, repo: str, names: list[str]) -> Finding:
    some, more = names[:_NAMED], len(names) - _NAMED
    listed = ", ".join(some) + (f" and {more} more" if more > 0 else "")
    detail = f"{repo!r} has {len(names)} branches of uploads that ended, without a record: {listed}"
    mend = f"if nobody needs what is on them: {_deletion(scene, repo, some)}"
    return Finding(_PART, Level.WARNING, detail, mend)


def _failure(scene: Scene, failure: BranchFailure) -> Finding:
    branch = failure.branch
    again = (
        f"remove the cause; attempt {failure.attempts + 1} is after {failure.retry_at:%H:%M:%S} UTC"
    )
    if isinstance(branch, JobBranch):
        detail = f"{branch.name} of {branch.repo!r} is not deleted: {failure.reason}"
        mend = f"{again}, or then at once: {_deletion(scene, branch.repo, [branch.name])}"
        return Finding(_PART, Level.WARNING, detail, mend)
    detail = (
        f"{branch.name} of {branch.repo!r}, which keeps version {branch.version} of "
        f"{branch.model!r} from lakeFS' garbage collection, is not made or not deleted: "
        f"{failure.reason}"
    )
    return Finding(_PART, Level.WARNING, detail, again)


def _deletion(scene: Scene, repo: str, names: list[str]) -> str:
    """Return the command that deletes branches, for a shell that has lakeFS' keys."""
    several = "{" + ",".join(names) + "}" if len(names) > 1 else names[0]
    url = f"{base_url(scene.lakefs())}/repositories/{repo}/branches/{several}"
    keys = "$LAKEFS_ACCESS_KEY_ID:$LAKEFS_SECRET_ACCESS_KEY"
    command = f"curl -X DELETE -u \"{keys}\" '{url}'"
    if scene.starts("lakefs"):
        return f"{command} (the keys are in {scene.directory.path / 'credentials.json'})"
    return command
