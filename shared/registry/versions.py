"""An MLflow model version as the platform sees it."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from shared.errors import InvalidInputError
from shared.models import LakeFSLocation, ModelVersion
from shared.registry.history import PREFIX, read_history
from shared.tasks import NAME_PATTERN

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MLflowVersion

STAGES = frozenset({"production", "staging", "archived", "none"})


def stage_of(version: "MLflowVersion") -> str:
    """Return a version's stage; ``none`` for a tag that is not one of ours."""
    stage = version.tags.get("stage", "none")
    return stage if stage in STAGES else "none"


def model_version(version: "MLflowVersion", aliases: Iterable[str]) -> ModelVersion | None:
    """Return a version; None for one that another client registered without task and engine."""
    tags = {name: text for name, text in version.tags.items() if not name.startswith(PREFIX)}
    task, engine = tags.get("inference_task", ""), tags.get("engine", "")
    if not all(re.fullmatch(NAME_PATTERN, name) for name in (task, engine)):
        return None
    return ModelVersion(
        name=version.name,
        version=str(version.version),
        stage=stage_of(version),
        task=task,
        engine=engine,
        location=location_of(version),
        description=version.description or "",
        created_at_ms=version.creation_timestamp or 0,
        updated_at_ms=version.last_updated_timestamp or 0,
        aliases=tuple(sorted(aliases)),
        tags=tags,
        history=read_history(version.tags),
    )


def location_of(version: "MLflowVersion") -> LakeFSLocation | None:
    """Return where a version's files are; None if its source is not in lakeFS.

    The tags decide: MLflow does not let a version's source be changed, and a move to another
    lakeFS server gives every commit a new id.
    """
    tags = version.tags
    try:
        location = LakeFSLocation.parse(version.source or "")
    except InvalidInputError:
        return None
    if tags.get("lakefs_repo") and tags.get("lakefs_commit"):
        path = tags.get("lakefs_path", "").strip("/")
        location = LakeFSLocation(tags["lakefs_repo"], tags["lakefs_commit"], path)
    return replace(location, manifest=tags.get("lakefs_manifest", ""))
