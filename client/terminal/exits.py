"""What the command line ends with, so that scripts can tell why."""

from enum import IntEnum

from client.errors import (
    AddressError,
    BusyError,
    ClientError,
    ConflictError,
    DeniedError,
    InvalidRequestError,
    NotFoundError,
    UnreachableError,
)


class Exit(IntEnum):
    """The statuses; documented in docs/client.md."""

    OK = 0
    #: A job failed or was cancelled, or something that is needed is down.
    FAILED = 1
    #: The command or the request is wrong.
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    #: Not in this state, or not with this key.
    REFUSED = 5
    #: Later it may work.
    BUSY = 6
    #: Ctrl-C, as shells say it.
    INTERRUPTED = 130


_STATUSES: dict[type[ClientError], Exit] = {
    AddressError: Exit.USAGE,
    InvalidRequestError: Exit.USAGE,
    UnreachableError: Exit.UNREACHABLE,
    NotFoundError: Exit.NOT_FOUND,
    ConflictError: Exit.REFUSED,
    DeniedError: Exit.REFUSED,
    BusyError: Exit.BUSY,
}


def exit_of(error: ClientError) -> Exit:
    """Return the status of an error."""
    return _STATUSES.get(type(error), Exit.FAILED)
