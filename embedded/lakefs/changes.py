"""What differs between trees, and what a merge of two trees is."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from embedded.lakefs.errors import MergeConflictError
from embedded.lakefs.model import Entry, Tree, same


class ChangeType(StrEnum):
    """How a path differs."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    CONFLICT = "conflict"


class Strategy(StrEnum):
    """Which side wins where both changed the same path."""

    NONE = ""
    SOURCE_WINS = "source-wins"
    DESTINATION_WINS = "dest-wins"


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs, and its entry on the right; on the left if it was removed."""

    type: ChangeType
    entry: Entry


def between(left: Tree, right: Tree) -> dict[str, Change]:
    """Return what changes on the way from `left` to `right` (a two-dot diff)."""
    return {
        path: change
        for path in _paths(left, right)
        if (change := _change(left.get(path), right.get(path)))
    }


def since(base: Tree, left: Tree, right: Tree) -> dict[str, Change]:
    """Return what a merge of `right` into `left` would change (a three-dot diff)."""
    result = {}
    for path, change in between(left, right).items():
        ours, theirs, old = left.get(path), right.get(path), base.get(path)
        if same(theirs, old):
            continue  # only the left changed it
        conflict = not same(ours, old)
        result[path] = Change(ChangeType.CONFLICT, change.entry) if conflict else change
    return result


def merged(base: Tree, destination: Tree, source: Tree, strategy: Strategy) -> Tree:
    """Return `destination` with the changes that `source` made since `base`."""
    result = dict(destination)
    for path, change in since(base, destination, source).items():
        if change.type is ChangeType.CONFLICT and strategy is Strategy.NONE:
            raise MergeConflictError
        if change.type is ChangeType.CONFLICT and strategy is Strategy.DESTINATION_WINS:
            continue
        if path in source:
            result[path] = source[path]
        else:
            result.pop(path)
    return result


def _change(left: Entry | None, right: Entry | None) -> Change | None:
    if left is None or right is None:
        if right is not None:
            return Change(ChangeType.ADDED, right)
        return Change(ChangeType.REMOVED, left) if left is not None else None
    return None if same(left, right) else Change(ChangeType.CHANGED, right)


def _paths(left: Tree, right: Tree) -> Iterable[str]:
    return sorted(left.keys() | right.keys())
