"""An Ollama server for tests: its documented HTTP API, with a model that says back what it hears.

Faults are chosen by path, and every request is kept.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from tests.ollama_server.api import application
from tests.ollama_server.state import Fault, FaultKind, Model, OllamaTestServer

__all__ = ["Fault", "FaultKind", "Model", "OllamaTestServer", "ollama_server"]


@contextmanager
def ollama_server(*models: Model) -> Iterator[OllamaTestServer]:
    """Run a server on a free port for the length of a block."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = OllamaTestServer(f"http://127.0.0.1:{listener.getsockname()[1]}")
    server.have(*models)
    config = uvicorn.Config(
        application(server),
        log_config=None,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    process = uvicorn.Server(config)
    thread = threading.Thread(target=process.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield server
    finally:
        process.should_exit = True
        thread.join()
        listener.close()
