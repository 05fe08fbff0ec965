"""How the head of a branch moves: commit, merge, revert and cherry-pick."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from embedded.lakefs import branches, changes, commits, refs, staging
from embedded.lakefs.changes import Strategy
from embedded.lakefs.database import Transaction
from embedded.lakefs.errors import ConflictError, InvalidError, MergeConflictError, UnsupportedError
from embedded.lakefs.model import Commit, Ref
from embedded.lakefs.trees import EMPTY, Changes, Tree

#: Where lakeFS writes the strategy of a merge into the commit's metadata.
STRATEGY_KEY = ".lakefs.merge.strategy"
#: Where lakeFS looks for actions.
ACTIONS_PREFIX = "_lakefs_actions/"
PARENT_OUT_OF_RANGE = "given commit does not have the given parent number"


@dataclass(frozen=True, slots=True)
class Note:
    """What the author of a commit says about it."""

    committer: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    allow_empty: bool = False
    #: Unix seconds, if the author insists.
    date: int | None = None


def commit(tx: Transaction, repository_id: str, branch: str, note: Note) -> Commit:
    """Turn what is staged on the branch into a commit."""
    head = branches.get(tx, repository_id, branch)
    before = commits.tree(tx, repository_id, head.commit_id)
    # An entry that was written again unchanged keeps the time of its first commit.
    changed = {
        path: change.right
        for path, change in changes.staged(before, staging.walk(tx, repository_id, branch))
    }
    if not changed and not note.allow_empty:
        raise InvalidError("commit: no changes")
    _refuse_actions(changed)
    staging.unstage_prefix(tx, repository_id, branch)
    tree = before.with_changes(changed)
    return _advance(tx, repository_id, head, (head.commit_id,), tree, note)


def merge(
    tx: Transaction,
    repository_id: str,
    source: str,
    destination: str,
    note: Note,
    strategy: Strategy,
    *,
    squash: bool = False,
) -> Commit:
    """Bring what `source` changed since it left `destination` to that branch."""
    head = _clean_head(tx, repository_id, destination)
    failing = f"update branch {destination}: get commit by ref {source}: "
    found = refs.resolve(tx, repository_id, source, failing)
    theirs = commits.get(tx, repository_id, found.commit_id)
    ours = commits.get(tx, repository_id, head.commit_id)
    base = commits.merge_base(tx, repository_id, theirs.id, ours.id)
    before, target = tx.tree(base.tree_id), tx.tree(ours.tree_id)
    if not _differ(before, tx.tree(theirs.tree_id)) and not note.allow_empty:
        raise InvalidError(f"update branch {destination}: no changes")
    changed = changes.merged(before, target, tx.tree(theirs.tree_id), strategy)
    tree = target.with_changes(changed)
    parents = (ours.id,) if squash else (ours.id, theirs.id)
    metadata = {**note.metadata, STRATEGY_KEY: strategy or "default"}
    message = note.message or f"Merge '{source}' into '{destination}'"
    return _advance(tx, repository_id, head, parents, tree, Note(note.committer, message, metadata))


def revert(
    tx: Transaction, repository_id: str, branch: str, source: str, parent: int, note: Note
) -> Commit:
    """Undo on the branch what `source` changed relative to its parent number `parent`."""
    target = _commit_at(tx, repository_id, source)
    if len(target.parents) > 1 and parent <= 0:
        raise ConflictError("must specify 1-based parent number for reverting merge commit")
    if target.parents and parent > len(target.parents):
        raise InvalidError(f"{PARENT_OUT_OF_RANGE}: parent {parent}")
    before = _parent_tree(tx, repository_id, target, parent or 1)
    head = _clean_head(tx, repository_id, branch)
    ours = commits.tree(tx, repository_id, head.commit_id)
    # A merge of the parent's state, as if it had come after the commit that is undone.
    changed = _repeated(tx.tree(target.tree_id), ours, before)
    if not changed and not note.allow_empty:
        raise InvalidError("update branch: no changes")
    tree = ours.with_changes(changed)
    message = note.message or f"Revert {source}"
    note = Note(note.committer, message, note.metadata)
    return _advance(tx, repository_id, head, (head.commit_id,), tree, note)


def cherry_pick(
    tx: Transaction, repository_id: str, branch: str, source: str, parent: int | None, note: Note
) -> Commit:
    """Repeat on the branch what `source` changed relative to its parent number `parent`."""
    target = _commit_at(tx, repository_id, source)
    if parent is None and len(target.parents) > 1:
        raise InvalidError("must specify 1-based parent number for cherry-picking merge commit")
    before = _parent_tree(tx, repository_id, target, parent or 1)
    head = _clean_head(tx, repository_id, branch)
    after = tx.tree(target.tree_id)
    if not _differ(before, after):
        raise InvalidError("update branch: no changes")
    ours = commits.tree(tx, repository_id, head.commit_id)
    tree = ours.with_changes(_repeated(before, ours, after))
    metadata = {
        **(note.metadata or target.metadata),
        "cherry-pick-origin": target.id,
        "cherry-pick-committer": target.committer,
    }
    note = Note(note.committer, note.message or target.message, metadata)
    return _advance(tx, repository_id, head, (head.commit_id,), tree, note)


def _advance(
    tx: Transaction,
    repository_id: str,
    head: Ref,
    parents: tuple[str, ...],
    tree: Tree,
    note: Note,
) -> Commit:
    """Add a commit and point the branch at it."""
    generation = 1 + max(commits.get(tx, repository_id, p).generation for p in parents)
    created_ns = time.time_ns() if note.date is None else note.date * 10**9
    new = Commit(
        parents=parents,
        committer=note.committer,
        message=note.message,
        created_ns=created_ns,
        tree_id=tx.keep_tree(tree),
        generation=generation,
        metadata=dict(note.metadata),
    ).sealed()
    commits.add(tx, repository_id, new)
    branches.move(tx, repository_id, head.id, new.id)
    return new


def _refuse_actions(changed: Changes) -> None:
    """Refuse actions: whoever commits one relies on its hooks, which are not run here."""
    for path, entry in changed.items():
        if entry and path.startswith(ACTIONS_PREFIX):
            raise UnsupportedError(
                f"commit: {path}: actions and their hooks are not run by this server"
            )


def _clean_head(tx: Transaction, repository_id: str, branch: str) -> Ref:
    head = branches.get(tx, repository_id, branch)
    committed = commits.tree(tx, repository_id, head.commit_id)
    if any(changes.staged(committed, staging.walk(tx, repository_id, branch))):
        raise InvalidError("uncommitted changes (dirty branch)")
    return head


def _repeated(before: Tree, ours: Tree, after: Tree) -> Changes:
    """Return what changes in `ours` when the changes from `before` to `after` are repeated."""
    try:
        return changes.merged(before, ours, after, Strategy.NONE)
    except MergeConflictError as error:
        raise ConflictError(f"update branch: {error}") from error


def _differ(left: Tree, right: Tree) -> bool:
    return any(changes.between(left, right))


def _commit_at(tx: Transaction, repository_id: str, expression: str) -> Commit:
    found = refs.resolve(tx, repository_id, expression, f"get commit from ref {expression}: ")
    return commits.get(tx, repository_id, found.commit_id)


def _parent_tree(tx: Transaction, repository_id: str, child: Commit, number: int) -> Tree:
    if not child.parents and number == 1:
        return tx.tree(EMPTY)
    if number > len(child.parents):
        raise InvalidError(f"parent {number}: {PARENT_OUT_OF_RANGE}")
    return commits.tree(tx, repository_id, child.parents[number - 1])
