"""Objects of lakeFS to files of this host, streamed."""

import hashlib
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from shared.cancellation import CancelToken
from shared.errors import InternalError, NotFoundError
from shared.interruptible import current_token, interrupted_by, interruptible
from shared.lakefs.control import Control
from shared.lakefs.errors import object_store_unavailable, unavailable
from shared.retries import HOLD

CHUNK_BYTES = 1 << 20


@dataclass
class _Stream:
    """How far one object has come."""

    path: str
    offset: int = 0
    size_bytes: int | None = None
    etag: str | None = None

    @property
    def complete(self) -> bool:
        return self.size_bytes is not None and self.offset >= self.size_bytes


class Reader:
    """Reads objects, through presigned links where the store offers them.

    httpx and not the SDK: its ``get_object`` returns the whole body as one ``bytes``.
    """

    def __init__(self, http: httpx.Client, control: Control) -> None:
        self._http = http
        self._control = control

    def fetch(
        self,
        repo: str,
        ref: str,
        path: str,
        destination: Path,
        *,
        token: CancelToken,
        on_bytes: Callable[[int], None],
    ) -> str:
        """Write one object to a file and return its sha256.

        A cut stream goes on where it ended, and so does a file that an earlier call left there:
        its bytes are taken for the object's first ones, so it must be of the same commit.
        """
        digest, stream = hashlib.sha256(), _Stream(path)
        with interrupted_by(token), destination.open("a+b") as file:
            file.seek(0)
            for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
                stream.offset += _take(chunk, digest, token, on_bytes)

            def receive() -> None:
                with closing(self._rest(repo, ref, stream)) as chunks:
                    for chunk in chunks:
                        file.write(chunk)
                        _take(chunk, digest, token, on_bytes)

            HOLD.on(receive, token, lambda: stream.offset)
        if destination.stat().st_size != stream.size_bytes:
            raise InternalError(f"{destination} was changed while {path!r} was written to it")
        return digest.hexdigest()

    def read(self, repo: str, ref: str, path: str, start: int, length: int) -> bytes:
        """Return a few bytes of an object, fewer at its end."""
        last = start + length - 1
        with self._answer(repo, ref, path, f"bytes={start}-{last}") as response:
            if response.status_code == 416:
                return b""
            self._control.answers.check(response)
            data = response.read()
        return data if response.status_code == 206 else data[start : last + 1]

    def _rest(self, repo: str, ref: str, stream: _Stream) -> Generator[bytes, None, None]:
        """Yield what is missing of a stream and move it on."""
        span = f"bytes={stream.offset}-" if stream.offset else None
        with self._answer(repo, ref, stream.path, span) as response:
            if response.status_code == 416 and _is_at_end(stream, response):
                return
            self._control.answers.check(response)
            skip = _begin(stream, response)
            for data in response.iter_raw():
                chunk = data[skip:]
                skip -= len(data) - len(chunk)
                if chunk:
                    stream.offset += len(chunk)
                    yield chunk
        if not stream.complete:
            raise unavailable(f"{stream.path!r} ended after {stream.offset} bytes")

    @contextmanager
    def _answer(self, repo: str, ref: str, path: str, span: str | None) -> Iterator[httpx.Response]:
        """Ask for an object; with links, the store's own answer, from a link that is new."""
        presign = "true" if self._control.storage.pre_sign_support else "false"
        headers = {"Accept-Encoding": "identity"} | ({"Range": span} if span else {})
        request = self._http.build_request(
            "GET",
            f"/repositories/{repo}/refs/{ref}/objects",
            params={"path": path, "presign": presign},
            headers=headers,
        )
        with self._control.answers.translated():
            response = interruptible(
                lambda: self._http.send(request, stream=True, follow_redirects=True),
                discard=httpx.Response.close,
            )
            with closing(response), _cut_when_cancelled(response):
                if response.history and response.is_error and response.status_code != 416:
                    host = response.url.netloc.decode()
                    if response.status_code in {404, 410}:
                        raise NotFoundError(f"the object store at {host} has no such object")
                    # The link expired, or the store behind lakeFS stumbled: a new link may do.
                    raise object_store_unavailable(host, f"answered {response.status_code}")
                yield response


def _take(
    chunk: bytes, digest: "hashlib._Hash", token: CancelToken, on_bytes: Callable[[int], None]
) -> int:
    """Count what is in the file; return its size."""
    token.check()
    digest.update(chunk)
    on_bytes(len(chunk))
    return len(chunk)


@contextmanager
def _cut_when_cancelled(response: httpx.Response) -> Iterator[None]:
    """Shut an answer's connection when the job is told to stop, so that nobody waits in it."""
    token, network = current_token(), response.extensions.get("network_stream")
    sock = network.get_extra_info("socket") if network else None
    if token is None or sock is None:
        yield
        return

    def cut() -> None:
        with suppress(OSError):  # closed already
            sock.shutdown(socket.SHUT_RDWR)

    with token.calling(cut):
        yield


def _is_at_end(stream: _Stream, response: httpx.Response) -> bool:
    """Return whether there are no more bytes because all of them are here."""
    size = response.headers.get("content-range", "").rpartition("/")[2]
    if not size.isdecimal() or int(size) != stream.offset:
        return False
    stream.size_bytes = stream.offset
    return True


def _begin(stream: _Stream, response: httpx.Response) -> int:
    """Learn size and identity from an answer; return how many of its bytes are already here."""
    etag = response.headers.get("etag")
    if stream.etag is not None and etag != stream.etag:
        raise unavailable(f"{stream.path!r} changed while it was read")
    stream.etag = etag
    partial = response.status_code == 206
    length = response.headers.get("content-range" if partial else "content-length", "")
    size = length.rpartition("/")[2]
    if not size.isdecimal():
        raise unavailable(f"the length of {stream.path!r} is not told")
    stream.size_bytes = int(size)
    return 0 if partial else stream.offset
