"""How the stores and services that the platform needs are doing."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx
from cachetools import TTLCache, cached

from api.views import ComponentHealth, ModelsHealth
from shared.errors import LifecycleError
from shared.lakefs.listing import RepositoryListing
from shared.ledger import Ledger
from shared.ollama import OllamaServer
from shared.registry import ModelRegistry
from shared.settings import Settings
from shared.tasks import Engine

#: A component that does not answer within this time counts as down.
PROBE_SECONDS = 3.0
#: The platform is whole without these, unless models in production need them.
OPTIONAL = {"ollama"}
#: How long it is remembered which models Ollama keeps from answering.
DEPENDENTS_SECONDS = 5.0

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


class OllamaDependents:
    """The production models that cannot answer while Ollama is down."""

    def __init__(self, registry: ModelRegistry, ollama: OllamaServer) -> None:
        self._registry = registry
        self._ollama = ollama
        cache: TTLCache[object, list[str]] = TTLCache(1, DEPENDENTS_SECONDS)
        #: Names of models, none while Ollama answers; remembered for a while.
        self.affected = cached(cache, lock=threading.Lock())(self._affected)

    def names(self) -> list[str]:
        """Return the models in production on Ollama; none if the registry cannot be asked."""
        try:
            found = self._registry.list_models()
        except LifecycleError:
            return []
        on_ollama = (each for each in found if each.engine == Engine.OLLAMA)
        return sorted({each.name for each in on_ollama if each.stage == "production"})

    def _affected(self) -> list[str]:
        try:
            self._ollama.health()
        except LifecycleError:
            return self.names()
        return []


def probe_all(probes: Mapping[str, Probe], dependents: OllamaDependents) -> ModelsHealth:
    """Ask all components at once."""
    with ThreadPoolExecutor(len(probes)) as pool:
        answers = dict(zip(probes, pool.map(_ask, probes.values()), strict=True))
    down = {name for name, answer in answers.items() if answer.status == "down"}
    if "ollama" in down and "mlflow" not in down:
        answers["ollama"].affected_models = dependents.names()
    needed = {name for name in down if name not in OPTIONAL or answers[name].affected_models}
    return ModelsHealth(status="degraded" if needed else "ok", components=answers)


def _ask(probe: Probe) -> ComponentHealth:
    started = time.monotonic()
    detail = None
    try:
        probe()
    except (httpx.HTTPError, LifecycleError) as error:
        detail = str(error) or type(error).__name__
    latency_ms = round((time.monotonic() - started) * 1000, 2)
    return ComponentHealth(status="down" if detail else "up", latency_ms=latency_ms, detail=detail)
