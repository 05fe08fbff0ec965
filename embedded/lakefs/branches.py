"""Branches: names for commits that move, each with a staging area."""

from embedded.lakefs import commits, names, refs
from embedded.lakefs.database import Transaction
from embedded.lakefs.errors import ConflictError, ForbiddenError, NotFoundError
from embedded.lakefs.model import Ref, Repository


def create(
    tx: Transaction, repository: Repository, name: str, source: str, *, hidden: bool = False
) -> Ref:
    """Start a branch at the commit that `source` resolves to."""
    names.check_branch(name)
    if commits.find(tx, repository.id, name):
        raise ConflictError(f"commit ID {name}: conflict found")
    if tx.one("SELECT 1 FROM tags WHERE repository = ? AND id = ?", repository.id, name):
        raise ConflictError(f"tag ID {name}: conflict found")
    try:
        commit_id = refs.resolve(tx, repository.id, source).commit_id
    except NotFoundError as error:
        raise NotFoundError(f"source reference '{source}': {error}") from error
    if find(tx, repository.id, name):
        raise ConflictError("branch already exists: not unique")
    add(tx, repository.id, name, commit_id, hidden=hidden)
    return Ref(name, commit_id)


def add(
    tx: Transaction, repository_id: str, name: str, commit_id: str, *, hidden: bool = False
) -> None:
    """Insert a branch that is known to be new."""
    tx.run("INSERT INTO branches VALUES (?, ?, ?, ?)", repository_id, name, commit_id, hidden)


def find(tx: Transaction, repository_id: str, name: str) -> Ref | None:
    """Return the branch called `name`, if there is one."""
    query = "SELECT id, commit_id FROM branches WHERE repository = ? AND id = ?"
    row = tx.one(query, repository_id, name)
    return Ref(*row) if row else None


def get(tx: Transaction, repository_id: str, name: str) -> Ref:
    """Return the branch called `name`."""
    names.check_branch(name)
    branch = find(tx, repository_id, name)
    if branch is None:
        raise NotFoundError("branch not found")
    return branch


def require(tx: Transaction, repository_id: str, name: str) -> None:
    """Refuse to write to a branch that does not exist, in the words of lakeFS's object calls."""
    names.check_branch(name)
    if find(tx, repository_id, name) is None:
        raise NotFoundError(f"branch '{name}' not found")


def every(tx: Transaction, repository_id: str, *, show_hidden: bool) -> list[Ref]:
    """Return the branches by name."""
    query = (
        "SELECT id, commit_id FROM branches WHERE repository = ? AND (? OR NOT hidden) ORDER BY id"
    )
    return [Ref(*row) for row in tx.all(query, repository_id, show_hidden)]


def move(tx: Transaction, repository_id: str, name: str, commit_id: str) -> None:
    """Point the branch at another commit."""
    query = "UPDATE branches SET commit_id = ? WHERE repository = ? AND id = ?"
    tx.run(query, commit_id, repository_id, name)


def delete(tx: Transaction, repository: Repository, name: str) -> None:
    """Forget the branch and what is staged on it."""
    if name == repository.default_branch:
        raise ForbiddenError("cannot delete repository default branch")
    get(tx, repository.id, name)
    tx.run("DELETE FROM branches WHERE repository = ? AND id = ?", repository.id, name)
