"""The branches in lakeFS that the platform made, recorded in Redis before they are made.

The sweeper (``workers/lifecycle/branch_sweeper.py``) deletes recorded branches only, so that a
branch of a person is never touched, whatever its name. A branch is reserved before it is deleted:
a job that runs again meanwhile waits, instead of writing to a branch that is about to go.
"""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Protocol

import redis
from pydantic import BaseModel, ConfigDict

from shared.errors import LifecycleError, UnavailableError
from shared.ledger.connection import redis_errors
from shared.settings import LedgerSettings

#: Keys: the reservation, the records. Arguments: the reservation's value, the branch's address, the
#: milliseconds that it lasts.
_RESERVE = """
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then return false end
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[3])
"""
#: Keys: the reservation, the records, the failures. Arguments: the reservation's value, the
#: branch's address, and 1 if the branch is deleted.
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return end
redis.call('DEL', KEYS[1])
if ARGV[3] == '1' then
  redis.call('HDEL', KEYS[2], ARGV[2])
  redis.call('HDEL', KEYS[3], ARGV[2])
end
"""


class _Branch(BaseModel):
    model_config = ConfigDict(frozen=True)

    repo: str
    name: str

    @property
    def address(self) -> str:
        """The repository and the branch, as one text."""
        return f"{self.repo}/{self.name}"


class JobBranch(_Branch):
    """A branch that only one upload job writes to."""

    job_id: str


class VersionBranch(_Branch):
    """A branch whose head is the commit of a registered version."""

    model: str
    version: str
    commit: str


OwnedBranch = JobBranch | VersionBranch


class BranchFailure(BaseModel):
    """Why a branch could not be deleted, or not be made for a version."""

    model_config = ConfigDict(frozen=True)

    branch: JobBranch | VersionBranch
    reason: str
    #: Since the last success.
    attempts: int
    since: datetime
    retry_at: datetime

    @property
    def due(self) -> bool:
        """Whether it is time for another attempt."""
        return datetime.now(UTC) >= self.retry_at


class BranchRecords(Protocol):
    """Where a job writes down a branch before it makes it."""

    def record(self, branch: OwnedBranch) -> None:
        """Write a branch down; raise ``UnavailableError`` while it is being deleted."""

    def forget(self, branch: OwnedBranch) -> None:
        """Remove the record of a branch that was deleted."""


class UnrecordedBranches:
    """Records nothing: for scripts and tests that run a job without Redis."""

    def record(self, branch: OwnedBranch) -> None:
        """Write nothing down."""

    def forget(self, branch: OwnedBranch) -> None:
        """Remove nothing."""


class OwnedBranches:
    """The records in Redis; any number of processes may use them at once."""

    def __init__(self, client: "redis.Redis", settings: LedgerSettings) -> None:
        self._redis = client
        self._first_wait = settings.backoff_seconds
        self._longest_waits = {
            True: settings.outage_backoff_max_seconds,
            False: settings.backoff_max_seconds,
        }
        prefix = f"{settings.prefix}:branches"
        # Apart from each other: the few branches of jobs are read often, those of versions rarely.
        self._jobs, self._versions = f"{prefix}:jobs", f"{prefix}:versions"
        self._failures = f"{prefix}:failures"
        self._reserved = f"{prefix}:reserved:"
        self._turn = f"{prefix}:turn"

    def record(self, branch: OwnedBranch) -> None:
        """Write a branch down; raise ``UnavailableError`` while it is being deleted."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(self._records(branch), branch.address, branch.model_dump_json())
            pipe.exists(self._reserved + branch.address)
            _, reserved = pipe.execute()
        if reserved:
            raise UnavailableError(
                f"branch {branch.name} of {branch.repo!r} is being deleted",
                code="branch_being_deleted",
                service="lakeFS",
            )

    def forget(self, branch: OwnedBranch) -> None:
        """Remove the record of a branch that was deleted."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hdel(self._records(branch), branch.address)
            pipe.hdel(self._failures, branch.address)
            pipe.execute()

    def of_jobs(self) -> list[JobBranch]:
        """Return the recorded branches of jobs."""
        with redis_errors():
            records = self._redis.hvals(self._jobs)
        return [JobBranch.model_validate_json(str(record)) for record in records]

    def of_versions(self) -> list[VersionBranch]:
        """Return the recorded branches of versions."""
        with redis_errors():
            records = self._redis.hvals(self._versions)
        return [VersionBranch.model_validate_json(str(record)) for record in records]

    # ── deletion ─────────────────────────────────────────────────────────────

    def reserve(self, branch: OwnedBranch, seconds: float) -> str | None:
        """Reserve a recorded branch for deletion for a time; return None if another worker did.

        Whether the branch may be deleted is to be looked at after this: a job that began before
        is seen running then, and one that begins later sees the reservation.
        """
        reservation = secrets.token_hex(8)
        keys = (self._reserved + branch.address, self._records(branch))
        values = (reservation, branch.address, round(seconds * 1000))
        with redis_errors():
            taken = self._redis.eval(_RESERVE, len(keys), *keys, *values)
        return reservation if taken else None

    def release(self, branch: OwnedBranch, reservation: str, *, is_deleted: bool) -> None:
        """Give a reservation back, and remove the record of a branch that is deleted.

        Do nothing if the reservation's time was over.
        """
        keys = (self._reserved + branch.address, self._records(branch), self._failures)
        values = (reservation, branch.address, int(is_deleted))
        with redis_errors():
            self._redis.eval(_RELEASE, len(keys), *keys, *values)

    # ── failures ─────────────────────────────────────────────────────────────

    def failures(self) -> dict[str, BranchFailure]:
        """Return what could not be deleted or made, by address."""
        with redis_errors():
            found = self._redis.hgetall(self._failures)
        return {
            str(address): BranchFailure.model_validate_json(str(value))
            for address, value in sorted(found.items())
        }

    def failed(self, branch: OwnedBranch, error: LifecycleError) -> None:
        """Write down why an attempt failed; the wait for the next one doubles each time.

        It stays short during an outage, so that nothing is left for long after it.
        """
        with redis_errors():
            found = self._redis.hget(self._failures, branch.address)
        last = BranchFailure.model_validate_json(str(found)) if found else None
        attempts, now = (last.attempts if last else 0) + 1, datetime.now(UTC)
        longest = self._longest_waits[error.retryable]
        wait_seconds = min(self._first_wait * 2 ** min(attempts - 1, 30), longest)
        failure = BranchFailure(
            branch=branch,
            reason=error.detail,
            attempts=attempts,
            since=last.since if last else now,
            retry_at=now + timedelta(seconds=wait_seconds),
        )
        with redis_errors():
            self._redis.hset(self._failures, branch.address, failure.model_dump_json())

    def succeeded(self, address: str) -> None:
        """Remove the failure of a branch."""
        with redis_errors():
            self._redis.hdel(self._failures, address)

    # ── turns ────────────────────────────────────────────────────────────────

    def take_turn(self, seconds: float) -> bool:
        """Return whether this worker compares the versions now; one does within ``seconds``."""
        with redis_errors():
            return bool(self._redis.set(self._turn, "taken", nx=True, px=round(seconds * 1000)))

    def give_turn_back(self) -> None:
        """Let the next worker compare the versions: this one could not."""
        with redis_errors():
            self._redis.delete(self._turn)

    def _records(self, branch: OwnedBranch) -> str:
        return self._jobs if isinstance(branch, JobBranch) else self._versions
