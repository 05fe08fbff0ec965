"""Answers as tables that are pleasant at 80 columns."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich import filesize
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from client.answers import Job, LocalModel, Repository, Version

_STYLES = {
    "production": "green",
    "staging": "cyan",
    "succeeded": "green",
    "running": "cyan",
    "failed": "red",
    "cancelled": "yellow",
}
_AGES = ((86400, "d"), (3600, "h"), (60, "min"), (0, "s"))


def age(since: datetime) -> str:
    """Return how long ago something was, in one unit."""
    seconds = max(0.0, (datetime.now(UTC) - since).total_seconds())
    size, unit = next(each for each in _AGES if seconds >= each[0])
    return f"{seconds / (size or 1):.0f} {unit}"


def table(*headings: str, rows: Iterable[Sequence[str]]) -> Table:
    """Return a table without lines.

    A heading that ends in ``>`` is of a column that is flush right, in ``!`` of one that is whole
    however narrow the terminal is, in ``…`` of one that gives way to it.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        made.add_column(
            heading.rstrip(">!…"),
            justify="right" if heading.endswith(">") else "left",
            no_wrap=heading.endswith(("!", ">")),
            overflow="fold",
        )
    for row in rows:
        made.add_row(*map(_cell, headings, row))
    return made


def _cell(heading: str, value: str) -> Text:
    cell = Text(value, style=_STYLES.get(value, ""))
    if heading.endswith("…"):
        cell.no_wrap, cell.overflow = True, "ellipsis"
    return cell


def pairs(fields: Mapping[str, str]) -> Table:
    """Return names and values beneath each other."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in fields.items():
        made.add_row(name, Text(value, style=_STYLES.get(value, "")))
    return made


def versions(found: Sequence["Version"]) -> Table:
    """Show versions of registered models."""
    return table(
        *("NAME", "VER>", "STAGE!", "TASK", "ENGINE", "PARAMS>", "AGE>"),
        rows=[
            (
                each.name + (" ★" if each.priority else ""),
                each.version,
                each.stage,
                each.task,
                each.engine,
                _billions(each.model_params),
                age(each.updated_at),
            )
            for each in found
        ],
    )


def version(one: "Version") -> Table:
    """Show all of one version."""
    commit = one.tags.get("lakefs_commit", "")
    known = {
        "version": one.version,
        "stage": one.stage,
        "task": one.task,
        "engine": one.engine,
        "parameters": _billions(one.model_params),
        "aliases": ", ".join(one.aliases),
        "description": one.description,
        "model": one.tags.get("model_name", ""),
        "revision": one.tags.get("revision", ""),
        "repository": one.tags.get("lakefs_repo", ""),
        "commit": commit,
        "path": one.tags.get("lakefs_path", ""),
        "job": one.tags.get("job_id", ""),
        "created": f"{one.created_at:%Y-%m-%d %H:%M} UTC",
    }
    return pairs({name: value for name, value in known.items() if value})


def jobs(found: Sequence["Job"]) -> Table:
    """Show jobs, with their whole ids: they are there to be copied."""
    return table(
        *("JOB!", "KIND!", "STATE!", "MODEL…", "AGE>"),
        rows=[
            (
                job.job_id,
                job.kind.value.partition("_")[0],
                job.state.value,
                job.model or _batch(job),
                age(job.created_at),
            )
            for job in found
        ],
    )


def job(one: "Job") -> Table:
    """Show all of one job."""
    known = {
        "job": one.job_id,
        "kind": one.kind.value,
        "model": one.model,
        "state": one.state.value,
        "message": "" if one.message == one.state.value else one.message,
        "attempt": f"{one.attempt} of {one.max_attempts}",
        "queue": one.queue,
        "worker": one.worker or "",
        "parent": one.parent_id or "",
        "children": str(len(one.children) or ""),
        "created": _moment(one.created_at),
        "started": _moment(one.started_at),
        "finished": _moment(one.finished_at),
        **{f"result.{name}": _short(value) for name, value in (one.result or {}).items()},
        "error": f"{one.error.code}: {one.error.detail}" if one.error else "",
    }
    return pairs({name: value for name, value in known.items() if value})


def local_models(found: Sequence["LocalModel"]) -> Table:
    """Show models of the staging area, or of Ollama."""
    return table(
        *("NAME", "SIZE>", "MODIFIED", "HOST…"),
        rows=[(each.name, each.size, each.modified, each.host) for each in found],
    )


def repositories(found: Sequence["Repository"]) -> Table:
    """Show repositories of lakeFS."""
    extra = [each.document() for each in found]
    return table(
        *("REPOSITORY", "BRANCH", "STORED AT"),
        rows=[
            (each["name"], each.get("default_branch", ""), each.get("storage_namespace", ""))
            for each in extra
        ],
    )


def counts(stats: Mapping[str, Any]) -> Table:
    """Show how many models there are."""
    rows = [("registered models", str(stats["models"])), ("versions", str(stats["versions"]))]
    for name in ("by_stage", "by_task", "by_engine"):
        label = name.removeprefix("by_")
        rows += [(f"{label} {each}", str(count)) for each, count in stats[name].items()]
    return table("COUNT OF", "NUMBER>", rows=rows)


def warm_models(workers: Mapping[str, Any]) -> Table:
    """Show the models in the workers' memory."""
    return table(
        *("WORKER", "MODEL", "VER>", "STATE", "DEVICE", "SIZE>", "HITS>", "IDLE>"),
        rows=[
            (
                worker,
                model["name"] + (" ★" if model.get("pinned") else ""),
                str(model["version"]),
                str(model["state"]) + (" (in use)" if model.get("leases") else ""),
                str(model["device"]),
                filesize.decimal(int(model["size_bytes"])),
                str(model["hits"]),
                f"{model['idle_seconds']:.0f} s",
            )
            for worker, stats in workers.items()
            for model in stats["models"]
        ],
    )


def _batch(job: "Job") -> str:
    """Return what stands for the model of a job that is about several."""
    count = len(job.children or job.request.get("downloads", ()))
    if not count and job.progress is not None and job.progress.unit == "jobs":
        count = job.progress.total or 0  # a list leaves out a long request
    return f"{count} models" if count else ""


def _billions(params: float | None) -> str:
    if params is None:
        return ""
    return f"{params:.1f} B" if params >= 1 else f"{params * 1000:.3g} M"


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC ({age(at)} ago)" if at else ""


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 400 else f"{text[:400]}…"
