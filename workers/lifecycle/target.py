"""The branch that an upload commits to, looked at before a byte moves."""

import re

from shared.errors import ConflictError, InvalidInputError
from shared.lakefs.store import LakeFSStore
from shared.requests import BranchName, UploadRequest

#: Uncommitted changes of a branch are counted up to this number.
MOST_COUNTED = 1000
_LIKE_A_COMMIT = re.compile(r"[0-9a-f]{8,64}")


class TargetedUpload(UploadRequest):
    """The request of an upload whose branch is known and exists."""

    branch: BranchName


def find_target(store: LakeFSStore, request: UploadRequest) -> TargetedUpload:
    """Return the request with its branch: the repository's default branch if none is given.

    Repository and branch are made if they are missing.
    """
    repository = store.ensure_repository(request.repo_name)
    if repository.read_only:
        raise ConflictError(
            f"lakeFS repository {repository.name!r} is read-only", code="repository_read_only"
        )
    branch = request.branch or repository.default_branch
    if store.branch_head(repository.name, branch) is None:
        _check_new_branch(store, repository.name, branch)
        store.ensure_branch(repository.name, branch)
    return TargetedUpload.model_validate(request.model_dump() | {"branch": branch})


def check_target(store: LakeFSStore, request: TargetedUpload, own_branch: str) -> None:
    """Raise ConflictError if the branch cannot take a commit by way of the job's own branch."""
    repo, branch = request.repo_name, request.branch
    if rule := store.protecting_rule(repo, own_branch):
        raise ConflictError(
            f"lakeFS repository {repo!r} has the branch protection rule {rule!r}, which forbids "
            f"writes to the platform's own branch {own_branch!r}. Change the rule in the "
            "repository's settings so that it does not match job-*",
            code="job_branch_protected",
        )
    if changed := store.uncommitted(repo, branch, at_most=MOST_COUNTED):
        number = f"{len(changed)} or more" if len(changed) == MOST_COUNTED else str(len(changed))
        changes = "change" if number == "1" else "changes"
        raise ConflictError(
            f"branch {branch!r} of lakeFS repository {repo!r} has {number} uncommitted "
            f"{changes}, the first at {changed[0]!r}, and lakeFS merges nothing into it. Commit "
            f"them (lakectl commit lakefs://{repo}/{branch} -m ...) or discard them "
            f"(lakectl branch reset lakefs://{repo}/{branch}), then retry the job",
            code="branch_has_uncommitted_changes",
        )


def _check_new_branch(store: LakeFSStore, repo: str, name: str) -> None:
    """Refuse to make a branch with the name of a tag or the id of a commit."""
    what = None
    if store.tagged_commit(repo, name) is not None:
        what = "a tag"
    elif _LIKE_A_COMMIT.fullmatch(name) and store.is_commit_id(repo, name):
        what = "a commit"
    if what is not None:
        raise InvalidInputError(
            f"{name!r} is {what} of lakeFS repository {repo!r}, and a model is committed to a "
            "branch: name a branch, or leave it out for the default branch",
            field="branch",
            code="not_a_branch",
        )
