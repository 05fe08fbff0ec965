"""The audit trail of stages: which version got which stage, when, from where, and by whom.

Each change is a tag of its own on its version, ``stage_history.<time>``: it is written at once or
not at all, so transitions that race with each other cannot spoil what the others wrote. It is
written before the change that it tells of; a change that was cut short is told of all the same.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from shared.models import ChangeKind, StageChange
from shared.registry.stages import newest

PREFIX = "stage_history."
#: Changes of one version that are kept; the oldest go first.
KEPT = 20
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"

#: The changes of each version of a model, the oldest first.
Histories = Mapping[str, Sequence[StageChange]]


@dataclass(frozen=True)
class Cause:
    """Why versions change their stages."""

    kind: ChangeKind = "transition"
    #: The job that does it; empty for a call that is answered at once.
    job_id: str = ""
    #: The API key of whoever asked for it; empty where no keys are in use.
    key_id: str = ""


def to_tag(change: StageChange) -> tuple[str, str]:
    """Return name and value of the tag that keeps a change."""
    return tag_at(change.at), change.model_dump_json(by_alias=True, exclude={"at"})


def tag_at(at: datetime) -> str:
    """Return the name of the tag of a change that was made then."""
    return PREFIX + at.strftime(_TIME)


def read_history(tags: Mapping[str, str]) -> tuple[StageChange, ...]:
    """Return a version's changes; a tag that others spoilt is passed over."""
    found = (_read(name, tags[name]) for name in sorted(tags) if name.startswith(PREFIX))
    return tuple(change for change in found if change)


def _read(name: str, value: str) -> StageChange | None:
    try:
        at = datetime.strptime(name.removeprefix(PREFIX), _TIME).replace(tzinfo=UTC)
        return StageChange.model_validate({**json.loads(value), "at": at})
    except (ValueError, TypeError):
        return None


def next_moment(histories: Histories) -> datetime:
    """Return the time of a change that is made now: after all that are known.

    So their order is right also where the clocks of two hosts differ a little.
    """
    known = [
        history[-1].at + timedelta(microseconds=1) for history in histories.values() if history
    ]
    return max([datetime.now(UTC), *known])


def previous_holder(stages: Mapping[str, str], histories: Histories, stage: str) -> str | None:
    """Return the version that the stage stood for before the one that it stands for now.

    A rollback takes back what came after the version that it went back to, so that one rollback
    after another goes further back. Passed over are versions that are gone, and for staging those
    that are in production now: they stay there.
    """
    former: list[str] = []
    for holder, is_rollback in _holders(stages, histories, stage):
        if holder is None:
            continue
        if is_rollback and holder in former:
            while former[-1] != holder:
                former.pop()
        elif former[-1:] != [holder]:
            former.append(holder)
    now = newest(stages, stage)
    taken = {version for version in stages if stages[version] == "production" != stage}
    return next((each for each in reversed(former) if each != now and each not in taken), None)


def _holders(
    stages: Mapping[str, str], histories: Histories, stage: str
) -> Iterator[tuple[str | None, bool]]:
    """Yield what a stage stood for, from before the first known change, and if by a rollback."""
    past = {
        version: histories[version][0].from_stage if histories[version] else stages[version]
        for version in stages
    }
    yield newest(past, stage), False
    changes = sorted(
        ((change.at, version, change) for version in stages for change in histories[version]),
        key=lambda each: each[0],
    )
    for _, at_once in groupby(changes, key=lambda each: each[0]):
        is_rollback = False
        for _, version, change in at_once:
            past[version] = change.to_stage
            is_rollback |= change.kind == "rollback"
        yield newest(past, stage), is_rollback
