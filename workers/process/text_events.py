"""A run's generated text on its way to the job's events, in pieces of about 30 ms."""

import threading
import time
from collections import deque
from dataclasses import dataclass

import structlog

from shared.cancellation import CancelToken
from shared.errors import LeaseLostError, UnavailableError
from shared.jobs import Job
from shared.ledger import Ledger

#: After the first text of a run, texts are sent together this often: a script call for each
#: generated token would cost more than a small model.
PIECE_SECONDS = 0.03
#: Between two tries while Redis is away.
OUTAGE_SECONDS = 1.0

log = structlog.get_logger()


@dataclass
class _Piece:
    """Text that is sent in one call, which may be repeated."""

    number: int
    event: str
    text: str
    #: The call was made and its reply may be lost, so the text must stay as it is.
    was_sent: bool = False


class TextEvents:
    """The texts of one run. Each is sent once and in order; what Redis missed is sent later."""

    def __init__(self, ledger: Ledger, job: Job, cancel: CancelToken, sender: "TextSender") -> None:
        """``cancel`` is set when the job turns out to be another worker's."""
        self._ledger = ledger
        self._job = job
        self._cancel = cancel
        self._sender = sender
        self._unsent: deque[_Piece] = deque()
        self._pieces = 0
        #: Guards the pieces; held for microseconds.
        self._lock = threading.Lock()
        #: Held during calls, which keeps them in order.
        self._sending = threading.Lock()

    def add(self, text: str, event: str = "token") -> None:
        """Take a text: the first one is sent at once, later ones soon and together."""
        with self._lock:
            last = self._unsent[-1] if self._unsent else None
            if last is not None and not last.was_sent and last.event == event:
                last.text += text
                return
            self._pieces += 1
            is_first = self._pieces == 1
            self._unsent.append(_Piece(self._pieces, event, text))
        if not is_first or not self.try_to_send():
            self._sender.send_soon(self)

    def try_to_send(self) -> bool:
        """Send what there is; return False if Redis did not answer."""
        try:
            self.send()
        except UnavailableError as error:
            # This fails no job: the text is sent later, at the latest before the end.
            log.warning("text not sent", job_id=self._job.id, reason=error.detail)
            return False
        return True

    def send(self) -> None:
        """Send what there is, in order."""
        with self._sending:
            while (piece := self._next()) is not None:
                kept = self._ledger.report_text(self._job, piece.number, piece.text, piece.event)
                if not kept:
                    self._cancel.cancel(LeaseLostError(f"job {self._job.id} is another worker's"))
                with self._lock:
                    if kept:
                        self._unsent.popleft()
                    else:
                        self._unsent.clear()

    def _next(self) -> _Piece | None:
        with self._lock:
            if not self._unsent:
                return None
            self._unsent[0].was_sent = True
            return self._unsent[0]


class TextSender:
    """A thread that sends the texts of all runs of a worker, so that no run waits for Redis."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[TextEvents, None] = {}
        self._any_waiting = threading.Event()
        self._thread: threading.Thread | None = None

    def send_soon(self, texts: TextEvents) -> None:
        """Send the texts of a run with the next round."""
        with self._lock:
            self._waiting[texts] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="TextSender", daemon=True)
                self._thread.start()
        self._any_waiting.set()

    def _run(self) -> None:
        while True:
            self._any_waiting.wait()
            self._any_waiting.clear()
            time.sleep(PIECE_SECONDS if self._send() else OUTAGE_SECONDS)

    def _send(self) -> bool:
        """Send the texts that wait; return False if Redis did not answer."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        answered = True
        for texts in waiting:
            try:
                answered = answered and texts.try_to_send()
            except Exception:
                # The same call at the end of the run fails its job.
                log.exception("defect in sending text")
            if not answered:
                self.send_soon(texts)
        return answered
