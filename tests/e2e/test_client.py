"""The typed client and the command line on the whole platform."""

import json
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from typer.testing import CliRunner, Result

from client import Client, ConflictError, JobFailedError, NotFoundError, Retries
from client.cli import app
from tests.e2e.conftest import CHAT_MODEL
from tests.either_client import STYLES, EitherClient
from tests.platform import Platform

pytestmark = pytest.mark.timeout(300)
PROMPT = "the quick brown fox"
GREEDY = {"max_new_tokens": 12, "do_sample": False}


def url_of(platform: Platform) -> str:
    return f"http://127.0.0.1:{platform.api_port}"


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> Literal["sync", "async"]:
    """Which client a test is about."""
    style: Literal["sync", "async"] = request.param
    return style


@pytest.fixture
def client(platform: Platform, style: Literal["sync", "async"]) -> EitherClient:
    """A client of the platform."""
    return EitherClient(style, url_of(platform), retries=Retries())


def result(client: EitherClient, job: Any) -> Any:
    return client.ask(lambda each: each.jobs.result(job, timeout_seconds=120))


def test_the_way_of_a_model(client: EitherClient, style: str) -> None:
    name = f"way-{style}"
    local = result(client, client.ask(lambda each: each.models.download(CHAT_MODEL)))
    stored = result(
        client, client.ask(lambda each: each.models.upload(local["local_model_name"], name))
    )
    registered = client.ask(
        lambda each: each.models.register(
            name,
            task="text-generation",
            lakefs_repo=name,
            commit_id=stored["commit_id"],
            path=stored["path"],
        )
    )
    version = result(client, registered)["version"]
    client.ask(lambda each: each.models.stage(name, version, "production"))
    asked = client.ask(
        lambda each: each.inference.infer(name, {"inputs": PROMPT}, options=GREEDY, stream=True)
    )
    events = client.collect(lambda each: each.jobs.events(asked))
    answer = result(client, asked)

    assert len([event for event in events if event.name == "token"]) > 1
    assert "".join(event.text for event in events) == answer["generated_text"]
    (shown,) = client.ask(lambda each: each.models.show(name))
    assert (shown.stage, shown.tags["lakefs_commit"]) == ("production", stored["commit_id"])
    assert name in {each.name for each in client.ask(lambda each: each.models.repos())}
    assert client.ask(lambda each: each.models.stats())["models"] >= 1
    page = client.ask(lambda each: each.jobs.ls(kind="infer", model=name, limit=1))
    assert page.jobs[0].job_id == asked.job_id
    assert client.ask(lambda each: each.models.health()).components["redis"].status == "up"
    assert client.ask(lambda each: each.inference.clear_cache(name))["workers"]


def test_files_come_and_go(client: EitherClient) -> None:
    stored = client.ask(lambda each: each.files.upload(b"some text", "notes.txt"))
    assert client.ask(lambda each: each.files.get(stored.file_id)) == stored
    client.ask(lambda each: each.files.delete(stored.file_id))
    with pytest.raises(NotFoundError):
        client.ask(lambda each: each.files.get(stored.file_id))


def test_what_went_wrong_is_told(client: EitherClient) -> None:
    job = client.ask(lambda each: each.models.download("no/such-model"))
    with pytest.raises(JobFailedError, match="no/such-model does not exist") as failed:
        result(client, job)
    error = failed.value.job.error
    assert error
    assert error.code == "model_not_found"
    with pytest.raises(ConflictError):
        client.ask(lambda each: each.jobs.cancel(job))


class LostAnswers(httpx.HTTPTransport):
    """Carries each call to the API, and loses the first answer."""

    lost = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Let the API do its work, then break the connection."""
        response = super().handle_request(request)
        if not self.lost:
            self.lost = True
            response.read()
            raise httpx.ReadError("cut", request=request)
        return response


def test_a_submit_whose_answer_is_lost_makes_one_job(platform: Platform) -> None:
    with Client(url_of(platform), transport=LostAnswers()) as client:
        job = client.models.download("nobody/once")
        client.jobs.wait(job)
        page = client.jobs.ls(model="nobody/once")
    assert [each.job_id for each in page.jobs] == [job.job_id]


def test_a_stream_goes_on_when_the_api_dies(platform: Platform, chat_model: str) -> None:
    options = {"max_new_tokens": 400, "do_sample": False}
    with Client(url_of(platform), retries=Retries(attempts=20)) as client:
        job = client.inference.infer(chat_model, {"inputs": PROMPT}, options=options, stream=True)
        text = ""
        for number, event in enumerate(client.jobs.events(job)):
            text += event.text
            if number == 10:
                platform.kill("api")
                platform.start("api")
        assert text == client.jobs.result(job)["generated_text"]


def run(platform: Platform, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--api", url_of(platform), *arguments])


def test_the_command_line_takes_a_model_to_its_answer(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    local = json.loads(run(platform, "models", "download", CHAT_MODEL, "--json").stdout)["result"]
    upload = ("models", "upload", local["local_model_name"], "--repo", "typed", "--json")
    commit = json.loads(run(platform, *upload).stdout)["result"]["commit_id"]
    where = ("--task", "text-generation", "--repo", "typed", "--commit", commit)
    register = run(platform, "models", "register", "typed", *where, "--stage", "production")
    assert "✓ typed version 1, stage production" in register.stdout, register.stderr

    answer = run(platform, "infer", "typed", PROMPT, "-o", "max_new_tokens=12")
    assert answer.exit_code == 0, answer.stderr
    job = json.loads(run(platform, "jobs", "ls", "--kind", "infer", "--json").stdout)["jobs"][0]
    assert answer.stdout == f"{job['result']['generated_text']}\n"
    # Watched later, it is the same again, from the events that are kept.
    assert run(platform, "jobs", "watch", job["job_id"]).stdout == answer.stdout
    assert "typed" in run(platform, "cache", "ls").stdout
    assert run(platform, "cache", "clear", "typed").exit_code == 0
    again = run(platform, "jobs", "retry", job["job_id"])
    assert again.exit_code == 5, "a job that succeeded is not tried again"


def test_a_batch_names_what_failed(platform: Platform) -> None:
    batch = run(platform, "models", "batch", CHAT_MODEL, "no/such-model")
    assert batch.exit_code == 1
    assert "no/such-model does not exist" in batch.stderr


def test_the_doctor_finds_what_is_down(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in platform.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LIFECYCLE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")

    well = run(platform, "doctor", "--json")
    platform.stop("cpu")
    try:
        ill = run(platform, "doctor")
    finally:
        platform.start("cpu")

    found = {each["part"]: each for each in json.loads(well.stdout)}
    assert {name: found[name]["level"] for name in ("API", "Redis", "MLflow", "lakeFS", "Hub")} == (
        dict.fromkeys(("API", "Redis", "MLflow", "lakeFS", "Hub"), "ok")
    )
    assert found["GPU workers"]["level"] == "ok"
    assert found["CPU workers"]["level"] == "ok"
    assert well.exit_code == 0, well.stdout
    assert ill.exit_code == 1, ill.stdout
    assert "CPU workers  none is alive" in ill.stdout
    assert "→ start one: python -m workers cpu" in ill.stdout
