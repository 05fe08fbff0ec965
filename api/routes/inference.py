"""Inference: ask a model, look at the workers that answer, empty their caches."""

from dataclasses import replace
from typing import Annotated, Any

from celery.exceptions import CeleryError
from fastapi import APIRouter, Body, Response
from kombu.exceptions import KombuError
from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError

from api.callers import Caller, Calling
from api.documented import JOB_ANSWERS
from api.ownership import check_files
from api.served import check_served
from api.services import Provided, Services
from api.submission import check_timeout
from api.threads import INFERENCES
from api.waiting import Wait, Waiting
from shared.errors import QueueFullError, UnavailableError, UnsupportedTaskError
from shared.jobs import Job, JobKind
from shared.ledger import NewJob
from shared.models import ModelVersion
from shared.queue import INFERENCE, INFERENCE_OLLAMA
from shared.requests import InferRequest, RegisteredName

router = APIRouter(prefix="/inference", tags=["inference"])

#: Priorities of jobs whose request does not say: of priority-one models, and of the others.
FIRST, USUAL = 0, 5
#: An idle worker answers in milliseconds; unloading a large model takes longer.
CONTROL_SECONDS = 10.0


class CacheClear(BaseModel):
    """Which warm models to unload; all if no name is given."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_name: RegisteredName | None = None


@router.post("/infer", summary="Ask a model", responses=JOB_ANSWERS, status_code=202)
async def infer(
    services: Provided,
    caller: Calling,
    wait: Waiting,
    request: Annotated[
        InferRequest,
        Body(
            openapi_examples={
                "prompt": {
                    "value": {
                        "task": "text-generation",
                        "engine": "transformers",
                        "model_name": "smollm",
                        "data": {"inputs": "The capital of France is"},
                        "options": {"max_new_tokens": 32},
                    }
                },
                "chat": {
                    "value": {
                        "task": "text-generation",
                        "model_name": "smollm",
                        "data": {"inputs": [{"role": "user", "content": "Hello!"}]},
                        "stream": True,
                    }
                },
            }
        ),
    ],
) -> Response:
    """Queue a request to a registered model; the job's result holds the model's answer."""
    try:
        accepted = await INFERENCES.run(_accepted, services, caller, request, wait)
    except QueueFullError as error:
        services.refusals.note(caller.id, error)
        raise
    return await services.submission.answered(accepted, wait)


def _accepted(services: Services, caller: Caller, request: InferRequest, wait: Wait) -> Job:
    """Write a request down, or refuse what no worker could do."""
    check_timeout(services.settings.ledger, request)
    job = NewJob(
        kind=JobKind.INFER,
        request=request.model_dump(mode="json", exclude_none=True),
        queue=services.inference_queues.of(request.engine),
        model=request.model_name,
        max_attempts=services.settings.ledger.max_attempts,
        priority=USUAL if request.priority is None else request.priority,
        start_within_seconds=request.start_within_seconds,
        lifetime_seconds=request.timeout_seconds or services.settings.inference.max_seconds,
    )
    if (earlier := services.submission.accepted_before(job, wait)) is not None:
        return earlier
    model = _servable(services, request)
    check_files(services.files, caller.submitter, request.data)
    if request.priority is None and model is not None and model.has_priority:
        job = replace(job, priority=FIRST)
    return services.submission.accept(job, wait)


def _servable(services: Services, request: InferRequest) -> ModelVersion | None:
    """Refuse what no worker could serve; None when MLflow is away: the worker finds out."""
    check_served(services.presence, request.task, request.engine)
    try:
        model = services.registry.resolve(request.model_name, request.version, request.stage)
    except UnavailableError:
        return None
    if model.task != request.task:
        raise UnsupportedTaskError(
            f"{model.name} version {model.version} is registered for {model.task}",
            field="task",
        )
    if model.engine != request.engine:
        raise UnsupportedTaskError(
            f"{model.name} version {model.version} runs on {model.engine}", field="engine"
        )
    return model


@router.get("/health", summary="Whether inference can be served")
def health(services: Provided) -> dict[str, Any]:
    """Return the GPU and Ollama workers that are alive and what each says of its parts.

    `degraded`: Ollama does not answer, and `affected_models` in production are served by it.
    """
    workers, affected = _inference_workers(services), services.ollama_dependents.affected()
    served = "degraded" if affected else "ok"
    return {
        "status": served if workers else "unavailable",
        "affected_models": affected,
        "queued": sum(map(services.ledger.queued, (INFERENCE, INFERENCE_OLLAMA))),
        "workers": {
            name: {
                "in_flight": status["in_flight"],
                "consuming": status["consuming"],
                **status["inference"]["health"],
            }
            for name, status in workers.items()
        },
    }


@router.get("/stats", summary="Requests, cache and loaded models")
def stats(services: Provided) -> dict[str, Any]:
    """Return counts over all GPU and Ollama workers, and each worker's own."""
    workers = {
        name: status["inference"]["stats"] for name, status in _inference_workers(services).items()
    }
    return {"total": _summed(list(workers.values())), "workers": workers}


@router.post("/cache/clear", summary="Unload warm models")
def clear_cache(
    services: Provided,
    request: Annotated[CacheClear, Body(openapi_examples={"all": {"value": {}}})] = CacheClear(),  # noqa: B008 - frozen by use
) -> dict[str, Any]:
    """Unload what no request uses; what is in use is left and named."""
    names = list(_inference_workers(services))
    if not names:
        return {"workers": {}}
    try:
        replies = services.celery.control.broadcast(
            "clear_cache",
            arguments={"model_name": request.model_name},
            destination=names,
            reply=True,
            limit=len(names),
            timeout=CONTROL_SECONDS,
        )
    except (CeleryError, KombuError, RedisError, OSError) as error:
        raise UnavailableError("the workers cannot be reached", code="redis_unavailable") from error
    answered = {name: reply for each in replies or [] for name, reply in each.items()}
    silent = {name: {"error": "no answer"} for name in names if name not in answered}
    return {"workers": answered | silent}


def _inference_workers(services: Services) -> dict[str, dict[str, Any]]:
    return {
        worker.name: worker.status
        for worker in services.presence.workers()
        if worker.kind in {"gpu", "ollama"}
    }


def _summed(workers: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the counts of all workers, and derive the rates from the sums."""
    total: dict[str, Any] = {
        name: sum(worker[name] for worker in workers)
        for name in ("requests", "in_flight", "succeeded", "failed", "cancelled")
    }
    total |= {name: sum(worker["cache"][name] for worker in workers) for name in ("hits", "misses")}
    judged, looked_up = total["succeeded"] + total["failed"], total["hits"] + total["misses"]
    total["success_rate"] = total["succeeded"] / judged if judged else None
    total["cache_hit_rate"] = total["hits"] / looked_up if looked_up else None
    return total
