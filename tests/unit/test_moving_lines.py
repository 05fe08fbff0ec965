"""The order in which a repository's commits are made again."""

from embedded.moving.lines import Line, lines
from embedded.moving.server import Revision

#: Parents by commit. ``m`` merges ``s`` into the default branch.
PARENTS: dict[str, tuple[str, ...]] = {
    "root": (),
    "a": ("root",),
    "b": ("a",),
    "s": ("a",),
    "t": ("s",),
    "m": ("b", "s"),
    "head": ("m",),
}
HISTORY = {
    name: Revision(name, parents, name, "", number, {})
    for number, (name, parents) in enumerate(PARENTS.items())
}


def planned(heads: dict[str, str], wanted: set[str], moved: set[str]) -> list[Line]:
    wanted = wanted | set(heads.values())
    return list(lines(HISTORY, heads, "main", wanted, {"root"} | moved))


def test_commits_that_nobody_wants_are_left_out() -> None:
    assert planned({"main": "head"}, {"b"}, set()) == [Line("main", "root", ("b", "head"))]


def test_branches_begin_at_their_nearest_commit_that_is_moved() -> None:
    found = planned({"kept": "a", "main": "head", "side": "t"}, {"a"}, set())
    assert found == [
        Line("main", "root", ("a", "head")),
        Line("kept", "a", ()),
        Line("side", "a", ("t",)),
    ]


def test_a_commit_without_a_branch_gets_a_line_of_its_own() -> None:
    assert planned({"main": "head"}, {"s", "a"}, set())[1:] == [Line(None, "a", ("s",))]


def test_a_branch_goes_on_from_the_last_commit_that_was_moved() -> None:
    assert planned({"main": "head"}, {"m"}, {"b"}) == [Line("main", "b", ("m", "head"))]


def test_a_commit_below_one_that_was_moved_is_not_put_on_its_branch() -> None:
    found = planned({"main": "head"}, {"a"}, {"head"})
    assert found == [Line("main", "head", ()), Line(None, "root", ("a",))]
