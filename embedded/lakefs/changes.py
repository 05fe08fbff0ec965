"""What differs between trees, and what a merge of two trees changes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from embedded.lakefs.errors import MergeConflictError
from embedded.lakefs.model import Entry, same
from embedded.lakefs.trees import Changes, Tree, differing


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
    """One path that differs, and its entries on both sides."""

    type: ChangeType
    left: Entry | None
    right: Entry | None


def between(left: Tree, right: Tree, start: str = "") -> Iterator[tuple[str, Change]]:
    """Yield what changes on the way from `left` to `right` (a two-dot diff), by path."""
    for path, ours, theirs in differing(left, right, start):
        yield path, Change(_type(ours, theirs), ours, theirs)


def staged(
    committed: Tree, changed: Iterable[tuple[str, Entry | None]]
) -> Iterator[tuple[str, Change]]:
    """Yield what staged entries change in the tree that they are staged on."""
    for path, entry in changed:
        before = committed.get(path)
        if not same(before, entry):
            yield path, Change(_type(before, entry), before, entry)


def since(base: Tree, left: Tree, right: Tree, start: str = "") -> Iterator[tuple[str, Change]]:
    """Yield what a merge of `right` into `left` would change (a three-dot diff), by path."""
    for path, ours, theirs in differing(left, right, start):
        old = base.get(path)
        if same(theirs, old):
            continue  # only the left changed it
        kind = _type(ours, theirs) if same(ours, old) else ChangeType.CONFLICT
        yield path, Change(kind, ours, theirs)


def merged(base: Tree, destination: Tree, source: Tree, strategy: Strategy) -> Changes:
    """Return what in `destination` becomes what `source` made of it since `base`."""
    result = {}
    for path, change in since(base, destination, source):
        if change.type is ChangeType.CONFLICT and strategy is Strategy.NONE:
            raise MergeConflictError
        if change.type is ChangeType.CONFLICT and strategy is Strategy.DESTINATION_WINS:
            continue
        result[path] = change.right
    return result


def _type(left: Entry | None, right: Entry | None) -> ChangeType:
    if left is None:
        return ChangeType.ADDED
    return ChangeType.REMOVED if right is None else ChangeType.CHANGED
