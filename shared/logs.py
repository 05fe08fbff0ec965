"""Logs of every process in one shape: lines for a person on a terminal, JSON elsewhere.

No line shows a credential: the rendered text is searched last of all, so that it does not matter
whether it was in a field, in a message of some library or in a traceback.
"""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.redaction import redacted


def _redact(_: WrappedLogger, __: str, rendered: EventDict) -> str:
    # The last processor: structlog's type says that it is not handed a text.
    return redacted(str(rendered))


class _Lines:
    """Writes the lines of one module; the standard library's logging takes four times as long."""

    def __init__(self, name: str) -> None:
        self.name = name

    def info(self, line: str) -> None:
        """Write a line, whatever its level."""
        # Looked up each time, as the standard stream may be replaced.
        sys.stderr.write(f"{line}\n")

    debug = warning = error = exception = critical = info


#: Finds the name of the module that logs.
_NAMES = structlog.stdlib.LoggerFactory(ignore_frame_names=[__name__])


def _lines(*arguments: Any) -> _Lines:
    return _Lines(_NAMES(*arguments).name)


def configure_logs(level: str = "info") -> None:
    """Send structlog's and the standard library's records from a level on to standard error."""
    least = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if sys.stderr.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *renderer, _redact],
        logger_factory=_lines,
        wrapper_class=structlog.make_filtering_bound_logger(least),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *renderer,
                _redact,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(least)
    # One line for each call that a client of ours makes would bury our own.
    for chatty in ("httpx", "httpcore", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(max(least, logging.WARNING))
    # It warns of every body that a client got wrong.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
