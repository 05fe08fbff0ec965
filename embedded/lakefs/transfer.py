"""Bytes in and out at full speed and in little memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import anyio
from anyio.to_thread import run_sync
from starlette.responses import StreamingResponse

from embedded.lakefs.blobs import BlobStore, BlobWriter
from embedded.lakefs.errors import RangeError

#: Large enough that the way to a thread and back does not show.
BLOCK_BYTES = 1024 * 1024

T = TypeVar("T")


async def receive(
    chunks: AsyncIterator[bytes],
    blobs: BlobStore,
    keep: Callable[[BlobWriter], T],
    check: Callable[[], object] = lambda: None,
) -> T:
    """Write and hash one block in threads while the next arrives, then `keep` the file.

    `check` runs in a thread before the first block is written.  What fits in one block takes one
    thread and no more, as the way there and back is most of the work.
    """
    blocks = _blocks(chunks)
    first = await anext(blocks, b"")
    if len(first) < BLOCK_BYTES:
        return await run_sync(_keep_block, first, blobs, keep, check)
    await run_sync(check)
    with blobs.writer() as writer:
        busy: asyncio.Future[Any] = asyncio.gather(*(run_sync(s, first) for s in writer.steps))
        try:
            async for block in blocks:
                await busy
                busy = asyncio.gather(*(run_sync(step, block) for step in writer.steps))
        finally:
            await busy  # no thread may be at work on a file that is closed
        return await run_sync(keep, writer)


def _keep_block(
    block: bytes,
    blobs: BlobStore,
    keep: Callable[[BlobWriter], T],
    check: Callable[[], object],
) -> T:
    check()
    with blobs.writer() as writer:
        for step in writer.steps:
            step(block)
        return keep(writer)


async def read(paths: Iterable[Path]) -> AsyncIterator[bytes]:
    """Yield the bytes of some files, one after the other."""
    for path in paths:
        async for block in _read(path, 0, path.stat().st_size):
            yield block


class FileResponse(StreamingResponse):
    """A file or the part of it that a `Range` header asks for."""

    def __init__(self, path: Path, range_header: str | None, headers: Mapping[str, str]) -> None:
        size_bytes = path.stat().st_size
        served = byte_range(range_header, size_bytes) if range_header else range(size_bytes)
        extra = {"Accept-Ranges": "bytes", "Content-Length": str(len(served))}
        if range_header:
            extra["Content-Range"] = content_range(served, size_bytes)
        super().__init__(
            _read(path, served.start, len(served)),
            status_code=206 if range_header else 200,
            headers={**headers, **extra},
        )


def byte_range(header: str, size_bytes: int) -> range:
    """Read a `Range` header with a single range, as lakeFS does."""
    unit, _, spec = header.partition("=")
    first, dash, last = (part.strip() for part in spec.partition("-"))
    if unit != "bytes" or not dash or not (first or last) or not f"{first}{last}".isdecimal():
        raise RangeError(size_bytes)
    if not first:
        served = range(max(size_bytes - int(last), 0), size_bytes)
    elif not last:
        served = range(int(first), size_bytes)
    else:
        served = range(int(first), min(int(last) + 1, size_bytes))
    if not served:
        raise RangeError(size_bytes)
    return served


def content_range(served: range, size_bytes: int) -> str:
    """Return the `Content-Range` header of a partial answer."""
    return f"bytes {served.start}-{served.stop - 1}/{size_bytes}"


async def _blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Gather the small chunks of a socket."""
    gathered: list[bytes] = []
    size_bytes = 0
    async for chunk in chunks:
        gathered.append(chunk)
        size_bytes += len(chunk)
        if size_bytes >= BLOCK_BYTES:
            yield b"".join(gathered)
            gathered, size_bytes = [], 0
    if size_bytes:
        yield b"".join(gathered)


async def _read(path: Path, start: int, length: int) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb", buffering=0) as file:
        await file.seek(start)
        while length > 0 and (block := await file.read(min(BLOCK_BYTES, length))):
            yield block
            length -= len(block)
