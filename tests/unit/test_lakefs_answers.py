"""What an answer that is not the expected one means, and how a reader goes on after it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from shared.cancellation import CancelToken
from shared.errors import LifecycleError, NotFoundError, RequestError, UnavailableError
from shared.lakefs import reader as reader_module
from shared.lakefs.errors import Answers
from shared.lakefs.reader import Reader
from shared.retries import Hold
from shared.settings import LakeFSSettings

SETTINGS = LakeFSSettings(endpoint="http://lakefs:8000", timeout_seconds=60)
LAKEFS_404 = b'{"message":"repository not found"}'
PAGE = b"<html><body>404 Not Found</body></html>"
OTHERS_JSON = b'{"detail":"Not Found"}'
CONTENT = Random(2).randbytes(10_000)


@pytest.fixture
def answers() -> Answers:
    return Answers(SETTINGS)


def error_of(answers: Answers, status: int, body: bytes) -> LifecycleError:
    with pytest.raises(LifecycleError) as caught:
        answers.check(httpx.Response(status, content=body))
    return caught.value


def test_keys_that_never_worked_are_wrong_or_the_database_is_away(answers: Answers) -> None:
    error = error_of(answers, 401, b'{"message":"error authenticating request"}')
    assert isinstance(error, RequestError)
    assert "LAKEFS_ACCESS_KEY_ID" in error.detail
    assert "database is away" in error.detail


@pytest.mark.parametrize(("status", "body"), [(200, b"{}"), (404, LAKEFS_404)])
def test_keys_that_have_worked_and_are_refused_are_an_outage(
    answers: Answers, status: int, body: bytes
) -> None:
    response = httpx.Response(status, content=body)
    if response.is_success:
        answers.check(response)
    else:
        assert isinstance(error_of(answers, status, body), NotFoundError)
    error = error_of(answers, 401, b'{"message":"error authenticating request"}')
    assert isinstance(error, UnavailableError)
    assert error.service == "lakeFS"
    assert "worked before" in error.detail


def test_what_the_keys_may_not_do_is_for_good(answers: Answers) -> None:
    answers.accept()
    error = error_of(answers, 403, b'{"message":"insufficient permissions"}')
    assert not error.retryable


def test_a_refusal_without_a_body_may_be_a_cut_answer(answers: Answers) -> None:
    error = error_of(answers, 404, b"")
    assert isinstance(error, UnavailableError)
    assert "LAKEFS_ENDPOINT" in error.detail


@pytest.mark.parametrize("body", [PAGE, OTHERS_JSON], ids=["page", "JSON of another server"])
def test_another_server_is_a_wrong_setting_at_first_and_an_outage_later(
    answers: Answers, body: bytes
) -> None:
    error = error_of(answers, 404, body)
    assert (error.specific_code, error.retryable) == ("lakefs_wrong_address", False)
    assert "LAKEFS_ENDPOINT (http://lakefs:8000) answers, but is not lakeFS" in error.detail
    answers.accept()
    later = error_of(answers, 404, body)
    assert isinstance(later, UnavailableError)
    assert later.service == "lakeFS"


def network_error(answers: Answers, url: str, kind: type[httpx.TransportError]) -> UnavailableError:
    with pytest.raises(UnavailableError) as caught, answers.translated():
        raise kind("refused", request=httpx.Request("GET", url))
    return caught.value


def test_a_store_behind_links_is_named_by_its_host_and_never_by_its_link(answers: Answers) -> None:
    link = "http://minio:9000/bucket/object?X-Amz-Signature=secret"
    error = network_error(answers, link, httpx.ConnectError)
    assert (error.service, error.specific_code) == ("object store", "object_store_unavailable")
    assert "minio:9000" in error.detail
    assert "pre_signed_endpoint" in error.detail
    assert "secret" not in error.detail
    assert "bucket" not in error.detail


def test_an_answer_that_takes_too_long_names_the_limit_and_hooks(answers: Answers) -> None:
    error = network_error(answers, "http://lakefs:8000/api/v1/merge", httpx.ReadTimeout)
    assert "60 s (LAKEFS_TIMEOUT_SECONDS)" in error.detail
    assert "hook" in error.detail


# ── the reader ───────────────────────────────────────────────────────────────


class Objects:
    """Serves one object in cut connections of so many bytes each; remembers where each began."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.starts: list[int] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        start = int(request.headers.get("range", "bytes=0-").split("=")[1].rstrip("-"))
        self.starts.append(start)
        size = len(CONTENT)
        if start >= size:
            return httpx.Response(416, headers={"content-range": f"bytes */{size}"})
        headers = {"etag": "e", "content-length": str(size - start)}
        if start:
            headers["content-range"] = f"bytes {start}-{size - 1}/{size}"
        return httpx.Response(206 if start else 200, headers=headers, stream=self._body(start))

    def _body(self, start: int) -> httpx.SyncByteStream:
        end = start + self.step

        class Cut(httpx.SyncByteStream):
            def __iter__(self) -> Any:
                yield CONTENT[start:end]
                if end < len(CONTENT):
                    raise httpx.ReadError("connection reset")

        return Cut()


Fetch = Callable[[Objects], str]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "incoming"


@pytest.fixture
def fetch(target: Path, answers: Answers, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    monkeypatch.setattr(reader_module, "HOLD", Hold(0.2, first_seconds=0.0001))
    storage = SimpleNamespace(pre_sign_support=False)
    control: Any = SimpleNamespace(storage=storage, answers=answers)

    def fetch(objects: Objects) -> str:
        transport = httpx.MockTransport(objects)
        http = httpx.Client(base_url="http://lakefs:8000/api/v1", transport=transport)
        reader = Reader(http, control)
        token = CancelToken()
        return reader.fetch("r", "c", "p", target, token=token, on_bytes=lambda _: None)

    return fetch


def test_a_way_through_many_cuts_arrives(fetch: Fetch, target: Path) -> None:
    objects = Objects(step=100)
    assert fetch(objects) == hashlib.sha256(CONTENT).hexdigest()
    assert target.read_bytes() == CONTENT
    assert len(objects.starts) == 100


def test_a_file_that_an_earlier_run_left_is_completed(fetch: Fetch, target: Path) -> None:
    target.write_bytes(CONTENT[:7000])
    objects = Objects(step=len(CONTENT))
    assert fetch(objects) == hashlib.sha256(CONTENT).hexdigest()
    assert objects.starts == [7000]
    assert target.read_bytes() == CONTENT


def test_a_file_that_is_complete_costs_one_question(fetch: Fetch, target: Path) -> None:
    target.write_bytes(CONTENT)
    objects = Objects(step=len(CONTENT))
    assert fetch(objects) == hashlib.sha256(CONTENT).hexdigest()
    assert objects.starts == [len(CONTENT)]


def test_a_reader_without_progress_gives_up_and_leaves_its_bytes(
    fetch: Fetch, target: Path
) -> None:
    target.write_bytes(CONTENT[:7000])
    with pytest.raises(UnavailableError):
        fetch(Objects(step=0))
    assert target.read_bytes() == CONTENT[:7000]
