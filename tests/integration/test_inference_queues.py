"""Inference by Ollama has a queue of its own, which GPU workers serve where nobody else does."""

from collections.abc import Callable

import pytest
import redis

from shared.jobs import Job, JobKind
from shared.ledger import Ledger, NewJob, Placement, Presence, WorkerInfo
from shared.queue import INFERENCE, INFERENCE_OLLAMA, InferenceQueues, Queue, celery_app
from shared.settings import LedgerSettings, RedisSettings, Settings
from workers.lost_hosts import LostHosts
from workers.reconciler import Reconciler


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
    redis_settings: RedisSettings,
    ledger_settings: LedgerSettings,
) -> Callable[[], None]:
    """Make one pass after all that waits is due to be hinted again."""

    def one_pass() -> None:
        queue = Queue(celery_app(Settings(redis=redis_settings), "cpu"))
        lost_hosts = LostHosts(ledger, presence, Placement(redis_client, ledger_settings), 300)
        due = f"{ledger_settings.prefix}:due"
        for job_id in redis_client.zrange(due, 0, -1) or []:
            redis_client.zadd(due, {str(job_id): 0})
        Reconciler(ledger, queue, lost_hosts, ledger_settings).reconcile()

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
        assert ledger.claim(job.id, "gpu@a") is not None
