"""Carries faults out, and takes them back."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import redis

from shared.errors import LifecycleError
from shared.jobs import JobState
from shared.ledger import Filter, connect
from shared.ledger.schema import celery_queue
from shared.queue import DOWNLOADS, INFERENCE, REGISTRATIONS, UPLOADS
from tests.chaos.incidents import POSTPONED_SECONDS, Incident, Incidents, Loss
from tests.chaos.proxy import FaultyProxy, WireFault
from tests.chaos.schedule import FaultKind, PlannedFault
from tests.chaos.stack import CPU, GPU, ChaosStack

#: Where an answer that is lost after the work hurts most.
_EFFECTS = {
    "lakefs": r"^(POST|DELETE) .*(/branches|/objects|/commits|/merge/)",
    "mlflow": r"^POST .*(create|set-tag|alias)",
    "api": r"^POST /(models|inference|jobs)",
}
_SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}
_PROCESSES = {"cpu": CPU, "gpu": GPU, "api": ("api",), "redis": ("redis",)}
_QUEUES = (DOWNLOADS, UPLOADS, REGISTRATIONS, INFERENCE)
#: Left free on a disk that is said to be full.
_CRUMBS_BYTES = 40_960
_LOOK_SECONDS = 0.2


class Injector:
    """Follows the schedule on a thread; each fault has one of its own."""

    def __init__(
        self,
        stack: ChaosStack,
        proxies: Mapping[str, FaultyProxy],
        disks: Mapping[str, Path],
        incidents: Incidents,
    ) -> None:
        self._stack = stack
        self._proxies = proxies
        self._disks = disks
        self._incidents = incidents
        self._lifted = threading.Event()
        #: Redis is killed, stopped or exchanged by one fault at a time.
        self._redis_process = threading.Lock()
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="fault")
        with connect(stack.redis_settings) as client:
            #: Whether Redis' clock can be stepped on this machine.
            self.has_clock = stack.clock.can_step(client)

    @property
    def has_disks(self) -> bool:
        """Whether there are disks that can be filled."""
        return bool(self._disks)

    def start(self, faults: Iterable[PlannedFault]) -> Future[None]:
        """Begin with the schedule."""
        return self._pool.submit(self._follow, list(faults), time.monotonic())

    def lift(self) -> None:
        """End all faults."""
        self._lifted.set()
        self._pool.shutdown()

    def _follow(self, faults: list[PlannedFault], began: float) -> None:
        running = []
        for fault in faults:
            if self._lifted.wait(max(0.0, began + fault.at - time.monotonic())):
                break
            running.append(self._pool.submit(self._carry_out, fault))
        for each in running:
            each.result()

    def _carry_out(self, fault: PlannedFault) -> None:
        deed, place = fault.kind.value.split()
        if place != "redis" or deed == "cut":
            self._do(fault, deed, place)
            return
        with self._redis_process:
            if not self._lifted.is_set():
                self._do(fault, deed, place)

    def _do(self, fault: PlannedFault, deed: str, place: str) -> None:
        match deed, place:
            case "kill" | "term", _:
                self._hit(_SIGNALS[deed], fault, place)
            case "stop" | "freeze", _:
                self._stop(fault, place)
            case "failover", _:
                self._fail_over(fault)
            case "forward" | "backward", _:
                self._step(fault, fault.seconds if deed == "forward" else -fault.seconds)
            case "flush", _:
                self._to_queues(fault, lambda client, lists: client.delete(*lists))
            case "cut", "redis":
                self._to_queues(
                    fault, lambda client, _: client.client_kill_filter(_type="normal", skipme=True)
                )
            case "extra", _:
                self._to_queues(
                    fault, lambda client, lists: self._add_entries(client, lists, fault.number)
                )
            case "full", _:
                self._fill(fault, place)
            case _:
                self._break_wire(fault, place)

    # ── processes ────────────────────────────────────────────────────────────

    def _hit(self, number: signal.Signals, fault: PlannedFault, place: str) -> None:
        name = self._one(fault, place)
        incident = self._incidents.begin(fault.kind, self._held(name))
        self._stack.signal(name, number)
        if fault.kind is FaultKind.KILL_REDIS:
            now = time.time()
            self._incidents.losses.append(Loss(now - POSTPONED_SECONDS, now, fault.kind))
        incident.hits = 1
        self._watch(incident, place)

    def _stop(self, fault: PlannedFault, place: str) -> None:
        name = self._one(fault, place)
        pid = self._stack.pid(name)
        incident = self._incidents.begin(fault.kind, self._held(name))
        self._stack.signal(name, signal.SIGSTOP)
        # One that ends early, with the run, was no such fault.
        incident.hits = 0 if self._lifted.wait(fault.seconds) else 1
        with suppress(ProcessLookupError):  # killed in its sleep
            os.kill(pid, signal.SIGCONT)
        incident.ended = time.time()

    def _fail_over(self, fault: PlannedFault) -> None:
        incident = self._incidents.begin(fault.kind)
        self._incidents.losses.append(Loss(*self._stack.fail_over(), fault.kind))
        incident.hits = 1
        self._watch(incident, "redis")

    def _step(self, fault: PlannedFault, seconds: float) -> None:
        if not self.has_clock:
            return
        incident = self._incidents.begin(fault.kind)
        self._stack.clock.step(seconds)
        incident.hits = 1
        incident.ended = time.time()

    def _one(self, fault: PlannedFault, place: str) -> str:
        names = _PROCESSES[place]
        return names[fault.number % len(names)]

    def _held(self, name: str) -> dict[str, int]:
        """Return the jobs that a worker runs, with their fences."""
        if name in {"api", "redis"}:
            return {}
        with suppress(LifecycleError):
            jobs, _ = self._stack.ledger.page(Filter(state=JobState.RUNNING), limit=100)
            return {job.id: job.fence for job in jobs if (job.owner or "").startswith(f"{name}@")}
        return {}

    def _watch(self, incident: Incident, place: str) -> None:
        """Note when the killed process' jobs go on; the front and Redis, when they answer."""
        waiting = dict(incident.held)
        while not self._lifted.wait(_LOOK_SECONDS):
            if place in {"api", "redis"}:
                if self._stack.answers(place):
                    break
                continue
            with suppress(LifecycleError):
                for job_id, fence in list(waiting.items()):
                    job = self._stack.ledger.get(job_id)
                    if job.fence != fence or job.state.terminal:
                        incident.resumed[job_id] = time.time()
                        del waiting[job_id]
            if not waiting:
                break
        incident.ended = time.time()

    # ── the queue ────────────────────────────────────────────────────────────

    def _to_queues(
        self, fault: PlannedFault, do: Callable[["redis.Redis", list[str]], object]
    ) -> None:
        """Do something to the lists that idle slots wait for."""
        incident = self._incidents.begin(fault.kind)
        client = connect(self._stack.redis_settings)
        lists = [celery_queue(self._stack.ledger_settings, queue) for queue in _QUEUES]
        with suppress(redis.RedisError):
            do(client, lists)
            incident.hits = 1
        client.close()
        incident.ended = time.time()

    @staticmethod
    def _add_entries(client: "redis.Redis", lists: list[str], number: int) -> None:
        for name in lists:
            client.lpush(name, *["of no job"] * number)

    # ── the network and the disks ────────────────────────────────────────────

    def _break_wire(self, fault: PlannedFault, place: str) -> None:
        wire_fault, proxy = WireFault(fault.kind.value.split()[0]), self._proxies[place]
        before = proxy.hits[wire_fault]
        incident = self._incidents.begin(fault.kind)
        pattern = _EFFECTS[place] if wire_fault is WireFault.DROP_ANSWER else "."
        proxy.fail(wire_fault, fault.number, pattern)
        self._lifted.wait(fault.seconds)
        proxy.lift()
        incident.hits = proxy.hits[wire_fault] - before
        incident.ended = time.time()

    def _fill(self, fault: PlannedFault, place: str) -> None:
        if place not in self._disks:
            return
        incident = self._incidents.begin(fault.kind)
        ballast = self._disks[place] / f"ballast-{fault.at}"
        free = shutil.disk_usage(self._disks[place]).free
        # It fails where the disk is full already.
        with suppress(OSError), ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(free - _CRUMBS_BYTES, 1))
        incident.hits = 1
        self._lifted.wait(fault.seconds)
        ballast.unlink(missing_ok=True)
        incident.ended = time.time()
