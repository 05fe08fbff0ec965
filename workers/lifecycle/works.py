"""What a CPU worker does, by kind of job."""

from typing import Any

from shared.hub import Hub
from shared.jobs import JobKind
from shared.lakefs.store import LakeFSStore
from shared.ledger import Ledger, Placement
from shared.ollama import OllamaServer
from shared.registry import ModelRegistry
from shared.requests import DownloadRequest
from shared.settings import Settings
from shared.staging import StagingArea
from workers.context import JobContext
from workers.lifecycle.download import Download
from workers.lifecycle.import_job import Import
from workers.lifecycle.import_steps import Steps
from workers.lifecycle.ollama import OllamaPull, RegisterOllama
from workers.lifecycle.register import Register
from workers.lifecycle.restaging import Restaging
from workers.lifecycle.upload import Upload
from workers.runner import Work


def lifecycle_works(
    settings: Settings, ledger: Ledger, registry: ModelRegistry, placement: Placement
) -> dict[JobKind, Work]:
    """Build the lifecycle jobs on their real collaborators."""
    staging = StagingArea(settings.storage)
    store = LakeFSStore(settings.lakefs)
    ollama = OllamaServer(settings.ollama)
    from_hub, from_ollama = Download(Hub(settings.hub), staging, settings.hub), OllamaPull(ollama)
    restaging = Restaging(from_hub, placement, settings.storage.host_id)
    steps = Steps(placement, settings.inference.max_seconds)
    of_lakefs, of_ollama = Register(registry, store), RegisterOllama(registry, ollama)

    def download(context: JobContext) -> dict[str, Any]:
        if context.job.request["model_source"] == "ollama":
            return from_ollama(context)
        return restaging.stage(context, DownloadRequest.model_validate(context.job.request))

    def register(context: JobContext) -> dict[str, Any]:
        return (of_lakefs if "lakefs_repo" in context.job.request else of_ollama)(context)

    return {
        JobKind.DOWNLOAD: download,
        JobKind.UPLOAD: Upload(store, staging, settings.lakefs, restaging),
        JobKind.REGISTER: register,
        JobKind.IMPORT: Import(ledger, steps, registry),
    }
