"""``lifecycle cache``: the models that workers, and Ollama, keep warm."""

from typing import Annotated, Any

import typer

from client.commands.completion import complete_models
from client.commands.parameters import Json
from client.terminal import tables
from client.terminal.session import opened

app = typer.Typer(help="Warm models in the workers' memory.", no_args_is_help=True)


@app.command("ls")
def list_warm(context: typer.Context, as_json: Json = False) -> None:
    """List the models in memory, by worker."""
    with opened(context, as_json) as terminal, terminal.client() as client:
        workers = client.inference.stats()["workers"]
        warm = any(worker["models"] for worker in workers.values())
        nothing = "No model is warm." if workers else "No worker that serves models is alive."
        terminal.show(
            {"workers": {name: worker["models"] for name, worker in workers.items()}},
            lambda: tables.warm_models(workers) if warm else nothing,
        )


@app.command()
def clear(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(help="Only this one; all if not given.", autocompletion=complete_models),
    ] = None,
    as_json: Json = False,
) -> None:
    """Unload what no request uses."""
    with opened(context, as_json) as terminal, terminal.client() as client:
        cleared = client.inference.clear_cache(model)
        terminal.show(cleared, lambda: "\n".join(_lines(cleared["workers"])))


def _lines(workers: dict[str, Any]) -> list[str]:
    if not workers:
        return ["No worker that serves models is alive."]
    return [f"{name}: {_said(answer)}" for name, answer in workers.items()]


def _said(answer: dict[str, Any]) -> str:
    if "error" in answer:
        return str(answer["error"])
    unloaded, in_use = (
        ", ".join(f"{model['name']} version {model['version']}" for model in answer[key])
        for key in ("unloaded", "in_use")
    )
    return f"unloaded {unloaded or 'nothing'}" + (f"; still in use: {in_use}" if in_use else "")
