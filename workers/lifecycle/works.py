"""What a CPU worker does, by kind of job."""

from typing import Any

from shared.hub import Hub
from shared.jobs import JobKind
from shared.lakefs.connection import CONNECT_SECONDS
from shared.lakefs.listing import RepositoryListing
from shared.lakefs.store import LakeFSStore
from shared.ledger import Ledger, OwnedBranches, Placement
from shared.ollama import OllamaServer
from shared.queue import InferenceQueues
from shared.registry import ModelRegistry
from shared.requests import DownloadRequest
from shared.settings import Settings
from shared.staging import StagingArea
from workers.context import JobContext, Work, WorkerParts
from workers.lifecycle.branch_sweeper import BranchSweeper
from workers.lifecycle.download import Download
from workers.lifecycle.import_job import Import
from workers.lifecycle.import_steps import Steps
from workers.lifecycle.ollama import OllamaPull, RegisterOllama
from workers.lifecycle.register import Register
from workers.lifecycle.restaging import Restaging
from workers.lifecycle.upload import Upload
from workers.lifecycle.version_branches import VersionBranches


def lifecycle_works(
    settings: Settings,
    ledger: Ledger,
    registry: ModelRegistry,
    placement: Placement,
    branches: OwnedBranches,
    inference_queues: InferenceQueues,
) -> WorkerParts:
    """Build the lifecycle jobs on their real collaborators."""
    staging = StagingArea(settings.storage, ledger.ended)
    store = LakeFSStore(settings.lakefs)
    ollama = OllamaServer(settings.ollama)
    from_hub, from_ollama = Download(Hub(settings.hub), staging, settings.hub), OllamaPull(ollama)
    restaging = Restaging(from_hub, placement, settings.storage.host_id)
    steps = Steps(placement, inference_queues, settings.inference.max_seconds)
    versions = VersionBranches(store, RepositoryListing(settings.lakefs), registry, branches)
    of_lakefs = Register(registry, store, versions.hold)
    of_ollama = RegisterOllama(registry, ollama)

    def download(context: JobContext) -> dict[str, Any]:
        if context.job.request["model_source"] == "ollama":
            return from_ollama(context)
        return restaging.stage(context, DownloadRequest.model_validate(context.job.request))

    def register(context: JobContext) -> dict[str, Any]:
        return (of_lakefs if "lakefs_repo" in context.job.request else of_ollama)(context)

    # A call is repeated once where the connection broke.
    longest_call = 2 * (CONNECT_SECONDS + settings.lakefs.timeout_seconds)
    sweeper = BranchSweeper(ledger, branches, store, versions, settings.worker, longest_call)
    works: dict[JobKind, Work] = {
        JobKind.DOWNLOAD: download,
        JobKind.UPLOAD: Upload(store, staging, settings.lakefs, restaging, branches),
        JobKind.REGISTER: register,
        JobKind.IMPORT: Import(ledger, steps, registry),
    }
    return WorkerParts(works, background=(sweeper,))
