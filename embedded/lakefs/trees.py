"""Trees in shared parts: a commit stores anew only the parts that it changes.

A tree is a list of parts, a part is a run of neighbouring paths with their entries, and both are
named by the hash of their stored form.  Which paths end a part follows from the paths alone, so
trees that differ in one path differ in one part (seldom two), whatever led to them.
"""

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from embedded.lakefs.model import Entry, same

#: Every so many paths, on average, one ends a part.
PATHS_PER_PART = 64
#: The id of the tree that the first commit of a repository has.
EMPTY = ""

#: Paths that change, and what they become; None where the path is removed.
Changes = Mapping[str, Entry | None]


@dataclass(frozen=True, slots=True)
class Part:
    """Where a part is kept, and how far it reaches."""

    #: Its last path.
    last: str
    id: str


class Parts(Protocol):
    """Where the entries of parts are kept."""

    def entries(self, part_id: str) -> Mapping[str, Entry]:
        """Return the entries of a part, in the order of their paths."""

    def keep(self, part_id: str, encoded: str) -> None:
        """Store a part, which may be stored already."""


class Tree:
    """What a commit points at: every path of the repository and its entry."""

    def __init__(self, parts: Iterable[Part], kept: Parts) -> None:
        self.parts = tuple(parts)
        self._kept = kept

    def get(self, path: str) -> Entry | None:
        """Return the entry at a path, if there is one."""
        place = bisect_left(self.parts, path, key=lambda part: part.last)
        if place == len(self.parts):
            return None
        return self._kept.entries(self.parts[place].id).get(path)

    def walk(
        self, start: str = "", without: frozenset[str] = frozenset()
    ) -> Iterator[tuple[str, Entry]]:
        """Yield paths from `start` on with their entries, but for the parts `without`."""
        first = bisect_left(self.parts, start, key=lambda part: part.last)
        for part in self.parts[first:]:
            if part.id not in without:
                for path, entry in self._kept.entries(part.id).items():
                    if path >= start:
                        yield path, entry

    def with_changes(self, changes: Changes) -> "Tree":
        """Return the tree in which some paths are changed; its new parts are kept."""
        builder = _Builder(self._kept)
        paths = sorted(changes)
        done = 0
        for part in self.parts:
            # What comes after all parts goes to the last, which may not be full.
            is_last = part is self.parts[-1]
            end = len(paths) if is_last else bisect_right(paths, part.last, lo=done)
            if end > done or builder.is_open:
                changed = {path: changes[path] for path in paths[done:end]}
                builder.add({**self._kept.entries(part.id), **changed})
            else:
                builder.parts.append(part)
            done = end
        builder.add({path: changes[path] for path in paths[done:]})
        builder.close()
        return Tree(builder.parts, self._kept)

    def encoded(self) -> tuple[str, str]:
        """Return the id of the tree, and its stored form."""
        if not self.parts:
            return EMPTY, "[]"
        return _named(json.dumps([[part.last, part.id] for part in self.parts]))


def decode(encoded: str, kept: Parts) -> Tree:
    """Read the stored form of a tree."""
    return Tree((Part(*item) for item in json.loads(encoded)), kept)


def decode_part(encoded: str) -> Mapping[str, Entry]:
    """Read the stored form of a part."""
    return {path: Entry(**entry) for path, entry in json.loads(encoded).items()}


def differing(
    left: Tree, right: Tree, start: str = ""
) -> Iterator[tuple[str, Entry | None, Entry | None]]:
    """Yield the paths from `start` on that differ, in order, with their entries on both sides.

    A part that both trees have is the same paths with the same entries: it is not read.
    """
    shared = frozenset(part.id for part in left.parts) & {part.id for part in right.parts}
    walks = (left.walk(start, shared), right.walk(start, shared))
    for path, ours, theirs in _side_by_side(*walks):
        if not same(ours, theirs):
            yield path, ours, theirs


def _side_by_side(
    left: Iterator[tuple[str, Entry]], right: Iterator[tuple[str, Entry]]
) -> Iterator[tuple[str, Entry | None, Entry | None]]:
    ours, theirs = next(left, None), next(right, None)
    while ours or theirs:
        path = min(item[0] for item in (ours, theirs) if item)
        mine = ours[1] if ours and ours[0] == path else None
        other = theirs[1] if theirs and theirs[0] == path else None
        yield path, mine, other
        ours = next(left, None) if mine else ours
        theirs = next(right, None) if other else theirs


class _Builder:
    """Cuts a run of entries into parts."""

    def __init__(self, kept: Parts) -> None:
        self.parts: list[Part] = []
        self._kept = kept
        self._open: dict[str, Entry] = {}

    @property
    def is_open(self) -> bool:
        """Whether the next path belongs to a part that is begun."""
        return bool(self._open)

    def add(self, entries: Changes) -> None:
        """Go on with these paths, but for those without an entry."""
        for path in sorted(entries):
            if entry := entries[path]:
                self._open[path] = entry
                if _ends_part(path):
                    self.close()

    def close(self) -> None:
        """End the part that is open, if one is."""
        if self._open:
            stored = {path: entry.to_dict() for path, entry in self._open.items()}
            part_id, encoded = _named(json.dumps(stored))
            self._kept.keep(part_id, encoded)
            self.parts.append(Part(next(reversed(self._open)), part_id))
            self._open = {}


def _ends_part(path: str) -> bool:
    digest = hashlib.blake2b(path.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % PATHS_PER_PART == 0


def _named(encoded: str) -> tuple[str, str]:
    return hashlib.sha256(encoded.encode()).hexdigest(), encoded
