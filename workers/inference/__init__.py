"""Inference: manager → router → executor → cache → engine → handler.

Importing this package loads no torch, so that CPU workers can ask ``architectures`` what a model
can do. ``inference_manager`` is built from the settings when it is first asked for.
"""

import threading
from importlib import import_module
from typing import Any

from shared.torchvision_import import mend_torchvision

mend_torchvision()  # before anything below imports transformers

_LOCK = threading.Lock()


def __getattr__(name: str) -> Any:  # any attribute that a caller may ask for
    """Return ``model_registry``; build this process's ``inference_manager``."""
    if name == "model_registry":
        return import_module(f"{__name__}.registry").model_registry
    if name != "inference_manager":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _LOCK:
        if name not in globals():
            globals()[name] = import_module(f"{__name__}.in_process").build()
        return globals()[name]
