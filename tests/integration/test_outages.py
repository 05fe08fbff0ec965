"""Each service is away, or frozen, in the middle of each kind of job that uses it."""

import time
from collections.abc import Callable, Iterator

import pytest

from shared.jobs import JobState
from shared.lakefs import reader, writer
from shared.ledger import connect
from shared.retries import Hold
from shared.settings import LakeFSSettings, LedgerSettings, RedisSettings
from tests.outage_scene import CASES, Scene, outage_scene
from tests.processes import wait_until
from workers.lifecycle import transfer

#: Long enough for a transfer to give its job back, and for the job to try again in vain.
AWAY_SECONDS = 2.5


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory,
    redis_settings: RedisSettings,
    mlflow_server: str,
    lakefs_server: LakeFSSettings,
) -> Iterator[Scene]:
    """Waits are shorter than they are by default: the code on the way is the same."""
    directory = tmp_path_factory.mktemp("outages")
    ledger = LedgerSettings(
        prefix="outages",
        outage_backoff_max_seconds=1,
        reconcile_seconds=0.1,
        backoff_seconds=0.1,
    )
    client = connect(redis_settings)
    url = redis_settings.url.get_secret_value()
    with (
        pytest.MonkeyPatch.context() as patch,
        outage_scene(directory, client, url, mlflow_server, lakefs_server, ledger) as scene,
    ):
        for module in (reader, writer, transfer):
            patch.setattr(module, "HOLD", Hold(1.0))
        yield scene
    client.close()


@pytest.fixture(autouse=True)
def _everything_back(scene: Scene) -> Iterator[None]:
    yield
    for proxy in scene.proxies.values():
        proxy.bring_back()


@pytest.mark.parametrize("case", CASES)
def test_a_job_outlives_an_outage(scene: Scene, case: str) -> None:
    service, after_bytes = CASES[case]
    proxy = scene.proxies[service]
    proxy.strike(proxy.take_away, after_bytes)
    job_id = scene.submit(case)
    assert proxy.struck.wait(60), f"{service} was not in the middle of {case}"
    time.sleep(AWAY_SECONDS)
    assert not scene.ledger.ended(job_id), scene.ledger.get(job_id).error
    proxy.bring_back()
    job = scene.ended(job_id)
    assert (job.state, job.attempts) == (JobState.SUCCEEDED, 1), job.error
    assert job.waiting_for is None


@pytest.mark.parametrize("case", CASES)
def test_a_cancel_at_a_frozen_service_is_prompt(
    scene: Scene, case: str, figure: Callable[[str], None]
) -> None:
    service, after_bytes = CASES[case]
    proxy = scene.proxies[service]
    proxy.strike(proxy.freeze, after_bytes)
    job_id = scene.submit(case)
    assert proxy.struck.wait(60), f"{service} was not in the middle of {case}"
    time.sleep(0.3)  # until the job waits for an answer that does not come
    began = time.monotonic()
    scene.ledger.cancel(job_id)
    wait_until(lambda: scene.ledger.ended(job_id), 10, what="the job is cancelled")
    took = time.monotonic() - began
    figure(f"{case}, {service} frozen: cancelled after {took:.2f} s")
    assert scene.ledger.get(job_id).state is JobState.CANCELLED
