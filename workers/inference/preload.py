"""Models that have priority, warm before anybody asks for them."""

from collections.abc import Callable, Collection
from typing import Protocol

import structlog

from shared.cancellation import CancelToken
from shared.errors import TransientError
from shared.models import ModelVersion

log = structlog.get_logger()

#: Waits between questions to a registry that does not answer: the first, and the longest.
_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 60.0


class VersionList(Protocol):
    """What preloading needs of the model registry."""

    def list_models(self) -> list[ModelVersion]:
        """Return the versions of all models that may be served."""


def preload_priority_models(
    registry: VersionList,
    engines: Collection[str],
    load: Callable[[str, str], None],
    token: CancelToken,
) -> None:
    """Load every production version of these engines that has priority; the body of a thread.

    What fails is logged and left: the first request for the model tries again, and tells why.
    """
    for version in _listed(registry, token):
        if token.cancelled:
            return
        served = version.engine in engines
        if served and version.has_priority and version.stage == "production":
            try:
                load(version.name, version.version)
            except Exception as error:  # noqa: BLE001 - nothing here may end the worker
                log.warning("preload_failed", model=version.name, reason=str(error))


def _listed(registry: VersionList, token: CancelToken) -> list[ModelVersion]:
    """Return all versions; a registry that is away at the worker's start is waited for."""
    wait_seconds = _FIRST_SECONDS
    while True:
        try:
            return registry.list_models()
        except TransientError as error:
            log.warning("preload_waits", reason=error.detail)
        except Exception as error:  # noqa: BLE001 - nothing here may end the worker
            log.warning("preload_failed", reason=str(error))
            return []
        if token.wait(wait_seconds):
            return []
        wait_seconds = min(2 * wait_seconds, _LONGEST_SECONDS)
