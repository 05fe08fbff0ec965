"""``lifecycle infer``: ask a registered model."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from client.commands.parameters import Json, Model, Wait
from client.terminal.session import Terminal, opened

if TYPE_CHECKING:
    from client import Client

#: Where each task wants its text; the others take none.
_TEXT_FIELDS = {
    "text-generation": "inputs",
    "vlm": "prompt",
    "video-analysis": "prompt",
    "ocr": "prompt",
    "document-analysis": "query",
}
Medium = str | None


def infer(
    context: typer.Context,
    model: Model,
    prompt: Annotated[
        str | None, typer.Argument(help="What to ask; - or nothing reads standard input.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", "-t", help="The same.")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="As a chat, by the model's template.")
    ] = False,
    system: Annotated[str | None, typer.Option(help="A system message; means --chat.")] = None,
    image: Annotated[Medium, typer.Option(help="A file, URL or file id.")] = None,
    audio: Annotated[Medium, typer.Option(help="A file, URL or file id.")] = None,
    video: Annotated[Medium, typer.Option(help="A file, URL or file id.")] = None,
    document: Annotated[Medium, typer.Option(help="A file, URL or file id.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="name=value: max_new_tokens=64")
    ] = None,
    task: Annotated[str | None, typer.Option(help="The registry knows it if not given.")] = None,
    engine: Annotated[str | None, typer.Option(help="The registry knows it too.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the model.")] = None,
    stage: Annotated[str | None, typer.Option(help="production, else staging.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds; then the job fails.")] = None,
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Ask a model; its answer is printed as it is generated, and Ctrl-C stops it."""
    from client.terminal.answering import stream
    from client.terminal.watching import see_through

    media = {"image": image, "audio": audio, "video": video, "document": document}
    options = dict(map(_option, option or ()))
    with opened(context, as_json) as terminal, terminal.client() as client:
        if task is None:
            task, engine = _served_as(client, model, version, stage)
        asked = _text(task, prompt or text, has_media=any(media.values()))
        data: dict[str, Any] = {
            name: _uploaded(terminal, each) for name, each in media.items() if each
        }
        if asked:
            data[_TEXT_FIELDS.get(task, "inputs")] = (
                _messages(asked, system) if chat or system else asked
            )
        streamed = wait and not as_json
        job = client.inference.infer(
            model,
            data,
            task=task,
            engine=engine,
            options=options or None,
            version=version,
            stage=stage,
            timeout_seconds=timeout,
            stream=streamed or None,
        )
        if streamed:
            stream(terminal, job)
        else:
            see_through(terminal, job, wait=wait)


def _option(given: str) -> tuple[str, Any]:
    """Read ``name=value``; a value that is JSON is what it says, any other is a text."""
    name, equals, value = given.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{given!r} is not name=value", param_hint="--option")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _served_as(
    client: "Client", model: str, version: str | None, stage: str | None
) -> tuple[str, str]:
    """Return task and engine of the version that will answer."""
    found = client.models.show(model, all_version=version is not None)
    wanted = [each for each in found if version in {None, each.version}]
    for candidate in (stage,) if stage else ("production", "staging"):
        of_stage = [each for each in wanted if version or each.stage == candidate]
        if of_stage:
            return of_stage[0].task, of_stage[0].engine
    which = f"version {version}" if version else f"version in {stage or 'production or staging'}"
    raise typer.BadParameter(f"{model} has no {which}", param_hint="MODEL")


def _text(task: str, given: str | None, *, has_media: bool) -> str | None:
    """Return the text: as given, else from standard input if that is not the keyboard's."""
    if given == "-" or (given is None and not has_media and not sys.stdin.isatty()):
        return sys.stdin.read().strip()
    if given is None and not has_media:
        raise typer.BadParameter(f"what to ask? {task} needs a prompt or a medium")
    return given


def _messages(text: str, system: str | None) -> list[dict[str, str]]:
    said = [{"role": "system", "content": system}] if system else []
    return [*said, {"role": "user", "content": text}]


def _uploaded(terminal: Terminal, medium: str) -> str:
    """Return what names a medium in a request; a file of this machine is uploaded first."""
    from client.terminal.uploading import upload_shown

    if medium.startswith(("http://", "https://", "data:", "file-")):
        return medium
    path = Path(medium).expanduser()
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {medium}")
    return upload_shown(terminal, path).file_id
