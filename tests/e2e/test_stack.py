"""`lifecycle up` keeps the whole platform running, and leaves nothing of it behind."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.command_line import START_SECONDS, CommandLine
from tests.processes import wait_until

pytestmark = pytest.mark.timeout(300)
STOP_SECONDS = 60


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A stack that is up; tests may kill its parts, not itself."""
    command = CommandLine(tmp_path_factory.mktemp("stack"))
    with command.running("up", "--free-ports", "--hub") as process:
        command.wait_until_healthy(process)
        yield command
    assert command.processes() == {}


@pytest.mark.parametrize("name", ["api", "worker-cpu"])
def test_a_killed_part_is_restarted(stack: CommandLine, name: str) -> None:
    before = stack.record.component(name)
    assert before.pid
    os.kill(before.pid, signal.SIGKILL)

    def restarted() -> bool:
        now = stack.record.component(name)
        return now.pid not in {None, before.pid} and now.probe.healthy()

    wait_until(restarted, START_SECONDS, what=f"{name} is back")
    assert stack.record.component(name).address == before.address
    assert "killed by SIGKILL; again in 0.5 s" in stack.output


def test_status_succeeds_only_while_all_is_healthy(stack: CommandLine) -> None:
    well = stack.run("status")
    flower = stack.record.component("flower").pid
    assert flower
    os.kill(flower, signal.SIGSTOP)
    try:
        ill = stack.run("status")
    finally:
        os.kill(flower, signal.SIGCONT)

    assert well.returncode == 0, well.stdout
    assert well.stdout.count("healthy") == len(stack.record.components)
    lakefs = stack.record.component("lakefs").address
    assert f"at {lakefs}, data in {stack.data.path / 'lakefs'}" in well.stdout
    told = json.loads(stack.run("status", "--json").stdout)["lakefs"]
    assert (told["server"], told["address"]) == ("embedded", lakefs)
    assert told["version"]
    assert ill.returncode == 1
    assert "no answer" in ill.stdout


def test_keys_are_those_of_the_stack_that_runs(stack: CommandLine) -> None:
    keys = stack.run("keys", "ls")

    assert keys.returncode == 0, keys.stderr
    assert "There are no keys" in keys.stdout


def test_a_second_up_says_where_the_first_one_runs(stack: CommandLine) -> None:
    second = stack.run("up", "--free-ports")

    assert second.returncode == 1
    assert stack.record.component("api").address in second.stdout


def test_flower_lists_jobs_by_their_task_and_model(stack: CommandLine) -> None:
    api, flower = (stack.record.component(name).address for name in ("api", "flower"))
    job = {"model_source": "huggingface", "model_name": "nobody/nothing"}
    submitted = httpx.post(f"{api}/models/download?wait=30", json=job, timeout=60)
    assert submitted.status_code == 404, submitted.text
    job_id = submitted.json()["job_id"]
    query = {
        "draw": "1",
        "start": "0",
        "length": "100",
        "search[value]": "",
        "order[0][dir]": "asc",
    }
    query |= {"order[0][column]": "0", "columns[0][data]": "name"}

    def listed() -> list[dict[str, str]]:
        rows = httpx.post(f"{flower}/tasks/datatable", data=query, timeout=10).json()["data"]
        return [row for row in rows if row["uuid"] == job_id]

    wait_until(listed, what="Flower lists the job")
    assert listed()[0]["name"] == "models.download"
    assert "nobody/nothing" in listed()[0]["args"]
    # Read only: nobody stops a worker from there.
    worker = stack.record.component("worker-cpu").address
    assert httpx.post(f"{flower}/api/worker/shutdown/{worker}").is_error


def test_the_demo_repeated_on_a_stack_that_runs_changes_nothing(stack: CommandLine) -> None:
    first = stack.run("demo", timeout_seconds=START_SECONDS)
    second = stack.run("demo", timeout_seconds=START_SECONDS)

    assert first.returncode == 0, first.stdout[-4000:]
    assert second.returncode == 0, second.stdout[-4000:]
    assert "version 2, stage production" in second.stdout
    assert "nothing new" in second.stdout
    assert commit_of(first.stdout) == commit_of(second.stdout)


def commit_of(demo_output: str) -> str:
    line = next(line for line in demo_output.splitlines() if "✓ commit " in line)
    return line.split()[2]


def test_status_says_how_to_start_what_does_not_run(tmp_path: Path) -> None:
    status = CommandLine(tmp_path).run("status")

    assert status.returncode == 1
    assert "lifecycle up" in " ".join(status.stdout.split()), "whatever the width"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind(tmp_path: Path, end: signal.Signals) -> None:
    command = CommandLine(tmp_path)
    with command.running("up", "--free-ports") as process:

        def grandchild() -> bool:
            assert process.poll() is None, command.output[-4000:]
            return any("-m uvicorn" in line for line in command.processes().values())

        wait_until(grandchild, START_SECONDS, what="MLflow has started its web server")
        process.send_signal(end)
        process.wait(STOP_SECONDS)

    wait_until(lambda: not command.processes(), STOP_SECONDS, what="all is gone")
    assert process.returncode == (0 if end is signal.SIGINT else -signal.SIGKILL)
    # A process that ends drops its locks a moment after its environment.
    wait_until(lambda: command.data.running() is None, what="the lock is free")


def test_what_is_set_to_come_from_outside_must_answer(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MLFLOW_TRACKING_URI=http://127.0.0.1:9\n")

    up = CommandLine(tmp_path).run("up", "--free-ports")

    assert up.returncode == 1
    assert "MLflow is set to http://127.0.0.1:9, which does not answer" in up.stdout


def test_an_api_beyond_loopback_takes_keys_and_the_stack_says_so(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_HOST=0.0.0.0\n")

    up = CommandLine(tmp_path).run("up", "--free-ports", timeout_seconds=START_SECONDS)

    assert up.returncode == 1
    assert "API did not start" in up.stdout
    assert "lifecycle keys create" in up.stdout
