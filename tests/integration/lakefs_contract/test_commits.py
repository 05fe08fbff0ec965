"""Commits, the log, ref expressions and diffs."""

from typing import Any

import pytest
from lakefs.branch import Branch
from lakefs.exceptions import BadRequestException, NotFoundException
from lakefs.repository import Repository

from tests.integration.lakefs_contract.steps import commit, message_of, paths


def test_a_commit_keeps_what_was_staged(repository: Repository, main: Branch) -> None:
    parent = main.head.id
    main.object("a").upload("1")
    made = main.commit("add a", metadata={"job": "42"}).get_commit()
    assert (made.message, made.metadata, made.parents) == ("add a", {"job": "42"}, [parent])
    assert len(made.id) == 64
    assert main.head.id == made.id
    main.object("a").upload("2")
    assert repository.ref(made.id).object("a").reader("r").read() == "1"
    assert main.object("a").reader("r").read() == "2"


def test_nothing_to_commit_is_an_error(main: Branch) -> None:
    with pytest.raises(BadRequestException) as failure:
        main.commit("nothing")
    assert message_of(failure) == "commit: no changes"
    commit(main, "one", a="1")
    main.object("a").upload("1")
    with pytest.raises(BadRequestException, match="no changes"):
        main.commit("the same again")
    assert main.commit("nothing, on purpose", allow_empty=True).get_commit().message


def test_the_log_is_filtered_and_paged(main: Branch) -> None:
    commit(main, "one", a="1")
    second = commit(main, "two", **{"d/b": "1"})
    commit(main, "three", a="2")

    def log(**options: Any) -> list[str]:
        return [item.message for item in main.log(**options)]

    assert log() == ["three", "two", "one", "Repository created"]
    assert log(max_amount=2) == ["three", "two"]
    assert log(amount=1) == log()
    assert log(after=second) == ["one", "Repository created"]
    assert log(objects=["a"]) == ["three", "one"]
    assert log(prefixes=["d/"]) == ["two"]
    assert log(objects=["nothing"]) == []
    assert log(stop_at=second) == ["three", "two"]
    assert log(amount=2, limit=True) == ["three", "two"]


def test_refs_are_resolved(repository: Repository, main: Branch) -> None:
    first = commit(main, "one", a="1")
    second = commit(main, "two", a="2")
    repository.tag("v2").create("main")
    main.object("a").upload("staged")
    expected = {
        "main@": second,
        "main~1": first,
        "main^": first,
        "main^0": second,
        "v2~": first,
        "v2": second,
        first: first,
        first[:12]: first,
        f"{second}~1": first,
    }
    found = {ref: repository.ref(ref).get_commit().id for ref in expected}
    assert found == expected
    assert main.object("a").reader("r").read() == "staged"
    assert repository.ref("main@").object("a").reader("r").read() == "2"
    for missing in ("nowhere", "main~99"):
        with pytest.raises(NotFoundException):
            repository.ref(missing).get_commit()


def test_staged_changes_are_shown_and_reset(main: Branch) -> None:
    commit(main, "one", kept="1", changed="1", removed="1")
    main.object("kept").upload("1")
    main.object("changed").upload("2")
    main.object("removed").delete()
    main.object("d/added").upload("1")
    assert {item.path: item.type for item in main.uncommitted()} == {
        "changed": "changed",
        "removed": "removed",
        "d/added": "added",
    }
    main.reset_changes("object", "removed")
    assert [item.path for item in main.uncommitted()] == ["changed", "d/added"]
    main.reset_changes("common_prefix", "d/")
    assert [item.path for item in main.uncommitted()] == ["changed"]
    main.reset_changes()
    assert list(main.uncommitted()) == []
    assert paths(main) == ["changed", "kept", "removed"]


def test_refs_are_compared(repository: Repository, main: Branch) -> None:
    commit(main, "base", both="1", ours="1", gone="1")
    dev = repository.branch("dev").create("main")
    commit(main, "ours", ours="2")
    dev.object("gone").delete()
    commit(dev, "theirs", both="2", **{"new/a": "1", "new/b": "1"})

    def diff(**options: Any) -> dict[str, str]:
        return {item.path: item.type for item in main.diff("dev", **options)}

    theirs = {"both": "changed", "gone": "removed", "new/a": "added", "new/b": "added"}
    assert diff() == theirs
    assert diff(type="two_dot") == {**theirs, "ours": "changed"}
    assert diff(prefix="new/") == {"new/a": "added", "new/b": "added"}
    folded = {"both": "changed", "gone": "removed", "new/": "prefix_changed"}
    assert diff(delimiter="/") == folded
    assert diff(amount=1) == theirs
