"""The model registry as the platform uses it."""

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.errors import ConflictError, NoServableVersionError, NotFoundError
from shared.models import LakeFSLocation, ModelVersion
from shared.registry.client import Client
from shared.registry.history import Cause
from shared.registry.queries import Queries
from shared.registry.resolutions import Epoch, LocalEpoch, Resolutions
from shared.registry.stages import SERVABLE
from shared.registry.transitions import Transitions
from shared.registry.versions import location_of, model_version
from shared.settings import MLflowSettings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MLflowVersion

#: A change that is made at once, without a job or a key.
TRANSITION = Cause()


class ModelRegistry:
    """Registered models and their versions; safe to use from several threads."""

    def __init__(self, settings: MLflowSettings, epoch: Epoch | None = None) -> None:
        """``epoch`` is what processes share so that a transition in one is seen by all."""
        self._client = Client(settings)
        self._queries = Queries(self._client)
        self._transitions = Transitions(self._client, self._queries)
        self._resolutions = Resolutions(settings.resolution_cache_seconds, epoch or LocalEpoch())

    def health(self) -> float:
        """Return the seconds that an answer takes."""
        started = time.monotonic()
        self._client.call(lambda mlflow: mlflow.search_registered_models(max_results=1))
        return time.monotonic() - started

    def create_version(
        self,
        name: str,
        location: LakeFSLocation | None,
        tags: Mapping[str, str],
        description: str | None,
        job_id: str,
    ) -> ModelVersion:
        """Return the job's version, created if it is not there, as is the model.

        ``tags`` say at least ``inference_task`` and ``engine``. A version begins in stage ``none``.
        """
        made = self._made_by(job_id, name)
        if not made:
            self._ensure_model(name)
            # MLflow wants an absolute path in every source.
            source = location.uri if location else f"{tags['engine']}:///{name}"
            self._client.call_once(
                lambda mlflow: mlflow.create_model_version(
                    name=name,
                    source=source,
                    tags={"stage": "none", **tags, "job_id": job_id},
                    description=description,
                    await_creation_for=0,  # else it polls for up to 300 s
                )
            )
            # Two runs of one job, the first thought dead, may both have come here.
            made = self._made_by(job_id, name)
            for later in made[1:]:
                self._delete(name, later)
        return self._get(name, made[0])

    def set_stage(
        self,
        name: str,
        version: str,
        stage: str,
        *,
        archive_existing: bool = False,
        cause: Cause = TRANSITION,
    ) -> ModelVersion:
        """Give a version a stage; with ``archive_existing``, archive the others that have it."""
        try:
            self._transitions.set_stage(
                name, version, stage, cause, archive_existing=archive_existing
            )
        finally:
            self._resolutions.forget()
        return self._get(name, version)

    def roll_back(
        self, name: str, stage: str, *, cause: Cause, from_version: str | None = None
    ) -> ModelVersion:
        """Give a stage back to the version that had it before; raise ConflictError without one.

        With ``from_version`` only if the stage still stands for that one, so that a call that is
        repeated does not go back further.
        """
        try:
            version = self._transitions.roll_back(name, stage, cause, from_version)
        finally:
            self._resolutions.forget()
        return self._get(name, version)

    def resolve(
        self,
        name: str,
        version: str | None = None,
        stage: str | None = None,
        *,
        epoch: int | None = None,
    ) -> ModelVersion:
        """Return the asked version, else the newest in the asked stage, in production, in staging.

        A version that is asked for by its number may be in any stage, archived too: comparing with
        an earlier version, or trying it before going back to it, needs no transition. What was
        remembered before the transition ``epoch`` is not used; None: before the last one.
        """
        key = name, version, stage
        return self._resolutions.get(key, lambda: self._resolve(*key), epoch)

    def remembered(
        self, name: str, version: str | None, stage: str | None, epoch: int
    ) -> ModelVersion | None:
        """Return what ``resolve`` remembers since a transition, without asking MLflow or Redis."""
        return self._resolutions.remembered((name, version, stage), epoch)

    def list_models(self, *, show_all: bool = False) -> list[ModelVersion]:
        """Return the versions of all models that are in production or staging, or all versions.

        What other clients registered without task and engine is left out.
        """
        aliases = {model.name: _texts(model.aliases) for model in self._queries.models()}
        found = [_view(each, aliases.get(each.name, {})) for each in self._queries.versions()]
        return [each for each in found if each and (show_all or each.stage in SERVABLE)]

    def versions(self, name: str, *, all_version: bool = False) -> list[ModelVersion]:
        """Return a model's versions in production or staging, newest first, or all of them."""
        aliases = self._queries.aliases(name)
        found = [_view(each, aliases) for each in self._queries.versions(name=name)]
        return [each for each in found if each and (all_version or each.stage in SERVABLE)]

    def locations(self) -> dict[tuple[str, str], LakeFSLocation]:
        """Return where the files of each version are, by the model's name and the version.

        Versions that other clients registered are included; those without files in lakeFS are not.
        """
        versions = self._queries.versions()
        found = {(each.name, str(each.version)): location_of(each) for each in versions}
        return {version: location for version, location in found.items() if location}

    def location(self, name: str, version: str) -> LakeFSLocation | None:
        """Return where a version's files are; None without files in lakeFS or without a version."""
        with suppress(NotFoundError):
            return location_of(self._queries.version(name, version))
        return None

    def stats(self, *, show_all: bool = False) -> dict[str, int | dict[str, int]]:
        """Return how many models and versions there are, and versions by stage, task and engine."""
        versions = self.list_models(show_all=show_all)
        return {
            "models": len({each.name for each in versions}),
            "versions": len(versions),
            "by_stage": dict(Counter(each.stage for each in versions)),
            "by_task": dict(Counter(each.task for each in versions)),
            "by_engine": dict(Counter(each.engine for each in versions)),
        }

    def _resolve(self, name: str, version: str | None, stage: str | None) -> ModelVersion:
        if version is not None:
            return self._get(name, version)
        stages = (stage,) if stage is not None else SERVABLE
        for candidate in stages:
            if found := self._queries.newest(name, candidate):
                return _own(found)
        self._queries.aliases(name)  # says so if it is the model that does not exist
        raise NoServableVersionError(
            f"registered model {name!r} has no version in {' or '.join(stages)}"
        )

    def _get(self, name: str, version: str) -> ModelVersion:
        return _own(self._queries.version(name, version))

    def _made_by(self, job_id: str, name: str) -> list[str]:
        """Return the versions that a job created, the first one first."""
        found = self._queries.versions(name=name, job_id=job_id)
        return sorted((str(each.version) for each in found), key=int)

    def _ensure_model(self, name: str) -> None:
        with suppress(ConflictError):
            self._client.call(lambda mlflow: mlflow.create_registered_model(name))

    def _delete(self, name: str, version: str) -> None:
        with suppress(NotFoundError):
            self._client.call(lambda mlflow: mlflow.delete_model_version(name, version))


def _own(version: "MLflowVersion") -> ModelVersion:
    """Return a version that must be one of the platform's."""
    view = model_version(version, version.aliases)
    if view is None:
        raise ConflictError(
            f"version {version.version} of {version.name!r} has no tags inference_task and engine: "
            "it was not registered by this platform",
            code="foreign_version",
        )
    return view


def _texts(aliases: Mapping[str, object]) -> dict[str, str]:
    return {alias: str(version) for alias, version in aliases.items()}


def _view(version: "MLflowVersion", aliases: Mapping[str, str]) -> ModelVersion | None:
    own = [alias for alias, target in aliases.items() if target == str(version.version)]
    return model_version(version, own)
