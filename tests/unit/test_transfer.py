"""What the transfer of one file does with each answer that a server may give."""

import errno
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import httpx
import pytest

from shared.cancellation import CancelToken
from shared.errors import (
    CancelledError,
    DigestMismatchError,
    InsufficientDiskError,
    LifecycleError,
    NotFoundError,
    RequestError,
    UnavailableError,
)
from shared.hub import RATE_LIMITED_SECONDS, RATE_WINDOW_SECONDS, HubFile
from shared.retries import HOLD
from workers.lifecycle import transfer
from workers.lifecycle.connections import Connections
from workers.lifecycle.transfer import FetchedFile, FileFetch

CONTENT = Random(1).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = HubFile("model.safetensors", len(CONTENT), sha256=SHA256)
URL = "http://hub/org/model/resolve/abc/model.safetensors"
Handler = Callable[[httpx.Request], httpx.Response]


class Timeless(CancelToken):
    """A token that nobody waits with; remembers for how long it was to be."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout_seconds: float) -> bool:
        self.waits.append(timeout_seconds)
        return self.cancelled


class Server:
    """Answers in turn as it is told, then as a sound server; remembers what was asked."""

    def __init__(self, *answers: Handler, content: bytes = CONTENT) -> None:
        self._answers = list(answers)
        self._content = content
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answers.pop(0)(request) if self._answers else self.sound(request)

    def sound(self, request: httpx.Request) -> httpx.Response:
        start = asked_from(request)
        size = len(self._content)
        if start == 0:
            return sent(self._content)
        if start >= size:
            return httpx.Response(416)
        return sent(self._content[start:], f"bytes {start}-{size - 1}/{size}")

    @property
    def starts(self) -> list[int]:
        return [asked_from(request) for request in self.requests]


class Body(httpx.SyncByteStream):
    """A body in pieces; an exception among them is what happens to the connection there."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def sent(content: bytes, content_range: str | None = None) -> httpx.Response:
    """An answer that, unlike one made with `content=`, can be streamed."""
    headers = {"Content-Length": str(len(content))}
    if content_range is None:
        return httpx.Response(200, headers=headers, stream=Body(content))
    return httpx.Response(
        206, headers=headers | {"Content-Range": content_range}, stream=Body(content)
    )


def asked_from(request: httpx.Request) -> int:
    return int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))


def cut_at(size: int, content: bytes = CONTENT) -> Handler:
    """A body that ends, with the connection, after so many bytes."""

    def answer(request: httpx.Request) -> httpx.Response:
        start = asked_from(request)
        body = Body(content[start : start + size], httpx.ReadError("cut"))
        if start == 0:
            return httpx.Response(200, stream=body)
        span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return httpx.Response(206, headers=span, stream=body)

    return answer


def always(status: int, **headers: str) -> Handler:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(status, headers=named)


def whole(content: bytes) -> Handler:
    return lambda _: sent(content)


class Fetching:
    """Fetches to one path; keeps what was reported."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.token = Timeless()
        self.reported = 0

    def __call__(self, server: Handler, file: HubFile = FILE) -> FetchedFile:
        headers = {"Authorization": "Bearer secret"}
        with Connections(headers, 5, httpx.MockTransport(server)) as connections:
            return FileFetch(connections, URL, file, self.target, self.token, self._add).run()

    def _add(self, count: int) -> None:
        self.reported += count


@pytest.fixture
def fetching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetching:
    fetching = Fetching(tmp_path / "deep" / "model.safetensors")
    # Time passes only where the transfer waits.
    hold = replace(HOLD, clock=lambda: sum(fetching.token.waits))
    monkeypatch.setattr(transfer, "HOLD", hold)
    return fetching


@pytest.fixture
def left(fetching: Fetching) -> Callable[[bytes], None]:
    """Puts on the disk what an earlier run left."""

    def put(content: bytes) -> None:
        fetching.target.parent.mkdir(parents=True)
        fetching.target.write_bytes(content)

    return put


def assert_whole(fetching: Fetching) -> None:
    assert fetching.target.read_bytes() == CONTENT
    assert fetching.reported == len(CONTENT)


def test_a_file_arrives_whole_with_its_digest(fetching: Fetching) -> None:
    server = Server()
    assert fetching(server) == FetchedFile(SHA256, len(CONTENT), 0)
    assert_whole(fetching)
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_a_file_of_git_is_verified_by_its_blob_id_and_gets_a_sha256(fetching: Fetching) -> None:
    blob = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT, usedforsecurity=False).hexdigest()
    assert fetching(Server(), HubFile("a", len(CONTENT), git_sha1=blob)).sha256 == SHA256
    with pytest.raises(DigestMismatchError, match="git SHA-1"):
        fetching(Server(), HubFile("a", len(CONTENT), git_sha1="0" * 40))


def test_an_empty_file_needs_no_request(fetching: Fetching) -> None:
    server = Server()
    fetching(server, HubFile("empty", 0, sha256=hashlib.sha256().hexdigest()))
    assert fetching.target.read_bytes() == b""
    assert server.requests == []


def test_bytes_on_the_disk_are_not_fetched_again(
    fetching: Fetching, left: Callable[[bytes], None]
) -> None:
    left(CONTENT[:200_000])
    server = Server()
    assert fetching(server) == FetchedFile(SHA256, 100_000, 200_000)
    assert server.starts == [200_000]
    assert_whole(fetching)


def test_a_file_that_is_whole_on_the_disk_needs_no_request(
    fetching: Fetching, left: Callable[[bytes], None]
) -> None:
    left(CONTENT)
    server = Server()
    assert fetching(server) == FetchedFile(SHA256, 0, len(CONTENT))
    assert server.requests == []
    assert_whole(fetching)


@pytest.mark.parametrize("wrong", [b"x" * 1000, b"x" * len(CONTENT), CONTENT + b"x"])
def test_other_content_on_the_disk_is_never_mixed_in(
    fetching: Fetching, left: Callable[[bytes], None], wrong: bytes
) -> None:
    left(wrong)
    assert fetching(Server()).resumed_bytes == 0
    assert_whole(fetching)


def test_a_link_to_a_finished_file_is_replaced_not_written_to(
    fetching: Fetching, left: Callable[[bytes], None], tmp_path: Path
) -> None:
    finished = tmp_path / "finished"
    left(b"y" * len(CONTENT))
    finished.hardlink_to(fetching.target)
    fetching(Server())
    assert_whole(fetching)
    assert finished.read_bytes() == b"y" * len(CONTENT)


@pytest.mark.parametrize(
    "answer",
    [
        whole(CONTENT),
        always(416),
        lambda _: sent(b"abc", "bytes 7-9/10"),
        lambda _: httpx.Response(206, stream=Body(b"abc")),
    ],
    ids=["range ignored", "range refused", "other range", "no range told"],
)
def test_a_server_that_cannot_go_on_sends_the_file_from_its_start(
    fetching: Fetching, left: Callable[[bytes], None], answer: Handler
) -> None:
    left(CONTENT[:1000])
    server = Server(answer)
    assert fetching(server).resumed_bytes == 0
    assert server.starts in ([1000], [1000, 0])
    assert_whole(fetching)


def test_a_cut_connection_is_resumed_at_the_byte(fetching: Fetching) -> None:
    server = Server(cut_at(1000), cut_at(500))
    assert fetching(server).fetched_bytes == len(CONTENT)
    assert server.starts == [0, 1000, 1500]
    assert_whole(fetching)


def test_an_answer_that_ends_early_in_good_order_is_resumed(fetching: Fetching) -> None:
    server = Server(lambda _: httpx.Response(200, stream=Body(CONTENT[:1000])))
    fetching(server)
    assert server.starts == [0, 1000]
    assert_whole(fetching)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_that_fails_for_a_while_is_asked_again(fetching: Fetching, status: int) -> None:
    fetching(Server(*[always(status, Retry_After="1")] * 5))
    assert_whole(fetching)


def test_a_server_that_goes_on_failing_is_given_up_and_the_bytes_stay(fetching: Fetching) -> None:
    server = Server(cut_at(1000), *[always(503)] * 1000)
    with pytest.raises(UnavailableError, match=r"model\.safetensors.*503") as caught:
        fetching(server)
    assert caught.value.specific_code == "hub_unavailable"
    assert sum(fetching.token.waits) <= HOLD.seconds
    assert len(fetching.token.waits) >= HOLD.seconds / HOLD.longest_seconds
    assert fetching.target.read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7),
        ({"RateLimit": '"resolvers";r=0;t=55'}, 56),
        ({"RateLimit": '"resolvers";r=9;t=55'}, RATE_LIMITED_SECONDS),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT"}, RATE_LIMITED_SECONDS),
        ({}, RATE_LIMITED_SECONDS),
        ({"Retry_After": "86400"}, RATE_WINDOW_SECONDS),
    ],
)
def test_a_hub_that_limits_the_rate_is_left_alone_for_as_long_as_it_says(
    fetching: Fetching, headers: dict[str, str], seconds: int
) -> None:
    with pytest.raises(UnavailableError, match="429") as caught:
        fetching(always(429, **headers))
    assert (caught.value.retry_after_seconds, caught.value.service) == (seconds, "hub")
    assert all(wait >= seconds for wait in fetching.token.waits), "a short one is waited for here"


def test_a_slow_way_through_many_cuts_is_no_failure(fetching: Fetching) -> None:
    fetching(Server(*[cut_at(1000)] * 200))
    assert sum(fetching.token.waits) > HOLD.seconds, "for longer than without progress"
    assert_whole(fetching)


def test_the_same_bytes_again_are_no_progress(fetching: Fetching) -> None:
    """A server that does no ranges, and breaks at the same byte each time."""
    with pytest.raises(UnavailableError, match="cut"):
        fetching(lambda _: httpx.Response(200, stream=Body(CONTENT[:1000], httpx.ReadError("cut"))))
    assert sum(fetching.token.waits) <= HOLD.seconds


def test_a_wrong_digest_is_fetched_once_more(fetching: Fetching) -> None:
    server = Server(whole(b"x" * len(CONTENT)))
    assert fetching(server).fetched_bytes == 2 * len(CONTENT)
    assert_whole(fetching)


@pytest.mark.parametrize(
    "answer",
    [
        whole(b"x" * len(CONTENT)),
        whole(CONTENT[:-1]),
        whole(CONTENT + b"x"),
        lambda _: httpx.Response(200, stream=Body(CONTENT, b"x")),
    ],
    ids=["wrong digest", "too short", "too long", "too long and not saying so"],
)
def test_wrong_content_twice_is_an_error_and_leaves_nothing(
    fetching: Fetching, answer: Handler
) -> None:
    server = Server(answer, answer)
    with pytest.raises(DigestMismatchError, match=r"model\.safetensors, fetched twice"):
        fetching(server)
    assert len(server.requests) == 2
    assert not fetching.target.exists()
    assert fetching.reported == 0


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, RequestError, "model_gated"),
        (403, RequestError, "model_gated"),
        (404, NotFoundError, "file_not_found"),
        (418, RequestError, "hub_refused"),
    ],
)
def test_a_refusal_is_final(
    fetching: Fetching, status: int, kind: type[LifecycleError], code: str
) -> None:
    server = Server(always(status))
    with pytest.raises(kind) as caught:
        fetching(server)
    assert caught.value.specific_code == code
    assert len(server.requests) == 1


def test_the_token_does_not_follow_a_redirect_to_another_host(
    fetching: Fetching, left: Callable[[bytes], None]
) -> None:
    left(CONTENT[:1000])
    server = Server(lambda _: httpx.Response(302, headers={"Location": "http://cdn/blob"}))
    fetching(server)
    first, second = server.requests
    assert first.headers["Authorization"] == "Bearer secret"
    assert second.url.host == "cdn"
    assert "Authorization" not in second.headers
    assert second.headers["Range"] == "bytes=1000-"


def test_a_cancelled_fetch_stops_at_the_next_chunk_and_keeps_the_bytes(fetching: Fetching) -> None:
    def body() -> Iterator[bytes]:
        yield CONTENT[:1000]
        fetching.token.cancel(CancelledError("enough"))
        yield CONTENT[1000:2000]
        raise AssertionError("asked for more")

    with pytest.raises(CancelledError):
        fetching(lambda _: httpx.Response(200, content=body()))
    assert fetching.target.read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("status", [429, 503])
def test_a_cancelled_fetch_does_not_wait_for_its_next_attempt(
    fetching: Fetching, status: int
) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        fetching.token.cancel(CancelledError("enough"))
        return httpx.Response(status)

    with pytest.raises(CancelledError):
        fetching(fail)
    assert fetching.token.waits == []


def test_a_full_disk_is_named_as_such(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileFetch, "_append", full)
    with pytest.raises(InsufficientDiskError):
        fetching(Server())
