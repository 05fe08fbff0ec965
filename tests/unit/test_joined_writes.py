"""The data of one turn of the event loop are sent in one write."""

import asyncio
from collections.abc import Callable
from typing import cast

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from api.joined_writes import HELD_BYTES, JoinedWrites, JoinedWritesProtocol


class Recording:
    """A transport that records its calls."""

    def __init__(self) -> None:
        self.told: list[bytes | object] = []

    def write(self, data: bytes) -> None:
        self.told.append(bytes(data))

    def close(self) -> None:
        self.told.append("close")

    def set_protocol(self, protocol: object) -> None:
        self.told.append(protocol)

    def is_closing(self) -> bool:
        return "close" in self.told

    def get_extra_info(self, _name: str) -> None:
        """Know nothing of the connection."""


def told(*turns: Callable[[JoinedWrites], None]) -> list[bytes | object]:
    """Use a transport in some turns of a loop; return what reached the one under it."""
    under = Recording()

    async def run() -> None:
        transport = JoinedWrites(cast("asyncio.Transport", under))
        for turn in turns:
            turn(transport)
            await asyncio.sleep(0)
        assert transport.is_closing() == ("close" in under.told)

    asyncio.run(run())
    return under.told


def test_what_is_written_in_one_turn_is_joined() -> None:
    def answer(transport: JoinedWrites) -> None:
        transport.write(b"head ")
        transport.write(b"")
        transport.write(b"body")

    assert told(answer, lambda transport: transport.write(b"next")) == [b"head body", b"next"]


def test_it_is_written_before_the_connection_is_closed_or_handed_over() -> None:
    other = asyncio.Protocol()

    def leave(transport: JoinedWrites) -> None:
        transport.write(b"101")
        transport.set_protocol(other)
        transport.write(b"bye")
        transport.close()

    assert told(leave) == [b"101", other, b"bye", "close"]


def test_a_long_response_is_not_held_so_that_flow_control_sees_it() -> None:
    parts: list[bytes | object] = []

    def stream(transport: JoinedWrites) -> None:
        transport.write(b"x" * HELD_BYTES)
        transport.write(b"y")
        # Before the turn is over.
        parts.extend(transport.told)

    assert told(stream) == [b"x" * HELD_BYTES + b"y"] == parts


def test_a_held_response_is_written_when_the_client_closes_its_side() -> None:
    under = Recording()

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise AssertionError("no request arrives")

    async def run() -> None:
        config = uvicorn.Config(app, log_config=None, lifespan="off", interface="asgi3")
        config.load()
        protocol = JoinedWritesProtocol(config, ServerState(), {})
        protocol.connection_made(cast("asyncio.Transport", under))
        protocol.transport.write(b"answer")
        protocol.eof_received()

    asyncio.run(run())
    assert under.told == [b"answer", "close"]
