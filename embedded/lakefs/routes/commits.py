"""Commits, their log, how refs differ, and merges."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import dropwhile, islice
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from embedded.lakefs import changes, commits, heads, refs, views
from embedded.lakefs.bodies import Merge
from embedded.lakefs.database import Transaction
from embedded.lakefs.errors import NotFoundError
from embedded.lakefs.heads import Note
from embedded.lakefs.model import Commit, same
from embedded.lakefs.paging import Page, Paging, PagingQuery, cut
from embedded.lakefs.server import CurrentServer
from embedded.lakefs.trees import Tree
from embedded.lakefs.views import Json

router = APIRouter(prefix="/repositories/{repository}")

Paths = Annotated[list[str], Query(default_factory=list)]


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which commits of a log a client asks for."""

    objects: Paths
    prefixes: Paths
    since: datetime | None = None
    stop_at: str = ""
    first_parent: bool = False
    #: Whether a full page is enough, so that nobody looks whether there is more.
    limit: bool = False

    @property
    def since_ns(self) -> int:
        """The unix time in nanoseconds before which commits do not count."""
        return int(self.since.timestamp()) * 10**9 if self.since else 0

    def touches(self, before: Tree, after: Tree) -> bool:
        """Say whether a commit that turned one tree into the other is asked for."""
        return any(not same(before.get(path), after.get(path)) for path in self.objects) or any(
            cut(partial(changes.between, before, after), Paging(prefix, amount=1)).items
            for prefix in self.prefixes
        )


@router.get("/commits/{commit_id}")
def get_commit(server: CurrentServer, repository: str, commit_id: str) -> Json:
    """Return the commit that any ref expression resolves to."""
    with server.reading(repository) as (tx, _):
        try:
            target = refs.resolve(tx, repository, commit_id)
        except NotFoundError as error:
            raise NotFoundError("commit not found") from error
        return views.commit(commits.get(tx, repository, target.commit_id))


@router.get("/refs/{ref}/commits")
def log(
    server: CurrentServer,
    repository: str,
    ref: str,
    paging: PagingQuery,
    only: Annotated[LogFilter, Depends()],
) -> Json:
    """List commits from `ref` back, those that touched some paths if any are given."""
    with server.reading(repository) as (tx, _):
        walk = commits.history(
            tx,
            repository,
            refs.resolve(tx, repository, ref, "ref: ").commit_id,
            first_parent=only.first_parent,
            since_ns=only.since_ns,
        )
        if paging.after:
            after = refs.resolve(tx, repository, paging.after).commit_id
            walk = islice(dropwhile(lambda item: item.id != after, walk), 1, None)
        if only.objects or only.prefixes:
            walk = _touching(tx, repository, walk, only)
        if only.stop_at:
            walk = _up_to(walk, refs.resolve(tx, repository, only.stop_at).commit_id)
        found = list(islice(walk, paging.limit + (0 if only.limit else 1)))
    shown = [(item.id, item) for item in found[: paging.limit]]
    return Page(shown, len(found) > paging.limit).view(lambda _, item: views.commit(item))


@router.get("/refs/{left}/diff/{right}")
def diff_refs(
    server: CurrentServer,
    repository: str,
    left: str,
    right: str,
    paging: PagingQuery,
    delimiter: str = "",
    type: Literal["two_dot", "three_dot"] = "three_dot",  # noqa: A002 - lakeFS's name
) -> Json:
    """List what differs, or with three dots what a merge of `right` into `left` would change."""
    with server.reading(repository) as (tx, _):
        sides = [
            refs.resolve(tx, repository, ref, f"get commit by {kind} {ref}: ").commit_id
            for kind, ref in (("branch", left), ("ref", right))
        ]
        ours, theirs = (commits.tree(tx, repository, side) for side in sides)
        walk = partial(changes.between, ours, theirs)
        if type == "three_dot":
            base = commits.merge_base(tx, repository, *sides)
            walk = partial(changes.since, tx.tree(base.tree_id), ours, theirs)
        page = cut(walk, paging, delimiter)
    return page.view(views.change, views.changed_prefix)


@router.get("/refs/{source}/merge/{destination}")
def find_merge_base(server: CurrentServer, repository: str, source: str, destination: str) -> Json:
    """Return the commit that a merge would start from."""
    with server.reading(repository) as (tx, _):
        theirs = refs.resolve(tx, repository, source).commit_id
        ours = refs.resolve(tx, repository, destination).commit_id
        base = commits.merge_base(tx, repository, theirs, ours)
    # lakeFS confuses the sides (its controller passes the destination first); so does this.
    return {
        "source_commit_id": ours,
        "destination_commit_id": theirs,
        "base_commit_id": base.id,
    }


@router.post("/refs/{source}/merge/{destination}")
def merge(
    server: CurrentServer,
    repository: str,
    source: str,
    destination: str,
    body: Merge | None = None,
) -> Json:
    """Merge a ref into a branch."""
    how = body or Merge()
    note = Note(
        server.installation.username, how.message, how.metadata, how.allow_empty or how.force
    )
    with server.writing(repository, force=how.force) as (tx, _):
        new = heads.merge(
            tx, repository, source, destination, note, how.strategy, squash=how.squash_merge
        )
    return {"reference": new.id}


def _touching(
    tx: Transaction, repository: str, walk: Iterator[Commit], only: LogFilter
) -> Iterator[Commit]:
    """Keep commits that changed one of the paths; merges change nothing of their own."""
    for item in walk:
        if len(item.parents) != 1:
            continue
        before = commits.tree(tx, repository, item.parents[0])
        if only.touches(before, tx.tree(item.tree_id)):
            yield item


def _up_to(walk: Iterator[Commit], last: str) -> Iterator[Commit]:
    for item in walk:
        yield item
        if item.id == last:
            return
