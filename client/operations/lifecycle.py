"""Jobs that move a model on its way: download, upload, register, import."""

from collections.abc import Mapping, Sequence
from typing import Any

from client.answers import Job
from client.calls import Conversation, submit


def download(
    model_name: str,
    *,
    model_source: str | None = None,
    revision: str | None = None,
    allow_patterns: Sequence[str] | None = None,
    ignore_patterns: Sequence[str] | None = None,
    idempotency_key: str | None = None,
) -> Conversation[Job]:
    """Fetch a model from where it is published into the staging area."""
    body = {
        "model_source": model_source,
        "model_name": model_name,
        "revision": revision,
        "allow_patterns": allow_patterns,
        "ignore_patterns": ignore_patterns,
    }
    return submit("/models/download", body, idempotency_key)


def batch_download(
    downloads: Sequence[str | Mapping[str, Any]], *, idempotency_key: str | None = None
) -> Conversation[Job]:
    """Fetch several models, each in a job of its own under one parent."""
    items = [{"model_name": each} if isinstance(each, str) else each for each in downloads]
    return submit("/models/batch_download", {"downloads": items}, idempotency_key)


def upload(
    local_model_name: str,
    repo_name: str,
    *,
    branch: str | None = None,
    commit_message: str | None = None,
    idempotency_key: str | None = None,
) -> Conversation[Job]:
    """Commit a model of the staging area to lakeFS."""
    body = {
        "repo_name": repo_name,
        "local_model_name": local_model_name,
        "branch": branch,
        "commit_message": commit_message,
    }
    return submit("/models/upload_to_lakefs", body, idempotency_key)


def register(
    registered_name: str,
    *,
    task: str,
    lakefs_repo: str,
    commit_id: str | None = None,
    ref: str | None = None,
    path: str | None = None,
    engine: str | None = None,
    stage: str | None = None,
    model_params: float | None = None,
    version_description: str | None = None,
    set_priority_to_one: bool | None = None,
    archive_existing_versions: bool | None = None,
    idempotency_key: str | None = None,
) -> Conversation[Job]:
    """Make a lakeFS commit, given by its id or by a tag or branch, a version in MLflow."""
    body = {
        "registered_name": registered_name,
        "task": task,
        "engine": engine,
        "lakefs_repo": lakefs_repo,
        "commit_id": commit_id,
        "ref": ref,
        "path": path,
        "model_params": model_params,
        "version_description": version_description,
        "stage": stage,
        "set_priority_to_one": set_priority_to_one,
        "archive_existing_versions": archive_existing_versions,
    }
    return submit("/models/register_from_lakefs", body, idempotency_key)


def register_ollama(
    local_model_name: str,
    *,
    registered_name: str | None = None,
    stage: str | None = None,
    model_params: float | None = None,
    version_description: str | None = None,
    set_priority_to_one: bool | None = None,
    idempotency_key: str | None = None,
) -> Conversation[Job]:
    """Make a model of the Ollama server a version in MLflow's registry."""
    body = {
        "local_model_name": local_model_name,
        "registered_name": registered_name,
        "stage": stage,
        "model_params": model_params,
        "version_description": version_description,
        "set_priority_to_one": set_priority_to_one,
    }
    return submit("/models/register_ollama", body, idempotency_key)


def import_model(
    model_name: str,
    *,
    registered_name: str,
    task: str,
    model_source: str | None = None,
    revision: str | None = None,
    repo_name: str | None = None,
    branch: str | None = None,
    engine: str | None = None,
    stage: str | None = None,
    model_params: float | None = None,
    version_description: str | None = None,
    set_priority_to_one: bool | None = None,
    archive_existing_versions: bool | None = None,
    smoke_test: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> Conversation[Job]:
    """Take a model from where it is published to a stage; a retry resumes where it failed."""
    body = {
        "model_source": model_source or "huggingface",
        "model_name": model_name,
        "revision": revision,
        "repo_name": repo_name,
        "branch": branch,
        "registered_name": registered_name,
        "task": task,
        "engine": engine,
        "stage": stage,
        "model_params": model_params,
        "version_description": version_description,
        "set_priority_to_one": set_priority_to_one,
        "archive_existing_versions": archive_existing_versions,
        "smoke_test": smoke_test,
    }
    return submit("/models/import", body, idempotency_key)
