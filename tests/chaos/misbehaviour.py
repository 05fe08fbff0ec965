"""A plugin whose models do what they are told: answer, hang, crash, run out of memory, exit.

The workers find it as they find every plugin (docs/extending.md): by the entry points of an
installed package, which ``install`` writes.
"""

import os
import signal
import sys
import threading
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Never

from shared.errors import InvalidInputError
from shared.tasks import Options
from workers.inference.calls import InferenceCall
from workers.inference.engines.base import BaseEngine, LoadedModel, ModelSource
from workers.inference.handlers.base import BaseModelHandler

TASK = ENGINE = "chaos"

_ENTRY_POINTS = f"""[lifecycle.engines]
{ENGINE} = {__name__}:ChaosEngine

[lifecycle.handlers]
{TASK}:{ENGINE} = {__name__}:ChaosHandler
"""


class Deed(StrEnum):
    """What a request asks for."""

    ECHO = "echo"
    #: Work that looks at its token.
    WORK = "work"
    HANG = "hang"
    SEGFAULT = "segfault"
    EXHAUST = "exhaust"
    EXIT = "exit"


def install(directory: Path) -> None:
    """Make the plugin an installed package for those who have the directory on their path."""
    info = directory / "lifecycle_chaos-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lifecycle-chaos\nVersion: 1\n")
    (info / "entry_points.txt").write_text(_ENTRY_POINTS)


class ChaosEngine(BaseEngine[LoadedModel]):
    """Holds nothing, and does one deed for each request."""

    name: ClassVar[str] = ENGINE
    supported_tasks: ClassVar[frozenset[str]] = frozenset({TASK})

    def estimate_bytes(self, source: ModelSource) -> int:
        """Return next to nothing."""
        return 1024

    def load_model(self, source: ModelSource) -> LoadedModel:
        """Return an empty model."""
        return LoadedModel(None, self.supported_tasks, 1024, "cpu")

    def infer(self, model: LoadedModel, inputs: Mapping[str, Any], call: InferenceCall) -> str:
        """Do the deed."""
        deed, text = Deed(inputs["do"]), str(inputs.get("text", ""))
        if deed is Deed.WORK:
            call.token.wait(float(inputs["seconds"]))
            call.token.check()
        elif deed is not Deed.ECHO:
            _misbehave(deed)
        for word in text.split():
            if call.on_token is not None:
                call.on_token(f"{word} ")
        return text

    def unload_model(self, model: LoadedModel) -> None:
        """Do nothing."""


def _misbehave(deed: Deed) -> Never:
    if deed is Deed.SEGFAULT:
        os.kill(os.getpid(), signal.SIGSEGV)
    elif deed is Deed.EXHAUST:
        bytearray(1 << 60)
    elif deed is Deed.EXIT:
        sys.exit(3)
    threading.Event().wait()
    raise AssertionError("unreachable")


class ChaosHandler(BaseModelHandler[LoadedModel]):
    """Takes ``{"do": <deed>, "text": …}``, returns ``{"generated_text": …}``."""

    options_model: ClassVar[type[Options]] = Options

    def validate_input(self, data: Mapping[str, Any]) -> None:
        """Take known deeds only."""
        if data.get("do") not in set(Deed):
            raise InvalidInputError("there is no such deed", field="data.do")

    def preprocess(self, model: LoadedModel, call: InferenceCall) -> Mapping[str, Any]:
        """Return the request as it is."""
        return call.data

    def postprocess(
        self, model: LoadedModel, call: InferenceCall, inputs: Mapping[str, Any], output: str
    ) -> dict[str, Any]:
        """Return what was said."""
        return {"generated_text": output, "metadata": {}}
