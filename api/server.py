"""The API's server: one process, or several on one port under uvicorn's supervisor.

The supervisor replaces a process that dies or hangs, stops all of them on SIGTERM, and gives up if
one cannot start at all.
"""

import gc
import multiprocessing
import os
import signal
import sys
import tempfile
import threading

import redis
import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from api.joined_writes import JoinedWritesProtocol
from shared.errors import UnavailableError
from shared.ledger import SchemaError, await_ledger, prepare_ledger
from shared.logs import configure_logs
from shared.settings import ApiSettings, LedgerSettings, Settings

#: Where prometheus_client keeps the series that several processes share. It is read once, when
#: prometheus_client is imported.
METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

log = structlog.get_logger()


def prepare(client: "redis.Redis", settings: LedgerSettings) -> None:
    """Check the schema of the ledger, and adopt what an older version left there.

    The server starts without Redis; then a thread does this as soon as Redis answers.
    """
    try:
        prepare_ledger(client, settings)
    except SchemaError as error:
        sys.exit(error.detail)
    except UnavailableError:
        threading.Thread(target=_prepare_later, args=(client, settings), daemon=True).start()


def _prepare_later(client: "redis.Redis", settings: LedgerSettings) -> None:
    try:
        await_ledger(client, settings)
    except SchemaError as error:
        log.error("API stops", reason=error.detail)  # noqa: TRY400 - no defect
        os.kill(os.getpid(), signal.SIGTERM)


def serve(settings: ApiSettings) -> None:
    """Answer calls until told to stop."""
    config = uvicorn.Config(
        "api.server:create_process_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        http=JoinedWritesProtocol,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        # Followers of events hold their connections open for as long as their jobs run.
        timeout_graceful_shutdown=5,
    )
    if settings.workers == 1:
        os.environ.pop(METRICS_DIRECTORY, None)
        server = uvicorn.Server(config)
        server.run()
        failed = not server.started
    else:
        failed = not _supervise(config)
    if failed:
        sys.exit(STARTUP_FAILURE)


def _supervise(config: uvicorn.Config) -> bool:
    """Run several processes; return whether all of them could start."""
    with tempfile.TemporaryDirectory(prefix="lifecycle-metrics-") as directory:
        os.environ[METRICS_DIRECTORY] = directory
        supervisor = Multiprocess(config, sockets=[config.bind_socket()])
        supervisor.run()
    return all(process.exitcode != STARTUP_FAILURE for process in supervisor.processes)


def create_process_app() -> FastAPI:
    """Build the app of this process; uvicorn calls it in each."""
    from api.app import create_app  # noqa: PLC0415 - not needed by the supervisor

    settings = Settings()
    configure_logs(settings.log.level)
    # A thread that computes holds the event loop up for this long; the default is 5 ms.
    sys.setswitchinterval(0.001)
    if supervisor := multiprocessing.parent_process():
        threading.Thread(target=_stop_after, args=(supervisor,), daemon=True).start()
    app = create_app(settings)
    # What is there now stays: the garbage collector need not look at it again and again.
    gc.freeze()
    return app


def _stop_after(supervisor: "multiprocessing.process.BaseProcess") -> None:
    """Stop this process when its supervisor is gone, so that it does not keep the port."""
    supervisor.join()
    os.kill(os.getpid(), signal.SIGTERM)
