"""``lifecycle models``: what is staged, stored and registered, and what is in production."""

from typing import Annotated, Literal

import typer

from client.commands.parameters import Archive, Json, Model, Stage
from client.terminal import tables
from client.terminal.session import opened

app = typer.Typer(help="Models: move them, look at them, give them stages.", no_args_is_help=True)

All = Annotated[bool, typer.Option("--all", "-a", help="Archived and unstaged versions too.")]
_NOTHING = "No model is registered yet. Begin with: lifecycle models import NAME --as NAME --task T"


@app.command("ls")
def list_registered(context: typer.Context, show_all: All = False, as_json: Json = False) -> None:
    """List registered models: the versions in production and staging."""
    with opened(context, as_json) as terminal, terminal.client() as client:
        found = client.models.ls(show_all=show_all)
        terminal.show(found, lambda: tables.versions(found) if found else _NOTHING)


@app.command()
def show(
    context: typer.Context, model: Model, show_all: All = False, as_json: Json = False
) -> None:
    """Show a registered model's versions, and where each comes from."""
    with opened(context, as_json) as terminal, terminal.client() as client:
        found = client.models.show(model, all_version=show_all)
        if as_json:
            terminal.show_json([each.document() for each in found])
            return
        for number, each in enumerate(found):
            terminal.out.print(*([""] if number else []), tables.version(each), sep="\n")
        if not found:
            terminal.hint("No version is in production or staging; --all shows the others.")


@app.command()
def stats(context: typer.Context, show_all: All = False, as_json: Json = False) -> None:
    """Count versions by stage, task and engine."""
    with opened(context, as_json) as terminal, terminal.client() as client:
        found = client.models.stats(show_all=show_all)
        terminal.show(found, lambda: tables.counts(found))


@app.command()
def local(
    context: typer.Context,
    source: Annotated[
        Literal["huggingface", "ollama"], typer.Option(help="The staging area, or Ollama.")
    ] = "huggingface",
    as_json: Json = False,
) -> None:
    """List the models that are downloaded and can be uploaded, or those of Ollama."""
    with opened(context, as_json) as terminal, terminal.client() as client:
        found = client.models.local(source)
        nothing = "Nothing yet. Begin with: lifecycle models download NAME"
        terminal.show(found, lambda: tables.local_models(found) if found else nothing)


@app.command()
def repos(context: typer.Context, as_json: Json = False) -> None:
    """List the repositories of lakeFS."""
    with opened(context, as_json) as terminal, terminal.client() as client:
        found = client.models.repos()
        terminal.show(found, lambda: tables.repositories(found) if found else "No repository yet.")


@app.command("stage")
def give_stage(
    context: typer.Context,
    model: Model,
    version: Annotated[str, typer.Argument(help="The version's number.")],
    stage: Annotated[Stage, typer.Argument(help="The stage that it gets.")],
    archive: Archive = False,
    as_json: Json = False,
) -> None:
    """Give a version a stage: in production it answers the model's requests."""
    with opened(context, as_json) as terminal, terminal.client() as client:
        done = client.models.stage(model, version, stage, archive_existing_versions=archive)
        terminal.show(done, lambda: f"✓ {done.message}")


@app.command()
def rollback(
    context: typer.Context,
    model: Model,
    stage: Annotated[
        Literal["production", "staging"], typer.Argument(help="The stage to give back.")
    ] = "production",
    from_version: Annotated[
        str | None, typer.Option("--from", help="Only if this version has the stage now.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a stage back to the version that had it before."""
    with opened(context, as_json) as terminal, terminal.client() as client:
        done = client.models.rollback_stage(model, stage, from_version=from_version)
        terminal.show(done, lambda: f"✓ {done.message}")
