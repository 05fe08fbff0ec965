"""Names that a shell completes: asked of the API, in silence and in no time."""

from collections.abc import Callable

import typer

from client.terminal.session import address


def _offered(context: typer.Context, incomplete: str, names: Callable[..., list[str]]) -> list[str]:
    """Return the names that fit; none where the API cannot say at once."""
    from client import Client, ClientError, Retries

    try:
        with Client(address(context), retries=Retries(attempts=1)) as client:
            return [name for name in names(client) if name.startswith(incomplete)]
    except ClientError:
        return []


def complete_models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer registered models."""
    return _offered(ctx, incomplete, lambda client: sorted({v.name for v in client.models.ls()}))


def complete_jobs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the newest jobs."""
    return _offered(
        ctx, incomplete, lambda client: [job.job_id for job in client.jobs.ls(limit=20).jobs]
    )


def complete_local(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer models of the staging area."""
    return _offered(ctx, incomplete, lambda client: [m.name for m in client.models.local()])
