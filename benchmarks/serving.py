"""The whole stack with a model that does next to nothing: the rest is the platform's own cost."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded.hub.process import HubProcess
from shared.ledger import Ledger, connect
from shared.settings import LedgerSettings, RedisSettings
from tests.chaos.misbehaviour import ENGINE, TASK, Deed, install
from tests.chaos.world import Size, World
from tests.platform import Platform
from tests.servers import lakefs_running, mlflow_running

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Serving:
    """The running stack, and what to ask it."""

    platform: Platform
    ledger: Ledger
    redis: RedisSettings
    model: str

    def question(self, deed: Deed, **data: Any) -> Json:
        """Return the body of an inference in which the model does a deed."""
        return {
            "task": TASK,
            "engine": ENGINE,
            "model_name": self.model,
            "data": {"do": deed, "text": "hello", **data},
        }


@contextmanager
def serving(directory: Path, **env: str) -> Iterator[Serving]:
    """Run everything, one worker of each kind, for the length of a block."""
    for name in ("mlflow", "lakefs", "run"):
        (directory / name).mkdir()
    world = World(directory / "hub", directory / "made", 0, Size(fresh=0, staged=1, chats=0))
    catalog = world.publish("bench")
    install(directory / "plugin")
    path = os.pathsep.join([str(directory / "plugin"), str(ROOT)])
    env = {"PYTHONPATH": path, "INFERENCE_DEVICE": "cpu", "LEDGER_LEASE_SECONDS": "15", **env}
    with ExitStack() as parts:
        mlflow_url = parts.enter_context(mlflow_running(directory / "mlflow"))
        lakefs = parts.enter_context(lakefs_running(directory / "lakefs"))
        hub = parts.enter_context(HubProcess(world.root))
        platform = Platform(directory / "run", mlflow_url, lakefs, hub, **env)
        parts.enter_context(platform)
        world.prepare(platform, catalog)
        redis = RedisSettings.model_validate({"url": platform.env["REDIS_URL"]})
        yield Serving(platform, Ledger(connect(redis), LedgerSettings()), redis, catalog.deeds)
