"""An Ollama that is down, or frozen, degrades the platform if models in production need it."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from client.answers import ComponentHealth
from client.doctor import services
from client.doctor.findings import Level
from client.doctor.scene import Scene
from embedded.data_directory import DataDirectory
from shared.errors import UnavailableError
from shared.ledger import Presence, WorkerInfo
from shared.models import ModelVersion
from shared.registry import ModelRegistry
from shared.settings import LedgerSettings, MLflowSettings, OllamaSettings, RedisSettings, Settings
from tests.model_stores import StaticRegistry
from tests.ollama_server import Fault, FaultKind, OllamaTestServer, ollama_server
from tests.processes import free_port


@pytest.fixture
def remote() -> Iterator[OllamaTestServer]:
    with ollama_server() as server:
        yield server


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> StaticRegistry:
    registry = StaticRegistry()
    monkeypatch.setattr(ModelRegistry, "list_models", lambda _: registry.list_models())
    return registry


@pytest.fixture
def api(
    remote: OllamaTestServer,
    registered: StaticRegistry,
    redis_settings: RedisSettings,
    ledger_settings: LedgerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[TestClient]:
    worker = WorkerInfo("ollama@a", "ollama", "a", STATUS)
    monkeypatch.setattr(Presence, "workers", lambda _: [worker])
    settings = Settings(
        redis=redis_settings,
        ledger=ledger_settings,
        mlflow=MLflowSettings(tracking_uri=remote.url),  # any answer below 500 is that of a server
        ollama=OllamaSettings(host=remote.url, timeout_seconds=0.5),
    )
    with TestClient(create_app(settings)) as client:
        yield client


STATUS = {"in_flight": 0, "consuming": True, "inference": {"health": {}, "stats": {}}}


def on_ollama(registry: StaticRegistry, name: str, stage: str = "production") -> ModelVersion:
    return registry.add(name, None, engine="ollama", stage=stage)


@pytest.mark.parametrize("fault", [FaultKind.HANG, FaultKind.ERROR])
def test_models_that_cannot_answer_are_named(
    api: TestClient, remote: OllamaTestServer, registered: StaticRegistry, fault: FaultKind
) -> None:
    for name in ("qwen", "llama"):
        on_ollama(registered, name)
    on_ollama(registered, "tried", stage="staging")
    registered.add("smollm", None)
    remote.faults["/api/ps"] = Fault(fault)

    health = api.get("/inference/health").json()
    assert (health["status"], health["affected_models"]) == ("degraded", ["llama", "qwen"])
    ollama = api.get("/models/health").json()["components"]["ollama"]
    assert (ollama["status"], ollama["affected_models"]) == ("down", ["llama", "qwen"])


def test_nothing_is_degraded_while_it_answers(
    api: TestClient, remote: OllamaTestServer, registered: StaticRegistry
) -> None:
    on_ollama(registered, "llama")
    health = api.get("/inference/health").json()
    assert (health["status"], health["affected_models"]) == ("ok", [])
    assert api.get("/models/health").json()["components"]["ollama"]["affected_models"] == []


def test_nobody_needs_it_where_no_model_is_in_production_on_it(
    api: TestClient,
    remote: OllamaTestServer,
    registered: StaticRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote.faults["/api/ps"] = Fault(FaultKind.ERROR)
    registered.add("smollm", None)
    assert api.get("/inference/health").json()["status"] == "ok"

    def away(_: ModelRegistry) -> list[ModelVersion]:
        raise UnavailableError("MLflow is away")

    monkeypatch.setattr(ModelRegistry, "list_models", away)
    assert api.get("/models/health").json()["components"]["ollama"]["affected_models"] == []


@pytest.mark.parametrize(
    ("affected", "level", "said"),
    [(("llama", "qwen"), Level.DOWN, "in production on it: llama, qwen"), ((), Level.WARNING, "")],
)
def test_the_doctor_names_the_models_and_how_to_mend_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    affected: tuple[str, ...],
    level: Level,
    said: str,
) -> None:
    answer = {"status": "down", "latency_ms": 0, "detail": "x", "affected_models": affected}
    health = ComponentHealth.model_validate(answer)
    scene = Scene(Settings(), DataDirectory(tmp_path), None, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(services, "_seen_from_here", lambda _: {"ollama": health})
    (finding,) = services.stores(scene)
    assert finding.level is level
    assert said in finding.detail
    assert "ollama serve" in finding.mend
    assert "restart" in finding.mend, "an Ollama that is frozen cannot be started"
