"""Ways in which a hub fails, asked for by tests at run time.

A fault applies to the requests whose URL path (decoded, without query) its glob matches: to the
first `times` of them after `skip`, or to all. Faults of a body touch only requests that send one:
`GET` of a small file, or of a large one on `/cdn/`.
"""

from enum import StrEnum
from fnmatch import fnmatchcase
from threading import Lock
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FaultKind(StrEnum):
    """What goes wrong."""

    #: Answers `status`, with Retry-After if `retry_after_seconds` is given.
    STATUS = "status"
    #: Does not answer; with `after_bytes`, falls silent after that much of a body.
    HANG = "hang"
    #: Closes the connection after `after_bytes` of a body.
    CUT = "cut"
    #: Inverts the first byte of every body (each part of a resumed transfer too).
    CORRUPT = "corrupt"
    #: Serves the file longer by `extra_bytes` zeros, or shorter if negative, and says so.
    RESIZE = "resize"
    #: Answers 200 and the whole file.
    IGNORE_RANGE = "ignore_range"
    #: Sends no faster than `bytes_per_second`.
    THROTTLE = "throttle"


_NEEDED = {
    FaultKind.CUT: "after_bytes",
    FaultKind.RESIZE: "extra_bytes",
    FaultKind.THROTTLE: "bytes_per_second",
}


class Fault(BaseModel):
    """One way to fail, and when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    path: str = "*"
    method: Literal["GET", "HEAD", "POST"] | None = None
    times: int | None = Field(default=None, ge=1)
    skip: int = Field(default=0, ge=0)
    status: int = Field(default=503, ge=400, le=599)
    retry_after_seconds: int | None = Field(default=None, ge=0)
    after_bytes: int | None = Field(default=None, ge=0)
    extra_bytes: int | None = None
    bytes_per_second: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = _NEEDED.get(self.kind)
        if needed and getattr(self, needed) is None:
            raise ValueError(f"a {self.kind.value} fault needs {needed}")
        return self

    @property
    def is_of_body(self) -> bool:
        """Whether it touches only requests that send a file."""
        if self.kind is FaultKind.HANG:
            return self.after_bytes is not None
        return self.kind is not FaultKind.STATUS

    def matches(self, method: str, path: str) -> bool:
        """Whether it is meant for such a request."""
        return self.method in {None, method} and fnmatchcase(path, self.path)


class FaultPlan:
    """The faults in force; they may be changed from another thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._seen: list[tuple[Fault, int]] = []

    def replace(self, faults: list[Fault]) -> None:
        """Put these in the place of all others, their counts at zero."""
        with self._lock:
            self._seen = [(fault, 0) for fault in faults]

    def take(self, method: str, path: str, *, of_body: bool) -> list[Fault]:
        """Return the faults for a request, and count it as seen by them."""
        due = []
        with self._lock:
            for index, (fault, seen) in enumerate(self._seen):
                if fault.is_of_body is not of_body or not fault.matches(method, path):
                    continue
                self._seen[index] = (fault, seen + 1)
                if seen >= fault.skip and (fault.times is None or seen < fault.skip + fault.times):
                    due.append(fault)
        return due
