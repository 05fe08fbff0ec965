"""One request on its way through executor, handler and engine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.cancellation import CancelToken
from shared.tasks import Options

#: Takes what is done, what there is in all, the unit and a message, as ``JobContext.report`` does.
Report = Callable[[int, int | None, str, str], None]
Emit = Callable[[str], None]


def ignore_progress(completed: int, total: int | None, unit: str, message: str) -> None:
    """Take progress that nobody wants to see."""


@dataclass(frozen=True)
class InferenceCall:
    """What is asked of a model, already validated by the handler."""

    task: str
    data: dict[str, Any]
    options: Options
    token: CancelToken
    #: Takes the generated text in pieces; None where nobody listens.
    on_token: Emit | None = None
    on_progress: Report = ignore_progress
    #: Takes what the model thinks before it answers, as ``on_token`` takes the answer.
    on_thought: Emit | None = None
    #: Whether the model has priority: a remote engine keeps it in its server's memory.
    pinned: bool = False
