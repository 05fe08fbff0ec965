"""The devices of this machine: which are seen, their memory, and where this worker's models go.

A worker has one device of its own. Beside a GPU, the CPU takes the models that are too large for
it, unless that is turned off. Each further GPU has its own worker, as ``gpu --device cuda:1``.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import structlog
import torch

from shared.settings import InferenceSettings
from workers.inference import host_memory

log = structlog.get_logger()

CPU = "cpu"


@dataclass(frozen=True)
class Device:
    """A device as this process sees it."""

    #: As torch and the settings call it: ``cpu``, ``cuda:0``.
    name: str
    #: What it is, for people.
    title: str
    total_bytes: int


def devices() -> list[Device]:
    """Return the devices that are seen, GPUs first; touches none of them."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_properties(index) for index in range(count)]
    found = [Device(f"cuda:{i}", gpu.name, gpu.total_memory) for i, gpu in enumerate(gpus)]
    return [*found, Device(CPU, "CPU", host_memory.total_bytes())]


def free_bytes(name: str) -> int:
    """Return the memory that models could take on a device now.

    On a GPU the question itself takes some of it, so a worker asks only about its own.
    """
    if name == CPU:
        return host_memory.available_bytes()
    return int(torch.cuda.mem_get_info(name)[0])


def choose_device(wanted: str, *, cpu_fallback: bool = True) -> str:
    """Return the name of the device that is wanted; raise ``ValueError`` if it is not there.

    ``auto`` and ``cuda`` are the first GPU. Without any GPU ``auto`` is the CPU, and so are the
    others if that is allowed.
    """
    gpus = [device.name for device in devices() if device.name != CPU]
    name = "cuda:0" if wanted in {"auto", "cuda"} else wanted
    if name == CPU or name in gpus:
        return name
    if not gpus and wanted == "auto":
        return CPU
    if not gpus and cpu_fallback and wanted.startswith("cuda"):
        log.warning("no_gpu_seen", wanted=wanted, used=CPU)
        return CPU
    raise ValueError(
        f"INFERENCE_DEVICE is {wanted!r}, and there are: auto, {', '.join([*gpus, CPU])}"
    )


def budgets(settings: InferenceSettings) -> dict[str, int]:
    """Return what models may take on each device of this worker, its own device first.

    A model goes to the first that is large enough for it.
    """
    own = choose_device(settings.device, cpu_fallback=settings.cpu_fallback)
    found = {own: settings.cache_max_bytes or free_bytes(own) * 4 // 5}
    if settings.cpu_fallback and own != CPU:
        found[CPU] = free_bytes(CPU) * 4 // 5
    return found


def report(used: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Return the devices that are seen; of this worker's own, also what ``used`` says."""
    found = []
    for device in devices():
        facts = asdict(device) | {"in_use": device.name in used}
        if device.name in used:
            facts |= {"free_bytes": free_bytes(device.name), **used[device.name]}
        found.append(facts)
    return found
