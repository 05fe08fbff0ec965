"""`python -m embedded.hub --root DIR --port 8008`: serve the models under a directory."""

import argparse
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

import uvicorn

from embedded.hub.app import TREE_PAGE_SIZE, HubSettings, create_app
from embedded.hub.catalog import publish_found
from embedded.hub.errors import HubError, PublishError
from embedded.hub.repository import ModelStore

_GRACE_SECONDS = 2


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    options = _parser().parse_args(arguments)
    root: Path = options.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    try:
        publish_found(ModelStore(root))
        listener = socket.create_server((options.host, options.port), backlog=2048)
    except (HubError, PublishError, OSError) as error:
        print(f"hub: {error}", file=sys.stderr)
        return 1
    port = listener.getsockname()[1]
    settings = HubSettings(
        root=root,
        token=os.environ.get(options.token_env) or None,
        faults_enabled=options.faults,
        cdn_url=f"http://{options.cdn_host}:{port}" if options.cdn_host else None,
        tree_page_size=options.tree_page_size,
    )
    print(f"hub: serving {root} at http://{options.host}:{port}", flush=True)
    logging.getLogger("uvicorn.error").addFilter(_is_not_a_cut)
    config = uvicorn.Config(
        create_app(settings),
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m embedded.hub",
        description="Serve models by the Hugging Face Hub's protocol: those published under the "
        "root, and every <org>/<name>/ or <name>/ directory in it.",
    )
    parser.add_argument("--root", type=Path, required=True, help="where the models lie")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8008, help="0 takes a free one")
    parser.add_argument(
        "--token-env",
        default="HUB_TOKEN",
        metavar="NAME",
        help="environment variable with the token for private and gated models",
    )
    parser.add_argument("--faults", action="store_true", help="let tests PUT /_faults")
    parser.add_argument(
        "--cdn-host",
        metavar="HOST",
        help="another name of this machine to send large files from, as a real CDN would",
    )
    parser.add_argument("--tree-page-size", type=int, default=TREE_PAGE_SIZE)
    return parser


def _exit(_number: int, _frame: FrameType | None) -> None:
    # uvicorn raises the signal again when it has shut down in good order.
    raise SystemExit(0)


def _is_not_a_cut(record: logging.LogRecord) -> bool:
    """Drop what uvicorn says of a transfer that ended early: the client left, or a fault cut it."""
    return "returned without completing response" not in record.getMessage()


if __name__ == "__main__":
    sys.exit(main())
