"""Blocking calls that a job leaves at once when it is told to stop.

A thread that waits for a server's answer looks at no token, and a server that is frozen answers
after minutes or never. So the call is made by a helper thread, and the job waits for its end or for
its token, whichever comes first. A call that was left ends by its own timeout: the server may still
do what it was asked for, so a call is only made this way where that does no harm after the job has
ended (it reads, it writes to what only this job has, or the next run looks for its effect).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from queue import SimpleQueue
from typing import Generic, TypeVar

from shared.cancellation import CancelToken

T = TypeVar("T")

#: Calls that a job makes after it was told to stop clean up; together they get this time.
CLEANUP_SECONDS = 0.3
#: And each of them at least this.
LEAST_CLEANUP_SECONDS = 0.05
#: Helper threads kept for the next call.
_MOST_IDLE = 32

_current: ContextVar[CancelToken | None] = ContextVar("current_token", default=None)


@contextmanager
def interrupted_by(token: CancelToken) -> Iterator[None]:
    """Let a token end the blocking calls that this thread makes within a block."""
    before = _current.set(token)
    try:
        yield
    finally:
        _current.reset(before)


def current_token() -> CancelToken | None:
    """Return the token that ends this thread's blocking calls."""
    return _current.get()


def interruptible(call: Callable[[], T], discard: Callable[[T], object] | None = None) -> T:
    """Return what a call returns; raise the token's reason once it is set, and leave the call.

    ``discard`` is given the result of a call that was left. Without a token the call is just made.
    """
    token = _current.get()
    if token is None:
        return call()
    task = _Task(copy_context(), call, discard)
    if token.cancelled:
        _helpers.start(task)
        task.ended.wait(max(CLEANUP_SECONDS - token.cancelled_seconds, LEAST_CLEANUP_SECONDS))
    else:
        with token.calling(task.ended.set):
            _helpers.start(task)
            task.ended.wait()
    if task.leave():
        token.check()
    return task.result()


class _Task(Generic[T]):
    """A call on its way."""

    def __init__(
        self, context: Context, call: Callable[[], T], discard: Callable[[T], object] | None
    ) -> None:
        self._context = context
        self._call = call
        self._discard = discard
        self._lock = threading.Lock()
        self._left = False
        self._done = False
        self._value: T
        self._error: BaseException | None = None
        #: Set when the call has ended, or is not waited for any longer.
        self.ended = threading.Event()

    def run(self) -> None:
        """Make the call; the body of a helper thread."""
        # What the call calls is made in the same thread.
        self._context.run(_current.set, None)
        try:
            self._value = self._context.run(self._call)
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
            self._error = error
        with self._lock:
            self._done = True
            left = self._left
        self.ended.set()
        if left and self._error is None and self._discard is not None:
            self._discard(self._value)

    def leave(self) -> bool:
        """Wait no longer; return whether the call had not ended yet."""
        with self._lock:
            self._left = not self._done
            return self._left

    def result(self) -> T:
        """Return or raise what came of the call."""
        try:
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            self._error = None  # it holds the frame that holds this


class _Helpers:
    """Daemon threads, so that a call that never ends keeps no process from ending."""

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[_Task[object]]] = []

    def start(self, task: _Task[T]) -> None:
        """Have a thread run a task."""
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = SimpleQueue()
            threading.Thread(target=self._serve, args=(inbox,), name="call", daemon=True).start()
        inbox.put(task)  # type: ignore[arg-type] # the thread does not look at its result

    def _serve(self, inbox: "SimpleQueue[_Task[object]]") -> None:
        while True:
            inbox.get().run()
            if len(self._idle) >= _MOST_IDLE:
                return
            self._idle.append(inbox)


_helpers = _Helpers()
