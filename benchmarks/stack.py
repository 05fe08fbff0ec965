"""The stack that is measured: real processes, the embedded lakeFS and hub, no MLflow."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedded.hub.process import HubProcess
from shared.settings import LakeFSSettings
from tests.platform import Platform
from tests.processes import free_port, running


@dataclass(frozen=True)
class Stack:
    """The running processes and where their data lie."""

    directory: Path
    platform: Platform
    hub: HubProcess
    lakefs: LakeFSSettings


@contextmanager
def stack(directory: Path) -> Iterator[Stack]:
    """Run Redis, lakeFS, a hub, the front and a CPU worker for the length of a block."""
    lakefs_port = free_port()
    keys = {"LAKEFS_ACCESS_KEY_ID": "bench", "LAKEFS_SECRET_ACCESS_KEY": "bench-secret"}
    command = [sys.executable, "-m", "embedded.lakefs", "--port", str(lakefs_port)]
    lakefs = LakeFSSettings.model_validate(
        {
            "endpoint": f"http://127.0.0.1:{lakefs_port}",
            "access_key_id": keys["LAKEFS_ACCESS_KEY_ID"],
            "secret_access_key": keys["LAKEFS_SECRET_ACCESS_KEY"],
        }
    )
    (directory / "hub").mkdir()
    with (
        running(
            [*command, "--data", str(directory / "lakefs")],
            port=lakefs_port,
            log=directory / "lakefs.log",
            env=keys,
        ),
        HubProcess(directory / "hub") as hub,
    ):
        nobody = f"http://127.0.0.1:{free_port()}"
        platform = Platform(directory, nobody, lakefs, hub)
        platform.start("redis", "api", "cpu")
        try:
            yield Stack(directory, platform, hub, lakefs)
        finally:
            platform.stop()
            platform.http.close()
