"""A document that is written by a program, and kept in the repository."""

import sys
from pathlib import Path


def keep(path: Path, text: str) -> None:
    """Write the page; with ``--check`` compare it, and end with 1 if it is old."""
    if "--check" not in sys.argv:
        path.write_text(text, "utf-8")
    elif not path.exists() or path.read_text("utf-8") != text:
        sys.exit(f"{path} is old: run `make docs`")
