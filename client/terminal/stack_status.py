"""What runs on a data directory, for programs."""

import json
from concurrent.futures import ThreadPoolExecutor

from embedded.data_directory import DataDirectory
from embedded.status import lakefs_server


def show_status_json(directory: DataDirectory) -> bool:
    """Print every part of the stack as JSON, and return whether all of them are healthy."""
    record = directory.running()
    parts = record.components if record else ()
    with ThreadPoolExecutor(len(parts) or 1) as pool:
        healths = list(pool.map(lambda part: part.probe.healthy(), parts))
    shown = [
        {"name": part.name, "address": part.address, "pid": part.pid, "healthy": healthy}
        for part, healthy in zip(parts, healths, strict=True)
    ]
    answer = {"running": record is not None, "parts": shown}
    if record:
        answer["lakefs"] = lakefs_server(record, directory).model_dump()
    print(json.dumps(answer, indent=2))
    return bool(shown) and all(healths)
