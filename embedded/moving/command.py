"""``lifecycle lakefs move``: where to move from, what to tell, and how to stop."""

import asyncio
import fcntl
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from embedded import stores
from embedded.data_directory import DataDirectory, StackRecord
from embedded.errors import MoveError
from embedded.lakefs_program import find_lakefs
from embedded.moving.move import Move, Report
from embedded.ports import Ports
from embedded.running import running
from embedded.screen import Screen
from embedded.service import Component, Service
from embedded.session import Session
from embedded.stack import Stack, Wishes, mlflow_part
from shared.cancellation import CancelToken
from shared.errors import CancelledError, LifecycleError
from shared.lakefs.installation import set_up
from shared.settings import LakeFSSettings, MLflowSettings, Settings

#: The name of a new lakeFS on this directory, as long as the embedded one runs too.
_NEW = "lakefs-new"
#: Files on their way, within a data directory.
_SCRATCH = "moving/files"


@dataclass(frozen=True)
class Ends:
    """The servers of a move."""

    source: LakeFSSettings
    target: LakeFSSettings
    mlflow: MLflowSettings
    #: Whether the stack works with the source meanwhile.
    stack_runs: bool


async def move(session: Session, to: str | None, *, dry_run: bool) -> None:
    """Move everything from the directory's embedded lakeFS to the lakeFS at ``to``.

    Without an address, to the lakeFS that the stack starts on this directory from then on.
    """
    directory, settings = session.directory, Settings()
    if not stores.has_embedded_lakefs(directory):
        raise MoveError(f"{directory.path} holds no data of an embedded lakeFS server.")
    if to and not settings.lakefs.access_key_id:
        raise MoveError(
            "Set LAKEFS_ACCESS_KEY_ID and LAKEFS_SECRET_ACCESS_KEY to the keys of the new server."
        )
    with _only_move(directory):
        async with _ends(session, settings, to) as ends:
            complete = await _stoppable(ends, session, dry_run=dry_run)
        if dry_run:
            return
        if not complete:
            raise MoveError("Not everything was moved. Run the move again when that is mended.")
        if to is None:
            _retire(directory, session.screen)
        else:
            session.screen.say(_next_steps(to, stack_runs=ends.stack_runs))


async def _stoppable(ends: Ends, session: Session, *, dry_run: bool) -> bool:
    """Do the move in a thread, which ends at its next chunk when a signal comes."""
    cancel = CancelToken()
    work = asyncio.create_task(
        asyncio.to_thread(_move, ends, session.directory, session.screen, cancel, dry_run=dry_run)
    )
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancel.cancel(CancelledError("the move was stopped"))
        await asyncio.wait([work])
        work.exception()  # it is the one of the line above
        session.screen.say("The move was stopped. Run it again to go on where it ended.")
        raise


def _move(
    ends: Ends, directory: DataDirectory, screen: Screen, cancel: CancelToken, *, dry_run: bool
) -> bool:
    """Move, and return whether everything is on the new server."""
    scratch = directory.folder(_SCRATCH)
    run = Move(ends.source, ends.target, ends.mlflow, scratch=scratch, cancel=cancel)
    try:
        if not dry_run:
            set_up(ends.target)  # a lakeFS that is new gets these keys as its administrator's
        run.check()
    except LifecycleError as error:
        raise MoveError(f"The new server at {ends.target.endpoint}: {error.detail}.") from error
    try:
        with closing(run), _Telling(screen) as listener:
            run.plan(listener)
            _show_plan(screen, run.report)
            if not dry_run:
                listener.begin(run.report.size_bytes)
                run.move_repositories(listener)
                if not ends.stack_runs:
                    run.point_versions()
    except LifecycleError as error:
        raise MoveError(f"{error.detail}.\nRun the move again to go on where it ended.") from error
    for version in run.report.foreign:
        screen.say(f"Not on the embedded server: {escape(version)}.")
    for problem in run.report.problems:
        screen.say(f"[yellow]Not moved:[/] {escape(problem)}.")
    if not dry_run:
        screen.say("Everything was compared with the embedded server by size and checksum.")
    return not run.report.problems


class _Telling:
    """Shows how far a move is: a bar on a terminal, a line for every commit elsewhere too."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        columns = (TextColumn("Moving"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(
            *columns, console=screen.console, disable=not screen.console.is_terminal
        )
        self._task = self._progress.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, size_bytes: int) -> None:
        """Show the bar, which ends at that size."""
        self._progress.update(self._task, total=size_bytes, visible=size_bytes > 0)

    def on_bytes(self, size_bytes: int) -> None:
        """Move the bar."""
        self._progress.advance(self._task, size_bytes)

    def on_commit(self, repository: str, message: str, /) -> None:
        """Name a commit that was moved."""
        first_line = message.partition("\n")[0]
        self._screen.console.print(f"{repository}: {first_line}", markup=False, soft_wrap=True)


def _show_plan(screen: Screen, report: Report) -> None:
    for plan in report.plans:
        screen.say(
            f"Repository {plan.repository}: {plan.commits} commits with {plan.files} files to "
            f"move, {decimal(plan.size_bytes)}"
        )
    screen.say(f"Registered versions to point to new commits: {report.versions}")


@asynccontextmanager
async def _ends(session: Session, settings: Settings, to: str | None) -> AsyncIterator[Ends]:
    """Have the servers of a move: those of the stack that runs, else started for the move."""
    directory = session.directory
    record = directory.running()
    if record is None:
        with directory.alone() as lock:
            parts = _parts(directory, settings, to)
            services = tuple(part for part in parts if isinstance(part, Service))
            outside = tuple(part for part in parts if isinstance(part, Component))
            stack = Stack(services, outside, settings.hub.endpoint)
            async with running(stack, session, lock) as (now, supervisor):
                await supervisor.healthy()
                session.screen.pause()
                yield _addressed(directory, settings, now.record, to)
        return
    lakefs = record.component("lakefs")
    if lakefs.note != stores.EMBEDDED or to is None:
        reason = (
            "which does not run the embedded lakeFS"
            if lakefs.note != stores.EMBEDDED
            else "and a move to a lakeFS of the same directory takes the embedded one's place"
        )
        raise MoveError(f"A stack runs on {directory.path}, {reason}: stop it first.")
    yield replace(_addressed(directory, settings, record, to), stack_runs=True)


def _parts(
    directory: DataDirectory, settings: Settings, to: str | None
) -> list[Service | Component]:
    """Return what has to run for a move while the stack does not."""
    wishes = Wishes(ports=Ports(any_free=True))
    ports = wishes.ports
    parts = [
        mlflow_part(settings, directory, wishes),
        stores.embedded_lakefs(directory, ports.take(0)),
    ]
    if to is None:
        program = find_lakefs()
        if program is None:
            raise MoveError(
                "Name the new server with --to, or install lakeFS here: lifecycle lakefs install"
            )
        parts.append(stores.real_lakefs(directory, ports.take(0), program, name=_NEW))
    return parts


def _addressed(
    directory: DataDirectory, settings: Settings, record: StackRecord, to: str | None
) -> Ends:
    """Return how to reach the servers; a new one by the keys of the settings."""
    found = {part.name: part.address for part in record.components}
    source = found["lakefs"]
    if to is not None and to.rstrip("/") == source.rstrip("/"):
        raise MoveError(f"{to} is the embedded server itself.")
    given = settings.lakefs.model_copy(update={"endpoint": to})
    return Ends(
        source=stores.own_lakefs(directory, settings.lakefs, source),
        target=given if to else stores.own_lakefs(directory, settings.lakefs, found[_NEW]),
        mlflow=settings.mlflow.model_copy(update={"tracking_uri": found["mlflow"]}),
        stack_runs=False,
    )


def _retire(directory: DataDirectory, screen: Screen) -> None:
    """Have the stack start lakeFS itself from now on; the old data stay under another name."""
    kept = directory.path / f"lakefs-moved-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    with directory.alone():
        (directory.path / "lakefs").rename(kept)
    screen.say(
        "`lifecycle up` starts lakeFS itself on this directory from now on. "
        f"The embedded server's data are kept in {kept}: delete them when all works."
    )


def _next_steps(to: str, *, stack_runs: bool) -> str:
    if stack_runs:
        return (
            "The stack still works with the embedded server. Stop it and run this command once "
            "more: that moves what was stored since, and points the versions to the new commits."
        )
    return (
        "Now start the platform with the new server:\n"
        f"  LAKEFS_ENDPOINT={to} LAKEFS_ACCESS_KEY_ID=… LAKEFS_SECRET_ACCESS_KEY=… lifecycle up"
    )


@contextmanager
def _only_move(directory: DataDirectory) -> Iterator[None]:
    """Refuse a second move at the same time."""
    with (directory.folder("moving") / "lock").open("a") as lock:
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MoveError(f"A move of {directory.path} is under way already.") from None
        shutil.rmtree(directory.folder(_SCRATCH))  # a move that was killed leaves its files
        yield
