"""Celery's consumer, which no message takes down."""

from collections.abc import Callable
from typing import Any

import structlog
from celery.utils.log import get_logger
from celery.worker.consumer import Consumer
from kombu.message import Message

log = structlog.get_logger()

#: What Celery raises for headers that no client of its own writes.
_MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class WaryConsumer(Consumer):  # type: ignore[misc] # Celery is not typed
    """Rejects messages that Celery cannot read.

    Celery itself ends then, puts the message back while it ends, and so meets it again.
    """

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Message], None]:
        """Return what takes a message."""
        take = super().create_task_handler(*args, **options)

        def take_warily(message: Message) -> None:
            try:
                take(message)
            except _MALFORMED as error:
                log.warning("message refused", reason=f"{type(error).__name__}: {error}")
                message.reject_log_error(  # type: ignore[no-untyped-call]
                    get_logger(__name__), self.connection_errors
                )

        return take_warily
