"""Objects of lakeFS to files of this host, streamed."""

import hashlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from shared.cancellation import CancelToken
from shared.errors import InternalError, UnavailableError
from shared.lakefs.control import Control
from shared.lakefs.errors import check, translated, unavailable

#: A file's stream is taken up again this often.
RESUMES = 8
BACKOFF_SECONDS = 0.2


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
        """Write one object to a file and return its sha256; a cut stream goes on where it ended."""
        digest = hashlib.sha256()
        stream = _Stream(path)
        cuts = 0
        with destination.open("wb") as file:
            while not stream.complete:
                token.check()
                try:
                    with closing(self._rest(repo, ref, stream)) as chunks:
                        for chunk in chunks:
                            token.check()
                            file.write(chunk)
                            digest.update(chunk)
                            on_bytes(len(chunk))
                except UnavailableError:
                    cuts += 1
                    if cuts > RESUMES:
                        raise
                    token.wait(BACKOFF_SECONDS * 2**cuts)
        if destination.stat().st_size != stream.size_bytes:
            raise InternalError(f"{destination} was changed while {path!r} was written to it")
        return digest.hexdigest()

    def read(self, repo: str, ref: str, path: str, start: int, length: int) -> bytes:
        """Return a few bytes of an object, fewer at its end."""
        last = start + length - 1
        with self._answer(repo, ref, path, f"bytes={start}-{last}") as response:
            if response.status_code == 416:
                return b""
            check(response)
            data = response.read()
        return data if response.status_code == 206 else data[start : last + 1]

    def _rest(self, repo: str, ref: str, stream: _Stream) -> Generator[bytes, None, None]:
        """Yield what is missing of a stream and move it on."""
        span = f"bytes={stream.offset}-" if stream.offset else None
        with self._answer(repo, ref, stream.path, span) as response:
            check(response)
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
        with (
            translated(),
            self._http.stream(
                "GET",
                f"/repositories/{repo}/refs/{ref}/objects",
                params={"path": path, "presign": presign},
                headers=headers,
                follow_redirects=True,
            ) as response,
        ):
            if response.history and response.is_error and response.status_code != 416:
                # The link expired, or the store behind lakeFS stumbled: a new link may do.
                raise unavailable(f"the object store answered {response.status_code}")
            yield response


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
