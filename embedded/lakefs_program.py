"""The program of the real lakeFS: where it is found, and how it is brought."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from embedded.errors import InstallError

RELEASES = "https://github.com/treeverse/lakeFS/releases"
#: A downloader that says nothing for this long is given up.
_DOWNLOAD_SECONDS = 1800
_VERSION_SECONDS = 30


def find_lakefs() -> str | None:
    """Return the path of the ``lakefs`` program, if there is one.

    The places are those of the ``lakefs`` package's own downloader.
    """
    places = [os.environ.get("PATH", os.defpath), str(Path(sys.prefix) / "bin"), str(_home())]
    return shutil.which("lakefs", path=os.pathsep.join(places))


def install_lakefs(version: str | None = None) -> tuple[str, str]:
    """Download lakeFS by the ``lakefs`` package; return the program's path and what it says it is.

    Without a version the package takes the one that its client library belongs to.
    """
    command = [sys.executable, "-m", "lakefs.download", *([version] if version else [])]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InstallError(_advice(f"no end after {_DOWNLOAD_SECONDS} s")) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise InstallError(_advice(lines[-1] if lines else f"exit status {done.returncode}"))
    program = find_lakefs()
    if program is None:
        raise InstallError(_advice("the downloader left no program"))
    return program, version_of(program)


def version_of(program: str) -> str:
    """Return what the program says of its version; raise if it does not run."""
    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_SECONDS,
            stdin=subprocess.DEVNULL,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InstallError(_advice(f"{program} does not run ({error})")) from error
    return done.stdout.strip()


def _home() -> Path:
    return Path("~/.lakefs/bin").expanduser()


def _advice(reason: str) -> str:
    return (
        f"lakeFS could not be installed: {reason}\n"
        f"You can also download it from {RELEASES} and put the program `lakefs` on the PATH."
    )
