"""The stores as they are now: staging area, lakeFS repositories, MLflow's registry."""

from dataclasses import replace
from typing import Any
from urllib.parse import quote

from client.answers import LocalModel, Message, ModelsHealth, Repository, Version
from client.calls import Call, get, post

#: The API asks all of them at once; one that hangs is as good as down.
_HEALTH_SECONDS = 10.0


def local(model_source: str | None = None) -> Call[list[LocalModel]]:
    """List the models of the staging area, or of the Ollama server."""
    return get("/models/local", list[LocalModel], model_source=model_source)


def repos() -> Call[list[Repository]]:
    """List the repositories of lakeFS."""
    return get("/models/lakefs_repos", list[Repository])


def ls(*, show_all: bool = False) -> Call[list[Version]]:
    """List the versions in production and staging; with ``show_all``, the others too."""
    return get("/models/registered_in_mlflow", list[Version], show_all=show_all)


def show(name: str, *, all_version: bool = False) -> Call[list[Version]]:
    """List a model's versions in production and staging; with ``all_version``, every one."""
    path = f"/models/registered_in_mlflow/{quote(name, safe='')}"
    return get(path, list[Version], all_version=all_version)


def stats(*, show_all: bool = False) -> Call[dict[str, Any]]:
    """Count the versions by stage, task and engine."""
    return get("/models/stats", dict[str, Any], show_all=show_all)


def health() -> Call[ModelsHealth]:
    """Ask how MLflow, lakeFS, the hub, Ollama and Redis answer the API."""
    return replace(get("/models/health", ModelsHealth), timeout_seconds=_HEALTH_SECONDS)


def stage(
    model_name: str, version: str, stage: str, *, archive_existing_versions: bool = False
) -> Call[Message]:
    """Give a version a stage: ``production``, ``staging``, ``archived`` or ``none``."""
    body = {
        "model_name": model_name,
        "version": version,
        "stage": stage,
        "archive_existing_versions": archive_existing_versions,
    }
    return post("/models/transition_stage", Message, body)


def rollback_stage(
    model_name: str, stage: str = "production", *, from_version: str | None = None
) -> Call[Message]:
    """Give a stage back to the version that had it before.

    It goes back further each time, but with ``from_version`` only from that version.
    """
    body = {"model_name": model_name, "stage": stage, "from_version": from_version}
    repeatable = from_version is not None
    return post("/models/rollback_stage", Message, body, repeatable=repeatable)
