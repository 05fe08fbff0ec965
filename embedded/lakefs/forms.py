"""The one form that lakeFS takes: a multipart upload whose part `content` is the object.

Written here because common parsers spool the part to disk before they hand it out.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser

from starlette.requests import Request

from embedded.lakefs.errors import InvalidError

DEFAULT_CONTENT_TYPE = "application/octet-stream"
MAX_HEADER_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of an object and what the client calls their type."""

    content_type: str
    chunks: AsyncIterator[bytes]


async def content_of(request: Request) -> Content:
    """Return the object in the body: the body itself, or the part `content` of a form."""
    header = request.headers.get("content-type") or DEFAULT_CONTENT_TYPE
    message = Message()
    message["content-type"] = header
    if message.get_content_type() != "multipart/form-data":
        return Content(_printable(header), request.stream())
    boundary = message.get_boundary()
    if not boundary:
        raise InvalidError("no multipart boundary param in Content-Type")
    form = _Form(request.stream(), b"\r\n--" + boundary.encode())
    async for part in form.parts():
        if part.get_param("name", header="content-disposition") == "content":
            header = part.get("content-type", DEFAULT_CONTENT_TYPE)
            return Content(_printable(header), form.rest_of_part())
    raise InvalidError("multipart upload missing key 'content': http: no such file")


def _printable(header: str) -> str:
    """Return what of a header can be sent back in one."""
    return "".join(character for character in header if " " <= character <= "~")


class _Form:
    """A cursor over a multipart body."""

    def __init__(self, chunks: AsyncIterator[bytes], delimiter: bytes) -> None:
        self._chunks = chunks
        self._delimiter = delimiter
        # The first delimiter may come without its line break.
        self._ahead = bytearray(b"\r\n")

    async def parts(self) -> AsyncIterator[Message]:
        """Yield the headers of each part, skipping what was not read of the one before."""
        while True:
            async for _ in self.rest_of_part():
                pass
            while len(self._ahead) < 2:
                await self._more()
            if self._ahead.startswith(b"--"):
                return
            yield BytesHeaderParser().parsebytes((await self._headers()).lstrip())

    async def rest_of_part(self) -> AsyncIterator[bytes]:
        """Yield the bytes up to the next delimiter and step over it."""
        while (end := self._ahead.find(self._delimiter)) < 0:
            safe = len(self._ahead) - len(self._delimiter) + 1
            if safe > 0:
                yield self._take(safe)
            await self._more()
        yield self._take(end)
        del self._ahead[: len(self._delimiter)]

    async def _headers(self) -> bytes:
        while (end := self._ahead.find(b"\r\n\r\n")) < 0:
            if len(self._ahead) > MAX_HEADER_BYTES:
                raise InvalidError("multipart: message too large")
            await self._more()
        return self._take(end + 4)

    async def _more(self) -> None:
        try:
            self._ahead += await anext(self._chunks)
        except StopAsyncIteration:
            raise InvalidError("multipart: NextPart: EOF") from None

    def _take(self, count: int) -> bytes:
        taken = bytes(memoryview(self._ahead)[:count])
        del self._ahead[:count]
        return taken
