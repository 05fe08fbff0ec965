"""Inference: ask a model, look at the workers that serve models, empty their caches."""

from collections.abc import Mapping
from typing import Any

from client.answers import Job
from client.calls import Call, Conversation, get, post, submit

_Json = dict[str, Any]


def infer(
    model_name: str,
    data: Mapping[str, Any],
    *,
    task: str = "text-generation",
    engine: str | None = None,
    options: Mapping[str, Any] | None = None,
    version: str | None = None,
    stage: str | None = None,
    priority: int | None = None,
    timeout_seconds: float | None = None,
    stream: bool | None = None,
    idempotency_key: str | None = None,
) -> Conversation[Job]:
    """Ask a registered model; the job's result holds the answer, its events the tokens."""
    body = {
        "task": task,
        "engine": engine,
        "model_name": model_name,
        "data": data,
        "options": options,
        "version": version,
        "stage": stage,
        "priority": priority,
        "timeout_seconds": timeout_seconds,
        "stream": stream,
    }
    return submit("/inference/infer", body, idempotency_key)


def health() -> Call[_Json]:
    """Look at whether inference can be served, and by which workers."""
    return get("/inference/health", _Json)


def stats() -> Call[_Json]:
    """Look at requests, caches and loaded models."""
    return get("/inference/stats", _Json)


def clear_cache(model_name: str | None = None) -> Call[_Json]:
    """Unload a warm model, or all; those in use are left and named."""
    return post("/inference/cache/clear", _Json, {"model_name": model_name})
