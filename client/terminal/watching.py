"""A job at the terminal: shown until it ends, left when the reader has had enough."""

from typing import NoReturn

import typer

from client import Client, Event, Job, Progress, WaitTimeoutError
from client.answers import JobState
from client.terminal.board import Board
from client.terminal.conclusions import conclusion, failure, next_step
from client.terminal.exits import Exit
from client.terminal.session import Terminal
from shared.jobs import JobKind

#: Attempts of a call that follows a job: an API that is away for a minute is waited for.
PATIENCE = 12
#: Between two looks at the children of a job.
_LOOK_SECONDS = 0.5
#: Rows that a terminal of 24 lines has room for.
_ROWS = 12
FAMILIES = {JobKind.BATCH_DOWNLOAD, JobKind.IMPORT}


def see_through(terminal: Terminal, job: Job, *, wait: bool) -> None:
    """Show a job to its end, and end the command as the job did; or only say how to find it."""
    if not wait:
        terminal.show(job, lambda: job.job_id)
        terminal.hint(f"Watch it with: lifecycle jobs watch {job.job_id}")
        return
    try:
        with terminal.client(PATIENCE) as client:
            ended = watched(client, terminal, job)
    except KeyboardInterrupt:
        detach(terminal, job)
    conclude(terminal, ended)


def conclude(terminal: Terminal, job: Job) -> None:
    """Say what a job has brought, and end the command if that is nothing."""
    if job.state is JobState.SUCCEEDED:
        terminal.show(job, lambda: f"✓ {conclusion(job)}")
        if terminal.notes.is_terminal:
            terminal.hint(next_step(job))
        return
    if terminal.as_json:
        terminal.show_json(job.document())
    for line in () if terminal.as_json else failure(job):
        terminal.complain(line)
    terminal.hint(next_step(job))
    raise typer.Exit(Exit.FAILED)


def detach(terminal: Terminal, job: Job) -> NoReturn:
    """Leave a job alone: it goes on."""
    if not terminal.as_json:
        terminal.notes.print(f"Detached: the {job.kind.value} job goes on.", style="yellow")
    terminal.hint(f"Come back with: lifecycle jobs watch {job.job_id}")
    terminal.hint(f"Stop it with:   lifecycle jobs cancel {job.job_id}")
    raise typer.Exit(Exit.INTERRUPTED)


def watched(client: Client, terminal: Terminal, job: Job) -> Job:
    """Show a job's progress, and return the job as it ended."""
    if terminal.as_json:
        return client.jobs.wait(job)
    with Board(terminal.notes) as board:
        if job.kind in FAMILIES:
            return _family(client, board, job)
        _follow(client, board, job)
    return client.jobs.get(job)


def _follow(client: Client, board: Board, job: Job) -> None:
    state, progress = job.state, job.progress
    missing = job.waiting_for.service if job.waiting_for else ""
    board.put(job.job_id, title_of(job, progress, missing), state, progress)
    for event in client.jobs.events(job):
        state, progress = _after(event, state, progress)
        missing = missing_after(event, missing)
        # A job that waits for a service is queued, but for the instants in which it tries again.
        shown = JobState.QUEUED if missing else state
        board.put(job.job_id, title_of(job, progress, missing), shown, progress)


def _after(
    event: Event, state: JobState, progress: Progress | None
) -> tuple[JobState, Progress | None]:
    if event.name == "state":
        return JobState(event.data["state"]), progress
    if event.name == "progress":
        return state, Progress.model_validate(event.data)
    return state, progress


def missing_after(event: Event, before: str) -> str:
    """Return the service that the job waits for after an event; empty if it does not."""
    if event.name == "state":
        waiting_for = event.data.get("waiting_for")
        if waiting_for:
            return str(waiting_for["service"])
        return before if event.data["state"] == JobState.RUNNING else ""
    return "" if event.name in {"progress", "token", "done"} else before


def _family(client: Client, board: Board, job: Job) -> Job:
    """Show a job and its children."""
    while True:
        children = _children(client, job)
        board.keep({each.job_id for each in (job, *children)})
        board.put(job.job_id, title_of(job, job.progress), job.state, job.progress)
        for child in children:
            title = child.kind.value if job.kind is JobKind.IMPORT else title_of(child, None)
            if child.waiting_for:
                title = waits_for(child.waiting_for.service)
            board.put(child.job_id, title, child.state, child.progress)
        if job.state.terminal:
            return job
        try:
            job = client.jobs.wait(job, timeout_seconds=_LOOK_SECONDS)
        except WaitTimeoutError as error:
            job = error.job


def _children(client: Client, job: Job) -> list[Job]:
    """Return the steps of an import, oldest first; of a batch, what is under way."""
    if job.kind is JobKind.IMPORT:
        return list(reversed(client.jobs.ls(parent_id=job.job_id, limit=_ROWS).jobs))
    running = client.jobs.ls(parent_id=job.job_id, state=JobState.RUNNING, limit=_ROWS)
    return list(reversed(running.jobs))


def title_of(job: Job, progress: Progress | None, missing: str = "") -> str:
    """Return what a row is about: the service that the job waits for, else what is worked on."""
    if missing:
        return waits_for(missing)
    return (progress.message if progress else "") or job.model or job.kind.value


def waits_for(service: str) -> str:
    """Return what is said of a job during an outage."""
    return f"waits for {service}"
