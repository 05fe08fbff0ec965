"""Starts the services of the stack, waits for their health, restarts what dies, stops all."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Never, Self

from embedded.errors import StartError
from embedded.process import Process
from embedded.service import Change, Phase, Service
from embedded.warden import Warden

Listener = Callable[[Change], None]


@dataclass(frozen=True)
class Patience:
    """How long the supervisor waits for what, in seconds."""

    #: Between two looks at a service that starts.
    poll: float = 0.2
    #: For the first answer of a service.
    start: float = 120
    #: Between two looks at a healthy service.
    check: float = 5
    #: A service that lives but has not answered for this long is hung, and restarted.
    hung: float = 120
    #: What a hung service is given between SIGTERM and SIGKILL, if it has not less of its own.
    hung_grace: float = 3
    #: Before a restart; doubles with each that follows.
    backoff: float = 0.5
    backoff_max: float = 30
    #: A service that was healthy for this long begins with the first backoff again.
    stable: float = 30
    #: Starts that may fail before the stack as a whole is said not to start.
    first_starts: int = 3

    def delay(self, failures: int) -> float:
        """Return the backoff after that many failures in a row."""
        # The exponent has a bound: a float does not take the power of a day's failures.
        doubled: float = self.backoff * 2 ** min(failures - 1, 20)
        return min(doubled, self.backoff_max)


class Supervisor:
    """An asynchronous context manager; the services run inside its block."""

    def __init__(
        self,
        services: Sequence[Service],
        logs: Path,
        warden: Warden,
        listener: Listener,
        patience: Patience | None = None,
    ) -> None:
        self._services = services
        self._logs = logs
        self._warden = warden
        self._listener = listener
        self._patience = patience or Patience()
        self._processes: dict[str, Process] = {}
        self._up = {service.name: asyncio.Event() for service in services}
        self._since = dict.fromkeys(self._up, time.monotonic())
        self._tasks: list[asyncio.Task[None]] = []
        #: Set when all services are up, or one of them has failed.
        self._settled = asyncio.Event()
        self._failed = asyncio.Event()
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        for service in self._services:
            _put_aside(self._log(service))
        for service in self._services:
            task = asyncio.create_task(self._keep(service))
            task.add_done_callback(self._on_end)
            self._tasks.append(task)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    async def healthy(self) -> None:
        """Wait until all services are healthy; raise `StartError` if one does not come up."""
        await self._settled.wait()
        if self._failure:
            raise self._failure

    async def run(self) -> Never:
        """Wait for ever; raise what keeps a service from being kept running."""
        await self._failed.wait()
        assert self._failure  # noqa: S101 - set before the event
        raise self._failure

    def kill(self) -> None:
        """End all processes at once, for an operator who does not want to wait any longer."""
        for process in self._processes.values():
            process.kill()

    async def _keep(self, service: Service) -> None:
        """Have the service running for ever."""
        needs = f"for {', '.join(service.needs)}" if service.needs else ""
        self._tell(service, Phase.WAITING, needs)
        await asyncio.gather(*(self._up[name].wait() for name in service.needs))
        up, failures, was_up = self._up[service.name], 0, False
        while True:
            reason = await self._run_once(service)
            was_up = was_up or up.is_set()
            lasted = time.monotonic() - self._since[service.name] if up.is_set() else 0
            up.clear()
            failures = 1 if lasted > self._patience.stable else failures + 1
            if not was_up and failures >= self._patience.first_starts:
                raise StartError(service.component.title, reason, self._log(service))
            delay = self._patience.delay(failures)
            self._tell(service, Phase.DOWN, f"{reason}; again in {delay:g} s")
            await asyncio.sleep(delay)

    async def _run_once(self, service: Service) -> str:
        """Run the service until it dies or hangs, and say which."""
        await asyncio.to_thread(service.component.probe.forget)
        try:
            process = Process(service.command, service.env, self._log(service), self._warden)
        except OSError as error:
            return f"no process could be made: {error}"
        self._processes[service.name] = process
        self._tell(service, Phase.STARTING)
        end = asyncio.create_task(process.wait())
        try:
            reason = await self._watch(service, end)
        finally:
            end.cancel()
        # The leader may have left children that hold its port.
        await process.stop(min(service.grace_seconds, self._patience.hung_grace))
        del self._processes[service.name]
        return reason

    async def _watch(self, service: Service, end: asyncio.Task[str]) -> str:
        up, last_answer = self._up[service.name], time.monotonic()
        while not end.done():
            if await asyncio.to_thread(service.component.probe.healthy):
                last_answer = time.monotonic()
                self._on_answer(service, alive=not end.done())
            allowed = self._allowed(service)
            if time.monotonic() - last_answer > allowed:
                if await asyncio.to_thread(service.guilty):
                    return f"no answer for {allowed:g} s"
                last_answer = time.monotonic()
            pause = self._patience.check if up.is_set() else self._patience.poll
            await asyncio.wait([end], timeout=pause)
        return end.result()

    def _allowed(self, service: Service) -> float:
        if not self._up[service.name].is_set():
            return self._patience.start
        return self._patience.hung if service.hung_seconds is None else service.hung_seconds

    def _on_answer(self, service: Service, *, alive: bool) -> None:
        up = self._up[service.name]
        if alive and not up.is_set():
            up.set()
            self._tell(service, Phase.HEALTHY)
            if all(each.is_set() for each in self._up.values()):
                self._settled.set()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()):
            self._failure = failure
            self._settled.set()
            self._failed.set()

    async def _stop(self) -> None:
        """Stop the services, those first that need others."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for layer in self._layers():
            await asyncio.gather(*(self._stop_service(service) for service in layer))

    async def _stop_service(self, service: Service) -> None:
        if process := self._processes.get(service.name):
            self._tell(service, Phase.STOPPING)
            await process.stop(service.grace_seconds)
            del self._processes[service.name]
        self._tell(service, Phase.STOPPED)

    def _layers(self) -> Iterator[list[Service]]:
        for number in sorted({service.layer for service in self._services}, reverse=True):
            yield [service for service in self._services if service.layer == number]

    def _tell(self, service: Service, phase: Phase, detail: str = "") -> None:
        now = time.monotonic()
        seconds, self._since[service.name] = now - self._since[service.name], now
        process = self._processes.get(service.name)
        self._listener(Change(service, phase, process.pid if process else None, detail, seconds))

    def _log(self, service: Service) -> Path:
        return self._logs / f"{service.name}.log"


def _put_aside(log: Path) -> None:
    """Begin a log anew; that of the run before is kept."""
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
