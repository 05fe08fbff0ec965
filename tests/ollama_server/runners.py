"""The processes that run models: one for each GGUF file, loaded, shared, kept and unloaded.

As in Ollama's ``server/sched.py``: one load at a time; a request with other options for the
process waits until it is idle and loads it again; a model stays for its ``keep_alive`` after its
last request.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.ollama_server.state import Model, OllamaTestServer

#: Options of a request that hold for the process; another value loads the model again.
_OF_THE_PROCESS = ("num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread")
STOPPED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an "
    "internal error, check ollama server logs for details"
)
BROKE_OFF = "an error was encountered while running the model: unexpected EOF"
#: Ollama's time for ever: as many nanoseconds as it can count.
_FOR_EVER = timedelta(days=106751)


class RefusedError(Exception):
    """An error as Ollama answers it: with its status before a stream begins, as a line in it."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


@dataclass(frozen=True)
class Launch:
    """What a process is started with."""

    context_length: int
    shift: bool
    options: tuple[object, ...]

    @classmethod
    def of(cls, server: "OllamaTestServer", model: "Model", body: dict[str, Any]) -> "Launch":
        """Read a request."""
        options = body.get("options") or {}
        wanted = max(4, options.get("num_ctx") or server.context_length)
        shift = body.get("shift")
        return cls(
            min(wanted, model.context_length),
            shift is not False,
            tuple(options.get(name) for name in _OF_THE_PROCESS),
        )


class Runner:
    """One process and the requests that it serves."""

    def __init__(self, model: "Model", launch: Launch, slots: int, keep_alive: float) -> None:
        self.model = model
        self.launch = launch
        self.slots = asyncio.Semaphore(slots)
        self.requests = 0
        #: Seconds; None is for ever.
        self.keep_alive: float | None = keep_alive
        self.died = asyncio.Event()
        self.gone = asyncio.Event()
        self.timer: asyncio.TimerHandle | None = None
        self.used_at = datetime.now(UTC)

    @property
    def expires_at(self) -> datetime:
        """When it is unloaded if no further request comes."""
        stay = _FOR_EVER if self.keep_alive is None else timedelta(seconds=self.keep_alive)
        return self.used_at + stay

    async def pause(self, seconds: float, words: str) -> None:
        """Work for a while; raise if the process dies meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self.died.wait()
        except TimeoutError:
            pass
        if self.died.is_set():
            raise RefusedError(500, words)


class Scheduler:
    """All processes of the server."""

    def __init__(self, server: "OllamaTestServer") -> None:
        self._server = server
        self._by_blob: dict[str, Runner] = {}
        self._loading = asyncio.Lock()
        self._pending = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def running(self) -> list[Runner]:
        """Return the processes."""
        return list(self._by_blob.values())

    @asynccontextmanager
    async def using(self, model: "Model", body: dict[str, Any]) -> AsyncIterator[Runner]:
        """Have the model loaded as a request wants it, and keep it until the request ends."""
        self._loop = asyncio.get_running_loop()
        stay = seconds_of(body["keep_alive"]) if body.get("keep_alive") is not None else 0.0
        runner = await self._ready(model, Launch.of(self._server, model, body))
        if body.get("keep_alive") is not None:
            runner.keep_alive = stay
        try:
            yield runner
        finally:
            runner.requests -= 1
            if runner.requests == 0:
                self._rest(runner)

    def expire(self, model: "Model") -> None:
        """Unload a model's process once nobody uses it."""
        if (runner := self._by_blob.get(model.blob)) is not None:
            runner.keep_alive = 0.0
            if runner.requests == 0:
                self._unload(runner)

    def kill(self, blob: str) -> None:
        """Let a process die, from any thread."""
        if self._loop is not None and (runner := self._by_blob.get(blob)) is not None:
            self._loop.call_soon_threadsafe(self.die, runner)

    def die(self, runner: Runner) -> None:
        """Let a process die: all its requests fail."""
        runner.died.set()
        self._unload(runner)

    async def _ready(self, model: "Model", launch: Launch) -> Runner:
        """Return the model's process, which counts the request already."""
        if (runner := self._by_blob.get(model.blob)) is not None and runner.launch == launch:
            return self._used(runner)
        if self._pending >= self._server.max_queue:
            words = "server busy, please try again.  maximum pending requests exceeded"
            raise RefusedError(503, words)
        self._pending += 1
        try:
            async with self._loading:
                return self._used(await self._loaded(model, launch))
        finally:
            self._pending -= 1

    async def _loaded(self, model: "Model", launch: Launch) -> Runner:
        while True:
            runner = self._by_blob.get(model.blob)
            if runner is not None and runner.launch == launch:
                return runner
            if runner is None and len(self._by_blob) < self._server.max_loaded:
                break
            going = runner or min(self.running(), key=lambda r: (r.requests > 0, r.used_at))
            self.expire(going.model)
            await going.gone.wait()
        await asyncio.sleep(self._server.load_seconds)
        if model.broken:
            words = (
                "llama-server process has terminated: exit status 1: error loading model: tensor "
                "'blk.0.attn_q.weight' data is not within the file bounds, model is corrupted or "
                "incomplete"
            )
            raise RefusedError(500, words)
        server = self._server
        runner = Runner(model, launch, server.num_parallel, server.keep_alive_seconds)
        self._by_blob[model.blob] = runner
        return runner

    def _used(self, runner: Runner) -> Runner:
        runner.requests += 1
        runner.used_at = datetime.now(UTC)
        if runner.timer is not None:
            runner.timer.cancel()
            runner.timer = None
        return runner

    def _rest(self, runner: Runner) -> None:
        """Unload an idle process when its time is over."""
        runner.used_at = datetime.now(UTC)
        if runner.keep_alive == 0:
            self._unload(runner)
        elif runner.keep_alive is not None and not runner.gone.is_set():
            loop = asyncio.get_running_loop()
            runner.timer = loop.call_later(runner.keep_alive, self._unload, runner)

    def _unload(self, runner: Runner) -> None:
        if self._by_blob.get(runner.model.blob) is runner:
            del self._by_blob[runner.model.blob]
        if runner.timer is not None:
            runner.timer.cancel()
            runner.timer = None
        runner.gone.set()


def seconds_of(given: float | str) -> float | None:
    """Read a ``keep_alive``: seconds, or a duration of Go's such as ``1h30m``; None is for ever."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise RefusedError(400, f"Unsupported type: '{type(given).__name__}'")
    seconds = _duration(given) if isinstance(given, str) else float(given)
    return None if seconds < 0 else seconds


def _duration(text: str) -> float:
    units = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    seconds, number = 0.0, ""
    while rest:
        if rest[0].isdigit() or rest[0] == ".":
            number, rest = number + rest[0], rest[1:]
            continue
        unit = next((each for each in units if number and rest.startswith(each)), None)
        if unit is None:
            raise RefusedError(400, f'time: invalid duration "{text}"')
        seconds, number, rest = seconds + float(number) * units[unit], "", rest[len(unit) :]
    if number or not text.strip("-"):
        raise RefusedError(400, f'time: missing unit in duration "{text}"')
    if seconds > 9.2e9:
        raise RefusedError(400, f'time: invalid duration "{text}"')
    return sign * seconds
