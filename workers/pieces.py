"""A run's generated text on its way to the job's events."""

from collections import deque
from itertools import count

from shared.jobs import Job
from shared.ledger import Ledger


class Pieces:
    """Tells each piece once and in order; what Redis misses in an outage goes with the next."""

    def __init__(self, ledger: Ledger, job: Job) -> None:
        self._ledger = ledger
        self._job = job
        self._numbers = count(1)
        self._unsent: deque[tuple[int, str, str]] = deque()

    def add(self, text: str, event: str = "token") -> None:
        """Take a piece, to be sent as an event of that name."""
        self._unsent.append((next(self._numbers), text, event))

    def send(self) -> bool:
        """Send what is left; return False if the job is another worker's now."""
        while self._unsent:
            if not self._ledger.report_token(self._job, *self._unsent[0]):
                return False
            self._unsent.popleft()
        return True
