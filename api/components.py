"""How the stores and services that the platform needs are doing."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx

from api.views import ComponentHealth, ModelsHealth
from shared.errors import LifecycleError
from shared.lakefs.listing import RepositoryListing
from shared.ledger import Ledger
from shared.ollama import OllamaServer
from shared.settings import Settings

#: A component that does not answer within this time counts as down.
PROBE_SECONDS = 3.0
#: The platform is whole without these.
OPTIONAL = {"ollama"}

#: Raises if the component is down.
Probe = Callable[[], object]


def probes_of(
    settings: Settings, ledger: Ledger, repositories: RepositoryListing, ollama: OllamaServer
) -> dict[str, Probe]:
    """Return how to ask each component."""

    def answers(url: str) -> Probe:
        def probe() -> None:
            # Any answer below 500 comes from a server that is up, whatever it thinks of the caller.
            response = httpx.get(url, timeout=PROBE_SECONDS)
            if response.status_code >= 500:
                response.raise_for_status()

        return probe

    return {
        "redis": ledger.ping,
        "mlflow": answers(f"{settings.mlflow.tracking_uri}/health"),
        "lakefs": repositories.ping,
        "hub": answers(settings.hub.endpoint),
        "ollama": ollama.health,
    }


def probe_all(probes: Mapping[str, Probe]) -> ModelsHealth:
    """Ask all components at once."""
    with ThreadPoolExecutor(len(probes)) as pool:
        answers = dict(zip(probes, pool.map(_ask, probes.values()), strict=True))
    up = all(answer.status == "up" for name, answer in answers.items() if name not in OPTIONAL)
    return ModelsHealth(status="ok" if up else "degraded", components=answers)


def _ask(probe: Probe) -> ComponentHealth:
    started = time.monotonic()
    detail = None
    try:
        probe()
    except (httpx.HTTPError, LifecycleError) as error:
        detail = str(error) or type(error).__name__
    latency_ms = round((time.monotonic() - started) * 1000, 2)
    return ComponentHealth(status="down" if detail else "up", latency_ms=latency_ms, detail=detail)
