"""Which GPUs this machine has, without torch."""

import os
import shutil
import subprocess

_SECONDS = 20


def gpu_devices() -> list[str]:
    """Return the devices as CUDA numbers them: ``cuda:0``, ``cuda:1`` and so on."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        count = len([name for name in visible.split(",") if name.strip() not in {"", "-1"}])
    else:
        count = _listed()
    return [f"cuda:{number}" for number in range(count)]


def _listed() -> int:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    try:
        listing = subprocess.run(
            [tool, "--list-gpus"], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return 0  # a driver that does not answer gives torch no GPU either
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
