"""A model's answer at the terminal: piece by piece as it is generated, else when it is complete."""

import sys
from collections.abc import Iterator

import typer
from rich.status import Status
from rich.text import Text

from client import Client, Event, Job, Progress
from client.answers import JobState
from client.terminal import tables
from client.terminal.board import amount
from client.terminal.exits import Exit
from client.terminal.session import Terminal
from client.terminal.watching import PATIENCE, conclude, detach, missing_after, waits_for

#: Where the tasks put their answers; a plugin's is shown as JSON.
_TEXTS = ("generated_text", "text", "answer")


def stream(terminal: Terminal, job: Job, *, cancel_on_interrupt: bool = True) -> None:
    """Print a model's answer, and end the command as the job ended.

    An interrupt stops the model: nobody reads on. Who only watches leaves it alone.
    """
    with terminal.client(PATIENCE) as client:
        try:
            printed = _print_pieces(client, terminal, job)
            ended = client.jobs.wait(job)
        except KeyboardInterrupt:
            if _is_live():
                typer.echo()
            if not cancel_on_interrupt:
                detach(terminal, job)
            _cancel(client, terminal, job)
    if ended.state is not JobState.SUCCEEDED:
        conclude(terminal, ended)
    if not printed:
        _print_result(terminal, ended)
    _print_origin(terminal, ended)


def _cancel(client: Client, terminal: Terminal, job: Job) -> None:
    if not client.jobs.get(job).state.terminal:
        client.jobs.cancel(job)
    terminal.notes.print("Stopped: the model was told to.", style="yellow")
    raise typer.Exit(Exit.INTERRUPTED)


def _print_pieces(client: Client, terminal: Terminal, job: Job) -> bool:
    """Print the answer while it is generated; return whether all of it is printed.

    A pipe or a file gets the complete answer at the end: a piece that was written to it could not
    be taken back when the answer starts again. Thoughts go to standard error.
    """
    printed, thinking, live = False, False, _is_live()
    with Status(f"{job.model} is asked", console=terminal.notes) as status:
        for event in _awaited(client, job, status):
            if event.name == "restart" and (printed or thinking):
                typer.echo(err=not printed)
                terminal.notes.print("The answer starts again:", style="yellow")
                printed = thinking = False
                status.start()
            elif event.thought and live:
                status.stop()
                said = Text(event.thought, style="dim")
                terminal.notes.print(said, end="", soft_wrap=True)
                thinking = True
            elif event.text and live:
                if not printed:
                    status.stop()  # each stop wipes its line
                if thinking:
                    terminal.notes.print("\n")
                    thinking = False
                typer.echo(event.text, nl=False)
                printed = True
    if printed:
        typer.echo()
    return printed


def _is_live() -> bool:
    """Return whether a person reads standard output while it is written."""
    return sys.stdout.isatty()


def _awaited(client: Client, job: Job, status: Status) -> Iterator[Event]:
    """Yield a job's events; until its first piece, say what it is waiting for."""
    missing = ""
    for event in client.jobs.events(job):
        missing = missing_after(event, missing)
        if event.name == "progress":
            progress = Progress.model_validate(event.data)
            status.update(f"{job.model} is fetched: {amount(progress)}")
        elif event.name == "state":
            shown = waits_for(missing) if missing else f"is {event.data['state']}"
            status.update(f"{job.model} {shown}")
        yield event


def _print_result(terminal: Terminal, job: Job) -> None:
    result = job.result or {}
    for name in _TEXTS:
        if isinstance(result.get(name), str):
            typer.echo(result[name])
            return
    if labels := result.get("labels"):
        rows = [(label["label"], f"{label['score']:.3f}") for label in labels]
        terminal.out.print(tables.table("LABEL", "SCORE>", rows=rows))
    else:
        terminal.show_json({name: each for name, each in result.items() if name != "metadata"})


def _print_origin(terminal: Terminal, job: Job) -> None:
    """Say which model answered, and how fast."""
    made = (job.result or {}).get("metadata", {})
    said = [f"{job.model} version {made.get('version', '?')}"]
    tokens, seconds = made.get("output_tokens"), made.get("inference_seconds")
    if tokens is not None:
        said.append(f"{tokens} tokens")
    if tokens and seconds:
        said.append(f"{tokens / seconds:.1f} tokens/s")
    if made.get("cache_hit") is False and made.get("load_seconds"):
        said.append(f"loaded in {made['load_seconds']:.1f} s")
    if made.get("finish_reason") == "length":
        said.append("cut at max_new_tokens")
    if terminal.notes.is_terminal:
        terminal.hint(" · ".join(said))
