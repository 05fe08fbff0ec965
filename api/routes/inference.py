"""Inference: ask a model, look at the workers that answer, empty their caches."""

from functools import partial
from typing import Annotated, Any

from celery.exceptions import CeleryError
from fastapi import APIRouter, Body, Response
from fastapi.concurrency import run_in_threadpool
from kombu.exceptions import KombuError
from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError

from api.callers import Calling
from api.documented import JOB_ANSWERS
from api.services import Provided, Services
from api.submission import check_timeout
from api.waiting import Waiting
from shared.errors import QueueFullError, UnavailableError
from shared.jobs import JobKind
from shared.ledger import NewJob
from shared.queue import INFERENCE, INFERENCE_OLLAMA
from shared.requests import InferRequest, RegisteredName

router = APIRouter(prefix="/inference", tags=["inference"])

INFERENCE_QUEUES = (INFERENCE, INFERENCE_OLLAMA)
#: Priority of a job whose request does not say, unless its model has priority.
USUAL = 5
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
    check_timeout(services.settings.ledger, request)
    job = NewJob(
        kind=JobKind.INFER,
        request=request.model_dump(mode="json", exclude_none=True),
        queue=INFERENCE,
        model=request.model_name,
        max_attempts=services.settings.ledger.max_attempts,
        priority=USUAL if request.priority is None else request.priority,
        start_within_seconds=request.start_within_seconds,
        lifetime_seconds=request.timeout_seconds or services.settings.inference.max_seconds,
        affinity=f"{request.model_name}@{request.version or request.stage or ''}",
        streams=request.stream,
    )
    try:
        return await services.submission.submit(
            job, wait, prepare=partial(services.models.prepare, request=request, caller=caller)
        )
    except QueueFullError as error:
        services.refusals.note(caller.id, error)
        raise


@router.get("/health", summary="Whether inference can be served")
async def health(services: Provided) -> dict[str, Any]:
    """Return the GPU and Ollama workers that are alive and what each says of its parts.

    `degraded`: Ollama does not answer, and `affected_models` in production are served by it.
    """
    workers = await run_in_threadpool(_inference_workers, services)
    affected = await run_in_threadpool(services.ollama_dependents.affected)
    served = "degraded" if affected else "ok"
    return {
        "status": served if workers else "unavailable",
        "affected_models": affected,
        "queued": sum([await services.ledger.queued(queue) for queue in INFERENCE_QUEUES]),
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
