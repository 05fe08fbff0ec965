"""Who may do what at the front, for every call that it has."""

import asyncio
import logging
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from starlette.routing import BaseRoute

from api.access import ANYBODY, CALLS
from api.app import create_app
from api.callers import NOBODY, Callers
from shared.errors import UnavailableError
from shared.identity.roles import Role
from shared.identity.store import KeyStore
from shared.jobs import JobState
from shared.ledger import Ledger
from shared.settings import (
    ApiSettings,
    HubSettings,
    LedgerSettings,
    MediaSettings,
    MLflowSettings,
    RedisSettings,
    Settings,
)
from tests.claims import claim
from tests.processes import free_port, wait_until

DOWNLOAD = {"model_name": "org/model"}
ADMIN_KEY = "the key that an operator brings along"
#: Named in the path, and nobody's own.
SHARED = {"name"}

Headers = dict[str, str]
NewClient = Callable[..., TestClient]


@pytest.fixture
def keys(redis_client: Any, ledger_settings: LedgerSettings) -> KeyStore:
    return KeyStore(redis_client, ledger_settings)


@pytest.fixture
def new_client(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings, tmp_path: Any
) -> Iterator[NewClient]:
    """Make fronts of settings; nothing is remembered unless they say so."""
    nobody = f"http://127.0.0.1:{free_port()}"
    clients = []

    def make(redis: RedisSettings = redis_settings, **api: Any) -> TestClient:
        settings = Settings(
            redis=redis,
            ledger=ledger_settings,
            mlflow=MLflowSettings(tracking_uri=nobody),
            hub=HubSettings(endpoint=nobody),
            media=MediaSettings(files_url=str(tmp_path / "files")),
            api=ApiSettings.model_validate({"key_cache_seconds": 0} | api),
        )
        client = TestClient(create_app(settings))
        clients.append(client.__enter__())
        return client

    yield make
    for client in clients:
        client.__exit__()


@pytest.fixture
def client(new_client: NewClient) -> TestClient:
    return new_client()


@pytest.fixture
def holder(keys: KeyStore) -> Callable[[Role], Headers]:
    """Make keys, and return the headers that show them."""
    return lambda role: {"Authorization": f"Bearer {keys.create('test', role)[1]}"}


@pytest.fixture
def ann(holder: Callable[[Role], Headers]) -> Headers:
    return holder(Role.SUBMITTER)


@pytest.fixture
def bob(holder: Callable[[Role], Headers]) -> Headers:
    return holder(Role.SUBMITTER)


@pytest.fixture
def admin(holder: Callable[[Role], Headers]) -> Headers:
    return holder(Role.ADMIN)


def routes_of(routes: list[BaseRoute]) -> Iterator[str]:
    """Yield every call of an app, also those that its documentation leaves out."""
    for route in routes:
        if router := getattr(route, "original_router", None):
            yield from routes_of(router.routes)
        else:
            methods, path = getattr(route, "methods", None), getattr(route, "path", None)
            assert path, f"{route!r} has no path that the table could name"
            assert methods, f"{route!r} has no methods that the table could name"
            yield from (f"{method} {path}" for method in methods if method != "HEAD")


def calls_of(client: TestClient) -> list[str]:
    app = client.app
    assert isinstance(app, FastAPI)
    calls = sorted(routes_of(list(app.routes)))
    assert len(calls) >= 30
    return calls


def request(client: TestClient, call: str, headers: Headers | None = None) -> Any:
    method, path = call.split(" ")
    return client.request(method, re.sub(r"{\w+}", "x", path), headers=headers)


def submit(client: TestClient, headers: Headers, **more: str) -> dict[str, Any]:
    response = client.post("/models/download", json=DOWNLOAD, headers=headers | more)
    assert response.status_code == 202, response.text
    return dict(response.json())


def upload(client: TestClient, headers: Headers) -> str:
    response = client.post("/files", files={"file": b"bytes"}, headers=headers)
    assert response.status_code == 201, response.text
    return str(response.json()["file_id"])


# ── roles ────────────────────────────────────────────────────────────────────


def test_every_call_is_in_the_table(client: TestClient) -> None:
    assert [call for call in calls_of(client) if call not in CALLS] == []


def test_a_call_that_is_not_in_the_table_takes_an_admin(
    client: TestClient, ann: Headers, admin: Headers
) -> None:
    app = client.app
    assert isinstance(app, FastAPI)
    app.get("/forgotten")(lambda: "secret")
    assert client.get("/forgotten").status_code == 401
    assert client.get("/forgotten", headers=ann).status_code == 403
    assert client.get("/forgotten", headers=admin).json() == "secret"


def test_every_call_asks_for_a_key_and_its_role(
    client: TestClient, holder: Callable[[Role], Headers]
) -> None:
    holders = {role: holder(role) for role in Role}
    for call in calls_of(client):
        needed = CALLS[call]
        stranger = request(client, call)
        if needed is ANYBODY:
            assert stranger.status_code not in {401, 403}, call
            continue
        assert (stranger.status_code, stranger.json()["code"]) == (401, "unauthenticated"), call
        assert stranger.headers["www-authenticate"].startswith("Bearer")
        for role, headers in holders.items():
            status = request(client, call, headers).status_code
            if role.covers(needed):
                assert status not in {401, 403}, (call, role)
            else:
                assert status == 403, (call, role)


def test_openapi_declares_how_a_key_is_shown(client: TestClient) -> None:
    spec = client.get("/openapi.json").json()
    assert {scheme["type"] for scheme in spec["components"]["securitySchemes"].values()} == {
        "http",
        "apiKey",
    }
    for path, methods in spec["paths"].items():
        for method, call in methods.items():
            closed = CALLS[f"{method.upper()} {path}"] is not ANYBODY
            assert bool(call.get("security")) is closed, path
            assert ({"401", "403", "429"} <= set(call["responses"])) is closed, path


def test_a_stranger_is_refused_before_anything_is_read(client: TestClient, ann: Headers) -> None:
    sent = list[Any]()

    async def receive() -> Any:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        sent.append(message)

    for path in ("/models/download", "/files"):
        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "headers": []}
        asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]
        assert sent[-2]["status"] == 401


def test_unknown_paths_and_methods_are_404_and_405_with_and_without_a_key(
    client: TestClient, ann: Headers
) -> None:
    for headers in ({}, ann):
        assert client.get("/nowhere", headers=headers).status_code == 404
        assert client.delete("/jobs", headers=headers).status_code == 405


@pytest.mark.parametrize(
    "show",
    [
        lambda key: {"Authorization": f"Bearer {key}"},
        lambda key: {"authorization": f"bearer   {key} "},
        lambda key: {"X-API-Key": key},
        lambda key: {"X-API-Key": key, "Authorization": "Basic dTpw"},
    ],
)
def test_a_key_is_found_in_either_header(
    client: TestClient, keys: KeyStore, show: Callable[[str], Headers]
) -> None:
    _, text = keys.create("test", Role.VIEWER)
    assert client.get("/jobs", headers=show(text)).status_code == 200


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"),
        lambda text: text[:-1],
        lambda text: text.upper(),
        lambda text: f"{text}0",
        lambda text: "lc_000000000000_" + text.rpartition("_")[2],
        lambda _: "schlüssel".encode(),
        lambda _: "",
        lambda _: "null",
    ],
)
def test_a_text_that_is_no_key_lets_nobody_in(
    client: TestClient, keys: KeyStore, spoil: Callable[[str], str | bytes]
) -> None:
    _, text = keys.create("test", Role.ADMIN)
    spoilt = spoil(text)
    raw = spoilt if isinstance(spoilt, bytes) else spoilt.encode()
    for headers in ({b"X-API-Key": raw}, {b"Authorization": b"Bearer " + raw}):
        assert client.get("/jobs", headers=headers).status_code == 401


# ── keys come and go ─────────────────────────────────────────────────────────


def test_without_keys_everybody_may_do_everything_until_the_first_one(
    client: TestClient, keys: KeyStore
) -> None:
    job = submit(client, {})
    assert client.get(job["links"]["self"]).status_code == 200
    _, text = keys.create("first", Role.ADMIN)
    assert client.get(job["links"]["self"]).status_code == 401
    headers = {"X-API-Key": text}
    assert client.get(job["links"]["self"], headers=headers).status_code == 200


def test_a_revoked_key_is_good_for_nothing_within_seconds(
    new_client: NewClient, keys: KeyStore
) -> None:
    client = new_client(key_cache_seconds=0.5)
    key, text = keys.create("test", Role.VIEWER)
    headers = {"X-API-Key": text}
    assert client.get("/jobs", headers=headers).status_code == 200
    keys.revoke(key.id)
    wait_until(lambda: client.get("/jobs", headers=headers).status_code == 401, 5, "it is refused")
    assert client.get("/jobs", headers=headers).json()["detail"] == "the API key was revoked"
    assert client.get("/jobs").status_code == 401, "the last revocation opens nothing"


def test_an_expired_key_is_refused_though_it_is_remembered(
    new_client: NewClient, keys: KeyStore
) -> None:
    client = new_client(key_cache_seconds=600)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    headers = {"X-API-Key": keys.create("test", Role.VIEWER, tomorrow)[1]}
    assert client.get("/jobs", headers=headers).status_code == 200
    with mock.patch("shared.identity.keys.datetime") as clock:
        clock.now.return_value = tomorrow
        refused = client.get("/jobs", headers=headers)
    assert (refused.status_code, refused.json()["detail"]) == (401, "the API key has expired")


def test_last_use_is_noted(client: TestClient, keys: KeyStore) -> None:
    before = datetime.now(UTC)
    used, _ = keys.create("used", Role.VIEWER), keys.create("unused", Role.VIEWER)
    client.get("/jobs", headers={"X-API-Key": used[1]})
    # Who only knows the id does not use the key.
    client.get("/jobs", headers={"X-API-Key": f"lc_{keys.all()[1].id}_{'0' * 64}"})
    first, second = keys.all()
    assert first.last_used_at is not None
    assert first.last_used_at >= before
    assert second.last_used_at is None


def test_the_operators_own_key_is_an_admins(new_client: NewClient) -> None:
    client = new_client(admin_key=SecretStr(ADMIN_KEY))
    assert client.get("/jobs").status_code == 401
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    assert client.post("/inference/cache/clear", headers=headers).status_code == 200
    assert client.get("/jobs", headers={"X-API-Key": ADMIN_KEY + "x"}).status_code == 401


@pytest.mark.parametrize("api", [{"require_keys": True}, {"host": "192.0.2.1"}])
def test_a_front_that_must_be_closed_is_so_before_there_are_keys(
    new_client: NewClient, api: dict[str, Any]
) -> None:
    assert new_client(**api).get("/jobs").status_code == 401


def test_who_asks_for_it_is_open_beyond_loopback(new_client: NewClient) -> None:
    client = new_client(host="192.0.2.1", allow_open=True)
    assert client.get("/jobs", headers={"Host": "api.example"}).status_code == 200


def test_an_open_front_is_not_for_the_web_pages_of_others(
    client: TestClient, keys: KeyStore
) -> None:
    pages: list[Headers] = [{"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
    for headers in pages:
        response = client.post("/files", files={"file": b"x"}, headers=headers)
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    _, text = keys.create("test", Role.SUBMITTER)
    for headers in pages:
        upload(client, headers | {"X-API-Key": text})


# ── Redis is away ────────────────────────────────────────────────────────────


def test_without_redis_only_the_operators_own_key_is_known(
    new_client: NewClient, keys: KeyStore
) -> None:
    away = RedisSettings.model_validate({"url": f"redis://127.0.0.1:{free_port()}/0"})
    client = new_client(redis=away, admin_key=SecretStr(ADMIN_KEY))
    call = f"/files/file-{0:032x}"
    assert client.get(call, headers={"X-API-Key": ADMIN_KEY}).status_code == 404
    assert client.get(call).status_code == 401
    _, text = keys.create("test", Role.ADMIN)
    assert client.get(call, headers={"X-API-Key": text}).status_code == 503


def test_an_open_front_stays_open_when_redis_goes(
    keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = Callers(keys, ApiSettings(key_cache_seconds=0))

    def away() -> bool:
        raise UnavailableError("Redis does not answer")

    monkeypatch.setattr(keys, "exist", away)
    with pytest.raises(UnavailableError):
        asyncio.run(callers.identify(None))
    monkeypatch.undo()
    assert asyncio.run(callers.identify(None)) is NOBODY
    monkeypatch.setattr(keys, "exist", away)
    assert asyncio.run(callers.identify(None)) is NOBODY


# ── what belongs to whom ─────────────────────────────────────────────────────


def test_what_is_anothers_does_not_exist_in_any_call_that_names_it(
    client: TestClient, ann: Headers, bob: Headers, admin: Headers
) -> None:
    """Every call with an id in its path, so that a new one cannot be forgotten."""
    seen = set()
    for call in calls_of(client):
        method, path = call.split(" ")
        for kind in set(re.findall(r"{(\w+)}", path)) - SHARED:
            seen.add(kind)
            if kind == "job_id":
                job = submit(client, ann)
                client.post(f"{job['links']['cancel']}", headers=ann)
                own, unknown = job["job_id"], str(uuid.uuid4())
            else:
                own, unknown = upload(client, ann), f"file-{uuid.uuid4().hex}"
            at = {name: path.replace(f"{{{kind}}}", name) for name in (own, unknown)}
            for more in ("", "?wait=1"):
                other = client.request(method, at[own] + more, headers=bob)
                none = client.request(method, at[unknown] + more, headers=bob)
                assert other.status_code == none.status_code == 404, call
                assert other.text.replace(own, "ID") == none.text.replace(unknown, "ID"), call
            for headers in (admin, ann):
                response = client.request(method, at[own], headers=headers)
                assert response.status_code != 404 or method == "DELETE", call
    assert seen == {"job_id", "file_id"}


def test_lists_show_ones_own(
    client: TestClient, ann: Headers, bob: Headers, admin: Headers
) -> None:
    mine, theirs = submit(client, ann), submit(client, bob)
    batch = client.post("/models/batch_download", json={"downloads": [DOWNLOAD]}, headers=ann)
    parent = batch.json()["job_id"]

    def listed(headers: Headers, **query: str) -> set[str]:
        jobs = client.get("/jobs", params=query, headers=headers).json()["jobs"]
        return {job["job_id"] for job in jobs}

    children = listed(ann, parent_id=parent)
    assert len(children) == 1
    assert listed(ann) == {mine["job_id"], parent} | children
    assert listed(bob) == {theirs["job_id"]}
    assert listed(bob, parent_id=parent) == set()
    assert listed(bob, model="org/model", state="queued") == {theirs["job_id"]}
    assert listed(admin) == listed(ann) | listed(bob)


def test_pages_of_ones_own_leave_nothing_out(
    client: TestClient, ann: Headers, bob: Headers
) -> None:
    mine = []
    for _ in range(5):
        mine.append(submit(client, ann)["job_id"])
        submit(client, bob)
    found, cursor = list[str](), None
    while True:
        query: dict[str, Any] = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = client.get("/jobs", params=query, headers=ann).json()
        found += [job["job_id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == mine[::-1]


def test_jobs_keep_their_submitter(client: TestClient, keys: KeyStore, ledger: Ledger) -> None:
    key, text = keys.create("test", Role.SUBMITTER)
    batch = {"downloads": [DOWNLOAD, {"model_name": "other"}]}
    parent = client.post("/models/batch_download", json=batch, headers={"X-API-Key": text}).json()
    for job_id in (parent["job_id"], *parent["children"]):
        assert ledger.get(job_id).submitter == key.id


def test_anothers_file_is_unknown_to_an_inference(
    client: TestClient, ann: Headers, bob: Headers, admin: Headers
) -> None:
    body = {"task": "vlm", "model_name": "m", "data": {"prompt": "?"}}
    own, unknown = upload(client, ann), f"file-{uuid.uuid4().hex}"

    def asked(file_id: str, headers: Headers, *, deep: bool) -> Any:
        image: Any = [{"content": [{"image": file_id}]}] if deep else file_id
        data = {"prompt": "?", "image": image}
        return client.post("/inference/infer", json=body | {"data": data}, headers=headers)

    for deep in (False, True):
        other, none = (asked(file_id, bob, deep=deep) for file_id in (own, unknown))
        assert other.status_code == none.status_code == 404
        assert other.text.replace(own, "ID") == none.text.replace(unknown, "ID")
        field = "data.image.0.content.0.image" if deep else "data.image"
        assert other.json()["errors"][0]["field"] == field
        assert asked(own, ann, deep=deep).status_code == 202
        assert asked(own, admin, deep=deep).status_code == 202


def test_equal_idempotency_keys_of_two_submitters_are_two(
    client: TestClient, ann: Headers, bob: Headers
) -> None:
    mine = submit(client, ann, **{"Idempotency-Key": "k"})["job_id"]
    assert submit(client, bob, **{"Idempotency-Key": "k"})["job_id"] != mine
    assert submit(client, ann, **{"Idempotency-Key": "k"})["job_id"] == mine
    other = client.post(
        "/models/download", json={"model_name": "b"}, headers=bob | {"Idempotency-Key": "k"}
    )
    assert other.status_code == 409
    assert mine not in other.text


def test_a_long_poll_is_answered_for_ones_own(
    client: TestClient, ann: Headers, ledger: Ledger
) -> None:
    job = claim(ledger, submit(client, ann)["job_id"], "cpu@a")
    ledger.finish(job, JobState.SUCCEEDED, result={"files": 3})
    answer = client.get(f"/jobs/{job.id}?wait=5", headers=ann)
    assert (answer.status_code, answer.json()["result"]) == (200, {"files": 3})


# ── how often ────────────────────────────────────────────────────────────────


def test_calls_are_limited_for_each_key(new_client: NewClient, ann: Headers, bob: Headers) -> None:
    client = new_client(calls_per_second=0.01, calls_burst=3)
    for _ in range(3):
        submit(client, ann)
    refused = client.post("/models/download", json=DOWNLOAD, headers=ann)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 0 < int(refused.headers["retry-after"]) <= 100
    submit(client, bob)
    for _ in range(10):
        assert client.get("/jobs", headers=ann).status_code == 200, "looking is not counted"
        assert client.get("/health/ready").status_code == 200


def test_calls_without_keys_are_limited_for_each_address(new_client: NewClient) -> None:
    client = new_client(calls_per_second=0.01, calls_burst=1)
    submit(client, {})
    assert client.post("/models/download", json=DOWNLOAD).status_code == 429


def test_a_call_is_allowed_again_after_the_time_said(new_client: NewClient, ann: Headers) -> None:
    client = new_client(calls_per_second=4, calls_burst=1)
    allowed = 0

    def some() -> bool:
        nonlocal allowed
        allowed += client.post("/models/download", json=DOWNLOAD, headers=ann).status_code == 202
        return allowed >= 3

    wait_until(some, 30, "three calls are let through")


# ── secrets ──────────────────────────────────────────────────────────────────


def test_no_key_gets_into_a_log_or_into_redis(
    new_client: NewClient,
    keys: KeyStore,
    redis_client: Any,
    ledger_settings: LedgerSettings,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    client = new_client(admin_key=SecretStr(ADMIN_KEY))
    texts = [ADMIN_KEY, "lc_000000000000_" + "f" * 64]
    texts += [keys.create("test", role)[1] for role in Role]
    for text in texts:
        for call in ("GET /jobs", "POST /models/transition_stage", "GET /jobs/{job_id}"):
            request(client, call, {"Authorization": f"Bearer {text}"})
            request(client, call, {"X-API-Key": text})
    printed = capfd.readouterr()
    written = caplog.text + printed.out + printed.err
    assert "call refused" in written, "the test can see logs"
    kept = str([redis_client.hgetall(f"{ledger_settings.prefix}:api-keys")])
    assert len(re.findall("digest", kept)) == 3, "the test can see keys"
    for text in texts:
        secret = text.rpartition("_")[2]
        assert secret not in written
        assert secret not in kept
