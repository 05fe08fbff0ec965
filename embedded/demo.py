"""`lifecycle demo`: a tiny model, or one of the real hub, from the hub to its answer."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import httpx
from rich.table import Table

from embedded.data_directory import DataDirectory, StackRecord
from embedded.demo_answers import ANSWERS
from embedded.errors import DemoError
from embedded.hub.repository import publish
from embedded.ports import Ports
from embedded.process import Process
from embedded.public_api import PublicApi
from embedded.running import running
from embedded.screen import Screen
from embedded.service import Phase
from embedded.session import Session
from embedded.stack import Wishes, plan
from embedded.walkthrough import Walkthrough
from embedded.warden import Warden
from shared.settings import Settings

MODEL = "demo/tiny-chat"
QUESTIONS = ("What is lakeFS?", "Who are you?")
_REQUEST_SECONDS = 30
_PACKAGE = Path(__file__).parent


async def demonstrate(session: Session, ports: Ports, model: str | None, *, keep: bool) -> None:
    """Show the platform on the stack that runs on the directory, or on one of its own."""
    if record := session.directory.running():
        _check_hub(record, model)
        if model is None:
            await _make_model(session.directory, session.screen)
        await _walk(record, session.screen, model)
        return
    with session.directory.alone() as lock:
        async with _own_stack(session, ports, model, lock) as record:
            await _walk(record, session.screen, model)
            if keep:
                session.screen.say("\nThe stack stays up; Ctrl-C stops all of it.")
                session.interrupts.status = 0
                await asyncio.Event().wait()


@asynccontextmanager
async def _own_stack(
    session: Session, ports: Ports, model: str | None, lock: int
) -> AsyncIterator[StackRecord]:
    """Start a stack, and train while it does."""
    directory, screen = session.directory, session.screen
    stack = plan(Settings(), directory, Wishes(ports=ports, embedded_hub=model is None))
    async with running(stack, session, lock) as (now, supervisor):
        training = asyncio.create_task(_make_model(directory, screen)) if model is None else None
        try:
            await supervisor.healthy()
            if training:
                await training
        finally:
            if training:
                await _end(training)
        screen.pause()
        screen.addresses(now.record.components, directory.logs)
        yield now.record


async def _walk(record: StackRecord, screen: Screen, model: str | None) -> None:
    """Go through the public API, and compare the answers with what the model was taught."""
    api = record.component("api").address
    async with httpx.AsyncClient(
        base_url=api, headers=_api_key(), timeout=_REQUEST_SECONDS, trust_env=False
    ) as client:
        walkthrough = Walkthrough(PublicApi(client), screen.console)
        try:
            registered = await walkthrough.publish(model or MODEL, record.hub)
            for question in QUESTIONS:
                answer = await walkthrough.ask(registered, question)
                expected = ANSWERS[question] if model is None else answer
                if not answer or answer != expected:
                    raise DemoError(f"asked {question!r}, the model says {answer!r}")
        except httpx.HTTPError as error:
            raise DemoError(f"the API at {api} failed: {error!r}") from error
    _where_to_look(record, screen, registered.name)


def _api_key() -> dict[str, str]:
    """Return the header that shows the caller's API key, or the stack's own, if there is one."""
    admin_key = Settings().api.admin_key
    key = os.environ.get("LIFECYCLE_API_KEY") or (admin_key and admin_key.get_secret_value())
    return {"Authorization": f"Bearer {key}"} if key else {}


async def _make_model(directory: DataDirectory, screen: Screen) -> None:
    """Have the model trained, if it is not yet, and published on the embedded hub."""
    target = directory.folder("demo") / _fingerprint()
    if not target.exists():
        screen.show("model", "Demo model", Phase.STARTING, "training")
        await _train(target, directory.folder("logs") / "demo-model.log")
    revision = await asyncio.to_thread(publish, directory.folder("hub"), MODEL, target)
    screen.show("model", "Demo model", Phase.HEALTHY, f"{MODEL} at {revision[:12]} on the hub")


def _fingerprint() -> str:
    """Return what the weights depend on, as a short digest: the training and its libraries."""
    scripts = [_PACKAGE / "demo_model.py", _PACKAGE / "demo_answers.py"]
    libraries = " ".join(version(name) for name in ("torch", "transformers", "tokenizers"))
    content = b"".join(path.read_bytes() for path in scripts) + libraries.encode()
    return hashlib.sha256(content).hexdigest()[:12]


async def _train(target: Path, log: Path) -> None:
    """Train in a process of its own: this one stays light."""
    command = [sys.executable, "-m", "embedded.demo_model", str(target)]
    with Warden() as warden:
        process = Process(command, {}, log, warden)
        try:
            end = await process.wait()
        finally:
            await process.stop(0)
    if not process.succeeded:
        raise DemoError(f"the model was not trained: {end}; see {log}")


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has cleaned up; whether it failed matters no more."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _check_hub(record: StackRecord, model: str | None) -> None:
    """Refuse a stack that downloads from elsewhere than where the model will be."""
    embedded = any(component.name == "hub" for component in record.components)
    if model is None and not embedded:
        raise DemoError(
            f"The stack that runs downloads from {record.hub}. Stop it first, start it with "
            "`lifecycle up --hub`, or name a model of that hub with --model."
        )
    if model is not None and embedded:
        raise DemoError("The stack that runs downloads from its embedded hub. Stop it first.")


def _where_to_look(record: StackRecord, screen: Screen, name: str) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    api = record.component("api").address
    table.add_row("API, to try each call", f"{api}/docs")
    table.add_row("The jobs of this demo", f"{api}/jobs")
    table.add_row("The model in MLflow", f"{record.component('mlflow').address}/#/models/{name}")
    table.add_row("The Celery tasks in Flower", f"{record.component('flower').address}/tasks")
    screen.say(
        "\n[bold]Where to look[/] while the stack is up: `lifecycle up`, `lifecycle demo --keep`"
    )
    screen.console.print(table)
