"""Workers claim jobs of models that they have in memory first, for a time that is bounded."""

from collections.abc import Mapping
from functools import partial

import pytest
import redis

from shared.jobs import JobKind
from shared.ledger import Claimed, Ledger, NewJob, Want
from shared.settings import LedgerSettings
from tests.processes import wait_until

QUEUE = "inference"
#: So long that no test sees it pass, also on a busy machine.
LONG = 600.0


def accept(ledger: Ledger, *models: str) -> list[str]:
    """Accept one job for each model."""
    jobs = [
        NewJob(
            kind=JobKind.INFER,
            request={"model_name": model},
            queue=QUEUE,
            model=model,
            max_attempts=3,
            affinity=f"{model}@",
        )
        for model in models
    ]
    return [ledger.accept(job)[0].id for job in jobs]


def claim(ledger: Ledger, worker: str, *warm: str, places: int = 1, loads: bool = True) -> Claimed:
    """Ask for a slot of a worker that has these models."""
    found = {f"{model}@": places for model in warm}
    return ledger.claim(
        Want(slot=f"{worker}/1", owner=worker, queues=(QUEUE,), warm=found, loads=loads)
    )


def models(claimed: Claimed) -> list[str]:
    """Return the models of what was claimed."""
    return [job.model for job in claimed.jobs]


def report(ledger: Ledger, worker: str, seconds: Mapping[str, float]) -> None:
    """Say what a worker has warm, and how long the loads took."""
    ledger.renew(worker, (), {f"{model}@": load for model, load in seconds.items()})


@pytest.fixture
def patient(ledger_settings: LedgerSettings) -> LedgerSettings:
    """Settings with a window that does not end."""
    return ledger_settings.model_copy(update={"affinity_seconds": LONG, "lease_seconds": LONG})


@pytest.fixture
def ledger(redis_client: redis.Redis, patient: LedgerSettings) -> Ledger:
    return Ledger(redis_client, patient)


@pytest.fixture
def brief(redis_client: redis.Redis, patient: LedgerSettings) -> Ledger:
    """The same ledger with a window that is over soon."""
    return Ledger(redis_client, patient.model_copy(update={"affinity_seconds": 0.5}))


def test_a_job_with_a_warm_model_goes_before_an_older_one(ledger: Ledger) -> None:
    accept(ledger, "cold", "warm", "warm")
    assert models(claim(ledger, "a", "warm")) == ["warm"]
    assert models(claim(ledger, "a", "warm")) == ["warm"]
    assert models(claim(ledger, "a", "warm")) == ["cold"], "nothing else waits"


def test_a_cold_model_is_loaded_once_the_window_is_over(brief: Ledger) -> None:
    accept(brief, "cold", *["warm"] * 500)
    assert models(claim(brief, "a", "warm")) == ["warm"]
    wait_until(lambda: models(claim(brief, "a", "warm")) == ["cold"], 30, "the cold one's turn")


def test_a_worker_that_may_not_load_gets_a_job_whose_window_is_over(brief: Ledger) -> None:
    """Slots that share a model would never leave it idle, and so never be able to load."""
    accept(brief, "cold", *["warm"] * 500)
    ask = partial(claim, brief, "a", "warm", loads=False)
    assert models(ask()) == ["warm"]
    wait_until(lambda: models(ask()) == ["cold"], 30, "the cold one's turn")


def test_a_worker_that_may_not_load_leaves_a_cold_job(ledger: Ledger) -> None:
    accept(ledger, "cold")
    left = claim(ledger, "a", loads=False)
    assert (left.jobs, left.wait_seconds is not None) == ((), True)


def test_a_job_is_left_to_the_worker_that_has_its_model(ledger: Ledger) -> None:
    accept(ledger, "hot")
    report(ledger, "b", {"hot": LONG})
    left = claim(ledger, "a")
    assert not left.jobs
    assert left.wait_seconds is not None
    assert models(claim(ledger, "b", "hot")) == ["hot"]


def test_a_worker_that_is_gone_holds_no_job_up(ledger: Ledger) -> None:
    accept(ledger, "hot")
    report(ledger, "b", {"hot": LONG})
    report(ledger, "b", {})
    assert models(claim(ledger, "a")) == ["hot"]


def test_a_second_copy_is_made_once_a_job_has_waited_for_as_long_as_a_load(ledger: Ledger) -> None:
    """The other worker takes job after job, and yet the queue of its model grows."""
    accept(ledger, *["hot"] * 500)
    report(ledger, "b", {"hot": LONG})
    assert not claim(ledger, "a").jobs
    report(ledger, "b", {"hot": 0.3})

    def helps() -> bool:
        claim(ledger, "b", "hot")
        return models(claim(ledger, "a")) == ["hot"]

    wait_until(helps, 30, "the idle worker helps")


def test_a_model_that_a_worker_has_begun_to_load_is_not_loaded_elsewhere(ledger: Ledger) -> None:
    accept(ledger, "new", "new")
    assert models(claim(ledger, "a")) == ["new"]
    assert not claim(ledger, "b").jobs
    assert models(claim(ledger, "a", "new")) == ["new"]


def test_a_batched_model_gets_several_jobs_at_once(ledger: Ledger) -> None:
    accept(ledger, "big", "other", "big", "big", "big")
    assert models(claim(ledger, "a", "big", places=3)) == ["big"] * 3
    assert models(claim(ledger, "a", "big", places=3)) == ["big"]


def test_workers_without_models_claim_in_order(ledger: Ledger) -> None:
    accept(ledger, "one", "two")
    report(ledger, "b", {"one": LONG})
    want = Want(slot="o/1", owner="o", queues=(QUEUE,))
    assert models(ledger.claim(want)) == ["one"]
