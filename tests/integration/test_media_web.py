"""Media from URLs, over real connections on this host: who may be asked, and for what."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import httpcore
import pytest

from shared.cancellation import CancelToken
from shared.errors import CancelledError, ErrorInfo, LifecycleError
from shared.media.addresses import AddressPolicy
from shared.media.connections import Allowance
from shared.media.web import WebMedia
from shared.settings import MediaSettings
from tests import media_samples as samples
from tests.processes import free_port
from workers.inference.media import MediaLoader

FIELD = "data.image"
LIMIT = 100_000
IMAGE = samples.image("png")


class Server(ThreadingHTTPServer):
    """Answers ``/image``, ``/to?<location>``, ``/status/<code>``, ``/endless`` and ``/packed``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[str] = []
        self.hosts: list[str] = []

    @property
    def place(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    """One answer of the server."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.hosts.append(self.headers["Host"])
        path, _, query = self.path.partition("?")
        if path == "/image":
            self._send(200, IMAGE, {"Content-Length": str(len(IMAGE))})
        elif path == "/to":
            self._send(302, b"", {"Location": query})
        elif path == "/large":
            self._send(200, b"", {"Content-Length": str(LIMIT + 1)})
        elif path == "/endless":
            self._send(200, bytes(10 * LIMIT), {})
        elif path == "/packed":
            self._send(200, IMAGE, {"Content-Encoding": "gzip"})
        elif path == "/empty":
            self._send(200, b"", {})
        elif path == "/cut":
            self._send(200, IMAGE[:20], {"Content-Length": str(len(IMAGE))})
        else:
            self._send(int(path.removeprefix("/status/")), b"", {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def running() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that media may be fetched from although it is on this host."""
    with running() as server:
        yield server


@pytest.fixture
def inner() -> Iterator[Server]:
    """A server that is nobody's business."""
    with running() as server:
        yield server


@pytest.fixture
def settings(server: Server) -> MediaSettings:
    return MediaSettings(url_private_hosts=(server.place,), max_bytes=LIMIT, url_timeout_seconds=5)


def fetched(settings: MediaSettings, url: str, policy: AddressPolicy | None = None) -> bytes:
    into = BytesIO()
    WebMedia(settings, policy).fetch(url, into, FIELD)
    return into.getvalue()


def refusal(settings: MediaSettings, url: str) -> ErrorInfo:
    with pytest.raises(LifecycleError) as caught:
        fetched(settings, url)
    assert caught.value.field == FIELD
    return caught.value.info()


def test_image_is_fetched_and_decoded(server: Server, settings: MediaSettings) -> None:
    image = MediaLoader(settings).image(f"http://{server.place}/image", FIELD)
    assert (image.metadata["width"], image.metadata["height"]) == (40, 20)


def test_proxies_of_the_environment_are_not_used(
    server: Server, settings: MediaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert fetched(settings, f"http://{server.place}/image") == IMAGE


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0", "[::1]"),
        *("[::]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
        *("127。0。0。1", "①②⑦.0.0.1"),
    ],
)
def test_private_address_is_never_connected_to(
    host: str, inner: Server, settings: MediaSettings
) -> None:
    assert refusal(settings, f"http://{host}:{inner.server_port}/image").code == "media_url_refused"
    assert inner.asked == []


def test_metadata_service_of_clouds_is_refused(settings: MediaSettings) -> None:
    info = refusal(settings, "http://169.254.169.254/latest/meta-data")
    assert info.code == "media_url_refused"


def test_redirects_are_followed_while_they_are_allowed(
    server: Server, settings: MediaSettings
) -> None:
    assert fetched(settings, f"http://{server.place}/to?/to?/image") == IMAGE
    assert server.asked == ["/to?/to?/image", "/to?/image", "/image"]


def test_redirect_to_a_private_address_is_refused(
    server: Server, inner: Server, settings: MediaSettings
) -> None:
    info = refusal(settings, f"http://{server.place}/to?http://{inner.place}/image")
    assert info.code == "media_url_refused"
    assert (len(server.asked), inner.asked) == (1, [])


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://a.example/", "data:,x", "http://u:p@a.example/"],
)
def test_redirect_to_what_is_no_plain_url_is_refused(
    location: str, server: Server, settings: MediaSettings
) -> None:
    info = refusal(settings, f"http://{server.place}/to?{location}")
    assert info.code == "media_url_refused"


def test_redirects_have_an_end(server: Server, settings: MediaSettings) -> None:
    assert (
        "more than 5 times" in refusal(settings, f"http://{server.place}{'/to?' * 9}/image").detail
    )


def test_connection_goes_to_the_address_that_was_checked(
    server: Server, settings: MediaSettings
) -> None:
    """A name that changes its address after the check cannot lead anywhere else."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    policy = AddressPolicy(["media.example"], resolver=lambda _host, _port: next(answers))
    url = f"http://media.example:{server.server_port}/image"
    assert fetched(settings, url, policy) == IMAGE
    assert server.hosts == [f"media.example:{server.server_port}"]
    assert next(answers) == ["10.0.0.1"], "the name was resolved once"


@pytest.mark.parametrize(
    ("path", "code", "retryable"),
    [
        ("/large", "media_too_large", False),
        ("/endless", "media_too_large", False),
        ("/empty", "media_corrupt", False),
        ("/packed", "media_url_failed", False),
        ("/status/403", "media_url_failed", False),
        ("/status/404", "media_not_found", False),
        ("/status/503", "media_url_unavailable", True),
        ("/cut", "media_url_unavailable", True),
    ],
)
def test_answer_without_a_medium_says_what_is_wrong(
    path: str, code: str, retryable: bool, server: Server, settings: MediaSettings
) -> None:
    info = refusal(settings, f"http://{server.place}{path}")
    assert (info.code, info.retryable) == (code, retryable)


def test_server_that_is_down_may_be_up_another_time(settings: MediaSettings) -> None:
    port = free_port()
    trusting = settings.model_copy(update={"url_private_hosts": ("127.0.0.1",)})
    assert refusal(trusting, f"http://127.0.0.1:{port}/").retryable


def test_time_for_the_whole_fetch_is_bounded(server: Server, settings: MediaSettings) -> None:
    hasty = settings.model_copy(update={"url_max_seconds": 1e-9})
    info = refusal(hasty, f"http://{server.place}/image")
    assert (info.code, "in time" in info.detail) == ("media_url_unavailable", True)


def test_allowance_is_never_more_than_what_is_left() -> None:
    assert Allowance(100).seconds(5) == 5
    assert 0 < Allowance(2).seconds(5) <= 2
    with pytest.raises(httpcore.TimeoutException):
        Allowance(0).seconds(5)


def test_fetch_stops_when_told_to(server: Server, settings: MediaSettings) -> None:
    token = CancelToken()
    token.cancel(CancelledError("by the client"))
    with pytest.raises(CancelledError):
        WebMedia(settings).fetch(f"http://{server.place}/image", BytesIO(), FIELD, token)
    assert server.asked == []
