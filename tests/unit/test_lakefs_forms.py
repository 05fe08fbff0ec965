"""The multipart form that carries an object, however the network cuts it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from embedded.lakefs.errors import InvalidError
from embedded.lakefs.forms import content_of


def form(content: bytes) -> bytes:
    """Return a form with a note before the object."""
    return (
        b'--frontier\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
        b'--frontier\r\nContent-Disposition: form-data; name="content"; filename="a"\r\n'
        b"Content-Type: text/x-test\r\n\r\n" + content + b"\r\n--frontier--\r\n"
    )


def request(body: bytes, sizes: list[int], content_type: str) -> Request:
    """Return a request whose body arrives in chunks of the given sizes."""
    chunks: list[bytes] = []
    for size in sizes:
        chunks.append(body[:size])
        body = body[size:]
    messages: AsyncIterator[Message] = _messages([*chunks, body])
    scope = {
        "type": "http",
        "method": "POST",
        "headers": [(b"content-type", content_type.encode())],
    }
    return Request(scope, messages.__anext__)


async def _messages(chunks: list[bytes]) -> AsyncIterator[Message]:
    for chunk in chunks:
        yield {"type": "http.request", "body": chunk, "more_body": True}
    yield {"type": "http.request", "body": b"", "more_body": False}


async def read(received: Request) -> tuple[str, bytes]:
    content = await content_of(received)
    return content.content_type, b"".join([chunk async for chunk in content.chunks])


@given(
    st.lists(st.sampled_from([b"\r\n", b"--", b"frontier", b"x", b"\r\n--front"])).map(b"".join),
    st.lists(st.integers(1, 40), max_size=20),
)
def test_a_form_gives_its_content(content: bytes, sizes: list[int]) -> None:
    if b"\r\n--frontier" in b"\r\n" + content:
        return  # a client would have picked another boundary
    received = request(form(content), sizes, "multipart/form-data; boundary=frontier")
    assert asyncio.run(read(received)) == ("text/x-test", content)


def test_any_other_body_is_the_content() -> None:
    received = request(b"bytes", [2], "text/plain")
    assert asyncio.run(read(received)) == ("text/plain", b"bytes")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(b"cut off")[:-20], "multipart/form-data; boundary=frontier"),
        (b"--frontier--\r\n", "multipart/form-data; boundary=frontier"),
        (form(b"whole"), "multipart/form-data"),
    ],
    ids=["cut off", "without content", "without boundary"],
)
def test_a_broken_form_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(InvalidError):
        asyncio.run(read(request(body, [], content_type)))
