"""What a worker's slot asks of the ledger, and what it gets."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.jobs import Job


def _nonce() -> str:
    return secrets.token_hex(8)


@dataclass(frozen=True)
class Want:
    """What a slot can take. A call with the same ``nonce`` returns what the first one got."""

    #: Names the slot: ``WORKER/NUMBER``.
    slot: str
    #: The worker.
    owner: str
    queues: tuple[str, ...]
    #: Affinities of the models that are warm at the worker, each with the number of jobs that this
    #: slot takes at once; None for workers without models.
    warm: Mapping[str, int] | None = None
    #: Whether the worker may load another model.
    loads: bool = True
    #: Take only jobs that must run alone, because they lost workers.
    alone: bool = False
    nonce: str = field(default_factory=_nonce)


@dataclass(frozen=True)
class Claimed:
    """The jobs that a slot got."""

    jobs: tuple[Job, ...] = ()
    #: Jobs wait, but for now they are left to a worker where their model is warm: ask again then.
    wait_seconds: float | None = None


@dataclass(frozen=True)
class Ended:
    """What came of ending a run."""

    #: Whether the end counts; False: the job is another worker's now.
    kept: bool
    claimed: Claimed = Claimed()


@dataclass(frozen=True)
class Postponed(Ended):
    """What came of giving a job back because of an outage."""

    #: The outage has lasted for longer than a job may wait; nothing was changed.
    over: bool = False
    #: For how long the job has missed the service.
    seconds: float = 0
