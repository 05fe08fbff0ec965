"""The supervisor starts what is needed first, restarts what dies, and stops all of it."""

import asyncio
import os
import select
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from embedded.errors import StartError
from embedded.health import HttpProbe
from embedded.service import Change, Component, Phase, Service
from embedded.supervisor import Patience, Supervisor
from embedded.warden import Warden
from tests.processes import free_port

#: Serves until SIGTERM.
SERVER = """
import http.server, sys
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])),
                       http.server.SimpleHTTPRequestHandler).serve_forever()
"""
#: Answers once, and then lives on in silence.
FALLS_SILENT = """
import http.server, signal, sys
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])),
                                http.server.SimpleHTTPRequestHandler)
server.handle_request()
server.server_close()
signal.pause()
"""
#: Serves in a child, as MLflow does; says its child's id.
FAMILY = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", {SERVER!r}, sys.argv[1]]).pid, flush=True)
sys.stdin.close()
import signal
signal.pause()
"""
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVER
BROKEN = "raise SystemExit('no disk')"

IMPATIENT = Patience(
    poll=0.02,
    start=20,
    check=0.02,
    hung=0.3,
    hung_grace=0.1,
    backoff=0.01,
    backoff_max=0.1,
    first_starts=2,
)


def service(
    name: str, program: str = SERVER, *, needs: tuple[str, ...] = (), layer: int = 0
) -> Service:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    return Service(
        Component(name=name, title=name.title(), address=url, probe=HttpProbe(url=url)),
        command=(sys.executable, "-c", program, str(port)),
        needs=needs,
        layer=layer,
        grace_seconds=1,
    )


@dataclass
class Watched:
    """A supervisor, and every change that it told."""

    supervisor: Supervisor = field(init=False)
    changes: list[Change] = field(default_factory=list)
    impatience: asyncio.Task[None] | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def on_change(self, change: Change) -> None:
        self.changes.append(change)
        self._news.set()

    async def until(self, name: str, phase: Phase, times: int = 1) -> Change:
        async with asyncio.timeout(30):
            while True:
                found = [c for c in self.changes if (c.service.name, c.phase) == (name, phase)]
                if len(found) >= times:
                    return found[times - 1]
                self._news.clear()
                await self._news.wait()

    def order(self, phase: Phase) -> list[str]:
        return [change.service.name for change in self.changes if change.phase is phase]


def supervise(
    logs: Path, *services: Service, test: Callable[[Watched], Awaitable[None]]
) -> Watched:
    """Run a test inside the supervisor's block, and return what was seen to its end."""

    async def run() -> Watched:
        with Warden() as warden:
            watched = Watched()
            supervisor = Supervisor(services, logs, warden, watched.on_change, IMPATIENT)
            watched.supervisor = supervisor
            async with supervisor:
                await test(watched)
            return watched

    return asyncio.run(run())


def await_death(pid: int) -> None:
    """Wait until a process that is nobody's child of ours has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 20)[0], f"process {pid} lives on"
    finally:
        os.close(descriptor)


def pid_of(change: Change) -> int:
    assert change.pid is not None
    return change.pid


async def healthy(watched: Watched) -> None:
    await watched.supervisor.healthy()


def test_a_service_starts_when_what_it_needs_is_healthy(tmp_path: Path) -> None:
    seen = supervise(tmp_path, service("api", needs=("redis",)), service("redis"), test=healthy)

    phases = [(change.service.name, change.phase) for change in seen.changes]
    assert phases.index(("redis", Phase.HEALTHY)) < phases.index(("api", Phase.STARTING))
    assert phases[0] == ("api", Phase.WAITING)


def test_a_killed_service_is_restarted(tmp_path: Path) -> None:
    async def kill(watched: Watched) -> None:
        await watched.supervisor.healthy()
        first = await watched.until("api", Phase.HEALTHY)
        os.kill(pid_of(first), signal.SIGKILL)
        down = await watched.until("api", Phase.DOWN)
        assert down.detail.startswith("killed by SIGKILL")
        again = await watched.until("api", Phase.HEALTHY, times=2)
        assert again.pid != first.pid

    supervise(tmp_path, service("api"), test=kill)


def test_a_service_that_lives_but_is_silent_is_restarted(tmp_path: Path) -> None:
    async def wait(watched: Watched) -> None:
        down = await watched.until("api", Phase.DOWN)
        assert down.detail.startswith("no answer for 0.3 s")
        await watched.until("api", Phase.HEALTHY, times=2)

    supervise(tmp_path, service("api", FALLS_SILENT), test=wait)


def test_a_service_may_be_given_less_time_in_silence_than_others(tmp_path: Path) -> None:
    async def wait(watched: Watched) -> None:
        down = await watched.until("worker", Phase.DOWN)
        assert down.detail.startswith("no answer for 0.1 s")

    hasty = replace(service("worker", FALLS_SILENT), hung_seconds=0.1)
    supervise(tmp_path, hasty, test=wait)


def test_silence_proves_nothing_while_what_a_service_leans_on_is_away(tmp_path: Path) -> None:
    away = HttpProbe(url=f"http://127.0.0.1:{free_port()}")

    async def wait(watched: Watched) -> None:
        # What leans on nothing is restarted twice, while the other is left alone.
        await watched.until("api", Phase.DOWN, times=2)
        assert "worker" not in watched.order(Phase.DOWN)

    leaning = replace(service("worker", FALLS_SILENT), hung_seconds=0.1, leans_on=(away,))
    supervise(tmp_path, leaning, service("api", FALLS_SILENT), test=wait)


def test_a_hung_service_is_not_given_the_time_to_drain(tmp_path: Path) -> None:
    async def wait(watched: Watched) -> None:
        first = pid_of(await watched.until("worker", Phase.STARTING))
        await watched.until("worker", Phase.HEALTHY)
        os.kill(first, signal.SIGSTOP)
        await watched.until("worker", Phase.HEALTHY, times=2)
        await asyncio.to_thread(await_death, first)

    supervise(tmp_path, replace(service("worker"), grace_seconds=600), test=wait)


def test_what_a_dead_service_had_started_does_not_outlive_it(tmp_path: Path) -> None:
    async def kill(watched: Watched) -> None:
        await watched.supervisor.healthy()
        child = int((tmp_path / "mlflow.log").read_text().split()[0])
        os.kill(pid_of(await watched.until("mlflow", Phase.HEALTHY)), signal.SIGKILL)
        await watched.until("mlflow", Phase.HEALTHY, times=2)
        await asyncio.to_thread(await_death, child)

    supervise(tmp_path, service("mlflow", FAMILY), test=kill)


def test_a_service_that_never_comes_up_fails_the_start_with_the_end_of_its_log(
    tmp_path: Path,
) -> None:
    async def start(watched: Watched) -> None:
        with pytest.raises(
            StartError, match=r"(?s)Api did not start: ended with status 1.*no disk"
        ):
            await watched.supervisor.healthy()

    seen = supervise(tmp_path, service("api", BROKEN), service("redis"), test=start)

    assert seen.order(Phase.STARTING).count("api") == IMPATIENT.first_starts
    assert "redis" in seen.order(Phase.STOPPED)


def test_the_services_of_a_higher_layer_stop_first(tmp_path: Path) -> None:
    seen = supervise(
        tmp_path,
        service("redis"),
        service("api", layer=1),
        service("worker", layer=1),
        test=healthy,
    )

    assert set(seen.order(Phase.STOPPED)[:2]) == {"api", "worker"}
    assert seen.order(Phase.STOPPED)[2] == "redis"


def test_a_service_that_is_deaf_to_sigterm_is_killed_after_its_grace_time(tmp_path: Path) -> None:
    seen = supervise(tmp_path, service("api", DEAF), service("mlflow", FAMILY), test=healthy)

    assert sorted(seen.order(Phase.STOPPED)) == ["api", "mlflow"]
    for change in seen.changes:
        if change.phase is Phase.STARTING:
            await_death(pid_of(change))
    await_death(int((tmp_path / "mlflow.log").read_text().split()[0]))


def test_whoever_does_not_want_to_wait_kills_what_stops(tmp_path: Path) -> None:
    deaf = replace(service("api", DEAF), grace_seconds=600)

    async def hurry(watched: Watched) -> None:
        await watched.supervisor.healthy()

        async def kill() -> None:
            await watched.until("api", Phase.STOPPING)
            watched.supervisor.kill()

        watched.impatience = asyncio.create_task(kill())

    seen = supervise(tmp_path, deaf, test=hurry)

    assert seen.order(Phase.STOPPED) == ["api"]


def test_the_backoff_doubles_up_to_its_bound() -> None:
    patience = Patience(backoff=0.5, backoff_max=30)

    assert [patience.delay(failures) for failures in (1, 2, 3, 7, 10_000)] == [0.5, 1, 2, 30, 30]


def test_the_log_of_the_run_before_is_kept(tmp_path: Path) -> None:
    (tmp_path / "api.log").write_text("the last words")

    supervise(tmp_path, service("api"), test=healthy)

    assert (tmp_path / "api.previous.log").read_text() == "the last words"
