"""Merges and what is built like them."""

import pytest
from lakefs.branch import Branch
from lakefs.exceptions import BadRequestException, ConflictException
from lakefs.repository import Repository

from tests.integration.lakefs_contract.steps import commit, paths


@pytest.fixture
def diverged(repository: Repository, main: Branch) -> Branch:
    """A branch that disagrees with main about `both`."""
    commit(main, "base", both="base", mine="base")
    dev = repository.branch("dev").create("main")
    commit(main, "ours", both="ours")
    commit(dev, "theirs", both="theirs", new="theirs")
    return dev


def test_a_merge_brings_changes_over(repository: Repository, main: Branch) -> None:
    # lakeFS would drop `b` if `gone` had the same content: see tests/lakefs_faults.py.
    commit(main, "base", a="1", gone="base")
    dev = repository.branch("dev").create("main")
    ours = commit(main, "ours", b="1")
    dev.object("gone").delete()
    theirs = commit(dev, "theirs", a="2")
    merged = dev.merge_into(main, message="bring it", metadata={"job": "42"})
    made = repository.commit(merged).get_commit()
    assert (made.message, made.parents) == ("bring it", [ours, theirs])
    assert (made.metadata or {})["job"] == "42"
    assert main.head.id == merged
    assert paths(main) == ["a", "b"]
    assert main.object("a").reader("r").read() == "2"
    with pytest.raises(BadRequestException, match="no changes"):
        dev.merge_into(main)


def test_a_squash_leaves_one_parent(repository: Repository, main: Branch) -> None:
    before = main.head.id
    dev = repository.branch("dev").create("main")
    commit(dev, "one", a="1")
    commit(dev, "two", a="2")
    merged = dev.merge_into(main, squash_merge=True)
    assert repository.commit(merged).get_commit().parents == [before]


def test_a_conflict_changes_nothing(main: Branch, diverged: Branch) -> None:
    head = main.head.id
    assert {item.path: item.type for item in main.diff(diverged)}["both"] == "conflict"
    with pytest.raises(ConflictException):
        diverged.merge_into(main)
    assert main.head.id == head


@pytest.mark.parametrize(("strategy", "kept"), [("source-wins", "theirs"), ("dest-wins", "ours")])
def test_a_strategy_settles_conflicts(
    main: Branch, diverged: Branch, strategy: str, kept: str
) -> None:
    diverged.merge_into(main, strategy=strategy)
    assert main.object("both").reader("r").read() == kept
    assert main.object("new").reader("r").read() == "theirs"
    assert main.object("mine").reader("r").read() == "base"


def test_a_merge_needs_a_clean_branch(main: Branch, diverged: Branch) -> None:
    main.object("staged").upload("x")
    with pytest.raises(BadRequestException, match="dirty branch"):
        diverged.merge_into(main, strategy="source-wins")


def test_an_empty_merge_is_made_on_request(repository: Repository, main: Branch) -> None:
    commit(main, "base", a="1")
    dev = repository.branch("dev").create("main")
    commit(main, "ours", a="2")
    merged = dev.merge_into(main, allow_empty=True)
    assert main.head.id == merged
    assert main.object("a").reader("r").read() == "2"


def test_a_commit_is_reverted_and_picked_again(main: Branch) -> None:
    commit(main, "one", a="1")
    second = commit(main, "two", a="2", b="2")
    commit(main, "three", c="3")
    main.revert(second)
    assert paths(main) == ["a", "c"]
    assert main.object("a").reader("r").read() == "1"
    picked = main.cherry_pick(second)
    assert picked.message == "two"
    assert paths(main) == ["a", "b", "c"]


def test_a_transaction_is_one_merge(main: Branch) -> None:
    with main.transact(commit_message="both or none") as transaction:
        transaction.object("a").upload("1")
        transaction.object("b").upload("2")
        assert paths(main) == []
    assert paths(main) == ["a", "b"]


def test_a_transaction_that_fails_leaves_nothing(repository: Repository, main: Branch) -> None:
    def give_up() -> None:
        with main.transact(commit_message="none") as transaction:
            transaction.object("a").upload("1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        give_up()
    assert paths(main) == []
    assert [item.id for item in repository.branches(show_hidden=True)] == ["main"]
