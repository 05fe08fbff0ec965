"""What a worker reports of itself, whatever its engines do."""

import threading
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import redis

from shared.jobs import JobKind
from shared.ledger import Ledger, Presence, WorkerInfo
from shared.settings import LedgerSettings
from tests.claims import claim, download
from tests.processes import wait_until
from workers.context import JobContext
from workers.process.heartbeat import Heartbeat
from workers.process.report import WorkerReport
from workers.process.runner import Runner


def test_a_report_that_hangs_or_fails_hides_no_worker() -> None:
    hang, computing = threading.Event(), threading.Event()
    announced: list[WorkerInfo] = []
    status: Callable[[], dict[str, Any]] = lambda: {"inference": "well"}  # noqa: E731

    def changing() -> dict[str, Any]:
        computing.set()
        return status()

    presence = mock.Mock(announce=announced.append)
    worker = WorkerInfo("gpu@a", "gpu", "a", {})
    report = WorkerReport(presence, worker, changing, lambda: {"in_flight": 1}, 60)
    thread = threading.Thread(target=report.run, daemon=True)
    thread.start()
    wait_until(lambda: announced, what="the first report")
    assert announced[-1].status == {"inference": "well", "in_flight": 1}

    def failing() -> dict[str, Any]:
        raise RuntimeError("the engine is broken")

    status = failing
    report.changed()
    wait_until(lambda: "report_error" in announced[-1].status, what="the report says so")
    assert announced[-1].status["inference"] == "well", "what was known last"

    def hanging() -> dict[str, Any]:
        hang.wait(60)
        return {"inference": "back"}

    status = hanging
    computing.clear()
    report.changed()
    assert computing.wait(30)
    report.announce()
    assert announced[-1].status["in_flight"] == 1, "the heartbeat announces the last report"
    hang.set()
    report.flush()
    assert announced[-1].status["inference"] == "back"
    report.stop()
    thread.join(30)


def test_whoever_sees_a_job_ended_sees_what_it_changed(
    redis_client: "redis.Redis", ledger: Ledger, ledger_settings: LedgerSettings
) -> None:
    models: list[str] = []

    def status() -> dict[str, Any]:
        seen = list(models)
        time.sleep(0.2)  # an engine is asked for its health
        return {"models": seen}

    def load(_: JobContext) -> dict[str, Any]:
        models.append("m")
        report.changed()
        return {}

    presence = Presence(redis_client, ledger_settings)
    report = WorkerReport(presence, WorkerInfo("gpu@a", "gpu", "a", {}), status, dict, 60)
    thread = threading.Thread(target=report.run)
    thread.start()
    heartbeat = Heartbeat("gpu@a", ledger, 60, lambda: None)
    runner = Runner(ledger, heartbeat, {JobKind.DOWNLOAD: load}, ledger_settings, report.flush)
    job = claim(ledger, ledger.accept(download("m"))[0].id)
    runner.run(heartbeat.watch(job))
    assert ledger.ended(job.id)
    (worker,) = presence.workers()
    assert worker.status == {"models": ["m"]}
    report.stop()
    thread.join(30)
