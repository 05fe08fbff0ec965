"""A token that cancels itself, so that a test says at which look the work is told to stop."""

from shared.cancellation import CancelToken
from shared.errors import CancelledError


class CancelAfter(CancelToken):
    """Cancels itself when it is looked at for the n-th time."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = 0
        self._limit = looks

    def check(self) -> None:
        """Count the look."""
        self.looks += 1
        if self.looks >= self._limit:
            self.cancel(CancelledError("by the client"))
        super().check()
