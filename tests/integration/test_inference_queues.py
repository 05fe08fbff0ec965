"""Inference by Ollama has a queue of its own, which GPU workers serve where nobody else does."""

from collections.abc import Callable

import pytest
import redis

from shared.jobs import Job, JobKind
from shared.ledger import Ledger, NewJob, OldLedger, Placement, Presence, WorkerInfo
from shared.queue import INFERENCE, INFERENCE_OLLAMA, InferenceQueues
from shared.settings import LedgerSettings
from tests.claims import claim
from workers.process.reconciler import LostHostRecovery, Reconciler


@pytest.fixture
def presence(redis_client: "redis.Redis", ledger_settings: LedgerSettings) -> Presence:
    return Presence(redis_client, ledger_settings)


def announce(presence: Presence, *kinds: str) -> None:
    for kind in kinds:
        presence.announce(WorkerInfo(f"{kind}@a", kind, "a", {"in_flight": 0}))


@pytest.mark.parametrize(
    ("alive", "engine", "queue"),
    [
        (("cpu", "gpu", "ollama"), "ollama", INFERENCE_OLLAMA),
        (("cpu", "ollama"), "ollama", INFERENCE_OLLAMA),
        # As the workers may be about to start.
        (("cpu",), "ollama", INFERENCE_OLLAMA),
        (("cpu", "gpu"), "ollama", INFERENCE),
        (("ollama",), "transformers", INFERENCE),
        (("gpu", "ollama"), "of-a-plugin", INFERENCE),
    ],
)
def test_the_engine_and_the_workers_alive_decide(
    presence: Presence, alive: tuple[str, ...], engine: str, queue: str
) -> None:
    announce(presence, *alive)
    assert InferenceQueues(presence).of(engine) == queue


@pytest.fixture
def reconcile(
    ledger: Ledger,
    presence: Presence,
    redis_client: "redis.Redis",
    ledger_settings: LedgerSettings,
) -> Callable[[], None]:
    """Make one pass of the reconciler."""

    def one_pass() -> None:
        placement = Placement(redis_client, ledger_settings)
        lost_hosts = LostHostRecovery(ledger, presence, placement, 300)
        old_ledger = OldLedger(redis_client, ledger_settings)
        Reconciler(ledger, old_ledger, lost_hosts, ledger_settings, print).reconcile()

    return one_pass


def waiting(ledger: Ledger) -> Job:
    request = {"task": "text-generation", "engine": "ollama", "model_name": "echo", "data": {}}
    job = NewJob(
        kind=JobKind.INFER, request=request, queue=INFERENCE_OLLAMA, model="echo", max_attempts=3
    )
    return ledger.accept(job)[0]


@pytest.mark.parametrize(
    ("alive", "queue"),
    [(("gpu",), INFERENCE), (("gpu", "ollama"), INFERENCE_OLLAMA), ((), INFERENCE_OLLAMA)],
)
def test_what_waits_for_an_ollama_worker_that_is_gone_goes_to_gpu_workers(
    ledger: Ledger,
    presence: Presence,
    reconcile: Callable[[], None],
    alive: tuple[str, ...],
    queue: str,
) -> None:
    job = waiting(ledger)
    announce(presence, *alive)
    reconcile()
    assert ledger.get(job.id).queue == queue
    if queue == INFERENCE:
        assert claim(ledger, job.id, "gpu@a") is not None
