"""What every command works with: the API at one end, a reader at the other.

What is slow to import (httpx, pydantic) is imported when a command runs, not when it is declared.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, RenderableType

from client.terminal.stack_address import api_of_stack

if TYPE_CHECKING:
    from client import Client, ClientError
    from client.answers import Answer

#: Lines for programs and files are not folded at 80.
_WIDE = 160


def console(*, stderr: bool = False) -> Console:
    """Return a console that shows names as they are."""
    stream = sys.stderr if stderr else sys.stdout
    # "COLUMNS" is the wish of whoever set it.
    width = None if stream.isatty() or "COLUMNS" in os.environ else _WIDE
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


class Terminal:
    """The API's client, and how answers are shown."""

    def __init__(self, url: str | None, *, as_json: bool) -> None:
        self.as_json = as_json
        #: Answers, and nothing else.
        self.out = console()
        #: All that is said beside them: progress, hints, errors.
        self.notes = console(stderr=True)
        self.url = url

    def client(self, attempts: int = 3) -> "Client":
        """Return a client; one that follows a job may have more patience than others."""
        from client import Client, Retries  # noqa: PLC0415

        def on_pause(pause: Any, reason: str) -> None:
            if pause.seconds >= 1 and not self.as_json:
                self.notes.print(f"{reason}; again in {pause.seconds:.0f} s", style="yellow")

        return Client(self.url, retries=Retries(attempts=attempts, on_pause=on_pause))

    def show(
        self,
        answer: "Answer | Sequence[Answer] | dict[str, Any]",
        rendered: Callable[[], RenderableType],
    ) -> None:
        """Show an answer to a person, or as it is to a program."""
        if self.as_json:
            self.show_json(_document(answer))
        else:
            self.out.print(rendered())

    def show_json(self, document: object) -> None:
        """Print a document as JSON."""
        print(json.dumps(document, indent=2, ensure_ascii=False))

    def hint(self, text: str) -> None:
        """Say what could be done next."""
        if text and not self.as_json:
            self.notes.print(text, style="dim", soft_wrap=True)

    def fail(self, error: "ClientError") -> None:
        """Say why the command failed."""
        problem = getattr(error, "problem", None)
        if self.as_json:
            known = problem.document() if problem else {"detail": str(error)}
            print(json.dumps({"error": known}, ensure_ascii=False), file=sys.stderr)
            return
        self.complain(f"✗ {error}")
        for line in problem.errors if problem else ():
            if line.detail not in str(error):
                self.complain(f"  {line.field}: {line.detail}")

    def complain(self, text: str) -> None:
        """Say what went wrong; a log gets it in one line."""
        self.notes.print(text, style="red", soft_wrap=not self.notes.is_terminal)


def _document(answer: Any) -> object:
    if isinstance(answer, dict):
        return answer
    if isinstance(answer, Sequence):
        return [each.document() for each in answer]
    return answer.document()


@contextmanager
def opened(
    context: typer.Context, as_json: bool, data_dir: Path | None = None
) -> Iterator[Terminal]:
    """Run a command: its errors become a message and an exit status."""
    from client import ClientError  # noqa: PLC0415
    from client.terminal.exits import Exit, exit_of  # noqa: PLC0415

    terminal = Terminal(address(context, data_dir), as_json=as_json)
    try:
        yield terminal
    except ClientError as error:
        terminal.fail(error)
        status = exit_of(error)
        if status is Exit.UNREACHABLE:
            terminal.hint("Is the platform up? lifecycle doctor tells, lifecycle up starts it.")
        raise typer.Exit(status) from None
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except BrokenPipeError:
        # The reader has left, as `head` does: nothing more to say, also not at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(Exit.OK) from None


def address(context: typer.Context, data_dir: Path | None = None) -> str | None:
    """Return the API's address: as given, else of the stack that runs here, else the usual one."""
    given = context.find_root().params.get("api")
    here = data_dir or Path(os.environ.get("LIFECYCLE_DATA_DIR", ".lifecycle"))
    return str(given) if given else api_of_stack(here)
