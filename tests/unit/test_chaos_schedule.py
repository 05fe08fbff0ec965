"""A seed decides everything that happens in a run of chaos."""

from tests.chaos.schedule import POISON, FaultKind, Schedule, make_schedule
from tests.chaos.submissions import Catalog

CATALOG = Catalog(
    unique="u",
    fresh=[f"chaos/fresh-{number}" for number in range(400)],
    staged=[f"chaos_staged-{number}" for number in range(60)],
    chats=["a", "b"],
    deeds="d",
    commits={"a": "1", "b": "2", "d": "3"},
)


def schedule(seed: int) -> Schedule:
    return make_schedule(seed, 600, 1200, 70, 15, CATALOG)


def test_the_same_seed_gives_the_same_run() -> None:
    assert schedule(1) == schedule(1)
    assert schedule(1) != schedule(2)


def test_every_kind_of_fault_comes_before_one_comes_again() -> None:
    planned = schedule(3)
    kinds = {fault.kind for fault in planned.faults}
    deeds = {each.deed for each in planned.submissions if each.deed}
    assert kinds == set(FaultKind) - set(POISON)
    assert deeds == set(POISON.values())


def test_keys_and_uploads_are_of_one_job_each() -> None:
    submissions = schedule(4).submissions
    uploads = [
        (each.body["repo_name"], each.body["local_model_name"])
        for each in submissions
        if each.work == "upload"
    ]
    assert len(uploads) > 100
    assert len(set(uploads)) == len(uploads)
    assert len({each.key for each in submissions}) == len(submissions)
