"""The peers' environments: one for each, installed from the registry and kept between runs."""

import hashlib
import subprocess
import sys
from pathlib import Path

#: Exact versions, so that the figures of two runs can be compared. None of them brings torch.
REQUIREMENTS = {
    "celery": ("celery[redis]==5.7.0", "fastapi==0.165.0", "uvicorn[standard]==0.54.0"),
    "litserve": ("litserve==0.2.19",),
    "bentoml": ("bentoml==1.4.40",),
    "ray": ("ray[serve]==2.60.0",),
}
INSTALL_SECONDS = 600


class NotInstallableError(Exception):
    """A peer's packages cannot be installed here."""


def environment(root: Path, peer: str) -> Path:
    """Return the directory of a peer's programs; install the peer if it is not there yet."""
    requirements = REQUIREMENTS[peer]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:8]
    directory = root.resolve() / f"{peer}-{version}-{digest}"
    complete = directory / ".complete"
    if not complete.exists():
        print(f"Installing {' '.join(requirements)} …", flush=True)
        _uv("venv", "--clear", "--python", sys.executable, str(directory))
        _uv("pip", "install", "--python", str(directory / "bin" / "python"), *requirements)
        complete.touch()
    return directory / "bin"


def _uv(*arguments: str) -> None:
    command = [sys.executable, "-m", "uv", "--quiet", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NotInstallableError(f"not installed within {INSTALL_SECONDS} s") from error
    if done.returncode:
        raise NotInstallableError(" ".join(done.stderr.split())[-300:])
