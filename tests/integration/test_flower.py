"""Flower, unmodified, shows every job as it is: its name, state, runtime and worker."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.ledger.schema import celery_queue
from shared.settings import LedgerSettings, RedisSettings
from tests.integration.workplace import Workplace
from tests.processes import free_port, start, stop, wait_until

PATIENCE_SECONDS = 60


@pytest.fixture
def place(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings, tmp_path: Path
) -> Iterator[Workplace]:
    place = Workplace(redis_settings, ledger_settings, tmp_path)
    yield place
    place.close()


@pytest.fixture
def flower(place: Workplace, tmp_path: Path) -> Iterator[httpx.Client]:
    """The HTTP API of a Flower that knows nothing but the broker's address."""
    port = free_port()
    command = [sys.executable, "-m", "celery", "flower", "--address=127.0.0.1", f"--port={port}"]
    env = {"CELERY_BROKER_URL": place.url, "FLOWER_UNAUTHENTICATED_API": "true"}
    process = start(command, log=tmp_path / "flower.log", env=env)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

        def answers() -> bool:
            try:
                return client.get("/healthcheck").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, PATIENCE_SECONDS, "Flower answers")
        yield client
    stop(process)


def task(flower: httpx.Client, job_id: str) -> dict[str, Any]:
    tasks: dict[str, Any] = flower.get("/api/tasks").raise_for_status().json()
    return tasks.get(job_id) or {}


@pytest.mark.timeout(300)
def test_flower_shows_each_end_as_it_is(place: Workplace, flower: httpx.Client) -> None:
    place.start()
    jobs = {
        "SUCCESS": place.submit("org/model"),
        "FAILURE": place.submit("fail"),
        "RETRY": place.submit("retry"),
        "STARTED": place.submit("hang"),
        "REVOKED": place.submit("hang"),
    }
    wait_until(lambda: place.log.read_text().count("it hangs") == 2, what="both jobs hang")
    place.ledger.cancel(jobs["REVOKED"])

    for state, job_id in jobs.items():
        wait_until(
            lambda job_id=job_id, state=state: task(flower, job_id).get("state") == state,  # type: ignore[misc]
            PATIENCE_SECONDS,
            f"{state}: {task(flower, job_id)}",
        )
        shown = task(flower, job_id)
        assert (shown["name"], shown["worker"]) == ("models.download", "cpu@test")
        assert shown["args"] == f"({place.job(job_id).model!r},)"
        assert shown["received"]
        assert shown["started"]
        if state != "STARTED":
            assert shown["runtime"] is not None
    assert "no_such_model" in task(flower, jobs["FAILURE"])["exception"]


@pytest.mark.timeout(300)
def test_flower_shows_the_ends_of_jobs_whose_worker_is_dead(
    place: Workplace, flower: httpx.Client
) -> None:
    place.start()
    jobs = {
        "REVOKED": place.submit("hang"),
        "FAILURE": place.submit("hang", lifetime_seconds=15),
    }

    def states() -> dict[str, Any]:
        return {state: task(flower, job_id).get("state") for state, job_id in jobs.items()}

    wait_until(lambda: set(states().values()) == {"STARTED"}, PATIENCE_SECONDS, "both start")
    place.kill()
    place.ledger.cancel(jobs["REVOKED"])
    place.start()
    wait_until(lambda: all(k == v for k, v in states().items()), PATIENCE_SECONDS, "both end")
    for job_id in jobs.values():
        assert task(flower, job_id)["worker"] == "cpu@test"
        assert task(flower, job_id)["runtime"] is not None
    assert "deadline_exceeded" in task(flower, jobs["FAILURE"])["exception"]
    assert place.ledger.take_untold() == []


@pytest.mark.timeout(300)
def test_flower_shows_the_queues_with_their_lengths(place: Workplace, flower: httpx.Client) -> None:
    place.start()
    busy = [place.submit("hang") for _ in range(8)]
    wait_until(lambda: place.log.read_text().count("it hangs") >= 2, what="the slots are taken")

    def lengths() -> dict[str, int]:
        flower.get("/api/workers?refresh=true")
        answer = flower.get("/api/queues/length").raise_for_status().json()
        return {each["name"]: each["messages"] for each in answer["active_queues"]}

    queue = celery_queue(place.settings, "downloads")
    waiting = place.ledger.queued("downloads")
    assert waiting > 0
    wait_until(lambda: lengths().get(queue) == waiting, PATIENCE_SECONDS, "the queue's length")
    assert celery_queue(place.settings, "uploads") in lengths()
    for job_id in busy:
        place.ledger.cancel(job_id)
