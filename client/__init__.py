"""The platform's typed client, sync and async, and the ``lifecycle`` command line.

``from client import Client, AsyncClient``; what a name needs is imported when it is first used, so
that the command line starts quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.answers import Event, Job, Outage, Progress, StoredFile, Version
    from client.async_client import AsyncClient
    from client.errors import (
        BusyError,
        ClientError,
        ConflictError,
        DeniedError,
        InvalidRequestError,
        JobCancelledError,
        JobError,
        JobFailedError,
        NotFoundError,
        ProblemError,
        UnreachableError,
        WaitTimeoutError,
    )
    from client.retries import Retries
    from client.sync_client import Client

__all__ = [
    "AsyncClient",
    "BusyError",
    "Client",
    "ClientError",
    "ConflictError",
    "DeniedError",
    "Event",
    "InvalidRequestError",
    "Job",
    "JobCancelledError",
    "JobError",
    "JobFailedError",
    "NotFoundError",
    "Outage",
    "ProblemError",
    "Progress",
    "Retries",
    "StoredFile",
    "UnreachableError",
    "Version",
    "WaitTimeoutError",
]

_MODULES = {
    "AsyncClient": "async_client",
    "Client": "sync_client",
    "Retries": "retries",
    **dict.fromkeys(("Event", "Job", "Outage", "Progress", "StoredFile", "Version"), "answers"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"client.{_MODULES.get(name, 'errors')}"), name)
