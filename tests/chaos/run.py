"""One run: start, prepare, let everything happen, wait for quiet, do the books."""

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from embedded.hub.process import HubProcess
from shared.errors import LifecycleError
from shared.jobs import JobState
from shared.ledger import Filter
from shared.settings import LakeFSSettings
from tests.chaos import accounting, effects
from tests.chaos.accounting import Books
from tests.chaos.driver import Driver
from tests.chaos.incidents import Incidents
from tests.chaos.injector import Injector
from tests.chaos.judge import Judge, retry_failed
from tests.chaos.proxy import FaultyProxy, proxies
from tests.chaos.recovery import recoveries
from tests.chaos.report import RECOVERY_SECONDS, Report, summarize
from tests.chaos.schedule import Schedule, make_schedule
from tests.chaos.stack import ChaosStack, small_disk
from tests.chaos.submissions import Catalog
from tests.chaos.world import Size, World

#: Between two looks of the clients at what failed.
SWEEP_SECONDS = 3.0
#: Between two looks whether everything has ended.
LOOK_SECONDS = 0.5
#: Between two lines where there is no terminal.
LINE_SECONDS = 15.0


@dataclass(frozen=True)
class Options:
    """What is asked of a run."""

    seed: int
    seconds: float
    jobs: int
    faults: int
    lease_seconds: float = 15.0
    #: After the last fault, jobs must end one after the other within this time until all have.
    quiet_seconds: float = 300.0
    #: More settings of the processes.
    env: tuple[tuple[str, str], ...] = ()


class Run:
    """The parts of a run that has started."""

    def __init__(
        self,
        options: Options,
        stack: ChaosStack,
        before: dict[str, FaultyProxy],
        disks: dict[str, Path],
        console: Console,
    ) -> None:
        self.options = options
        self.stack = stack
        self.proxies = before
        self.incidents = Incidents()
        self.injector = Injector(stack, before, disks, self.incidents)
        self.driver = Driver(before["api"].url)
        self.judge = Judge(self.incidents, stack.ledger_settings.max_crashes)
        self.books = Books()
        self._console = console
        self._began = 0.0
        self._over = threading.Event()

    async def happen(self, schedule: Schedule) -> None:
        """Follow the schedule, and wait until all has ended; then look at every job."""
        try:
            await self._happen(schedule)
        finally:
            # Threads end too where the run is told to stop.
            self._over.set()
            self.injector.lift()

    async def _happen(self, schedule: Schedule) -> None:
        self._began = time.monotonic()
        before = {job["job_id"] async for job in accounting.all_jobs(self.driver)}
        sweeping = asyncio.create_task(self._sweep())
        telling = asyncio.create_task(self._tell())
        faults = asyncio.wrap_future(self.injector.start(schedule.faults))
        clients = asyncio.create_task(self.driver.run(schedule.submissions))
        await asyncio.sleep(self.options.seconds)
        await asyncio.to_thread(self.injector.lift)
        await faults
        seconds = self.options.quiet_seconds
        try:
            await asyncio.to_thread(self._wait_for_quiet, clients)
            clients.result()
        except TimeoutError:
            self.books.wrong("stuck", "the stack", f"no job ended for {seconds:g} s")
        for task in (sweeping, telling):
            if task.done():
                task.result()
            task.cancel()
        await accounting.look_at_all(self.driver, self.books, before, self.incidents)
        await self.driver.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await retry_failed(self.driver, self.judge)

    def _wait_for_quiet(self, clients: "asyncio.Task[None]") -> None:
        """Wait until everything has ended; raise ``TimeoutError`` if nothing ends any more."""
        ended, since = 0, time.monotonic()
        while not (clients.done() and self._is_quiet()):
            if time.monotonic() - since > self.options.quiet_seconds:
                raise TimeoutError
            with suppress(LifecycleError):
                if (now_ended := self.stack.ends()) != ended:
                    ended, since = now_ended, time.monotonic()
            if self._over.wait(LOOK_SECONDS):
                return

    def _is_quiet(self) -> bool:
        """Return whether no job is under way, and none will be tried again."""
        ledger = self.stack.ledger
        try:
            busy = [ledger.page(Filter(state=each), limit=1)[0] for each in _UNDER_WAY]
            failed, _ = ledger.page(Filter(state=JobState.FAILED), limit=500)
        except LifecycleError:
            return False
        settled = {
            job_id
            for order in self.driver.orders
            for job_id in order.job_ids
            if order.submission.deed or order.cancelled or order.wrong
        }
        waiting = [job for job in failed if job.id not in settled and job.parent_id is None]
        return not any(busy) and not waiting

    async def _tell(self) -> None:
        with self._console.status("") as status:
            while True:
                line = self._line()
                status.update(line)
                if not self._console.is_terminal:
                    self._console.print(line)
                await asyncio.sleep(1 if self._console.is_terminal else LINE_SECONDS)

    def _line(self) -> str:
        orders, incidents = self.driver.orders, self.incidents.all()
        accepted = sum(bool(order.job_ids) for order in orders)
        again = sum(len(order.retried) for order in orders)
        wrong = sum(bool(order.wrong or order.refused) for order in orders)
        lately = ", ".join(each.kind for each in incidents if each.ended is None)
        return (
            f"{time.monotonic() - self._began:4.0f} s  {accepted}/{len(orders)} accepted, "
            f"{again} tried again, {wrong} wrong; {len(incidents)} faults; now: {lately or '-'}"
        )


_UNDER_WAY = (JobState.QUEUED, JobState.RUNNING)


def run(
    options: Options, directory: Path, mlflow_url: str, lakefs: LakeFSSettings, console: Console
) -> Report:
    """Make a run on these stores and return what it showed."""
    size = Size(fresh=options.jobs // 3, staged=max(8, options.jobs // 20), chats=3)
    world = World(directory / "hub", directory / "made", options.seed, size)
    catalog = world.publish(f"c{uuid.uuid4().hex[:8]}")
    with _started(options, world, mlflow_url, lakefs, console) as this:
        commits = world.prepare(this.stack, catalog)
        schedule = _schedule(options, catalog, commits)
        console.print(
            f"{len(schedule.submissions)} submissions, {len(schedule.faults)} faults and the jobs "
            f"that misbehave within {options.seconds:g} s; seed {options.seed}"
        )
        asyncio.run(this.happen(schedule))
        return _report(this, world, mlflow_url, lakefs)


def _schedule(options: Options, catalog: Catalog, commits: dict[str, str]) -> Schedule:
    full = Catalog(**{**vars(catalog), "commits": commits})
    return make_schedule(
        options.seed, options.seconds, options.jobs, options.faults, options.lease_seconds, full
    )


@contextmanager
def _started(
    options: Options, world: World, mlflow_url: str, lakefs: LakeFSSettings, console: Console
) -> Iterator[Run]:
    """Run everything for the length of a block."""
    directory = world.root.parent
    with ExitStack() as parts:
        hub = parts.enter_context(HubProcess(world.root))
        env = {"LEDGER_LEASE_SECONDS": str(options.lease_seconds), **dict(options.env)}
        stack = ChaosStack(directory, mlflow_url, lakefs, hub, **env)
        ports = [_port(hub.url), _port(lakefs.endpoint), _port(mlflow_url), stack.api_port]
        names = ("hub", "lakefs", "mlflow", "api")
        before = dict(zip(names, parts.enter_context(proxies(*ports)), strict=True))
        stack.env |= {
            "HF_ENDPOINT": before["hub"].url,
            "LAKEFS_ENDPOINT": before["lakefs"].url,
            "MLFLOW_TRACKING_URI": before["mlflow"].url,
        }
        disks = {
            name: disk
            for name, disk in stack.disks.items()
            if parts.enter_context(small_disk(disk))
        }
        parts.enter_context(stack)
        yield Run(options, stack, before, disks, console)


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def _report(this: Run, world: World, mlflow_url: str, lakefs: LakeFSSettings) -> Report:
    books, orders = this.books, this.driver.orders
    accounting.judge_all(orders, this.judge, books)
    accounting.check_events(orders, this.stack, this.incidents, books)
    accounting.check_ends(orders, this.stack, this.incidents, books)
    accounting.check_crashes(this.stack, this.incidents, books)
    accounting.check_answers(orders, books)
    effects.check_staging(books, this.stack.staging, world.digests)
    effects.check_snapshots(books, this.stack.snapshots, world.digests)
    effects.check_lakefs(books, lakefs, world.digests)
    effects.check_mlflow(books, mlflow_url)
    incidents = this.incidents.all()
    options = this.options
    report = summarize(options.seed, options.seconds, orders, books, incidents, this.stack.exits)
    report.answers = this.driver.answers
    report.recoveries = recoveries(this.incidents, this.stack.clock, books.jobs)
    for each in report.recoveries:
        if each.worst > RECOVERY_SECONDS:
            books.wrong("recovery", each.place, f"{each.worst:.1f} s after a kill")
    if not this.injector.has_disks:
        report.notes.append("no file system could be mounted: no disk was full")
    if not this.injector.has_clock:
        report.notes.append("no libfaketime that works here: Redis' clock never stepped")
    return report
