"""``python -m tests.scripted_worker cpu``: a real worker whose downloads do what their names say.

``poison`` kills the process that runs it, ``exit`` ends it without a word, ``hang`` goes on until
it is told to stop, ``fail`` fails, ``retry`` misses a service that asks for a long wait; anything
else takes ``SCRIPTED_SECONDS`` and succeeds. The result names the process that ran it.
"""

import os
import signal
import time
from typing import Any
from unittest import mock

import structlog

from shared.errors import NotFoundError, UnavailableError
from shared.jobs import JobKind
from workers import __main__ as workers
from workers.app import Worker
from workers.context import JobContext, WorkerParts

log = structlog.get_logger()

SECONDS = float(os.environ.get("SCRIPTED_SECONDS", "0.2"))


def work(context: JobContext) -> dict[str, Any]:
    """Do as the model's name says."""
    name = context.job.request["model_name"]
    if name == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "exit":
        os._exit(0)
    elif name == "fail":
        raise NotFoundError("there is no such model", code="no_such_model")
    elif name == "retry":
        limited = UnavailableError("the hub is busy", service="hub")
        limited.retry_after_seconds = 600
        raise limited
    elif name == "hang":
        log.info("it hangs")
        while True:
            context.cancel.wait(60)
            context.check()
    time.sleep(SECONDS)
    return {"process": os.getpid()}


if __name__ == "__main__":
    parts = WorkerParts({JobKind.DOWNLOAD: work})
    with mock.patch.object(Worker, "_build_parts", return_value=parts):
        workers.main()
