"""`/repositories/{repository}/branches`: names that move, and how they are moved."""

from collections.abc import Iterator

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from embedded.lakefs import branches, changes, commits, heads, staging, views
from embedded.lakefs.bodies import (
    BranchCreation,
    CherryPickCreation,
    CommitCreation,
    ResetCreation,
    RevertCreation,
)
from embedded.lakefs.changes import Change
from embedded.lakefs.heads import Note
from embedded.lakefs.paging import PagingQuery, by_key, cut
from embedded.lakefs.server import CurrentServer
from embedded.lakefs.views import Json

router = APIRouter(prefix="/repositories/{repository}/branches")


@router.get("")
def list_branches(
    server: CurrentServer,
    repository: str,
    paging: PagingQuery,
    *,
    show_hidden: bool = False,
) -> Json:
    """List branches by name."""
    with server.reading(repository) as (tx, _):
        found = {item.id: item for item in branches.every(tx, repository, show_hidden=show_hidden)}
    return cut(by_key(found), paging).view(lambda _, item: views.ref(item))


@router.post("", response_class=PlainTextResponse)
def create_branch(
    server: CurrentServer, repository: str, body: BranchCreation
) -> PlainTextResponse:
    """Create a branch and answer with the id of its commit."""
    with server.writing(repository, force=body.force) as (tx, found):
        new = branches.create(tx, found, body.name, body.source, hidden=body.hidden)
    return PlainTextResponse(new.commit_id, 201)


@router.get("/{branch}")
def get_branch(server: CurrentServer, repository: str, branch: str) -> Json:
    """Return one branch."""
    with server.reading(repository) as (tx, _):
        return views.ref(branches.get(tx, repository, branch))


@router.delete("/{branch}", status_code=204, response_class=Response)
def delete_branch(
    server: CurrentServer, repository: str, branch: str, *, force: bool = False
) -> None:
    """Delete a branch."""
    with server.writing(repository, force=force) as (tx, found):
        branches.delete(tx, found, branch)


@router.put("/{branch}", status_code=204, response_class=Response)
def reset_branch(server: CurrentServer, repository: str, branch: str, body: ResetCreation) -> None:
    """Forget staged changes."""
    with server.writing(repository, force=body.force) as (tx, _):
        branches.get(tx, repository, branch)
        if body.type == "object":
            staging.unstage(tx, repository, branch, body.path)
        else:
            prefix = body.path if body.type == "common_prefix" else ""
            staging.unstage_prefix(tx, repository, branch, prefix)


@router.get("/{branch}/diff")
def diff_branch(
    server: CurrentServer, repository: str, branch: str, paging: PagingQuery, delimiter: str = ""
) -> Json:
    """List what is staged."""
    with server.reading(repository) as (tx, _):
        head = branches.get(tx, repository, branch)
        committed = commits.tree(tx, repository, head.commit_id)

        def staged(start: str) -> Iterator[tuple[str, Change]]:
            return changes.staged(committed, staging.walk(tx, repository, branch, start))

        page = cut(staged, paging, delimiter)
    return page.view(views.staged_change, views.changed_prefix)


@router.post("/{branch}/commits", status_code=201)
def commit(server: CurrentServer, repository: str, branch: str, body: CommitCreation) -> Json:
    """Commit what is staged."""
    note = Note(
        server.installation.username, body.message, body.metadata, body.allow_empty, body.date
    )
    with server.writing(repository, force=body.force) as (tx, _):
        return views.commit(heads.commit(tx, repository, branch, note))


@router.post("/{branch}/revert", status_code=204, response_class=Response)
def revert(server: CurrentServer, repository: str, branch: str, body: RevertCreation) -> None:
    """Undo a commit with a new one."""
    overrides = body.commit_overrides
    note = Note(
        server.installation.username, overrides.message, overrides.metadata, body.allow_empty
    )
    with server.writing(repository, force=body.force) as (tx, _):
        heads.revert(tx, repository, branch, body.ref, body.parent_number, note)


@router.post("/{branch}/cherry-pick", status_code=201)
def cherry_pick(
    server: CurrentServer, repository: str, branch: str, body: CherryPickCreation
) -> Json:
    """Repeat a commit on top of the branch."""
    note = Note(
        server.installation.username, body.commit_overrides.message, body.commit_overrides.metadata
    )
    with server.writing(repository, force=body.force) as (tx, _):
        new = heads.cherry_pick(tx, repository, branch, body.ref, body.parent_number, note)
        return views.commit(new)
