"""What a CPU worker does, by kind of job."""

from typing import Any

from shared.hub import Hub
from shared.jobs import JobKind
from shared.lakefs import LakeFSStore
from shared.ledger import Placement
from shared.registry import ModelRegistry
from shared.settings import Settings
from shared.staging import StagingArea
from workers.context import JobContext
from workers.lifecycle.download import Download
from workers.lifecycle.register import Register
from workers.lifecycle.upload import Upload
from workers.runner import Work


def lifecycle_works(settings: Settings, placement: Placement) -> dict[JobKind, Work]:
    """Build the lifecycle jobs on their real collaborators."""
    staging = StagingArea(settings.storage)
    store = LakeFSStore(settings.lakefs)
    download = Download(Hub(settings.hub), staging, settings.hub)

    def download_here(context: JobContext) -> dict[str, Any]:
        result = download(context)
        placement.record(result["local_model_name"], settings.storage.host_id)
        return result

    return {
        JobKind.DOWNLOAD: download_here,
        JobKind.UPLOAD: Upload(store, staging, settings.lakefs),
        JobKind.REGISTER: Register(ModelRegistry(settings.mlflow), store),
    }
