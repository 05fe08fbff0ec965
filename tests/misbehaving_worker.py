"""A real worker whose jobs misbehave as their requests say: ``python -m tests.misbehaving_worker``.

Everything but the work is what ``python -m workers cpu`` runs.
"""

import ctypes
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import signals

from shared.jobs import JobKind
from shared.ledger import Placement
from shared.logs import configure_logs
from shared.registry import ModelRegistry
from shared.settings import Settings
from workers.app import Worker
from workers.context import JobContext, WorkerParts

#: Of a work that only ends when it is told to.
LONG_SECONDS = 600


class MisbehavingWorker(Worker):
    """Does as a download what the test wants."""

    def _build_parts(
        self,
        registry: ModelRegistry,  # noqa: ARG002 - it needs no store
        placement: Placement,  # noqa: ARG002
    ) -> WorkerParts:
        def work(context: JobContext) -> dict[str, Any]:
            return {"pid": os.getpid(), "did": ACTS[context.job.request["act"]](context)}

        return WorkerParts({JobKind.DOWNLOAD: work})


def _obey(context: JobContext) -> None:
    """Be there when the test looks, and stop when told to; at the next run, just end."""
    mark = Path(context.job.request["mark"])
    if mark.exists():
        return
    mark.touch()
    context.cancel.wait(LONG_SECONDS)
    context.check()


def _ignore(context: JobContext) -> None:
    """Never look at the token."""
    time.sleep(LONG_SECONDS)


def _hold_the_lock(context: JobContext) -> None:
    """Keep Python's lock in C: an expression that backtracks for longer than the sun shines."""
    re.match(r"(a+)+$", "a" * 80 + "b")


def _crash(context: JobContext) -> None:
    """Take the process down, each time in another way, and not at once."""
    context.cancel.wait(1)
    if context.job.crashes == 0:
        ctypes.string_at(0)
    os._exit(3)


def _want_memory(context: JobContext) -> None:
    raise MemoryError


def _exit(context: JobContext) -> None:
    sys.exit(3)


def _deafen(context: JobContext) -> None:
    """Hold up Celery's event loop for ever, as a defect in it would."""
    consumer = CONSUMERS[0]
    consumer.timer.call_after(0, threading.Event().wait)


ACTS: dict[str, Callable[[JobContext], object]] = {
    "end": lambda _: None,
    "obey": _obey,
    "ignore": _ignore,
    "hold": _hold_the_lock,
    "crash": _crash,
    "memory": _want_memory,
    "exit": _exit,
    "deafen": _deafen,
}
CONSUMERS: list[Any] = []


if __name__ == "__main__":
    configure_logs()
    signals.worker_ready.connect(lambda sender, **_: CONSUMERS.append(sender), weak=False)
    MisbehavingWorker(Settings(), "cpu").run()
