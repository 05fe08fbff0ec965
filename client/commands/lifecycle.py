"""``lifecycle models``: the commands that move a model; each submits a job and follows it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from client.commands.completion import complete_local
from client.commands.parameters import (
    Archive,
    Description,
    Engine,
    First,
    GivenStage,
    Json,
    Params,
    Source,
    Task,
    Wait,
)
from client.terminal.session import opened

Published = Annotated[str, typer.Argument(help="As published: org/name, or name:tag at Ollama.")]
Revision = Annotated[str | None, typer.Option(help="A branch, a tag or a commit of the hub.")]
Branch = Annotated[
    str | None,
    typer.Option(help="The branch of lakeFS (default: the repository's default branch)."),
]


def download(
    context: typer.Context,
    model: Published,
    source: Source = "huggingface",
    revision: Revision = None,
    allow: Annotated[list[str] | None, typer.Option(help="Only files like this.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="No files like this.")] = None,
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Fetch a model into the staging area; what is there already is not fetched again."""
    from client.terminal.watching import see_through

    with opened(context, as_json) as terminal, terminal.client() as client:
        job = client.models.download(
            model,
            model_source=source,
            revision=revision,
            allow_patterns=allow or None,
            ignore_patterns=ignore or None,
        )
        see_through(terminal, job, wait=wait)


def batch(
    context: typer.Context,
    models: Annotated[list[str] | None, typer.Argument(help="As published.")] = None,
    file: Annotated[
        typer.FileText | None, typer.Option(help="Names, one a line; - reads standard input.")
    ] = None,
    source: Source = "huggingface",
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Fetch several models; one that fails fails alone."""
    from client.terminal.watching import see_through

    lines = [line.split("#")[0].strip() for line in file or ()]
    names = [*(models or []), *filter(None, lines)]
    if not names:
        raise typer.BadParameter("name the models, or give a --file of names")
    with opened(context, as_json) as terminal, terminal.client() as client:
        job = client.models.batch_download(
            [{"model_source": source, "model_name": name} for name in names]
        )
        see_through(terminal, job, wait=wait)


def upload(
    context: typer.Context,
    local_model: Annotated[
        str,
        typer.Argument(help="As `models local` lists it.", autocompletion=complete_local),
    ],
    repo: Annotated[str, typer.Option(help="The repository; made if it is missing.")],
    branch: Branch = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Of the commit.")] = None,
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Commit a downloaded model to lakeFS."""
    from client.terminal.watching import see_through

    with opened(context, as_json) as terminal, terminal.client() as client:
        job = client.models.upload(local_model, repo, branch=branch, commit_message=message)
        see_through(terminal, job, wait=wait)


def register(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The registered model's name.")],
    task: Task,
    repo: Annotated[str, typer.Option(help="The repository of lakeFS.")],
    commit: Annotated[
        str | None, typer.Option(help="The commit's id, or the beginning of it.")
    ] = None,
    ref: Annotated[
        str | None, typer.Option(help="A tag or a branch, in place of the commit's id.")
    ] = None,
    path: Annotated[str | None, typer.Option(help="The model's directory there.")] = None,
    engine: Engine = None,
    stage: GivenStage = None,
    params: Params = None,
    description: Description = None,
    first: First = False,
    archive: Archive = False,
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Make a lakeFS commit a version in MLflow."""
    from client.terminal.watching import see_through

    if (commit is None) == (ref is None):
        raise typer.BadParameter("give either --commit or --ref")
    with opened(context, as_json) as terminal, terminal.client() as client:
        job = client.models.register(
            name,
            task=task,
            lakefs_repo=repo,
            commit_id=commit,
            ref=ref,
            path=path,
            engine=engine,
            stage=stage,
            model_params=params,
            version_description=description,
            set_priority_to_one=first or None,
            archive_existing_versions=archive or None,
        )
        see_through(terminal, job, wait=wait)


def register_ollama(
    context: typer.Context,
    local_model: Annotated[str, typer.Argument(help="As Ollama lists it, with its tag.")],
    name: Annotated[str | None, typer.Option("--as", help="Its name in the registry.")] = None,
    stage: GivenStage = None,
    params: Params = None,
    description: Description = None,
    first: First = False,
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Make a model of the Ollama server a version in MLflow."""
    from client.terminal.watching import see_through

    with opened(context, as_json) as terminal, terminal.client() as client:
        job = client.models.register_ollama(
            local_model,
            registered_name=name,
            stage=stage,
            model_params=params,
            version_description=description,
            set_priority_to_one=first or None,
        )
        see_through(terminal, job, wait=wait)


def import_model(
    context: typer.Context,
    model: Published,
    name: Annotated[str, typer.Option("--as", help="Its name in the registry.")],
    task: Task,
    source: Source = "huggingface",
    revision: Revision = None,
    repo: Annotated[str | None, typer.Option(help="The repository of lakeFS.")] = None,
    branch: Branch = None,
    engine: Engine = None,
    stage: GivenStage = None,
    params: Params = None,
    description: Description = None,
    first: First = False,
    archive: Archive = False,
    smoke: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file with a request that must pass before the stage is given: "
            "data, options, expect_contains.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Take a model all the way: download, upload, register, stage; a retry resumes."""
    from client.terminal.watching import see_through

    with opened(context, as_json) as terminal, terminal.client() as client:
        job = client.models.import_model(
            model,
            registered_name=name,
            task=task,
            model_source=source,
            revision=revision,
            repo_name=repo,
            branch=branch,
            engine=engine,
            stage=stage,
            model_params=params,
            version_description=description,
            set_priority_to_one=first or None,
            archive_existing_versions=archive or None,
            smoke_test=_request(smoke) if smoke else None,
        )
        see_through(terminal, job, wait=wait)


def _request(path: Path) -> dict[str, Any]:
    try:
        request = json.loads(path.read_bytes())
    except ValueError as error:
        raise typer.BadParameter(f"{path} is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise typer.BadParameter(f"{path} must hold a JSON object")
    return request


def add_to(app: typer.Typer) -> None:
    """Make these commands of the group."""
    for command in (download, batch, upload, register, register_ollama):
        app.command()(command)
    app.command("import")(import_model)
