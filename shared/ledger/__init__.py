"""The ledger: the truth about every job, in Redis."""

from shared.ledger.branches import (
    BranchFailure,
    BranchRecords,
    JobBranch,
    OwnedBranch,
    OwnedBranches,
    UnrecordedBranches,
    VersionBranch,
)
from shared.ledger.connection import connect, redis_errors
from shared.ledger.counts import (
    RUN_SECONDS_BOUNDS,
    Counts,
    EventCount,
    JobEvent,
    QueueDepth,
    RunTimes,
)
from shared.ledger.epoch import TransitionEpoch
from shared.ledger.events import Event, EventReader
from shared.ledger.ledger import Ledger, Reconciliation, Waited
from shared.ledger.placement import Placed, Placement
from shared.ledger.presence import Presence, WorkerInfo
from shared.ledger.reader import JobReader
from shared.ledger.record import NewJob
from shared.ledger.scripts import Hint

__all__ = [
    "RUN_SECONDS_BOUNDS",
    "BranchFailure",
    "BranchRecords",
    "Counts",
    "Event",
    "EventCount",
    "EventReader",
    "Hint",
    "JobBranch",
    "JobEvent",
    "JobReader",
    "Ledger",
    "NewJob",
    "OwnedBranch",
    "OwnedBranches",
    "Placed",
    "Placement",
    "Presence",
    "QueueDepth",
    "Reconciliation",
    "RunTimes",
    "TransitionEpoch",
    "UnrecordedBranches",
    "VersionBranch",
    "Waited",
    "WorkerInfo",
    "connect",
    "redis_errors",
]
