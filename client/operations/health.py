"""Whether the API answers, and whether it can accept jobs."""

from client.answers import Message
from client.calls import Call, get


def live() -> Call[Message]:
    """Ask whether the process answers."""
    return get("/health/live", Message)


def ready() -> Call[Message]:
    """Ask whether jobs can be accepted."""
    return get("/health/ready", Message)
