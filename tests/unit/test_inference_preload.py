"""Models that have priority are warm before anybody asks; what goes wrong ends no worker."""

from collections.abc import Callable

import pytest
import structlog

from shared.cancellation import CancelToken
from shared.errors import DrainingError, OutOfMemoryError, UnavailableError
from shared.models import ModelVersion
from tests.model_stores import StaticRegistry
from workers.inference import preload
from workers.inference.preload import preload_priority_models

ENGINES = ("transformers",)


class Loads:
    """Takes note of what is loaded, and fails where it is told to."""

    def __init__(self, **failures: Exception) -> None:
        self.loaded: list[tuple[str, str]] = []
        self._failures = failures

    def __call__(self, name: str, version: str) -> None:
        """Load one model."""
        if name in self._failures:
            raise self._failures[name]
        self.loaded.append((name, version))


@pytest.fixture
def registry() -> StaticRegistry:
    """Five models, of which two are in production and have priority."""
    registry = StaticRegistry()
    registry.add("first", None, priority=True)
    registry.add("usual", None)
    registry.add("staged", None, priority=True, stage="staging")
    registry.add("archived", None, priority=True, stage="archived")
    registry.add("second", None)
    registry.add("second", None, priority=True)
    registry.add("elsewhere", None, priority=True, engine="ollama")
    return registry


def test_production_models_that_have_priority_are_loaded(registry: StaticRegistry) -> None:
    loads = Loads()
    preload_priority_models(registry, ENGINES, loads, CancelToken())
    assert loads.loaded == [("first", "1"), ("second", "2")]


@pytest.mark.parametrize("error", [OutOfMemoryError("no room"), RuntimeError("a defect")])
def test_a_failure_is_logged_and_the_others_go_on(
    registry: StaticRegistry, error: Exception
) -> None:
    loads = Loads(first=error)
    with structlog.testing.capture_logs() as logs:
        preload_priority_models(registry, ENGINES, loads, CancelToken())
    assert loads.loaded == [("second", "2")]
    assert logs == [
        {
            "event": "preload_failed",
            "log_level": "warning",
            "model": "first",
            "reason": str(error),
        }
    ]


class _Away(StaticRegistry):
    """Does not answer the first times."""

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__()
        self._error = error
        self.asked = 0
        self._times = times

    def list_models(self) -> list[ModelVersion]:
        """Answer at last."""
        self.asked += 1
        if self.asked <= self._times:
            raise self._error
        return super().list_models()


def test_a_registry_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preload, "_FIRST_SECONDS", 0.001)
    registry, loads = _Away(UnavailableError("MLflow is away"), 2), Loads()
    registry.add("first", None, priority=True)
    preload_priority_models(registry, ENGINES, loads, CancelToken())
    assert (registry.asked, loads.loaded) == (3, [("first", "1")])


def test_a_registry_that_fails_otherwise_is_left() -> None:
    registry, loads = _Away(RuntimeError("a defect"), 1), Loads()
    preload_priority_models(registry, ENGINES, loads, CancelToken())
    assert (registry.asked, loads.loaded) == (1, [])


@pytest.mark.parametrize("make", [StaticRegistry, lambda: _Away(UnavailableError("away"), 99)])
def test_a_worker_that_stops_loads_no_more(make: Callable[[], StaticRegistry]) -> None:
    registry, loads, token = make(), Loads(), CancelToken()
    registry.add("first", None, priority=True)
    token.cancel(DrainingError("the worker stops"))
    preload_priority_models(registry, ENGINES, loads, token)
    assert loads.loaded == []
