"""The API and what it stands on: as the API sees it, else as it looks from here."""

import httpx

from client import BusyError, ClientError
from client.answers import ComponentHealth
from client.doctor.findings import Finding, Level
from client.doctor.scene import Scene
from client.retries import reason_of
from shared.errors import LifecycleError

_SECONDS = 3.0
_TITLES = {
    "redis": "Redis",
    "mlflow": "MLflow",
    "lakefs": "lakeFS",
    "hub": "Hub",
    "ollama": "Ollama",
}
_SETTINGS = {
    "redis": "REDIS_URL",
    "mlflow": "MLFLOW_TRACKING_URI",
    "lakefs": "LAKEFS_ENDPOINT",
    "hub": "HF_ENDPOINT",
    "ollama": "OLLAMA_HOST",
}


def api(scene: Scene) -> list[Finding]:
    """Look at the API itself."""
    with scene.client() as client:
        url = client.connection.url
        try:
            client.health.ready()
        except BusyError as error:
            mend = "see Redis below" + scene.log_of("api")
            return [Finding("API", Level.DOWN, f"{url} is up but not ready: {error}", mend)]
        except ClientError as error:
            mend = "start it: lifecycle up; or say where it is: LIFECYCLE_API_URL"
            if scene.starts("api"):
                mend = f"wait, it is restarted{scene.log_of('api')}"
            return [Finding("API", Level.DOWN, str(error), mend)]
    return [Finding("API", Level.OK, url)]


def stores(scene: Scene) -> list[Finding]:
    """Look at the stores and services that the lifecycle needs."""
    with scene.client() as client:
        try:
            seen = client.models.health().components
        except ClientError:
            seen = _seen_from_here(scene)
    return [_finding(scene, name, health) for name, health in seen.items()]


def _finding(scene: Scene, name: str, health: ComponentHealth) -> Finding:
    title = _TITLES.get(name, name)
    if health.status == "up":
        latency = f"answers in {health.latency_ms:.0f} ms" if health.latency_ms else "answers"
        return Finding(title, Level.OK, latency)
    setting = _SETTINGS.get(name, "its setting")
    if name == "ollama":
        return _ollama(health)
    mend = f"start it, or set {setting}"
    if scene.starts(name):
        mend = f"wait, it is restarted{scene.log_of(name)}"
    return Finding(title, Level.DOWN, health.detail or "does not answer", mend)


def _ollama(health: ComponentHealth) -> Finding:
    """Judge an Ollama that does not answer by the models in production that need it."""
    mend = f"start it (ollama serve), restart it if it hangs, or set {_SETTINGS['ollama']}"
    if health.affected_models:
        detail = f"does not answer; in production on it: {', '.join(health.affected_models)}"
        return Finding(_TITLES["ollama"], Level.DOWN, detail, mend)
    detail = "does not answer; no model in production is known to need it"
    return Finding(_TITLES["ollama"], Level.WARNING, detail, mend)


def _seen_from_here(scene: Scene) -> dict[str, ComponentHealth]:
    """Ask each store directly: an API that is down may be so because of one of them."""
    if scene.record:
        seen = {part.name: part.probe.healthy() for part in scene.record.components}
        return {name: _health(seen[name]) for name in _TITLES if name in seen}
    settings = scene.settings
    return {
        "redis": _redis(scene),
        "mlflow": _answers(f"{settings.mlflow.tracking_uri}/health"),
        "lakefs": _answers(f"{settings.lakefs.endpoint}/_health"),
        "hub": _answers(settings.hub.endpoint),
        "ollama": _answers(f"{settings.ollama.host}/api/version"),
    }


def _health(up: bool, detail: str | None = None) -> ComponentHealth:
    return ComponentHealth(status="up" if up else "down", latency_ms=0, detail=detail)


def _redis(scene: Scene) -> ComponentHealth:
    try:
        scene.presence().workers()
    except LifecycleError as error:
        return _health(False, str(error))
    return _health(True)


def _answers(url: str) -> ComponentHealth:
    try:
        response = httpx.get(url, timeout=_SECONDS)
    except httpx.TransportError as error:
        return _health(False, f"{url}: {reason_of(error)}")
    return _health(response.status_code < 500, f"{url} answered {response.status_code}")
