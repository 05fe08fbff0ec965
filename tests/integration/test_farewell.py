"""A front that is told to stop sends those away who still wait, and does not seem defective."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.farewell import Farewell
from tests.processes import free_port, wait_until


class Front:
    """A server whose calls never end by themselves."""

    def __init__(self) -> None:
        self.called = threading.Event()
        app = Starlette(routes=[Route("/", self._wait)])
        app.add_middleware(Farewell)
        self._config = uvicorn.Config(app, port=free_port(), timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(self._config)
        self.url = f"http://127.0.0.1:{self._config.port}/"

    async def _wait(self, _: Request) -> Response:
        self.called.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


@pytest.fixture
def front() -> Iterator[Front]:
    front = Front()
    thread = threading.Thread(target=front.server.run)
    thread.start()
    wait_until(lambda: front.server.started, what="front")
    yield front
    front.server.should_exit = True
    thread.join()


def test_who_waits_is_told_to_come_again(front: Front) -> None:
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(httpx.get, front.url, timeout=60)
        assert front.called.wait(30)
        front.server.should_exit = True
        response = answer.result()
    assert response.status_code == 503
    assert response.json()["code"] == "shutting_down"
    assert int(response.headers["Retry-After"]) > 0
