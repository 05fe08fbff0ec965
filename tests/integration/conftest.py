"""Clients of the session's stores, and runs of jobs without a worker."""

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.cancellation import CancelToken
from shared.jobs import Job, JobKind, JobState, Progress
from shared.lakefs.store import LakeFSStore
from shared.settings import LakeFSSettings
from workers.context import JobContext


@pytest.fixture
def store(lakefs_server: LakeFSSettings) -> Iterator[LakeFSStore]:
    """A client of the session's lakeFS."""
    store = LakeFSStore(lakefs_server)
    yield store
    store.close()


@pytest.fixture
def repo(store: LakeFSStore) -> str:
    """A repository of the test's own, with a branch ``main``."""
    return store.ensure_repository(f"test-{uuid.uuid4().hex[:12]}").name


class Run:
    """One run of a job, and what it reported."""

    def __init__(self, kind: JobKind, request: dict[str, Any], job_id: str, attempts: int) -> None:
        now = datetime.now(UTC)
        self.token = CancelToken()
        self.reports: list[Progress] = []
        self.context = JobContext(
            Job(
                id=job_id,
                kind=kind,
                state=JobState.RUNNING,
                request=request,
                queue="test",
                priority=5,
                created_at=now,
                available_at=now,
                attempts=attempts,
                max_attempts=3,
            ),
            self.token,
            self.reports.append,
            lambda _: None,
        )


NewRun = Callable[..., Run]


@pytest.fixture
def new_run() -> NewRun:
    """Begin runs of jobs: ``new_run(kind, request)``, again with ``job_id`` and ``attempts``."""

    def begin(
        kind: JobKind, request: dict[str, Any], *, job_id: str = "", attempts: int = 1
    ) -> Run:
        return Run(kind, request, job_id or str(uuid.uuid4()), attempts)

    return begin
