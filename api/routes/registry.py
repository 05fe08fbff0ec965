"""The stores as they are now: staging area, lakeFS repositories, MLflow's registry."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import humanize
from fastapi import APIRouter, Body, Path, Query
from pydantic import BaseModel, ConfigDict

from api.callers import Calling
from api.components import probe_all
from api.documented import CONFLICT, NOT_FOUND
from api.services import Provided, Services
from api.views import Message, ModelsHealth, VersionView
from shared.lakefs.types import Repository
from shared.registry import Cause
from shared.requests import Flag, RegisteredName, Stage, Version

router = APIRouter(prefix="/models", tags=["registry"])


class StageTransition(BaseModel):
    """A version and the stage that it gets."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_name: RegisteredName
    version: Version
    stage: Stage
    archive_existing_versions: Flag = False


class StageRollback(BaseModel):
    """A stage that goes back to the version that had it before."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_name: RegisteredName
    stage: Literal["production", "staging"]
    #: Refuse unless the stage stands for this version now.
    from_version: Version | None = None


class RolledBack(Message):
    """Which version has the stage again."""

    version: str


@router.get("/local", summary="Models in the staging area")
def local_models(
    services: Provided, model_source: Literal["huggingface", "ollama"] = "huggingface"
) -> list[dict[str, Any]]:
    """Return what was downloaded, to whichever host, and can be uploaded; or what Ollama has.

    Of other hosts than the front's those models are told that a download staged.
    """
    if model_source == "ollama":
        return [
            _local(model.name, model.size_bytes, model.modified_at)
            for model in services.ollama.models()
        ]
    return [*_staged_here(services), *_staged_elsewhere(services)]


def _staged_here(services: Services) -> list[dict[str, Any]]:
    return [
        _local(model.name, model.size_bytes, model.modified_at)
        | {
            "host": services.settings.storage.host_id,
            "files": len(model.files),
            "model_source": model.source,
            "model_name": model.repo_id,
            "revision": model.revision,
        }
        for model in services.staging.list()
    ]


def _staged_elsewhere(services: Services) -> list[dict[str, Any]]:
    """Return the models of other hosts, as long as those have a worker that could upload them."""
    alive = {worker.host for worker in services.presence.workers() if worker.kind == "cpu"}
    return [
        _local(placed.source.local_model_name, placed.size_bytes, placed.staged_at)
        | {
            "host": placed.host,
            "files": placed.files,
            "model_source": placed.source.model_source,
            "model_name": placed.source.model_name,
            "revision": placed.source.revision,
        }
        for placed in services.placement.list()
        if placed.host in alive - {services.settings.storage.host_id}
    ]


def _local(name: str, size_bytes: int, modified_at: datetime) -> dict[str, Any]:
    return {
        "name": name,
        "size": humanize.naturalsize(size_bytes),
        "modified": humanize.naturaltime(modified_at, when=datetime.now(UTC)),
        "size_bytes": size_bytes,
        "modified_at": modified_at,
    }


@router.get("/lakefs_repos", summary="Repositories of lakeFS")
def lakefs_repos(services: Provided) -> list[Repository]:
    """Return the repositories that uploads may go to."""
    return services.repositories.repositories()


@router.get("/registered_in_mlflow", summary="Registered models")
def registered_models(services: Provided, show_all: bool = False) -> list[VersionView]:
    """Return the versions in production and staging; with `show_all`, archived and unstaged too."""
    return [VersionView.of(version) for version in services.registry.list_models(show_all=show_all)]


@router.get(
    "/registered_in_mlflow/{name}", summary="Versions of a registered model", responses=NOT_FOUND
)
def registered_versions(
    services: Provided,
    name: Annotated[RegisteredName, Path(openapi_examples={"name": {"value": "smollm"}})],
    all_version: bool = False,
) -> list[VersionView]:
    """Return the versions in production and staging; with `all_version`, every one."""
    return [
        VersionView.of(version)
        for version in services.registry.versions(name, all_version=all_version)
    ]


@router.post("/transition_stage", summary="Give a version a stage", responses=NOT_FOUND | CONFLICT)
def transition_stage(
    services: Provided,
    caller: Calling,
    request: Annotated[
        StageTransition,
        Body(
            openapi_examples={
                "promote": {
                    "value": {"model_name": "smollm", "version": "2", "stage": "production"}
                }
            }
        ),
    ],
) -> Message:
    """Set the version's stage at once; `production` and `staging` also move MLflow's alias."""
    services.registry.set_stage(
        request.model_name,
        request.version,
        request.stage,
        archive_existing=request.archive_existing_versions,
        cause=Cause("transition", key_id=caller.id),
    )
    return Message(message=f"{request.model_name} version {request.version} is now {request.stage}")


@router.post(
    "/rollback_stage",
    summary="Give a stage back to the version that had it before",
    responses=NOT_FOUND | CONFLICT,
)
def rollback_stage(
    services: Provided,
    caller: Calling,
    request: Annotated[
        StageRollback,
        Body(
            openapi_examples={
                "back": {"value": {"model_name": "smollm", "stage": "production"}},
                "once": {
                    "value": {"model_name": "smollm", "stage": "production", "from_version": "3"}
                },
            }
        ),
    ],
) -> RolledBack:
    """Take the last transition back at once, and archive the newer versions in the stage.

    Called again it goes back further, `from_version` keeps a repeated call from that; 409 if no
    earlier version is known.
    """
    version = services.registry.roll_back(
        request.model_name,
        request.stage,
        cause=Cause("rollback", key_id=caller.id),
        from_version=request.from_version,
    ).version
    return RolledBack(
        message=f"{request.model_name} {request.stage} is back at version {version}",
        version=version,
    )


@router.get("/stats", summary="Counts of registered models")
def stats(
    services: Provided, show_all: Annotated[bool, Query(description="Archived ones too.")] = False
) -> dict[str, Any]:
    """Return how many versions there are by stage, task and engine."""
    return services.registry.stats(show_all=show_all)


@router.get("/health", summary="The stores and services of the lifecycle")
def health(services: Provided) -> ModelsHealth:
    """Ask MLflow, lakeFS, the hub, Ollama and Redis at once, and return how each answered."""
    return probe_all(services.probes, services.ollama_dependents)
