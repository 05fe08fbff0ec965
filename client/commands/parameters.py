"""Options and arguments that several commands have."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from client.commands.completion import complete_jobs, complete_models

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Follow the job to its end, or leave it at once.")
]
Model = Annotated[str, typer.Argument(help="A registered model.", autocompletion=complete_models)]
JobId = Annotated[str, typer.Argument(help="A job's id.", autocompletion=complete_jobs)]
Source = Annotated[
    Literal["huggingface", "ollama"], typer.Option(help="Where the model is published.")
]
Stage = Literal["production", "staging", "archived", "none"]
GivenStage = Annotated[Stage | None, typer.Option(help="The version's stage, at once.")]
Task = Annotated[str, typer.Option(help="What the model does: text-generation, vlm, asr, …")]
Engine = Annotated[str | None, typer.Option(help="What runs it: transformers, or a plugin.")]
Params = Annotated[
    float | None, typer.Option("--params", help="Billions of parameters; counted if not given.")
]
Description = Annotated[str | None, typer.Option(help="The version's description.")]
First = Annotated[
    bool, typer.Option("--priority-one", help="Its requests go first, and it is kept warm.")
]
Archive = Annotated[bool, typer.Option("--archive", help="Archive the stage's other versions.")]
DataDir = Annotated[
    Path,
    typer.Option(
        envvar="LIFECYCLE_DATA_DIR", help="Where the stack keeps everything.", file_okay=False
    ),
]
FreePorts = Annotated[bool, typer.Option("--free-ports", help="Leave the usual ports alone.")]
DATA_DIR = Path(".lifecycle")
