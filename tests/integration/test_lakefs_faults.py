"""The lakeFS with faults answers as the real one does when it is contended or half away."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from lakefs.branch import Branch
from lakefs.exceptions import BadRequestException, ServerException
from lakefs.repository import Repository

from shared.settings import LakeFSSettings
from tests.integration.lakefs_contract.steps import commit, message_of, paths
from tests.integration.lakefs_server import connect
from tests.lakefs_faults import (
    COMMITTED_BY_ANOTHER,
    CONTENDED_COMMIT,
    CONTENDED_MERGE,
    Answer,
    Call,
    FaultyLakeFS,
    faulty_lakefs,
    hook_refuses,
    merge_that_drops,
)


@pytest.fixture
def lakefs(tmp_path: Path) -> Iterator[FaultyLakeFS]:
    with faulty_lakefs(tmp_path) as running:
        yield running


@pytest.fixture
def main(lakefs: FaultyLakeFS) -> Branch:
    return repository(lakefs.direct).create("local://faults").branch("main")


def repository(settings: LakeFSSettings) -> Repository:
    key, secret = settings.access_key_id, settings.secret_access_key
    return Repository("faults", connect(settings.endpoint, key, secret.get_secret_value()))


def status_of(lakefs: FaultyLakeFS, path: str) -> int:
    settings = lakefs.settings
    auth = (settings.access_key_id, settings.secret_access_key.get_secret_value())
    return httpx.get(settings.endpoint + path, auth=auth).status_code


def test_contended_calls_fail_as_often_as_asked(lakefs: FaultyLakeFS, main: Branch) -> None:
    watched = repository(lakefs.settings).branch("main")
    dev = repository(lakefs.settings).branch("dev").create("main")
    lakefs.on("commit", CONTENDED_COMMIT)
    lakefs.on("merge", CONTENDED_MERGE, times=2)
    watched.object("a").upload("1")
    with pytest.raises(ServerException, match="predicate failed"):
        watched.commit("refused")
    assert main.object("a").exists()  # still staged
    watched.commit("accepted")
    for _ in range(2):
        with pytest.raises(ServerException, match="Too many attempts") as failure:
            watched.merge_into(dev)
        assert failure.value.status_code == 429
    watched.merge_into(dev)
    assert paths(dev) == ["a"]


def test_a_lost_answer_is_that_of_a_call_that_was_made(lakefs: FaultyLakeFS, main: Branch) -> None:
    lakefs.on("commit", Answer(502, "bad gateway"), after=True)
    main.object("a").upload("1")
    with pytest.raises(ServerException):
        repository(lakefs.settings).branch("main").commit("made")
    assert [item.message for item in main.log()] == ["made", "Repository created"]


def test_what_a_hook_refuses_is_not_done(lakefs: FaultyLakeFS, main: Branch) -> None:
    lakefs.on("create_branch", hook_refuses("pre-create-branch", "names are `team/topic`"))
    with pytest.raises(ServerException, match="names are") as failure:
        repository(lakefs.settings).branch("dev").create("main")
    assert failure.value.status_code == 412
    assert len(list(repository(lakefs.direct).branches())) == 1
    assert main.head.id


def test_answers_of_contention_and_hooks_are_those_of_lakefs(
    lakefs: FaultyLakeFS, main: Branch
) -> None:
    # Seen of lakeFS 1.83: eight writers of one branch, and a hook that fails.
    watched = repository(lakefs.settings).branch("main")
    lakefs.on("commit", COMMITTED_BY_ANOTHER)
    with pytest.raises(BadRequestException) as taken_along:
        watched.commit("taken along", allow_empty=True)
    assert message_of(taken_along) == "no changes"
    lakefs.on("merge", hook_refuses("pre-merge"))
    with pytest.raises(ServerException) as refused:
        watched.merge_into("main")
    assert message_of(refused).startswith("update branch main: pre-merge hook aborted, run id")
    assert main.head.id


def test_what_a_hook_raises_is_not_lost(tmp_path: Path) -> None:
    def fail(_: Call) -> None:
        raise AssertionError("the mover failed")

    def run() -> None:
        with faulty_lakefs(tmp_path) as lakefs:
            lakefs.before = fail
            assert status_of(lakefs, "/_health") == 500

    with pytest.raises(AssertionError, match="the mover failed"):
        run()


def test_the_target_moves_ahead_of_a_call(lakefs: FaultyLakeFS, main: Branch) -> None:
    def move(call: Call) -> None:
        if call.name == "merge":
            assert call.parameters["destination"] == "main"
            commit(main, "moved", b="1")

    dev = repository(lakefs.settings).branch("dev").create("main")
    commit(dev, "theirs", a="1")
    lakefs.before = move
    dev.merge_into("main")
    assert [item.message for item in main.log()][1:3] == ["moved", "theirs"]
    assert "merge" in [call.name for call in lakefs.calls]


def test_without_its_database_only_the_health_is_well(lakefs: FaultyLakeFS, main: Branch) -> None:
    assert main.head.id
    repositories = "/api/v1/repositories"
    with lakefs.database_away(remembered=1):
        assert status_of(lakefs, repositories) == 500
        assert status_of(lakefs, repositories) == 401
        assert status_of(lakefs, "/_health") == 200
    assert status_of(lakefs, repositories) == 200


@pytest.mark.parametrize("defect", [False, True])
def test_the_merge_of_lakefs_drops_an_added_record(
    lakefs: FaultyLakeFS, main: Branch, defect: bool
) -> None:
    commit(main, "old", a="a", **{"z-old/config.json": "{}", "z-old/weights": "w"})
    dev = repository(lakefs.settings).branch("dev").create("main")
    commit(dev, "new", **{"m-new/config.json": "{}", "m-new/weights": "v"})
    main.delete_objects(["z-old/config.json", "z-old/weights"])
    main.commit("delete")
    with ExitStack() as stack:
        if defect:
            stack.enter_context(merge_that_drops())
        dev.merge_into("main")
    kept = [] if defect else ["m-new/config.json"]
    assert paths(main) == ["a", *kept, "m-new/weights"]


def test_the_merge_of_lakefs_drops_what_the_target_added(
    lakefs: FaultyLakeFS, main: Branch
) -> None:
    commit(main, "base", a="a", gone="same")
    dev = repository(lakefs.settings).branch("dev").create("main")
    commit(main, "ours", b="same")
    dev.object("gone").delete()
    dev.commit("theirs")
    with merge_that_drops():
        dev.merge_into("main")
    assert paths(main) == ["a"]
