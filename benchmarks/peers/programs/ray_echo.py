"""Ray Serve with one replica of a model that returns its input: ``ray_echo.py PORT``."""

import signal
import sys

import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(max_ongoing_requests=64)
class Echo:
    """Holds no model."""

    async def __call__(self, request: Request) -> dict[str, str]:
        """Return the input."""
        return {"text": (await request.json())["text"]}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="warning")
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Echo.bind(), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
