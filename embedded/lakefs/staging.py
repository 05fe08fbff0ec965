"""The staging area of a branch, and entries as a reference shows them."""

import heapq
from collections.abc import Callable, Iterator
from operator import itemgetter

from embedded.lakefs import branches, commits, names, refs
from embedded.lakefs.database import Transaction
from embedded.lakefs.errors import NotFoundError, PreconditionFailedError
from embedded.lakefs.model import Entry, Place


def walk(
    tx: Transaction, repository_id: str, branch: str, start: str = ""
) -> Iterator[tuple[str, Entry | None]]:
    """Yield what is staged from path `start` on; None where the path was deleted."""
    query = (
        "SELECT path, entry FROM staged WHERE repository = ? AND branch = ? AND path >= ?"
        " ORDER BY path"
    )
    for path, entry in tx.each(query, repository_id, branch, start):
        yield path, Entry.from_json(entry) if entry else None


def put(tx: Transaction, place: Place, entry: Entry, *, only_new: bool = False) -> None:
    """Stage `entry`; with `only_new` its path must be free."""
    names.check_path(place.path)
    branches.get(tx, place.repository, place.branch)
    if only_new and find(tx, place.repository, place.branch, place.path):
        raise PreconditionFailedError("path already exists")
    _stage(tx, place, entry.to_json())


def remove(tx: Transaction, repository_id: str, branch: str, path: str) -> None:
    """Stage that `path` is deleted; deleting what is not there is no error."""
    head = branches.get(tx, repository_id, branch)
    if commits.tree(tx, repository_id, head.commit_id).get(path):
        _stage(tx, Place(repository_id, branch, path), None)
    else:
        unstage(tx, repository_id, branch, path)


def unstage(tx: Transaction, repository_id: str, branch: str, path: str) -> None:
    """Forget what is staged at `path`."""
    query = "DELETE FROM staged WHERE repository = ? AND branch = ? AND path = ?"
    tx.run(query, repository_id, branch, path)


def unstage_prefix(tx: Transaction, repository_id: str, branch: str, prefix: str = "") -> None:
    """Forget what is staged at paths that start with `prefix`."""
    query = "DELETE FROM staged WHERE repository = ? AND branch = ? AND substr(path, 1, ?) = ?"
    tx.run(query, repository_id, branch, len(prefix), prefix)


def walk_at(
    tx: Transaction, repository_id: str, expression: str
) -> Callable[[str], Iterator[tuple[str, Entry]]]:
    """Return what walks `expression` from a path on; a branch shows its staged changes too."""
    target = refs.resolve(tx, repository_id, expression)
    tree = commits.tree(tx, repository_id, target.commit_id)
    if target.branch is None:
        return tree.walk
    branch = target.branch
    return lambda start: _overlaid(tree.walk(start), walk(tx, repository_id, branch, start))


def find(tx: Transaction, repository_id: str, expression: str, path: str) -> Entry | None:
    """Return the entry at `path` as `expression` shows it, if there is one."""
    target = refs.resolve(tx, repository_id, expression)
    if target.branch is not None:
        query = "SELECT entry FROM staged WHERE repository = ? AND branch = ? AND path = ?"
        if row := tx.one(query, repository_id, target.branch, path):
            return Entry.from_json(row["entry"]) if row["entry"] else None
    return commits.tree(tx, repository_id, target.commit_id).get(path)


def get(tx: Transaction, repository_id: str, expression: str, path: str) -> Entry:
    """Return the entry at `path` as `expression` shows it."""
    names.check_path(path)
    entry = find(tx, repository_id, expression, path)
    if entry is None:
        raise NotFoundError("not found")
    return entry


def _overlaid(
    committed: Iterator[tuple[str, Entry]], staged: Iterator[tuple[str, Entry | None]]
) -> Iterator[tuple[str, Entry]]:
    """Yield the entries of a branch: what is staged at a path hides what is committed there."""
    last = None
    for path, entry in heapq.merge(staged, committed, key=itemgetter(0)):
        if path != last and entry is not None:
            yield path, entry
        last = path


def _stage(tx: Transaction, place: Place, entry_json: str | None) -> None:
    query = "INSERT OR REPLACE INTO staged VALUES (?, ?, ?, ?)"
    tx.run(query, place.repository, place.branch, place.path, entry_json)
