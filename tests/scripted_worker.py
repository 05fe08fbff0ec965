"""``python -m tests.scripted_worker cpu``: a real worker whose downloads do what their names say.

``poison`` kills the process that runs it, ``exit`` ends it without a word, ``hang`` goes on until
it is told to stop; anything else takes ``SCRIPTED_SECONDS`` and succeeds. The result names the
process that ran it.
"""

import os
import signal
import time
from typing import Any
from unittest import mock

import structlog

from shared.jobs import JobKind
from workers import __main__ as workers
from workers.app import Worker
from workers.context import JobContext

log = structlog.get_logger()

SECONDS = float(os.environ.get("SCRIPTED_SECONDS", "0.2"))


def work(context: JobContext) -> dict[str, Any]:
    """Do as the model's name says."""
    name = context.job.request["model_name"]
    if name == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "exit":
        os._exit(0)
    elif name == "hang":
        log.info("it hangs")
        while True:
            context.token.wait(60)
            context.check()
    time.sleep(SECONDS)
    return {"process": os.getpid()}


if __name__ == "__main__":
    works = ({JobKind.DOWNLOAD: work}, dict)
    with (
        mock.patch.object(Worker, "_build_works", return_value=works),
        mock.patch.object(Worker, "_build_sweepers", return_value=()),
    ):
        workers.main()
