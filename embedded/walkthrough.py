"""A model's way through the public API: download, upload, register, ask; each step is shown."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from embedded.errors import DemoError
from embedded.public_api import JobAnswer, PublicApi

REPOSITORY = "demo-models"
_MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Registered:
    """A model in production, and the commit that it was registered from."""

    name: str
    version: str
    commit: str


class Walkthrough:
    """Takes one model from its hub to its answers."""

    def __init__(self, api: PublicApi, console: Console) -> None:
        self._api = api
        self._console = console
        self._steps = 0

    async def publish(self, model: str, hub: str) -> Registered:
        """Download a model, commit it to lakeFS and put it into production."""
        self._announce("Download", f"{model} from {hub}")
        local = await self._job(
            "/models/download", {"model_source": "huggingface", "model_name": model}
        )
        self._done(f"{local['files']} files, {size(local['size_bytes'])}, now in the staging area")

        self._announce("Upload", f"to lakeFS, repository {REPOSITORY}")
        stored = await self._job(
            "/models/upload_to_lakefs",
            {"repo_name": REPOSITORY, "local_model_name": local["local_model_name"]},
        )
        commit: str = stored["commit_id"]
        changed = size(stored["uploaded_bytes"]) if stored["uploaded_bytes"] else "nothing new"
        self._done(f"commit {commit[:12]} on {stored['branch']} ({changed})")

        name = model.rpartition("/")[2]
        self._announce("Register", f"the commit in MLflow as {name}, stage production")
        version = await self._job(
            "/models/register_from_lakefs",
            {
                "registered_name": name,
                "task": "text-generation",
                "lakefs_repo": REPOSITORY,
                "commit_id": commit,
                "path": stored["path"],
                "stage": "production",
                "version_description": "Made by `lifecycle demo`",
            },
        )
        self._done(f"version {version['version']}, stage {version['stage']}")
        return Registered(name, version["version"], commit)

    async def ask(self, model: Registered, question: str) -> str:
        """Ask a model, stream its answer to the terminal, and check who gave it."""
        self._announce("Ask", question)
        result = await self._job(
            "/inference/infer",
            {
                "task": "text-generation",
                "model_name": model.name,
                "data": {"inputs": [{"role": "user", "content": question}]},
                "options": {"max_new_tokens": _MAX_NEW_TOKENS},
                "stream": True,
            },
        )
        made_by = result["metadata"]
        self._done(f"by version {made_by['version']}, commit {made_by['commit'][:12]}")
        if made_by["commit"] != model.commit:
            raise DemoError(
                f"the answer came from commit {made_by['commit']}, not from {model.commit}"
            )
        answer: str = result["generated_text"]
        return answer

    async def _job(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        job = await self._api.submit(path, body)
        await self._show(job)
        return await self._api.result(job)

    async def _show(self, job: JobAnswer) -> None:
        """Follow a job: progress as a bar, the tokens of an answer as they come."""
        with _progress(self._console) as progress:
            bar, streamed = progress.add_task("waiting", total=None), False
            async for event in self._api.follow(job):
                if event.name == "token":
                    progress.stop()
                    self._token(event.data["text"], first=not streamed)
                    streamed = True
                elif event.name == "restart" and streamed:
                    self._console.print("\n    [yellow]the answer starts again:[/]")
                    streamed = False
                elif event.name == "progress" and not streamed:
                    _move(progress, bar, event.data)
                elif event.name == "state" and not streamed:
                    progress.update(bar, description=event.data["state"])
        if streamed:
            self._console.print()

    def _token(self, text: str, *, first: bool) -> None:
        if first:
            self._console.print("    ", end="")
        self._console.print(text, end="", style="bold green", markup=False, soft_wrap=True)

    def _announce(self, step: str, what: str) -> None:
        self._steps += 1
        self._began = time.monotonic()
        self._console.print(f"\n[bold]{self._steps}. {step}[/] {what}", soft_wrap=True)

    def _done(self, what: str) -> None:
        seconds = time.monotonic() - self._began
        self._console.print(f"    [green]✓[/] {what} [dim]{seconds:.1f} s[/]", soft_wrap=True)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("   "),
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _move(progress: Progress, bar: Any, data: dict[str, Any]) -> None:
    completed, total, unit = data["completed"], data["total"], data["unit"]
    if unit == "bytes":
        amount = f"{size(completed)} of {size(total)}" if total else size(completed)
    else:
        amount = f"{completed} of {total} {unit}" if total else f"{completed} {unit}"
    progress.update(
        bar, completed=completed, total=total, description=f"{amount} {data['message']}"
    )


def size(count: float) -> str:
    """Return a number of bytes as people say it."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
