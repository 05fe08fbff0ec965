"""``lifecycle jobs``: list, look, follow, cancel, try again."""

from typing import Annotated, Literal

import typer

from client.commands.parameters import JobId, Json, Wait
from client.terminal import tables
from client.terminal.session import opened

app = typer.Typer(help="Jobs: what was submitted, how far it is.", no_args_is_help=True)

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@app.command("ls")
def list_jobs(
    context: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only these.")] = None,
    kind: Annotated[str | None, typer.Option(help="download, upload, infer, …")] = None,
    model: Annotated[str | None, typer.Option(help="About this model.")] = None,
    parent: Annotated[str | None, typer.Option(help="Children of this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    cursor: Annotated[str | None, typer.Option(help="Of the next page.")] = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    with opened(context, as_json) as terminal, terminal.client() as client:
        page = client.jobs.ls(
            state=state, kind=kind, model=model, parent_id=parent, limit=limit, cursor=cursor
        )
        terminal.show(page, lambda: tables.jobs(page.jobs) if page.jobs else "No jobs.")
        if page.next_cursor:
            terminal.hint(f"Older ones: --cursor {page.next_cursor}")


@app.command()
def show(context: typer.Context, job_id: JobId, as_json: Json = False) -> None:
    """Show a job as it is now."""
    with opened(context, as_json) as terminal, terminal.client() as client:
        job = client.jobs.get(job_id)
        terminal.show(job, lambda: tables.job(job))


@app.command()
def watch(context: typer.Context, job_id: JobId, as_json: Json = False) -> None:
    """Follow a job to its end; Ctrl-C leaves it running."""
    from client.terminal.answering import stream
    from client.terminal.watching import conclude, see_through

    with opened(context, as_json) as terminal, terminal.client() as client:
        job = client.jobs.get(job_id)
        if job.kind == "infer" and not as_json:
            stream(terminal, job, cancel_on_interrupt=False)
        elif job.state.terminal:
            conclude(terminal, job)
        else:
            see_through(terminal, job, wait=True)


@app.command()
def cancel(context: typer.Context, job_id: JobId, as_json: Json = False) -> None:
    """Cancel a queued job at once; a running one stops within seconds."""
    with opened(context, as_json) as terminal, terminal.client() as client:
        job = client.jobs.cancel(job_id)
        terminal.show(job, lambda: f"✓ {job.kind.value} {job.model}: {job.message}")


@app.command()
def retry(context: typer.Context, job_id: JobId, wait: Wait = True, as_json: Json = False) -> None:
    """Try a failed or cancelled job again, from where it stopped."""
    from client.terminal.watching import see_through

    with opened(context, as_json) as terminal, terminal.client() as client:
        see_through(terminal, client.jobs.retry(job_id), wait=wait)
