"""Runs the server: `python -m embedded.lakefs --port 8000 --data DIR`."""

import argparse
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from embedded.lakefs.app import create_app
from embedded.lakefs.auth import Credentials

#: How long requests may take to finish after SIGTERM.
GRACE_SECONDS = 10


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    arguments = _parser().parse_args()
    credentials = _credentials()
    with _alone_in(arguments.data), socket.create_server((arguments.host, arguments.port)) as door:
        app = create_app(arguments.data, credentials, presign=arguments.presign)
        host, port = door.getsockname()
        print(f"lakeFS API on http://{host}:{port}, data in {arguments.data}", flush=True)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[door])


def _credentials() -> Credentials | None:
    """Return the environment's key pair; without one the server waits for its setup."""
    names = ("LAKEFS_ACCESS_KEY_ID", "LAKEFS_SECRET_ACCESS_KEY")
    keys = [os.environ.get(name, "") for name in names]
    if all(keys):
        return Credentials(*keys)
    if any(keys):
        sys.exit(f"set both {' and '.join(names)}, or neither")
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m embedded.lakefs",
        description="A lakeFS-compatible server for one machine. The key pair that it accepts"
        " comes from LAKEFS_ACCESS_KEY_ID and LAKEFS_SECRET_ACCESS_KEY; without them the server is"
        " to be set up by a call of its API, as lakeFS is.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free one (default: 8000)")
    parser.add_argument("--data", type=Path, required=True, help="folder to keep everything in")
    parser.add_argument("--presign", action="store_true", help="offer signed upload links")
    return parser


@contextmanager
def _alone_in(data: Path) -> Iterator[None]:
    """Hold a lock on the folder: two servers would sweep each other's uploads."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another server uses {data}")
        yield


if __name__ == "__main__":
    main()
