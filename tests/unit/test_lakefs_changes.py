"""Diffs and three-way merges of trees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.lakefs.changes import ChangeType, Strategy, between, merged, since
from embedded.lakefs.errors import MergeConflictError
from embedded.lakefs.model import Entry
from embedded.lakefs.trees import Tree
from tests.unit.test_lakefs_trees import entry, plant


def tree(**files: str) -> Tree:
    return plant({path: entry(text) for path, text in files.items()})


def types(base: Tree, left: Tree, right: Tree) -> dict[str, ChangeType]:
    return {path: change.type for path, change in since(base, left, right)}


def merge(base: Tree, ours: Tree, theirs: Tree, strategy: Strategy) -> dict[str, Entry]:
    return dict(ours.with_changes(merged(base, ours, theirs, strategy)).walk())


trees = st.dictionaries(st.sampled_from("abcde"), st.sampled_from("xyz").map(entry)).map(plant)


def test_the_time_of_writing_is_no_difference() -> None:
    early, late = (plant({"a": entry("x", mtime=mtime)}) for mtime in (1, 2))
    assert list(between(early, late)) == []


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
    assert merge(base, ours, theirs, Strategy.SOURCE_WINS) == dict(theirs.walk())
    assert merge(base, ours, theirs, Strategy.DESTINATION_WINS) == dict(ours.walk())


@given(trees, trees, trees)
def test_a_diff_is_exactly_what_a_merge_does(base: Tree, ours: Tree, theirs: Tree) -> None:
    result = ours.with_changes(merged(base, ours, theirs, Strategy.SOURCE_WINS))
    assert dict(between(ours, result)).keys() == types(base, ours, theirs).keys()
    assert merge(base, base, theirs, Strategy.NONE) == dict(theirs.walk())
    assert merge(base, ours, base, Strategy.NONE) == dict(ours.walk())
