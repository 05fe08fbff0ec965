"""Which devices there are, which one a worker takes, and what models may take of it."""

import sys
from collections import namedtuple
from types import SimpleNamespace

import psutil
import pytest
import torch

from shared.settings import GIB, InferenceSettings, Settings, StorageSettings
from workers import __main__ as command_line
from workers.inference import devices
from workers.inference.devices import Device, budgets, choose_device, report

Memory = namedtuple("Memory", "total available")  # noqa: PYI024 - as psutil has it


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the machine memory of a known size."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(64 * GIB, 50 * GIB))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put two GPUs into the machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda index: SimpleNamespace(name=f"GPU {index}", total_memory=20 * GIB),
    )
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda name: ((10 if name == "cuda:1" else 15) * GIB, 20 * GIB)
    )


def settings(device: str = "auto", **more: object) -> InferenceSettings:
    """Return settings of a worker on that device."""
    return InferenceSettings.model_validate({"device": device, **more})


def test_without_a_gpu_models_run_on_the_cpu() -> None:
    assert devices.devices() == [Device("cpu", "CPU", 64 * GIB)]
    assert choose_device("auto") == choose_device("cpu") == choose_device("cuda") == "cpu"
    assert choose_device("cuda:1") == "cpu"
    assert budgets(settings()) == {"cpu": 40 * GIB}
    assert budgets(settings(cache_max_bytes=7)) == {"cpu": 7}


def test_without_a_gpu_one_that_is_insisted_on_is_an_error() -> None:
    assert choose_device("auto", cpu_fallback=False) == "cpu"
    with pytest.raises(ValueError, match="cuda:0"):
        choose_device("cuda:0", cpu_fallback=False)


@pytest.mark.parametrize("wanted", ["gpu", "cuda:", "cuda:x", "mps", "cuda:2"])
def test_a_device_that_is_not_there_is_an_error(gpus: None, wanted: str) -> None:
    with pytest.raises(ValueError, match="auto, cuda:0, cuda:1, cpu"):
        choose_device(wanted)


def test_a_worker_takes_the_first_gpu_or_the_one_it_is_given(gpus: None) -> None:
    assert choose_device("auto") == choose_device("cuda") == "cuda:0"
    assert choose_device("cuda:1") == "cuda:1"
    assert choose_device("cpu") == "cpu"


def test_beside_a_gpu_the_cpu_takes_what_is_too_large(gpus: None) -> None:
    assert list(budgets(settings()).items()) == [("cuda:0", 12 * GIB), ("cpu", 40 * GIB)]
    assert budgets(settings("cuda:1")) == {"cuda:1": 8 * GIB, "cpu": 40 * GIB}
    assert budgets(settings(cpu_fallback=False)) == {"cuda:0": 12 * GIB}
    assert budgets(settings("cpu")) == {"cpu": 40 * GIB}


def test_the_report_names_all_devices_and_asks_only_about_its_own(gpus: None) -> None:
    used = {"cuda:1": {"used_bytes": 3, "max_bytes": 4}}
    first, second, cpu = report(used)
    assert first == {
        "name": "cuda:0",
        "title": "GPU 0",
        "total_bytes": 20 * GIB,
        "in_use": False,
    }
    assert second == {
        "name": "cuda:1",
        "title": "GPU 1",
        "total_bytes": 20 * GIB,
        "in_use": True,
        "free_bytes": 10 * GIB,
        "used_bytes": 3,
        "max_bytes": 4,
    }
    assert cpu["in_use"] is False


class _Started(Exception):  # noqa: N818 - it is no error
    """A worker would run now."""


@pytest.mark.parametrize(
    ("arguments", "name", "device"),
    [
        (["gpu"], None, "auto"),
        (["gpu", "--device", "cuda:1"], "gpu-cuda1@here", "cuda:1"),
        (["gpu", "--device", "cuda:1", "--name", "mine"], "mine", "cuda:1"),
        (["cpu"], None, "auto"),
    ],
)
def test_a_workers_name_says_its_device(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], name: str | None, device: str
) -> None:
    made: list[tuple[Settings, str, str | None]] = []

    def worker(*given: object) -> None:
        made.append(given)  # type: ignore[arg-type]
        raise _Started

    given = Settings(storage=StorageSettings(host_id="here"), inference=settings())
    monkeypatch.setattr(command_line, "Settings", lambda: given)
    monkeypatch.setattr("workers.app.Worker", worker)
    monkeypatch.setattr(command_line, "configure_logs", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["workers", *arguments])
    with pytest.raises(_Started):
        command_line.main()
    [(used, kind, named)] = made
    assert (kind, named, used.inference.device) == (arguments[0], name, device)


@pytest.mark.parametrize("arguments", [["cpu", "--device", "cuda"], ["gpu", "--device", "tpu"]])
def test_a_device_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["workers", *arguments])
    with pytest.raises(SystemExit, match="2"):
        command_line.main()
