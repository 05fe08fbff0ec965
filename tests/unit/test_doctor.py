"""The doctor says what is wrong and how to mend it, also where nothing runs."""

import shutil
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from client.doctor import machine, services, workers
from client.doctor.findings import Finding, Level
from client.doctor.scene import Scene
from embedded.data_directory import DataDirectory
from shared.ledger import Presence, WorkerInfo
from shared.settings import HubSettings, LakeFSSettings, MLflowSettings, RedisSettings, Settings
from tests.processes import free_port


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A machine on which nothing runs."""
    nobody = f"127.0.0.1:{free_port()}"
    settings = Settings(
        redis=RedisSettings.model_validate({"url": f"redis://{nobody}/0"}),
        mlflow=MLflowSettings(tracking_uri=f"http://{nobody}"),
        lakefs=LakeFSSettings(endpoint=f"http://{nobody}"),
        hub=HubSettings(endpoint=f"http://{nobody}"),
    )
    return Scene(settings, DataDirectory(tmp_path), None, f"http://{nobody}")


def levels(findings: list[Finding]) -> dict[str, Level]:
    return {finding.part: finding.level for finding in findings}


def test_what_does_not_run_is_down_and_can_be_mended(scene: Scene) -> None:
    findings = services.api(scene) + services.stores(scene)
    needed = ("API", "Redis", "MLflow", "lakeFS", "Hub")
    assert levels(findings) == dict.fromkeys(needed, Level.DOWN) | {"Ollama": Level.WARNING}
    assert all(finding.mend for finding in findings)


def test_workers_that_nobody_can_ask_about_are_unknown(scene: Scene) -> None:
    assert levels(workers.workers(scene)) == {"Workers": Level.UNKNOWN}


class Announced(Presence):
    """What workers said last, without a Redis."""

    def __init__(self, *workers: WorkerInfo) -> None:
        self._workers = list(workers)

    def workers(self) -> list[WorkerInfo]:
        """Return what was said."""
        return self._workers


def test_a_worker_that_consumes_nothing_is_to_be_restarted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [
        WorkerInfo(f"{kind}@here", kind, "here", {"in_flight": 0, "consuming": kind == "gpu"})
        for kind in ("cpu", "gpu")
    ]
    monkeypatch.setattr(Scene, "presence", lambda _: Announced(*said))
    cpu, gpu = workers.workers(scene)
    assert (cpu.level, gpu.level) == (Level.DOWN, Level.OK)
    assert "cpu@here: it does not consume its queues" in cpu.detail
    assert "restart it" in cpu.mend


def test_a_worker_of_an_older_version_is_named(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = WorkerInfo("cpu@there", "cpu", "there", {"in_flight": 1})
    monkeypatch.setattr(Scene, "presence", lambda _: Announced())
    monkeypatch.setattr(Scene, "old_presence", lambda _: Announced(old))
    *_, finding = workers.workers(scene)
    assert finding.level is Level.WARNING
    assert "cpu@there on there" in finding.detail
    assert "install this version" in finding.mend


@pytest.mark.parametrize(
    ("free_bytes", "level"),
    [(10**6, Level.DOWN), (5 * 10**9, Level.WARNING), (10**12, Level.OK)],
)
def test_room_on_the_disk(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, free_bytes: int, level: Level
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_bytes))
    assert {finding.level for finding in machine.disk(scene)} == {level}


def test_a_package_of_the_wrong_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "0.1" if name == "fastapi" else real(name)
    )
    (finding,) = machine.packages()
    assert finding.level is Level.WARNING
    assert "fastapi" in finding.mend
    assert "client, worker" in finding.detail


def test_a_gpu_that_torch_cannot_use_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(metadata, "version", lambda _: "2.13.0+cpu")
    (finding,) = machine.gpu()
    assert finding.level is Level.WARNING
    assert "cuda:0, cuda:1" in finding.detail
