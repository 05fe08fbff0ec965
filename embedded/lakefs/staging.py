"""The staging area of a branch, and entries as a reference shows them."""

from embedded.lakefs import branches, commits, names, refs
from embedded.lakefs.database import Transaction
from embedded.lakefs.errors import NotFoundError, PreconditionFailedError
from embedded.lakefs.model import Entry, Place, Tree

#: Paths that changed since the commit; `None` where the path was deleted.
Staged = dict[str, Entry | None]


def changes(tx: Transaction, repository_id: str, branch: str) -> Staged:
    """Return everything that is staged on the branch."""
    query = "SELECT path, entry FROM staged WHERE repository = ? AND branch = ?"
    rows = tx.all(query, repository_id, branch)
    return {path: Entry.from_json(entry) if entry else None for path, entry in rows}


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
    if path in tx.tree(commits.get(tx, repository_id, head.commit_id).tree_id):
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


def tree_at(tx: Transaction, repository_id: str, expression: str) -> Tree:
    """Return what `expression` shows; a branch shows its staged changes too."""
    target = refs.resolve(tx, repository_id, expression)
    tree = tx.tree(commits.get(tx, repository_id, target.commit_id).tree_id)
    if target.branch is None:
        return tree
    return applied(tree, changes(tx, repository_id, target.branch))


def find(tx: Transaction, repository_id: str, expression: str, path: str) -> Entry | None:
    """Return the entry at `path` as `expression` shows it, if there is one."""
    target = refs.resolve(tx, repository_id, expression)
    if target.branch is not None:
        query = "SELECT entry FROM staged WHERE repository = ? AND branch = ? AND path = ?"
        if row := tx.one(query, repository_id, target.branch, path):
            return Entry.from_json(row["entry"]) if row["entry"] else None
    return tx.tree(commits.get(tx, repository_id, target.commit_id).tree_id).get(path)


def get(tx: Transaction, repository_id: str, expression: str, path: str) -> Entry:
    """Return the entry at `path` as `expression` shows it."""
    names.check_path(path)
    entry = find(tx, repository_id, expression, path)
    if entry is None:
        raise NotFoundError("not found")
    return entry


def applied(tree: Tree, staged: Staged) -> Tree:
    """Return `tree` with the staged changes made."""
    if not staged:
        return tree
    result = dict(tree)
    for path, entry in staged.items():
        if entry is None:
            result.pop(path, None)
        else:
            result[path] = entry
    return result


def _stage(tx: Transaction, place: Place, entry_json: str | None) -> None:
    query = "INSERT OR REPLACE INTO staged VALUES (?, ?, ?, ?)"
    tx.run(query, place.repository, place.branch, place.path, entry_json)
