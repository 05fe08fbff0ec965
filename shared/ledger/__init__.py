"""The ledger: the truth about every job, in Redis."""

from shared.ledger.async_ledger import AsyncLedger
from shared.ledger.branches import (
    BranchFailure,
    BranchRecords,
    JobBranch,
    OwnedBranch,
    OwnedBranches,
    UnrecordedBranches,
    VersionBranch,
)
from shared.ledger.claims import Claimed, Ended, Postponed, Want
from shared.ledger.connection import connect, connect_async, redis_errors
from shared.ledger.counts import (
    RUN_SECONDS_BOUNDS,
    Counts,
    EventCount,
    JobEvent,
    QueueDepth,
    RunTimes,
)
from shared.ledger.ends import Ends
from shared.ledger.epoch import RecentEpoch, TransitionEpoch
from shared.ledger.events import Event, EventReader
from shared.ledger.ledger import Ledger, Reconciliation
from shared.ledger.listings import Filter
from shared.ledger.migration import OldLedger, await_ledger, prepare_ledger
from shared.ledger.placement import Placed, Placement
from shared.ledger.presence import Presence, WorkerInfo
from shared.ledger.record import NewJob
from shared.ledger.schema import SchemaError

__all__ = [
    "RUN_SECONDS_BOUNDS",
    "AsyncLedger",
    "BranchFailure",
    "BranchRecords",
    "Claimed",
    "Counts",
    "Ended",
    "Ends",
    "Event",
    "EventCount",
    "EventReader",
    "Filter",
    "JobBranch",
    "JobEvent",
    "Ledger",
    "NewJob",
    "OldLedger",
    "OwnedBranch",
    "OwnedBranches",
    "Placed",
    "Placement",
    "Postponed",
    "Presence",
    "QueueDepth",
    "RecentEpoch",
    "Reconciliation",
    "RunTimes",
    "SchemaError",
    "TransitionEpoch",
    "UnrecordedBranches",
    "VersionBranch",
    "Want",
    "WorkerInfo",
    "await_ledger",
    "connect",
    "connect_async",
    "prepare_ledger",
    "redis_errors",
]
