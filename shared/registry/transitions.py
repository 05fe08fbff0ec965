"""Gives versions their stages in MLflow, and writes down who did it."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from shared.errors import ConflictError, NotFoundError
from shared.models import StageChange
from shared.registry.client import Client
from shared.registry.history import (
    KEPT,
    Cause,
    Histories,
    next_moment,
    previous_holder,
    read_history,
    tag_at,
    to_tag,
)
from shared.registry.queries import Queries, missing_version
from shared.registry.stages import SetAlias, SetStage, Write, newest, plan, plan_rollback
from shared.registry.versions import stage_of


@dataclass(frozen=True)
class _Model:
    """A registered model as it is at one moment."""

    name: str
    aliases: dict[str, str]
    stages: dict[str, str]
    histories: Histories

    @cached_property
    def moment(self) -> datetime:
        """When what is done now to the model is done, all of it at once."""
        return next_moment(self.histories)


class Transitions:
    """Changes stages; a change that was cut short is completed by making it again."""

    def __init__(self, client: Client, queries: Queries) -> None:
        self._client = client
        self._queries = queries

    def set_stage(
        self, name: str, version: str, stage: str, cause: Cause, *, archive_existing: bool
    ) -> None:
        """Give a version a stage; a job that did so before does not undo what came after."""
        model = self._look(name, version)
        if _is_overtaken(model.histories[version], cause):
            return
        writes = plan(
            model.stages, model.aliases, version, stage, archive_existing=archive_existing
        )
        self._carry_out(model, writes, version, cause)

    def roll_back(self, name: str, stage: str, cause: Cause, from_version: str | None) -> str:
        """Give a stage back to the version that had it before, and return that version."""
        model = self._look(name)
        now = newest(model.stages, stage)
        if from_version not in {None, now}:
            raise ConflictError(
                f"{stage} of {name!r} is at {f'version {now}' if now else 'no version'}, "
                f"not at version {from_version}",
                field="from_version",
                code="stage_moved",
            )
        version = previous_holder(model.stages, model.histories, stage)
        if version is None:
            raise ConflictError(
                f"no other version of {name!r} is known to have had {stage} before",
                code="no_earlier_version",
            )
        if model.stages[version] == stage:  # only the newer ones leave it, but it is what was done
            self._record(model, version, stage, cause)
        writes = plan_rollback(model.stages, model.aliases, version, stage)
        self._carry_out(model, writes, version, cause)
        return version

    def _look(self, name: str, version: str | None = None) -> _Model:
        """Return a model as it is now; with ``version``, one that must be there."""
        aliases = self._queries.aliases(name)
        found = {str(each.version): each for each in self._queries.versions(name=name)}
        if version is not None and version not in found:
            raise missing_version(name, version)
        return _Model(
            name,
            aliases,
            {number: stage_of(each) for number, each in found.items()},
            {number: read_history(each.tags) for number, each in found.items()},
        )

    def _carry_out(
        self, model: _Model, writes: Iterable[Write], version: str, cause: Cause
    ) -> None:
        for write in writes:
            if isinstance(write, SetStage):
                own = cause if write.version == version else replace(cause, kind="archive")
                self._record(model, write.version, write.stage, own)
            self._apply(model.name, write)
        # Another transition may have come between: look at the aliases again.
        model = self._look(model.name, version)
        now = model.stages[version]
        for write in plan(model.stages, model.aliases, version, now, archive_existing=False):
            self._apply(model.name, write)

    def _record(self, model: _Model, version: str, stage: str, cause: Cause) -> None:
        """Write down what is about to be done, unless a run of the job that was cut short did."""
        history = model.histories[version]
        if cause.job_id and history and _is_by(history[-1], cause.job_id, stage):
            return
        change = StageChange(
            at=model.moment,
            from_stage=model.stages[version],
            to_stage=stage,
            kind=cause.kind,
            job_id=cause.job_id,
            key_id=cause.key_id,
        )
        self._set_tag(model.name, version, *to_tag(change))
        for old in history[: max(len(history) + 1 - KEPT, 0)]:
            self._delete_tag(model.name, version, tag_at(old.at))

    def _apply(self, name: str, write: Write) -> None:
        match write:
            case SetStage(version, stage):
                self._set_tag(name, version, "stage", stage)
            case SetAlias(alias, None):
                self._client.call(lambda mlflow: mlflow.delete_registered_model_alias(name, alias))
            case SetAlias(alias, str(target)):
                self._client.call(
                    lambda mlflow: mlflow.set_registered_model_alias(name, alias, target)
                )

    def _set_tag(self, name: str, version: str, tag: str, value: str) -> None:
        self._client.call(lambda mlflow: mlflow.set_model_version_tag(name, version, tag, value))

    def _delete_tag(self, name: str, version: str, tag: str) -> None:
        with suppress(NotFoundError):  # another transition was here first
            self._client.call(lambda mlflow: mlflow.delete_model_version_tag(name, version, tag))


def _is_by(change: StageChange, job_id: str, stage: str) -> bool:
    return (change.job_id, change.to_stage) == (job_id, stage)


def _is_overtaken(history: Sequence[StageChange], cause: Cause) -> bool:
    """Return whether a job made its change in an earlier run, and somebody another one since."""
    if not cause.job_id:
        return False
    jobs = [change.job_id for change in history]
    return cause.job_id in jobs and jobs[-1] != cause.job_id
