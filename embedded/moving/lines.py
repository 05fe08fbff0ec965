"""The order in which the commits of a repository are made again."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from embedded.moving.server import Revision


@dataclass(frozen=True)
class Line:
    """Commits that follow each other on one branch."""

    #: None for commits that no branch leads to by first parents.
    branch: str | None
    #: The commit below the first one. It is there before this line is made.
    base: str
    #: The oldest first.
    commits: tuple[str, ...]


def lines(
    history: Mapping[str, Revision],
    heads: Mapping[str, str],
    default_branch: str,
    wanted: Collection[str],
    moved: Collection[str],
) -> Iterator[Line]:
    """Yield the wanted commits that are not moved yet, each after its nearest wanted ancestor.

    Ancestors are followed by first parents. Every commit comes once. The default branch comes
    first, since it is the only one that cannot be created at any commit. ``moved`` holds at least
    the first commit of the repository.
    """
    placed = set(moved)

    def line(branch: str | None, head: str) -> Line:
        chain, commit = [], head
        while commit not in placed:
            if commit in wanted:
                chain.append(commit)
            commit = history[commit].parents[0]
        placed.update(chain)
        return Line(branch, commit, tuple(reversed(chain)))

    for branch in sorted(heads, key=lambda name: (name != default_branch, name)):
        yield line(branch, heads[branch])
    oldest_first = sorted(wanted, key=lambda commit: (history[commit].created, commit))
    yield from (line(None, commit) for commit in oldest_first if commit not in placed)
