"""What a GPU worker or an Ollama worker does: inference, and what it tells of itself."""

from typing import Any

from celery.worker.control import control_command

from shared.jobs import JobKind
from shared.lakefs.store import LakeFSStore
from shared.registry import ModelRegistry
from shared.requests import InferRequest
from shared.settings import Settings
from shared.tasks import Engine
from workers.context import JobContext, WorkerParts
from workers.inference.manager import build_manager


def inference_works(
    settings: Settings, registry: ModelRegistry, *, ollama_only: bool
) -> WorkerParts:
    """Build the inference job on its real collaborators, and the worker's report of itself."""
    store = LakeFSStore(settings.lakefs)
    engine = Engine.OLLAMA if ollama_only else None
    manager = build_manager(settings, registry, store, remote_engine=engine)
    manager.import_engine(engine or Engine.TRANSFORMERS)
    if settings.inference.preload:
        manager.start_preload()

    def infer(context: JobContext) -> dict[str, Any]:
        request = InferRequest.model_validate(context.job.request)
        return manager.infer(
            request.task,
            request.engine,
            request.model_name,
            request.data,
            request.options,
            version=request.version,
            stage=request.stage,
            token=context.cancel,
            on_token=context.emit if request.stream else None,
            on_thought=context.emit_thought if request.stream else None,
            on_progress=context.report,
            epoch=context.job.epoch,
        )

    @control_command(name="clear_cache", args=[("model_name", str)], signature="[model_name]")  # type: ignore[untyped-decorator]
    def clear_cache(state: object, model_name: str | None = None) -> dict[str, Any]:  # noqa: ARG001
        return manager.clear_cache(model_name)

    def status() -> dict[str, Any]:
        return {"inference": {"health": manager.health_check(), "stats": manager.get_stats()}}

    return WorkerParts({JobKind.INFER: infer}, status, manager)
