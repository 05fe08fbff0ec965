"""Commits: how they are stored, walked and found to be related."""

import heapq
import json
from collections.abc import Iterator
from sqlite3 import Row

from embedded.lakefs.database import Transaction
from embedded.lakefs.errors import NotFoundError
from embedded.lakefs.model import Commit, json_object
from embedded.lakefs.trees import Tree


def add(tx: Transaction, repository_id: str, commit: Commit) -> None:
    """Store a sealed commit; an equal one is the same one."""
    tx.run(
        "INSERT OR IGNORE INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        repository_id,
        commit.id,
        json.dumps(commit.parents),
        commit.committer,
        commit.message,
        commit.created_ns,
        commit.tree_id,
        commit.generation,
        json.dumps(dict(commit.metadata)),
    )


def find(tx: Transaction, repository_id: str, commit_id: str) -> Commit | None:
    """Return the commit with exactly this id, if there is one."""
    query = "SELECT * FROM commits WHERE repository = ? AND id = ?"
    row = tx.one(query, repository_id, commit_id)
    return _commit(row) if row else None


def get(tx: Transaction, repository_id: str, commit_id: str) -> Commit:
    """Return the commit with exactly this id."""
    commit = find(tx, repository_id, commit_id)
    if commit is None:
        raise NotFoundError("commit not found")
    return commit


def tree(tx: Transaction, repository_id: str, commit_id: str) -> Tree:
    """Return the tree of the commit with exactly this id."""
    return tx.tree(get(tx, repository_id, commit_id).tree_id)


def history(
    tx: Transaction,
    repository_id: str,
    start: str,
    *,
    first_parent: bool = False,
    since_ns: int = 0,
) -> Iterator[Commit]:
    """Walk from `start` to its ancestors, the newest of those in sight first."""
    seen = {start}
    queue: list[tuple[int, int, Commit]] = []

    def look(commit_id: str) -> None:
        commit = get(tx, repository_id, commit_id)
        if commit.created_ns >= since_ns:
            heapq.heappush(queue, (-commit.created_ns, -int(commit.id, 16), commit))

    look(start)
    while queue:
        commit = heapq.heappop(queue)[-1]
        yield commit
        for parent in commit.parents[: 1 if first_parent else None]:
            if parent not in seen:
                seen.add(parent)
                look(parent)


def merge_base(tx: Transaction, repository_id: str, left: str, right: str) -> Commit:
    """Return a best common ancestor: none of its descendants is one too.

    Commits are visited from the highest generation down, so all ways that lead
    to a commit are known when its turn comes.
    """
    sides: dict[str, set[str]] = {}
    queue: list[tuple[int, str, Commit]] = []

    def reach(commit_id: str, by: set[str]) -> None:
        if commit_id not in sides:
            commit = get(tx, repository_id, commit_id)
            heapq.heappush(queue, (-commit.generation, commit_id, commit))
        sides.setdefault(commit_id, set()).update(by)

    reach(left, {"left"})
    reach(right, {"right"})
    while queue:
        commit = heapq.heappop(queue)[-1]
        if len(sides[commit.id]) == 2:
            return commit
        for parent in commit.parents:
            reach(parent, sides[commit.id])
    raise NotFoundError("no merge base")  # not reached: all commits descend from the first


def _commit(row: Row) -> Commit:
    return Commit(
        id=row["id"],
        parents=tuple(json.loads(row["parents"])),
        committer=row["committer"],
        message=row["message"],
        created_ns=row["created_ns"],
        tree_id=row["tree_id"],
        generation=row["generation"],
        metadata=json_object(row["metadata"]),
    )
