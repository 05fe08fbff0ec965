"""Diffs and three-way merges of trees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.lakefs.changes import ChangeType, Strategy, between, merged, since
from embedded.lakefs.errors import MergeConflictError
from embedded.lakefs.model import Entry, Tree


def entry(text: str, mtime: int = 0) -> Entry:
    return Entry(text, text, len(text), mtime, "text/plain", {})


def tree(**files: str) -> Tree:
    return {path: entry(text) for path, text in files.items()}


def types(base: Tree, left: Tree, right: Tree) -> dict[str, ChangeType]:
    return {path: change.type for path, change in since(base, left, right).items()}


trees = st.dictionaries(st.sampled_from("abcde"), st.sampled_from("xyz").map(entry))


def test_the_time_of_writing_is_no_difference() -> None:
    assert between({"a": entry("x", mtime=1)}, {"a": entry("x", mtime=2)}) == {}


def test_a_three_dot_diff_shows_one_side_only() -> None:
    base = tree(ours="1", theirs="1", gone="1")
    ours = tree(ours="2", theirs="1", gone="1", mine="1")
    theirs = tree(ours="1", theirs="2", added="1")
    assert types(base, ours, theirs) == {
        "theirs": ChangeType.CHANGED,
        "added": ChangeType.ADDED,
        "gone": ChangeType.REMOVED,
    }


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(tree(a="2"), tree(a="3")), (tree(), tree(a="3")), (tree(a="2"), tree())],
    ids=["changed twice", "deleted and changed", "changed and deleted"],
)
def test_a_conflict_is_settled_by_the_strategy(ours: Tree, theirs: Tree) -> None:
    base = tree(a="1")
    assert types(base, ours, theirs) == {"a": ChangeType.CONFLICT}
    with pytest.raises(MergeConflictError):
        merged(base, ours, theirs, Strategy.NONE)
    assert merged(base, ours, theirs, Strategy.SOURCE_WINS) == theirs
    assert merged(base, ours, theirs, Strategy.DESTINATION_WINS) == ours


@given(trees, trees, trees)
def test_a_diff_is_exactly_what_a_merge_does(base: Tree, ours: Tree, theirs: Tree) -> None:
    result = merged(base, ours, theirs, Strategy.SOURCE_WINS)
    assert between(ours, result).keys() == since(base, ours, theirs).keys()
    assert merged(base, base, theirs, Strategy.NONE) == theirs
    assert merged(base, ours, base, Strategy.NONE) == ours
