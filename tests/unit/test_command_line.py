"""``lifecycle`` against an API of prepared answers: what is printed, and how it ends."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from client.cli import app
from client.terminal.stack_address import api_of_stack
from embedded.data_directory import DataDirectory, StackRecord
from embedded.health import HttpProbe
from embedded.service import Component

JOB_ID = "01a20523-bf79-75d7-be64-7394efa10d54"
JOB: dict[str, Any] = {
    "job_id": JOB_ID,
    "kind": "download",
    "state": "succeeded",
    "created_at": "2026-11-22T10:00:00Z",
    "model": "org/model",
    "request": {"model_source": "huggingface", "model_name": "org/model"},
    "result": {"local_model_name": "org_model", "files": 6, "size_bytes": 1_064_693},
    "children": [],
    "message": "succeeded",
    "error": None,
}
ERROR = {"code": "model_not_found", "detail": "not at the hub", "category": "not_found"}
FAILED = JOB | {"state": "failed", "result": None, "error": ERROR}
VERSION = {
    "name": "a-model",
    "version": "12",
    "stage": "production",
    "task": "text-generation",
    "engine": "transformers",
    "model_params": 7.24,
    "created_at": "2026-11-22T10:00:00Z",
    "updated_at": "2026-11-22T10:00:00Z",
    "newer_field": "kept",
}

Handler = Callable[[httpx.Request], httpx.Response]
Run = Callable[..., Result]


class Api:
    """Answers by method and path, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        call = f"{request.method} {request.url.path}"
        is_json = request.headers.get("content-type") == "application/json"
        self.asked.append((call, json.loads(request.read()) if is_json else None))
        answer = self.answers.get(call, httpx.Response(404, json=problem(404)))
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, httpx.Response):
            return httpx.Response(
                answer.status_code, headers=answer.headers, content=answer.content
            )
        return httpx.Response(200, json=answer)

    def body(self, call: str) -> Any:
        return next(body for asked, body in self.asked if asked == call)


def problem(status: int) -> dict[str, Any]:
    return {"title": "No", "status": status, "detail": "because", "code": "some_code"}


def sent(*events: tuple[str, dict[str, Any]]) -> httpx.Response:
    text = "".join(
        f"event: {name}\ndata: {json.dumps(data)}\nid: {number}\n\n"
        for number, (name, data) in enumerate(events, 1)
    )
    return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    """The API that every command talks to."""
    made = Api()
    real = httpx.Client

    def connected(**options: Any) -> httpx.Client:
        return real(**options | {"transport": httpx.MockTransport(made)})

    monkeypatch.setattr(httpx, "Client", connected)
    return made


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as a user without a stack does; returns what it printed."""
    for name in ("LIFECYCLE_API_URL", "LIFECYCLE_API_KEY", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LIFECYCLE_DATA_DIR", str(tmp_path / "none"))

    def run(*arguments: str, typed: str = "", columns: int = 160) -> Result:
        monkeypatch.setenv("COLUMNS", str(columns))
        return CliRunner().invoke(app, arguments, input=typed)

    return run


# ── how a command ends ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 2), (401, 5), (403, 5), (404, 4), (409, 5), (413, 2), (422, 2), (500, 1), (502, 1)],
)
def test_a_refusal_has_its_exit_status(api: Api, run: Run, status: int, code: int) -> None:
    api.answers["GET /models/stats"] = httpx.Response(status, json=problem(status))
    result = run("models", "stats")
    assert (result.exit_code, result.stdout) == (code, "")
    assert "✗ because" in result.stderr


def test_an_api_that_asks_for_too_much_patience_ends_it_as_busy(api: Api, run: Run) -> None:
    later = httpx.Response(503, json=problem(503), headers={"Retry-After": "3600"})
    api.answers["GET /models/stats"] = later
    assert run("models", "stats").exit_code == 6


def test_an_api_that_is_not_there_is_named(api: Api, run: Run) -> None:
    api.answers["GET /models/stats"] = httpx.ConnectError("Connection refused")
    result = run("--api", "http://127.0.0.1:9", "models", "stats")
    assert result.exit_code == 3
    assert "no answer from http://127.0.0.1:9: Connection refused" in result.stderr
    assert "lifecycle doctor" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("models", "lss"),
        ("models", "batch"),
        ("models", "stage", "m", "1", "prod"),
        ("infer", "m", "hi", "--option", "max_new_tokens"),
        ("infer", "m", "--image", "not-there.png", "--task", "vlm"),
        ("--api", "nonsense", "models", "ls"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(api: Api, run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
    assert not any(call.startswith("POST") for call, _ in api.asked)


def test_a_failed_job_ends_it_with_1_and_its_reason(api: Api, run: Run) -> None:
    api.answers["POST /models/download"] = JOB | {"state": "queued"}
    api.answers[f"GET /jobs/{JOB_ID}/events"] = sent(("done", {"state": "failed"}))
    api.answers[f"GET /jobs/{JOB_ID}"] = FAILED
    result = run("models", "download", "org/model")
    assert result.exit_code == 1
    assert "✗ download org/model failed: not at the hub" in result.stderr
    assert "retry" not in result.stderr, "another attempt would fail too"


# ── what a command prints ────────────────────────────────────────────────────


def test_json_is_what_the_api_said_and_nothing_else(api: Api, run: Run) -> None:
    api.answers["GET /models/registered_in_mlflow"] = [VERSION]
    result = run("models", "ls", "--json")
    assert json.loads(result.stdout) == [VERSION]
    assert result.stderr == ""


def test_a_failed_job_is_json_too(api: Api, run: Run) -> None:
    api.answers["POST /models/download"] = JOB | {"state": "queued"}
    api.answers[f"GET /jobs/{JOB_ID}"] = FAILED
    result = run("models", "download", "org/model", "--json")
    assert (result.exit_code, json.loads(result.stdout), result.stderr) == (1, FAILED, "")


def test_a_refusal_is_json_too(api: Api, run: Run) -> None:
    result = run("models", "show", "nobody", "--json")
    assert (result.exit_code, result.stdout) == (4, "")
    assert json.loads(result.stderr) == {"error": problem(404)}


@pytest.mark.parametrize("command", ["models", "jobs"])
def test_tables_fit_80_columns(api: Api, run: Run, command: str) -> None:
    job = JOB | {"model": "some-organisation/a-model-with-a-name"}
    api.answers["GET /models/registered_in_mlflow"] = [VERSION]
    api.answers["GET /jobs"] = {"jobs": [job], "next_cursor": None}
    lines = run(command, "ls", columns=80).stdout.splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80
    assert JOB_ID in lines[1] or command == "models"


def test_names_are_printed_as_they_are(api: Api, run: Run) -> None:
    name = "[red]model[/red] :smile:"
    api.answers["GET /models/registered_in_mlflow"] = [VERSION | {"name": name}]
    assert name in run("models", "ls").stdout


def test_no_wait_prints_the_id_alone(api: Api, run: Run) -> None:
    api.answers["POST /models/download"] = JOB | {"state": "queued"}
    result = run("models", "download", "org/model", "--no-wait")
    assert result.stdout == f"{JOB_ID}\n"
    assert f"lifecycle jobs watch {JOB_ID}" in result.stderr


def test_a_batch_is_read_from_a_file(api: Api, run: Run) -> None:
    api.answers["POST /models/batch_download"] = JOB | {"kind": "batch_download"}
    run("models", "batch", "a/b", "--file", "-", "--no-wait", typed="c/d  # why\n\n# none\ne/f\n")
    names = [each["model_name"] for each in api.body("POST /models/batch_download")["downloads"]]
    assert names == ["a/b", "c/d", "e/f"]


def test_an_import_shows_its_steps_and_its_end(api: Api, run: Run) -> None:
    ended = JOB | {
        "kind": "import",
        "request": {"model_name": "org/model", "registered_name": "chat"},
        "result": {"name": "chat", "version": "3", "stage": "production"},
    }
    step = JOB | {"job_id": "01a3", "parent_id": JOB_ID}
    api.answers["POST /models/import"] = ended | {"state": "running"}
    api.answers["GET /jobs"] = {"jobs": [step], "next_cursor": None}
    api.answers[f"GET /jobs/{JOB_ID}"] = ended
    result = run(
        *("models", "import", "org/model", "--as", "chat", "--task", "text-generation"),
        *("--stage", "production"),
    )
    assert result.exit_code == 0, result.stderr
    assert "✓ chat version 3, stage production" in result.stdout
    assert "download: succeeded" in result.stderr
    body = api.body("POST /models/import")
    assert body == {
        "model_source": "huggingface",
        "model_name": "org/model",
        "registered_name": "chat",
        "task": "text-generation",
        "stage": "production",
    }


# ── Ctrl-C ───────────────────────────────────────────────────────────────────


def test_ctrl_c_leaves_a_job_running_and_says_how_to_come_back(api: Api, run: Run) -> None:
    api.answers["POST /models/download"] = JOB | {"state": "running"}
    api.answers[f"GET /jobs/{JOB_ID}/events"] = KeyboardInterrupt()
    result = run("models", "download", "org/model")
    assert result.exit_code == 130
    assert f"lifecycle jobs watch {JOB_ID}" in result.stderr
    assert not any(call.endswith("/cancel") for call, _ in api.asked)


def test_ctrl_c_stops_a_model_that_answers(api: Api, run: Run) -> None:
    job = JOB | {"kind": "infer", "state": "running", "result": None}
    api.answers["POST /inference/infer"] = job
    api.answers[f"GET /jobs/{JOB_ID}/events"] = KeyboardInterrupt()
    api.answers[f"GET /jobs/{JOB_ID}"] = job
    api.answers[f"POST /jobs/{JOB_ID}/cancel"] = job
    result = run("infer", "m", "hi", "--task", "text-generation")
    assert result.exit_code == 130
    assert f"POST /jobs/{JOB_ID}/cancel" in [call for call, _ in api.asked]


# ── infer ────────────────────────────────────────────────────────────────────


@pytest.fixture
def answering(api: Api) -> Api:
    """An API with a chat model in production, and an older one in staging."""
    job = JOB | {"kind": "infer", "model": "chat"}
    api.answers["GET /models/registered_in_mlflow/chat"] = [
        VERSION | {"version": "2", "stage": "staging", "task": "ocr"},
        VERSION | {"version": "1", "task": "text-generation", "engine": "ollama"},
    ]
    api.answers["POST /inference/infer"] = job | {"state": "queued"}
    api.answers[f"GET /jobs/{JOB_ID}/events"] = sent(
        ("state", {"state": "running", "attempt": 1}),
        ("token", {"text": "Hello"}),
        ("token", {"text": " you"}),
        ("done", {"state": "succeeded"}),
    )
    api.answers[f"GET /jobs/{JOB_ID}"] = job | {"result": {"generated_text": "Hello you"}}
    return api


def test_an_answer_is_streamed_to_standard_output_alone(answering: Api, run: Run) -> None:
    result = run("infer", "chat", "Hi!", "-o", "max_new_tokens=8", "-o", "stop=END")
    assert (result.exit_code, result.stdout) == (0, "Hello you\n")
    assert answering.body("POST /inference/infer") == {
        "task": "text-generation",
        "engine": "ollama",
        "model_name": "chat",
        "data": {"inputs": "Hi!"},
        "options": {"max_new_tokens": 8, "stop": "END"},
        "stream": True,
    }


@pytest.mark.parametrize(
    ("on_terminal", "printed"), [(True, "brave\nHello you\n"), (False, "Hello you\n")]
)
def test_an_answer_that_starts_again_is_marked_on_a_terminal_and_whole_in_a_pipe(
    answering: Api, run: Run, monkeypatch: pytest.MonkeyPatch, on_terminal: bool, printed: str
) -> None:
    monkeypatch.setattr("client.terminal.answering._is_live", lambda: on_terminal)
    answering.answers[f"GET /jobs/{JOB_ID}/events"] = sent(
        ("token", {"text": "brave"}),
        ("state", {"state": "queued", "attempt": 1}),
        ("state", {"state": "running", "attempt": 2}),
        ("restart", {"attempt": 2}),
        ("token", {"text": "Hello"}),
        ("token", {"text": " you"}),
        ("done", {"state": "succeeded"}),
    )
    result = run("infer", "chat", "Hi!")
    assert (result.exit_code, result.stdout) == (0, printed)
    assert ("The answer starts again:" in result.stderr) is on_terminal


@pytest.mark.parametrize("on_terminal", [True, False])
def test_thoughts_are_shown_apart_from_the_answer(
    answering: Api, run: Run, monkeypatch: pytest.MonkeyPatch, on_terminal: bool
) -> None:
    monkeypatch.setattr("client.terminal.answering._is_live", lambda: on_terminal)
    answering.answers[f"GET /jobs/{JOB_ID}/events"] = sent(
        ("thinking", {"text": "Let me"}),
        ("thinking", {"text": " [see]."}),
        ("token", {"text": "Hello you"}),
        ("done", {"state": "succeeded"}),
    )
    result = run("infer", "chat", "Hi!")
    assert (result.exit_code, result.stdout) == (0, "Hello you\n")
    assert ("Let me [see]." in result.stderr) is on_terminal


def test_a_prompt_is_read_from_standard_input(answering: Api, run: Run) -> None:
    run("infer", "chat", "--system", "Be brief.", typed="Hi!\n")
    assert answering.body("POST /inference/infer")["data"]["inputs"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi!"},
    ]


def test_a_picture_is_uploaded_before_it_is_asked_about(
    answering: Api, run: Run, tmp_path: Path
) -> None:
    stored = {"file_id": "file-1", "size_bytes": 3, "sha256": "0", "media_type": "image/png"}
    answering.answers["POST /files"] = httpx.Response(201, json=stored)
    picture = tmp_path / "cat.png"
    picture.write_bytes(b"cat")
    run("infer", "chat", "What is it?", "--image", str(picture), "--task", "vlm")
    asked = answering.body("POST /inference/infer")
    assert asked["data"] == {"image": "file-1", "prompt": "What is it?"}


def test_an_answer_in_one_piece_is_printed_as_such(answering: Api, run: Run) -> None:
    labels = [{"label": "dog", "score": 0.91}]
    answering.answers[f"GET /jobs/{JOB_ID}/events"] = sent(("done", {"state": "succeeded"}))
    answering.answers[f"GET /jobs/{JOB_ID}"] = JOB | {"kind": "infer", "result": {"labels": labels}}
    result = run("infer", "chat", "--audio", "file-1", "--task", "audio-classification")
    assert result.stdout.split() == ["LABEL", "SCORE", "dog", "0.910"]


# ── the command itself ───────────────────────────────────────────────────────


def test_help_imports_nothing_that_is_slow() -> None:
    code = (
        "import sys, client.cli\n"
        "try: client.cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "slow = {'httpx', 'pydantic', 'torch', 'embedded', 'redis', 'celery', 'mlflow'}\n"
        "assert not slow & sys.modules.keys(), slow & sys.modules.keys()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout


@pytest.mark.parametrize("group", [[], ["models"], ["jobs"], ["files"], ["cache"], ["infer"]])
def test_every_group_explains_itself(run: Run, group: list[str]) -> None:
    assert run(*group, "--help").exit_code == 0


def test_the_api_of_a_stack_that_runs_here_is_found(tmp_path: Path) -> None:
    assert api_of_stack(tmp_path) is None
    api = Component(
        name="api",
        title="API",
        address="http://127.0.0.1:4711",
        probe=HttpProbe(url="http://127.0.0.1:4711/health/ready"),
    )
    DataDirectory(tmp_path).write(StackRecord(pid=1, hub="", components=(api,)))
    assert api_of_stack(tmp_path) == "http://127.0.0.1:4711"


@pytest.mark.parametrize(
    ("option", "field"), [("--commit", "commit_id"), ("--ref", "ref")], ids=["commit", "ref"]
)
def test_a_registration_names_a_commit_or_a_tag(
    api: Api, run: Run, option: str, field: str
) -> None:
    api.answers["POST /models/register_from_lakefs"] = JOB
    command = ("models", "register", "chat", "--task", "text-generation", "--repo", "models")
    assert run(*command, option, "20261128", "--no-wait").exit_code == 0
    body = api.body("POST /models/register_from_lakefs")
    assert body[field] == "20261128"
    assert len({"commit_id", "ref"} & set(body)) == 1
    for wrong in ((), ("--commit", "20261128", "--ref", "v1")):
        refused = run(*command, *wrong)
        assert refused.exit_code == 2
        assert "either --commit or --ref" in refused.stderr
