"""Logs of every process in one shape: lines for a person on a terminal, JSON elsewhere.

No line shows a credential: the rendered text is searched last of all, so that it does not matter
whether it was in a field, in a message of some library or in a traceback.
"""

import logging
import re
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

#: A word of a text, which may be quoted as JSON.
_WORD = r"[^\s&\"'\\<>]+"
#: Parameters of queries that are credentials: presigned links of S3, GCS and Azure, and tokens.
_PARAMETERS = (
    "x-(?:amz|goog)-(?:signature|credential|security-token)"
    "|signature|sig|awsaccesskeyid|googleaccessid"
    "|(?:access_|api_?)?(?:token|key)|password|secret"
)
#: What a credential looks like in a text; the group is kept.
_CREDENTIALS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # user:password@ in a URL
        r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#\"'\\<>]+(?=@)",
        rf"([?&;](?:{_PARAMETERS})=){_WORD}",
        r"(\b(?:bearer|basic) +)[a-z0-9._~+/=-]{8,}",
        # tokens of the hub, keys of ours
        r"(\b(?:hf_|lc_[0-9a-f]{12}_))[a-z0-9]{16,}",
    )
)


def redacted(text: str) -> str:
    """Return a text without the credentials in it."""
    for pattern in _CREDENTIALS:
        text = pattern.sub(r"\1***", text)
    return text


def _redact(_: WrappedLogger, __: str, rendered: EventDict) -> str:
    # The last processor: structlog's type says that it is not handed a text.
    return redacted(str(rendered))


def configure_logs(level: int = logging.INFO) -> None:
    """Send structlog's and the standard library's records to standard error."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    renderer: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if sys.stderr.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
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
    root.setLevel(level)
    # One line for each call that a client of ours makes would bury our own.
    for chatty in ("httpx", "httpcore", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It warns of every body that a client got wrong.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
