"""Where the API of the stack is that runs on a data directory; read without the stack's code."""

import json
from pathlib import Path


def api_of_stack(data_dir: Path) -> str | None:
    """Return the address, if a stack has left word of itself there; it may have died since."""
    try:
        record = json.loads((data_dir / "stack.json").read_bytes())
        parts = {part["name"]: str(part["address"]) for part in record["components"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return parts.get("api")
