"""Lets torchvision be imported beside a torch without CUDA.

PyPI's torchvision for Linux is built for CUDA. Beside a torch for CPUs its compiled operators do
not load, and its import then fails over two of them that it wants to describe, and with it most of
transformers. Declaring those two is enough: what transformers needs of it is written in Python.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: The module that describes operators; torch, and what looks for the operators, come before it.
_DESCRIBES = "torchvision._meta_registrations"
_OPERATORS = ("nms", "qnms")


class _Declaration(MetaPathFinder):
    """Finds nothing: it only sees when the operators are needed."""

    #: The declarations live as long as it does.
    library: Any = None

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the finders' contract
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Declare the operators if they are about to be missed; leave the rest to others."""
        if fullname == _DESCRIBES and self.library is None:
            torch: Any = sys.modules["torch"]
            missing = not sys.modules["torchvision.extension"]._has_ops()  # noqa: SLF001
            if missing and torch.version.cuda is None:
                self.library = torch.library.Library("torchvision", "DEF")
                for name in _OPERATORS:
                    self.library.define(
                        f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                    )
        return None


def mend_torchvision() -> None:
    """Have torchvision's import succeed from now on; costs nothing where it is never imported."""
    if not any(isinstance(finder, _Declaration) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Declaration())
