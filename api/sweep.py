"""What the front does from time to time, whatever is asked of it."""

import asyncio

import structlog
from fastapi.concurrency import run_in_threadpool

from shared.errors import LifecycleError
from shared.media.files import FileStore

#: Between two sweeps; an old file is out of reach before, whenever its time is over.
SWEEP_SECONDS = 600.0

log = structlog.get_logger()


async def sweep_files(files: FileStore) -> None:
    """Delete uploaded files that are too old, until cancelled; any number of fronts may."""
    while True:
        try:
            if deleted := await run_in_threadpool(files.sweep):
                log.info("files swept", deleted=deleted)
        except LifecycleError as error:
            log.warning("files not swept", reason=error.detail)
        await asyncio.sleep(SWEEP_SECONDS)
