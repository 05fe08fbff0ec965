"""Which writes give a version a stage.

A stage is a tag on the version, and that is the truth. Its alias is for other MLflow clients: it is
on the newest version, by number, that has the stage. Every plan starts from what is there now, so a
plan that was cut short is completed by making and applying another for the same wish. The order
keeps a stage that has a version before and after from being empty in between.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

#: The stages whose newest version is found by an MLflow alias of the same name.
SERVABLE = ("production", "staging")


@dataclass(frozen=True)
class SetStage:
    """Write the tag of a version."""

    version: str
    stage: str


@dataclass(frozen=True)
class SetAlias:
    """Point an alias to a version; without one, remove it."""

    alias: str
    version: str | None


Write = SetStage | SetAlias


def newest(stages: Mapping[str, str], stage: str) -> str | None:
    """Return the highest version that has a stage."""
    return max((version for version in stages if stages[version] == stage), key=int, default=None)


def plan(
    stages: Mapping[str, str],
    aliases: Mapping[str, str],
    version: str,
    stage: str,
    *,
    archive_existing: bool,
) -> Iterator[Write]:
    """Yield the writes that give a version a stage; ``stages`` has every version of the model."""
    wanted = {**stages, version: stage}
    if archive_existing and stage in SERVABLE:
        wanted |= dict.fromkeys(
            (other for other in stages if other != version and stages[other] == stage), "archived"
        )
    yield from _writes(stages, aliases, version, wanted)


def plan_rollback(
    stages: Mapping[str, str], aliases: Mapping[str, str], version: str, stage: str
) -> Iterator[Write]:
    """Yield the writes that make a stage stand for a version; newer ones in it are archived."""
    newer = (other for other in stages if stages[other] == stage and int(other) > int(version))
    wanted = {**stages, version: stage} | dict.fromkeys(newer, "archived")
    yield from _writes(stages, aliases, version, wanted)


def _writes(
    stages: Mapping[str, str], aliases: Mapping[str, str], version: str, wanted: Mapping[str, str]
) -> Iterator[Write]:
    """Yield what leads from one to the other, in its order; ``version`` goes first."""
    if stages[version] != wanted[version]:
        yield SetStage(version, wanted[version])
    targets = {alias: newest(wanted, alias) for alias in SERVABLE}
    for alias, target in targets.items():
        if target is not None and aliases.get(alias) != target:
            yield SetAlias(alias, target)
    for other in sorted(stages, key=int):
        if other != version and wanted[other] != stages[other]:
            yield SetStage(other, wanted[other])
    for alias, target in targets.items():
        if target is None and alias in aliases:
            yield SetAlias(alias, None)
