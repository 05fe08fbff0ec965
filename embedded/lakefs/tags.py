"""Tags: names for commits that do not move."""

from embedded.lakefs import branches, commits, names, refs
from embedded.lakefs.database import Transaction
from embedded.lakefs.errors import ConflictError, NotFoundError
from embedded.lakefs.model import Ref


def create(tx: Transaction, repository_id: str, name: str, source: str) -> Ref:
    """Tag the commit that `source` resolves to."""
    names.check_tag(name)
    if branches.find(tx, repository_id, name):
        raise ConflictError(f"branch name {name}: conflict found")
    if commits.find(tx, repository_id, name):
        raise ConflictError(f"commit ID {name}: conflict found")
    commit_id = refs.resolve(tx, repository_id, source).commit_id
    if not tx.run("INSERT OR IGNORE INTO tags VALUES (?, ?, ?)", repository_id, name, commit_id):
        raise ConflictError("tag already exists: not unique")
    return Ref(name, commit_id)


def get(tx: Transaction, repository_id: str, name: str) -> Ref:
    """Return the tag called `name`."""
    names.check_tag(name)
    query = "SELECT id, commit_id FROM tags WHERE repository = ? AND id = ?"
    row = tx.one(query, repository_id, name)
    if row is None:
        raise NotFoundError("tag not found")
    return Ref(*row)


def every(tx: Transaction, repository_id: str) -> list[Ref]:
    """Return the tags by name."""
    query = "SELECT id, commit_id FROM tags WHERE repository = ? ORDER BY id"
    return [Ref(*row) for row in tx.all(query, repository_id)]


def delete(tx: Transaction, repository_id: str, name: str) -> None:
    """Forget the tag."""
    get(tx, repository_id, name)
    tx.run("DELETE FROM tags WHERE repository = ? AND id = ?", repository_id, name)
