"""A stand-in for the ``lakefs`` program: the embedded server under lakeFS' own settings."""

import sys
from pathlib import Path

_PROGRAM = """#!{python}
import os, sys
if sys.argv[1:] == ["--version"]:
    print("lakeFS version: 0.0.0-test")
    sys.exit()
assert sys.argv[1:] == ["run"], sys.argv
host, _, port = os.environ["LAKEFS_LISTEN_ADDRESS"].rpartition(":")
for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
    os.environ["LAKEFS_" + name] = os.environ["LAKEFS_INSTALLATION_" + name]
place = ["--host", host, "--port", port, "--data", os.environ["LAKEFS_DATABASE_LOCAL_PATH"]]
os.execv(sys.executable, [sys.executable, "-m", "embedded.lakefs", *place])
"""


def write_lakefs(folder: Path) -> Path:
    """Put the program into a folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "lakefs"
    program.write_text(_PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    return program
