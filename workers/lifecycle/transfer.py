"""One file from a hub to the disk: resumed, verified, stoppable, in flat memory.

The file grows in place. Its address is pinned to a commit and every byte of it, those of an earlier
run too, goes through the published digest; so nothing else needs to be remembered to go on after
an interruption, and content that changed in between is never mixed.
"""

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

from shared.cancellation import CancelToken
from shared.errors import (
    DigestMismatchError,
    InsufficientDiskError,
    NotFoundError,
    RequestError,
    UnavailableError,
)
from shared.hub import HubFile, rate_limited_seconds
from shared.retries import HOLD
from shared.settings import MIB
from workers.lifecycle.connections import Connections

_CHUNK_BYTES = MIB


@dataclass(frozen=True)
class FetchedFile:
    """A file that is whole and verified on the disk."""

    sha256: str
    #: Bytes that came over the network, those that were thrown away included.
    fetched_bytes: int
    #: Bytes that were on the disk before and were kept.
    resumed_bytes: int


class _WrongContentError(Exception):
    """What arrived is not the published file; its message says why."""


class FileFetch:
    """One file on its way: what is on the disk → what is missing → verified, or once more."""

    def __init__(
        self,
        connections: Connections,
        url: str,
        file: HubFile,
        target: Path,
        token: CancelToken,
        on_bytes: Callable[[int], None],
    ) -> None:
        """Report through ``on_bytes`` by how much the file grew, or shrank where it is negative."""
        self._connections = connections
        self._url = url
        self._file = file
        self._target = target
        self._token = token
        self._on_bytes = on_bytes
        self._digests = _Digests(file)
        self._have = 0
        self._fetched_bytes = 0
        self._resumed_bytes = 0

    def run(self) -> FetchedFile:
        """Fetch what is missing; only a file that is whole, verified and synced is returned."""
        try:
            self._resume()
            try:
                self._complete()
            except _WrongContentError:
                self._discard()
                self._complete()
        except _WrongContentError as error:
            self._discard()
            raise DigestMismatchError(f"{self._file.path}, fetched twice: {error}") from error
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise InsufficientDiskError(f"No room for {self._file.path}: {error}") from error
            raise
        return FetchedFile(self._digests.sha256, self._fetched_bytes, self._resumed_bytes)

    def _resume(self) -> None:
        """Take up what an earlier run, or a link to an earlier revision, left on the disk."""
        self._target.parent.mkdir(parents=True, exist_ok=True)
        if self._target.exists() and self._target.stat().st_size > self._file.size_bytes:
            self._target.unlink()
        if not self._target.exists():
            self._target.touch()
        with self._target.open("rb") as left:
            for chunk in iter(lambda: left.read(_CHUNK_BYTES), b""):
                self._token.check()
                self._count(chunk)
        self._resumed_bytes = self._have

    def _complete(self) -> None:
        """Receive what is missing, through failures of the network, and verify the whole."""
        if self._have < self._file.size_bytes:
            HOLD.on(self._receive, self._token, lambda: self._have)
        self._token.check()
        self._digests.verify()
        with self._target.open("rb") as whole:
            os.fsync(whole.fileno())

    def _receive(self) -> None:
        """Append what one connection gives."""
        try:
            with self._connections.stream(self._url, self._have) as response:
                self._accept(response)
                with self._target.open("ab") as out:
                    for chunk in response.iter_raw():
                        self._token.check()
                        self._append(out, chunk)
        except httpx.HTTPError as error:
            raise _unavailable(self._file.path, repr(error)) from error
        if self._have < self._file.size_bytes:
            raise _unavailable(self._file.path, f"the answer ended at byte {self._have:,}")

    def _accept(self, response: httpx.Response) -> None:
        """Get ready for what the answer will bring, or raise."""
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            start, total = _content_range(response)
            if start != self._have:
                raise _WrongContentError(f"asked to go on at byte {self._have:,}, got {start}")
        elif response.status_code == httpx.codes.OK:
            total = _number(response.headers.get("Content-Length"))
            if self._have:
                self._discard()  # the server does not do ranges
        elif response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _WrongContentError(f"there is nothing at byte {self._have:,}")
        else:
            raise _refusal(response, self._file.path)
        if total is not None and total != self._file.size_bytes:
            raise _WrongContentError(f"{total:,} bytes instead of {self._file.size_bytes:,}")

    def _append(self, out: BinaryIO, chunk: bytes) -> None:
        self._fetched_bytes += len(chunk)
        if self._have + len(chunk) > self._file.size_bytes:
            raise _WrongContentError(f"more than {self._file.size_bytes:,} bytes")
        out.write(chunk)
        self._count(chunk)

    def _count(self, chunk: bytes) -> None:
        self._digests.update(chunk)
        self._have += len(chunk)
        self._on_bytes(len(chunk))

    def _discard(self) -> None:
        """Start from nothing again; never in place, as the file may be a link to a finished one."""
        self._target.unlink(missing_ok=True)
        self._digests = _Digests(self._file)
        self._on_bytes(-self._have)
        self._have = self._resumed_bytes = 0


class _Digests:
    """SHA-256 of a file while it grows, beside the digest that was published for it."""

    def __init__(self, file: HubFile) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        if self._file.sha256 is None:
            self._git.update(chunk)

    def verify(self) -> None:
        by_sha256 = self._file.sha256 is not None
        got = self.sha256 if by_sha256 else self._git.hexdigest()
        published = self._file.sha256 if by_sha256 else self._file.git_sha1
        if got != published:
            kind = "SHA-256" if by_sha256 else "git SHA-1"
            raise _WrongContentError(f"its {kind} is {got}, published is {published}")

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


def _unavailable(path: str, reason: str, asked_seconds: int | None = None) -> UnavailableError:
    """Return the error of a hub that fails now, and perhaps says for how long."""
    error = UnavailableError(
        f"The hub fails to send {path}: {reason}", code="hub_unavailable", service="hub"
    )
    error.retry_after_seconds = asked_seconds
    return error


def _refusal(response: httpx.Response, path: str) -> Exception:
    """Return the error that an answer without a file means."""
    status = response.status_code
    if status == 429:
        return _unavailable(path, "status 429", rate_limited_seconds(response.headers))
    if status >= 500 or status == 408:
        return _unavailable(path, f"status {status}")
    if status in {401, 403}:
        return RequestError(
            f"The hub refuses {path}: the model is gated or private. Set HF_TOKEN to the token of "
            "an account that was given access",
            code="model_gated",
        )
    if status in {404, 410}:
        return NotFoundError(f"The hub lists {path} but does not have it", code="file_not_found")
    return RequestError(f"The hub refuses {path}: status {status}", code="hub_refused")


def _content_range(response: httpx.Response) -> tuple[int | None, int | None]:
    """Return the first byte and the whole size that ``Content-Range: bytes 5-9/10`` tells."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    return (_number(span.partition("-")[0]) if unit == "bytes" else None), _number(total)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None
