"""Where an import stands: told from its children, and nothing else."""

from collections.abc import Sequence
from typing import Any

from shared.errors import (
    CancelledError,
    ErrorInfo,
    LifecycleError,
    SmokeTestFailedError,
    StepFailedError,
)
from shared.import_request import ImportRequest
from shared.jobs import Job, JobKind, JobState
from workers.lifecycle.smoke_test import problem_of

#: What the steps have given, by their kind.
Results = dict[JobKind, dict[str, Any]]

#: How an upload fails where the files that were downloaded for it are not there any more.
GONE = frozenset({"model_not_staged", "host_lost"})
#: Downloads of one import, unless it is retried: files that are gone each time are no accident.
MOST_DOWNLOADS = 3


def steps_of(request: ImportRequest) -> list[JobKind]:
    """Return the kinds of the children that an import needs, in their order."""
    steps = [JobKind.DOWNLOAD, JobKind.UPLOAD, JobKind.REGISTER, JobKind.INFER]
    if request.from_ollama:
        steps.remove(JobKind.UPLOAD)
    if request.smoke_test is None:
        steps.remove(JobKind.INFER)
    return steps


def next_step(
    job: Job, request: ImportRequest, children: Sequence[Job]
) -> tuple[JobKind | Job | None, Results]:
    """Return what to do: a step to begin, a child to wait for, or None; and the results so far.

    A child whose end let the import go on and that did not succeed ends the import, by the error
    that is raised. One that ended so before the import was retried runs again.
    """
    later, results = sorted(children, key=lambda child: (child.created_at, child.id)), Results()
    for step in steps_of(request):
        place = max((at for at, child in enumerate(later) if child.kind is step), default=None)
        if place is None:
            return step, results
        # What was made of files that had to be downloaded again since does not count.
        child, later = later[place], later[place + 1 :]
        ended_now = child.id == job.awaits and child.state.terminal
        if child.state is not JobState.SUCCEEDED:
            if _is_gone(child) and not (ended_now and _downloads(children) >= MOST_DOWNLOADS):
                return JobKind.DOWNLOAD, {}
            if ended_now:
                raise _failure(child)
            return child, results
        results[step] = child.result or {}
        if step is JobKind.INFER and (problem := _smoke_problem(request, results)):
            if ended_now:
                raise SmokeTestFailedError(problem)
            return step, results
    return None, results


def _is_gone(child: Job) -> bool:
    code = child.error.code if child.error else None
    return child.state is JobState.FAILED and code in GONE


def _downloads(children: Sequence[Job]) -> int:
    return sum(child.kind is JobKind.DOWNLOAD for child in children)


def _smoke_problem(request: ImportRequest, results: Results) -> str | None:
    assert request.smoke_test is not None  # noqa: S101 - there is no such step without
    problem = problem_of(request.smoke_test, results[JobKind.INFER])
    return problem and f"{_version(results)} is left without its stage: {problem}"


def _version(results: Results) -> str:
    registered = results[JobKind.REGISTER]
    return f"version {registered['version']} of {registered['name']!r}"


def _failure(child: Job) -> LifecycleError:
    """Return the error of an import whose child did not succeed."""
    if child.state is JobState.CANCELLED:
        return CancelledError(f"the import's {child.kind.value} was cancelled")
    reason = child.error or ErrorInfo(code="internal_error", detail="for an unknown reason")
    if child.kind is JobKind.INFER:
        name, version = child.request["model_name"], child.request["version"]
        return SmokeTestFailedError(
            f"version {version} of {name!r} is left without its stage: {reason.detail}"
        )
    return StepFailedError(child.kind.value, reason)
