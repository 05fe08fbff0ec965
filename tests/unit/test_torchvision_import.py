"""torchvision can be imported beside the torch that is installed, whichever it is."""

import subprocess
import sys
from importlib import import_module


def test_torchvision_is_imported() -> None:
    """The package ``tests`` has mended it, as ``workers.inference`` does."""
    assert import_module("torchvision").__version__


def test_mending_loads_nothing() -> None:
    script = (
        "import sys; from shared.torchvision_import import mend_torchvision; mend_torchvision();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
