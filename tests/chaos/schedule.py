"""What is going to happen, and when: all of it follows from the seed."""

import random
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.misbehaviour import Deed
from tests.chaos.submissions import Catalog, Submission, Submissions

#: Nothing fails before this time, nor within as much of the end.
CALM_SECONDS = 2.0


class FaultKind(StrEnum):
    """What is done to the stack; a word and, where there are several, its place."""

    KILL_CPU = "kill cpu"
    KILL_GPU = "kill gpu"
    KILL_API = "kill api"
    KILL_REDIS = "kill redis"
    STOP_CPU = "stop cpu"
    STOP_GPU = "stop gpu"
    STOP_API = "stop api"
    STOP_REDIS = "stop redis"
    #: Stopped for longer than a lease.
    FREEZE_REDIS = "freeze redis"
    #: A replica takes its place that lacks the last second.
    FAILOVER_REDIS = "failover redis"
    #: Redis' clock steps by more than a lease, and stays so.
    CLOCK_FORWARD = "forward clock"
    CLOCK_BACKWARD = "backward clock"
    TERM_CPU = "term cpu"
    TERM_GPU = "term gpu"
    TERM_API = "term api"
    FLUSH_QUEUES = "flush queues"
    CUT_REDIS = "cut redis"
    EXTRA_ENTRIES = "extra entries"
    HUB_STATUS = "status hub"
    HUB_CUT = "cut hub"
    # Not at MLflow, whose client takes a 200 without a body for an empty answer.
    HUB_BEHEAD = "behead hub"
    HUB_HANG = "hang hub"
    LAKEFS_STATUS = "status lakefs"
    LAKEFS_CUT = "cut lakefs"
    LAKEFS_BEHEAD = "behead lakefs"
    LAKEFS_HANG = "hang lakefs"
    LAKEFS_DROP_ANSWER = "drop_answer lakefs"
    MLFLOW_STATUS = "status mlflow"
    MLFLOW_CUT = "cut mlflow"
    MLFLOW_HANG = "hang mlflow"
    MLFLOW_DROP_ANSWER = "drop_answer mlflow"
    API_CUT = "cut api"
    API_DROP_ANSWER = "drop_answer api"
    FULL_STAGING = "full staging"
    FULL_SNAPSHOTS = "full snapshots"
    #: Jobs that misbehave.
    JOB_HANGS = "job hangs"
    JOB_SEGFAULTS = "job segfaults"
    JOB_EXHAUSTS = "job exhausts"
    JOB_EXITS = "job exits"


POISON = {
    FaultKind.JOB_HANGS: Deed.HANG,
    FaultKind.JOB_SEGFAULTS: Deed.SEGFAULT,
    FaultKind.JOB_EXHAUSTS: Deed.EXHAUST,
    FaultKind.JOB_EXITS: Deed.EXIT,
}

#: How a job that does a deed must end, by the code of its error.
ENDS = {
    Deed.HANG: "deadline_exceeded",
    Deed.SEGFAULT: "crashed",
    Deed.EXHAUST: "out_of_memory",
    Deed.EXIT: "internal_error",
}


@dataclass(frozen=True)
class PlannedFault:
    """One fault."""

    at: float
    kind: FaultKind
    #: How long it lasts, where it does; by how much a clock steps.
    seconds: float
    #: Which of several processes, or how many exchanges, hints or keys.
    number: int


@dataclass(frozen=True)
class Schedule:
    """A whole run."""

    submissions: list[Submission]
    faults: list[PlannedFault]


def make_schedule(
    seed: int, seconds: float, jobs: int, faults: int, lease_seconds: float, catalog: Catalog
) -> Schedule:
    """Draw a run of so many jobs and faults."""
    planned = _faults(random.Random(f"faults {seed}"), seconds, faults, lease_seconds)
    drawn = Submissions(random.Random(f"jobs {seed}"), seed, catalog)
    submissions = drawn.good(jobs, seconds)
    submissions += [
        drawn.poison(fault.at, POISON[fault.kind]) for fault in planned if fault.kind in POISON
    ]
    return Schedule(
        sorted(submissions, key=lambda each: each.at),
        [fault for fault in planned if fault.kind not in POISON],
    )


def _faults(
    rng: random.Random, seconds: float, count: int, lease_seconds: float
) -> list[PlannedFault]:
    """Deal the kinds like cards, so that all come before one comes again."""
    deck: list[FaultKind] = []
    planned = []
    step = (seconds - 2 * CALM_SECONDS) / max(count, 1)
    for number in range(count):
        if not deck:
            deck = rng.sample(list(FaultKind), len(FaultKind))
        at = CALM_SECONDS + step * (number + rng.random())
        kind = deck.pop()
        planned.append(
            PlannedFault(at, kind, _lasts(rng, kind, lease_seconds), rng.randrange(1, 9))
        )
    return planned


def _lasts(rng: random.Random, kind: FaultKind, lease_seconds: float) -> float:
    if kind is FaultKind.FREEZE_REDIS:
        return lease_seconds * rng.uniform(1.1, 1.6)
    if kind in {FaultKind.CLOCK_FORWARD, FaultKind.CLOCK_BACKWARD}:
        return lease_seconds * rng.uniform(1.2, 4)
    if kind in {FaultKind.STOP_CPU, FaultKind.STOP_GPU}:
        return lease_seconds * rng.uniform(0.2, 1.8)  # some outsleep their leases
    return min(lease_seconds, 8) * rng.uniform(0.2, 1)
