"""Repositories: created with a first, empty commit on their default branch."""

import json
import time
from collections.abc import Iterable, Mapping
from sqlite3 import Row

from embedded.lakefs import branches, commits, names, trees
from embedded.lakefs.database import Transaction
from embedded.lakefs.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError
from embedded.lakefs.model import Commit, Repository, json_object

FIRST_MESSAGE = "Repository created"


def create(tx: Transaction, repository: Repository, storage_id: str = "") -> Repository:
    """Create `repository`, its default branch and the commit that both start from."""
    names.check_repository(repository.id)
    if tx.one("SELECT 1 FROM repositories WHERE id = ?", repository.id):
        raise ConflictError("error creating repository: not unique")
    if storage_id:
        raise InvalidError("storage id: invalid value: validation error")  # the only one has no id
    names.check_namespace(repository.storage_namespace)
    names.check_branch(repository.default_branch)
    if not tx.run(
        "INSERT OR IGNORE INTO namespaces VALUES (?)", repository.storage_namespace.rstrip("/")
    ):
        raise InvalidError(
            "failed to create repository: found lakeFS objects in the storage"
            f" namespace({repository.storage_namespace}): storage namespace already in use"
        )
    tx.run(
        "INSERT INTO repositories VALUES (?, ?, ?, ?, ?, ?)",
        repository.id,
        repository.storage_namespace,
        repository.default_branch,
        repository.created,
        repository.read_only,
        json.dumps(dict(repository.metadata)),
    )
    first = Commit((), "", FIRST_MESSAGE, time.time_ns(), trees.EMPTY, 1, {}).sealed()
    commits.add(tx, repository.id, first)
    branches.add(tx, repository.id, repository.default_branch, first.id)
    return repository


def get(tx: Transaction, name: str) -> Repository:
    """Return the repository called `name`."""
    names.check_repository(name)
    row = tx.one("SELECT * FROM repositories WHERE id = ?", name)
    if row is None:
        raise NotFoundError("repository not found")
    return _repository(row)


def get_for_writing(tx: Transaction, name: str, *, force: bool) -> Repository:
    """Return the repository unless it is read-only; `force` overrules that."""
    repository = get(tx, name)
    if repository.read_only and not force:
        raise ForbiddenError("read-only repository")
    return repository


def every(tx: Transaction, search: str = "") -> list[Repository]:
    """Return the repositories whose name contains `search`, by name."""
    rows = tx.all("SELECT * FROM repositories WHERE instr(id, ?) ORDER BY id", search)
    return [_repository(row) for row in rows]


def delete(tx: Transaction, name: str) -> None:
    """Forget the repository with its branches, tags and commits."""
    tx.run("DELETE FROM repositories WHERE id = ?", name)


def set_metadata(
    tx: Transaction, repository: Repository, put: Mapping[str, str], remove: Iterable[str] = ()
) -> None:
    """Change some keys of the repository's metadata."""
    metadata = {**repository.metadata, **put}
    for key in remove:
        metadata.pop(key, None)
    text = json.dumps(metadata)
    tx.run("UPDATE repositories SET metadata = ? WHERE id = ?", text, repository.id)


def _repository(row: Row) -> Repository:
    return Repository(
        id=row["id"],
        storage_namespace=row["storage_namespace"],
        default_branch=row["default_branch"],
        created=row["created"],
        read_only=bool(row["read_only"]),
        metadata=json_object(row["metadata"]),
    )
