"""A call reaches the API once, or its caller learns why not."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from typing import Any, Literal

import httpx
import pytest

from client import (
    BusyError,
    Client,
    ClientError,
    ConflictError,
    DeniedError,
    InvalidRequestError,
    NotFoundError,
    ProblemError,
    Retries,
    UnreachableError,
)
from client.calls import Call
from client.operations import jobs, lifecycle, registry
from client.retries import Pause
from tests.either_client import AT_ONCE, STYLES, EitherClient

JOB = {
    "job_id": "01a2",
    "kind": "download",
    "state": "queued",
    "created_at": "2026-11-22T10:00:00Z",
}
Answer = httpx.Response | Exception


class Api:
    """Gives prepared answers one after the other, the last one for ever, and keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        self._answers: Iterator[Answer] = iter(answers)
        self._last = answers[-1]
        self.requests: list[httpx.Request] = []
        self.bodies: list[bytes] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = next(self._answers, self._last)
        if isinstance(answer, httpx.ConnectError):
            raise answer
        self.bodies.append(request.read())
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(
            answer.status_code, headers=answer.headers, content=answer.read(), request=request
        )


def accepted() -> httpx.Response:
    return httpx.Response(202, json=JOB)


def refused(status: int, **headers: str) -> httpx.Response:
    problem = {"title": "No", "status": status, "detail": "because", "code": "some_code"}
    return httpx.Response(status, json=problem, headers=headers)


Ask = Callable[[Api, Callable[[Any], Any]], Any]


@pytest.fixture(params=STYLES)
def ask_api(request: pytest.FixtureRequest) -> Ask:
    style: Literal["sync", "async"] = request.param
    return lambda api, operation: EitherClient(style, handler=api).ask(operation)


def submit(client: Any) -> Any:
    return client.models.download("org/model")


@pytest.mark.parametrize(
    "hindrance",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("cut"),
        httpx.ReadTimeout("silent"),
        refused(503, **{"Retry-After": "0"}),
        refused(429, **{"Retry-After": "0"}),
    ],
    ids=repr,
)
def test_a_submit_is_repeated_under_one_idempotency_key(ask_api: Ask, hindrance: Answer) -> None:
    api = Api(hindrance, hindrance, accepted())

    job = ask_api(api, submit)

    keys = {request.headers["Idempotency-Key"] for request in api.requests}
    assert (job.job_id, len(api.requests), len(keys)) == ("01a2", 3, 1)


@pytest.mark.parametrize("status", [404, 503])
def test_a_repeated_submit_gives_the_job_that_has_failed_meanwhile(
    ask_api: Ask, status: int
) -> None:
    problem = {"title": "No", "status": status, "detail": "because", "code": "c", "job_id": "01a2"}
    failed = httpx.Response(200, json=JOB | {"state": "failed"})
    api = Api(httpx.ReadError("cut"), httpx.Response(status, json=problem), failed)

    job = ask_api(api, submit)

    assert (job.job_id, job.state) == ("01a2", "failed")
    calls = [f"{request.method} {request.url.path}" for request in api.requests]
    assert calls == ["POST /models/download", "POST /models/download", "GET /jobs/01a2"]


def test_two_submits_have_two_keys(ask_api: Ask) -> None:
    api = Api(accepted())
    ask_api(api, submit)
    ask_api(api, submit)
    assert len({request.headers["Idempotency-Key"] for request in api.requests}) == 2


def test_the_callers_own_idempotency_key_is_used(ask_api: Ask) -> None:
    api = Api(accepted())
    ask_api(api, lambda client: client.models.download("org/model", idempotency_key="mine"))
    assert api.requests[0].headers["Idempotency-Key"] == "mine"


def test_what_may_not_be_done_twice_is_not_repeated_after_a_lost_answer(ask_api: Ask) -> None:
    api = Api(httpx.ReadError("cut"), accepted())
    with pytest.raises(UnreachableError):
        ask_api(api, lambda client: client.files.delete("01a2"))
    assert len(api.requests) == 1


def test_a_retry_whose_answer_was_lost_is_the_same_retry_again(ask_api: Ask) -> None:
    api = Api(httpx.ReadError("cut"), accepted())
    ask_api(api, lambda client: client.jobs.retry("01a2"))
    first, second = (request.headers["Idempotency-Key"] for request in api.requests)
    assert first == second


def test_what_was_never_sent_is_repeated_whatever_it_is(ask_api: Ask) -> None:
    api = Api(httpx.ConnectError("refused"), httpx.ReadError("cut"))
    with pytest.raises(UnreachableError):
        ask_api(api, lambda client: client.files.delete("01a2"))
    assert len(api.requests) == 2


def test_attempts_end(ask_api: Ask) -> None:
    api = Api(httpx.ConnectError("refused"))
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:8009: refused"):
        ask_api(api, submit)
    assert len(api.requests) == AT_ONCE.attempts


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, DeniedError),
        (403, DeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, InvalidRequestError),
        (500, ProblemError),
        (502, ProblemError),
        (507, ProblemError),
    ],
)
def test_a_refusal_is_an_error_with_its_problem_document(
    ask_api: Ask, status: int, error: type[ProblemError]
) -> None:
    api = Api(refused(status))
    with pytest.raises(error, match="because") as caught:
        ask_api(api, submit)
    assert type(caught.value) is error
    assert (caught.value.problem.status, caught.value.problem.code) == (status, "some_code")
    assert len(api.requests) == 1


def test_a_proxys_refusal_without_a_document_is_told_too(ask_api: Ask) -> None:
    with pytest.raises(ProblemError, match="Bad Gateway: <h1>nginx</h1>"):
        ask_api(Api(httpx.Response(502, text="<h1>nginx</h1>")), submit)


def test_an_answer_of_another_server_is_an_error_of_the_client(ask_api: Ask) -> None:
    with pytest.raises(ClientError, match="is it the platform's API"):
        ask_api(Api(httpx.Response(200, text="<h1>It works!</h1>")), submit)


@pytest.mark.parametrize("content", [b"picture", BytesIO(b"picture")], ids=["bytes", "open file"])
def test_a_repeated_upload_begins_at_its_beginning(ask_api: Ask, content: bytes | BytesIO) -> None:
    stored = {"file_id": "file-1", "size_bytes": 7, "sha256": "0", "media_type": "image/png"}
    api = Api(httpx.ReadError("cut"), httpx.Response(201, json=stored))

    ask_api(api, lambda client: client.files.upload(content, "a.png"))

    assert [body.count(b"picture") for body in api.bodies] == [1, 1]


def test_the_key_goes_along_and_unset_fields_do_not() -> None:
    api = Api(accepted())
    with Client(api_key="lc_1_secret", transport=httpx.MockTransport(api)) as client:
        client.models.download("org/model")
    assert api.requests[0].headers["Authorization"] == "Bearer lc_1_secret"
    assert api.bodies == [b'{"model_name":"org/model"}']


# ── decisions, without a client ──────────────────────────────────────────────


def pause_after(outcome: httpx.Response, retries: Retries) -> float:
    """Return the pause that an outcome leads to; raise what it leads to otherwise."""
    flow = retries.carry(lifecycle.download("org/model"))
    assert isinstance(next(flow), Call)
    step = flow.send(outcome)
    assert isinstance(step, Pause)
    return step.seconds


def test_retry_after_is_honoured_in_seconds() -> None:
    assert pause_after(refused(503, **{"Retry-After": "7"}), Retries()) == 7


def test_retry_after_is_honoured_as_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    assert 30 < pause_after(refused(429, **{"Retry-After": date}), Retries()) <= 40


def test_an_api_that_asks_for_too_much_patience_is_not_waited_for() -> None:
    with pytest.raises(BusyError):
        pause_after(refused(503, **{"Retry-After": "3600"}), Retries())


def test_pauses_grow_up_to_their_bound() -> None:
    retries = Retries(backoff_seconds=1, backoff_max_seconds=8)
    for attempt, most in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (5000, 8)):
        assert most / 2 <= retries.pause(attempt).seconds <= most


def test_a_wait_asks_again_until_the_job_has_ended() -> None:
    conversation = jobs.wait("01a2")
    first = next(conversation)
    assert first.path == "/jobs/01a2"
    running = first.answer.validate_python(JOB | {"state": "running"})
    second = conversation.send(running)
    assert second.timeout_seconds > second.params["wait"] > 0
    with pytest.raises(StopIteration) as end:
        conversation.send(first.answer.validate_python(JOB | {"state": "succeeded"}))
    assert end.value.value.state == "succeeded"


def test_a_rollback_is_repeatable_only_from_a_version() -> None:
    assert not registry.rollback_stage("chat").repeatable
    assert registry.rollback_stage("chat", from_version="3").repeatable
