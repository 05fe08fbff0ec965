"""The ledger: the truth about every job, in Redis."""

from shared.ledger.connection import connect, redis_errors
from shared.ledger.epoch import TransitionEpoch
from shared.ledger.events import Event, EventReader
from shared.ledger.ledger import Ledger, Reconciliation
from shared.ledger.placement import Placement
from shared.ledger.presence import Presence, WorkerInfo
from shared.ledger.record import NewJob

__all__ = [
    "Event",
    "EventReader",
    "Ledger",
    "NewJob",
    "Placement",
    "Presence",
    "Reconciliation",
    "TransitionEpoch",
    "WorkerInfo",
    "connect",
    "redis_errors",
]
