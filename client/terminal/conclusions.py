"""What an ended job has brought, or why it has not, in a sentence or two."""

from collections.abc import Callable, Iterator
from typing import Any

from rich import filesize

from client.answers import Job, JobState
from shared.jobs import JobKind

_Result = dict[str, Any]
#: Categories of errors that another attempt does not mend.
_HOPELESS = {"invalid_input", "not_found", "unsupported_task", "unsafe_model"}


def conclusion(job: Job) -> str:
    """Return what a job that succeeded has brought."""
    say = _SENTENCES.get(job.kind)
    took = _took(job)
    result = job.result or {}
    what = say(result) if say else f"{job.kind.value} succeeded"
    note = f"\n  {result['note']}" if result.get("note") else ""
    return (f"{what} ({took})" if took else what) + note


def failure(job: Job) -> Iterator[str]:
    """Yield why a job did not succeed, by field or by child where there are several reasons."""
    reason = f": {job.error.detail}" if job.error else ""
    yield f"✗ {job.kind.value} {job.model} {job.state.value}".replace("  ", " ") + reason
    for line in job.error.errors if job.error else ():
        if job.error and line.detail != job.error.detail:
            yield f"  {line.field}: {line.detail}"


def next_step(job: Job) -> str:
    """Return the command that goes on with what a job has brought, or tries again; or nothing."""
    result = job.result or {}
    if job.state is not JobState.SUCCEEDED:
        hopeless = job.error is not None and job.error.category in _HOPELESS
        return "" if hopeless else f"Try it again with: lifecycle jobs retry {job.job_id}"
    if job.kind is JobKind.DOWNLOAD and "local_model_name" in result:
        if job.request.get("model_source") == "ollama":
            return f"Next: lifecycle models register-ollama {job.model}"
        return f"Next: lifecycle models upload {result['local_model_name']} --repo REPO"
    if job.kind is JobKind.UPLOAD:
        where = f"--repo {result.get('repo_name')} --commit {str(result.get('commit_id'))[:12]}"
        return f"Next: lifecycle models register NAME --task TASK {where}"
    if job.kind in {JobKind.REGISTER, JobKind.IMPORT} and result.get("stage") == "production":
        return f"Next: lifecycle infer {result.get('name')} …"
    return ""


def _took(job: Job) -> str:
    if not (job.started_at and job.finished_at):
        return ""
    return f"{(job.finished_at - job.started_at).total_seconds():.1f} s"


def _download(result: _Result) -> str:
    if "local_model_name" not in result:
        return "downloaded"
    what = result["local_model_name"]
    if result.get("size_bytes") is None:
        return f"{what} is there"
    return f"{what}: {_files(result)}, in the staging area"


def _upload(result: _Result) -> str:
    moved = filesize.decimal(int(result.get("uploaded_bytes") or 0))
    where = f"{result.get('repo_name')}, branch {result.get('branch')}"
    return f"commit {result.get('commit_id')}\n  in {where}; {moved} uploaded"


def _register(result: _Result) -> str:
    return f"{result.get('name')} version {result.get('version')}, stage {result.get('stage')}"


def _batch(result: _Result) -> str:
    return f"{len(result.get('succeeded', []))} models in the staging area"


def _files(result: _Result) -> str:
    size = filesize.decimal(int(result["size_bytes"]))
    return f"{result['files']} files, {size}" if result.get("files") is not None else size


_SENTENCES: dict[JobKind, Callable[[_Result], str]] = {
    JobKind.DOWNLOAD: _download,
    JobKind.UPLOAD: _upload,
    JobKind.REGISTER: _register,
    JobKind.IMPORT: _register,
    JobKind.BATCH_DOWNLOAD: _batch,
}
