"""Where an import stands is told from its children, after whatever became of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.errors import CancelledError, ErrorInfo, SmokeTestFailedError, StepFailedError
from shared.import_request import ImportRequest
from shared.jobs import Job, JobKind, JobState
from workers.lifecycle.import_plan import MOST_DOWNLOADS, next_step, steps_of
from workers.lifecycle.smoke_test import problem_of

DOWNLOAD, UPLOAD, REGISTER, INFER = (
    JobKind.DOWNLOAD,
    JobKind.UPLOAD,
    JobKind.REGISTER,
    JobKind.INFER,
)
SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED
RESULTS: dict[JobKind, dict[str, Any]] = {
    DOWNLOAD: {"local_model_name": "org_model"},
    UPLOAD: {"commit_id": "c"},
    REGISTER: {"name": "chat", "version": "3"},
    INFER: {"generated_text": "It is Paris.", "metadata": {"model": "Lyon"}},
}


class Family:
    """An import and its children, the way the ledger would give them."""

    def __init__(self, **changes: Any) -> None:
        base = {"model_name": "org/model", "registered_name": "chat", "task": "text-generation"}
        self.request = ImportRequest.model_validate(base | changes)
        self.children: list[Job] = []
        self.awaits: str | None = None

    def child(self, kind: JobKind, state: JobState = SUCCEEDED, code: str = "") -> Job:
        """Add a child that let the import go on."""
        number = len(self.children)
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
        job = _job(
            # The clocks of two hosts may differ: ids need not be in the order of creation.
            id=f"{9 - number}",
            kind=kind,
            state=state,
            created_at=at,
            request={"model_name": "chat", "version": "3"},
            result=RESULTS[kind] if state is SUCCEEDED else None,
            error=ErrorInfo(code=code, detail="for a reason") if state is FAILED else None,
        )
        self.children.append(job)
        self.awaits = job.id
        return job

    def retried(self) -> "Family":
        """Have the client retry the import: it awaits nothing."""
        self.awaits = None
        return self

    def next(self) -> JobKind | Job | None:
        job = _job(id="import", kind=JobKind.IMPORT, awaits=self.awaits)
        return next_step(job, self.request, self.children[::-1])[0]


def _job(**fields: Any) -> Job:
    now = datetime.now(UTC)
    base = {
        "state": JobState.RUNNING,
        "request": {},
        "queue": "q",
        "priority": 5,
        "created_at": now,
        "available_at": now,
        "max_attempts": 3,
    }
    return Job.model_validate(base | fields)


def test_steps_follow_each_other_and_end() -> None:
    family = Family(smoke_test={"data": {"inputs": "x"}})
    for step in (DOWNLOAD, UPLOAD, REGISTER, INFER):
        assert family.next() is step
        family.child(step)
    assert family.next() is None


def test_models_of_ollama_are_in_no_store() -> None:
    family = Family(model_source="ollama", model_name="q:1b")
    assert steps_of(family.request) == [DOWNLOAD, REGISTER]


def test_a_failed_step_ends_the_import_with_its_own_error() -> None:
    family = Family()
    family.child(DOWNLOAD, FAILED, "model_not_found")
    with pytest.raises(StepFailedError) as ended:
        family.next()
    assert ended.value.info() == ErrorInfo(
        code="model_not_found", detail="download failed: for a reason"
    )


def test_a_cancelled_step_cancels_the_import() -> None:
    family = Family()
    family.child(DOWNLOAD, CANCELLED)
    with pytest.raises(CancelledError):
        family.next()


@pytest.mark.parametrize("state", [FAILED, CANCELLED])
def test_a_retried_import_runs_the_step_again_that_did_not_succeed(state: JobState) -> None:
    family = Family()
    family.child(DOWNLOAD)
    upload = family.child(UPLOAD, state)
    assert family.retried().next() is upload


def test_a_step_that_the_client_retried_is_waited_for() -> None:
    family = Family()
    family.child(DOWNLOAD)
    upload = family.child(UPLOAD, JobState.QUEUED)
    assert family.next() is upload
    assert family.retried().next() is upload


@pytest.mark.parametrize("code", ["model_not_staged", "host_lost"])
def test_files_that_are_gone_are_downloaded_again_and_then_uploaded(code: str) -> None:
    family = Family()
    family.child(DOWNLOAD)
    family.child(UPLOAD, FAILED, code)
    assert family.next() is DOWNLOAD
    family.child(DOWNLOAD)
    assert family.next() is UPLOAD
    family.child(UPLOAD)
    assert family.next() is REGISTER


def test_files_that_are_gone_each_time_end_the_import_until_it_is_retried() -> None:
    family = Family()
    for _ in range(MOST_DOWNLOADS):
        assert family.next() is DOWNLOAD
        family.child(DOWNLOAD)
        family.child(UPLOAD, FAILED, "model_not_staged")
    with pytest.raises(StepFailedError, match="upload failed"):
        family.next()
    assert family.retried().next() is DOWNLOAD


def smoked(answer: JobState = SUCCEEDED, expected: str = "Paris") -> Family:
    family = Family(smoke_test={"data": {"inputs": "x"}, "expect_contains": expected})
    for step in (DOWNLOAD, UPLOAD, REGISTER):
        family.child(step)
    family.child(INFER, answer, "out_of_memory")
    return family


def test_an_answer_as_expected_lets_the_import_end() -> None:
    assert smoked().next() is None


def test_another_answer_ends_it_and_a_retry_asks_again() -> None:
    family = smoked(expected="Lyon")
    with pytest.raises(SmokeTestFailedError, match=r"version 3 of 'chat'.*'Lyon'.*'It is Paris\.'"):
        family.next()
    assert family.retried().next() is INFER


def test_no_answer_ends_it_with_the_reason() -> None:
    with pytest.raises(SmokeTestFailedError, match=r"version 3 of 'chat'.*for a reason") as ended:
        smoked(FAILED).next()
    assert ended.value.info().code == "smoke_test_failed"


def test_texts_are_looked_for_at_any_depth_but_not_in_the_metadata() -> None:
    test = smoked().request.smoke_test
    assert test is not None
    assert problem_of(test, {"labels": [{"label": "a"}, {"label": "Paris"}]}) is None
    assert problem_of(test, {"answer": 7, "metadata": {"x": "Paris"}}) is not None
    long = problem_of(test, {"text": "x" * 1000})
    assert long is not None
    assert len(long) < 300
