"""A clock for what remembers things for a while."""


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
