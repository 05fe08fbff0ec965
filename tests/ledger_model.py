"""The ledger in plain Python: what its Lua must do, without indexes, scripts or Redis."""

from collections import defaultdict
from dataclasses import dataclass, field

from shared.jobs import JobState
from shared.ledger.scripts import DEADLINE_GRACE_SECONDS
from shared.settings import LedgerSettings

GRACE = DEADLINE_GRACE_SECONDS * 1000


@dataclass
class Entry:
    """A job as the model knows it; times in milliseconds."""

    id: str
    submitter: str
    priority: int
    #: Empty for a batch.
    queue: str
    #: Of the request's JSON.
    size: int
    lifetime: int | None = None
    start_within: int | None = None
    parent: str | None = None
    children: list[str] = field(default_factory=list)
    state: JobState = JobState.QUEUED
    created: int = 0
    available: int = 0
    deadline: int | None = None
    start_by: int | None = None
    lease: int = 0
    #: An ended job is forgotten then.
    kept_until: int = 0
    attempts: int = 0
    crashes: int = 0
    fence: int = 0
    cancel: bool = False
    #: Since when it has missed a service.
    missed: int | None = None
    hinted: bool = False
    #: Its lane while it is queued and available.
    lane: tuple[str, int, bool, str] | None = None

    @property
    def order(self) -> tuple[int, int, str]:
        """By what it is sorted among those that wait."""
        return self.priority, self.created, self.id


class LedgerModel:
    """Every operation says what the real one must answer."""

    def __init__(self, settings: LedgerSettings) -> None:
        self.settings = settings
        self.now = 1_000_000
        self.jobs: dict[str, Entry] = {}
        self.keys: dict[tuple[str, str], tuple[str, str]] = {}

    # ── what clients do ──────────────────────────────────────────────────────

    def accept(self, family: list[Entry], key: str | None, request: str) -> tuple[str, str]:
        """Return the outcome and the job that the client gets."""
        first = family[0]
        held = self.keys.get((first.submitter, key)) if key else None
        if held is not None:
            return ("existing" if held[1] == request else "conflict"), held[0]
        if not self.fits(family):
            return "refused", ""
        if key:
            self.keys[first.submitter, key] = (first.id, request)
        for job in family:
            self.jobs[job.id] = job
            job.created = self.now
            self._set_deadlines(job)
            if job.parent:
                self.jobs[job.parent].children.append(job.id)
            if job.queue:
                self._enqueue(job, self.now)
            else:
                job.state = JobState.RUNNING
        self._refill()
        return "accepted", first.id

    def fits(self, asked: list[Entry]) -> bool:
        """Return whether so many more may wait."""
        wanted = defaultdict[str, int](int)
        for job in asked:
            wanted["bytes"] += job.size
            if job.queue:
                wanted[f"queue {job.queue}"] += 1
                if job.submitter:
                    wanted[f"submitter {job.submitter}"] += 1
        for job in self.open():
            wanted["bytes"] += job.size
            if job.state is JobState.QUEUED:
                wanted[f"queue {job.queue}"] += f"queue {job.queue}" in wanted
                wanted[f"submitter {job.submitter}"] += f"submitter {job.submitter}" in wanted
        most = {
            "bytes": self.settings.max_request_bytes,
            "queue": self.settings.max_queued,
            "submitter": self.settings.max_queued_per_submitter,
        }
        return all(number <= most[name.split()[0]] for name, number in wanted.items())

    def cancel(self, job_id: str) -> bool:
        """Return whether there was something to cancel."""
        job = self.jobs[job_id]
        was_ended = job.state.terminal
        for each in [*(self.jobs[child] for child in job.children), job]:
            if each.state is JobState.QUEUED:
                self._end(each, JobState.CANCELLED)
            elif each.state is JobState.RUNNING:
                each.cancel = True
        self._refill()
        return not was_ended

    def revive(self, job_id: str) -> str:
        """Return revived, refused, forgotten or full."""
        job = self.jobs[job_id]
        if job.state not in {JobState.FAILED, JobState.CANCELLED}:
            return "refused"
        again = [self.jobs[child] for child in job.children if self._undone(self.jobs[child])]
        if not job.queue and not again:
            return "forgotten"
        if not self.fits([job, *again]):
            return "full"
        for each in again or [job]:
            self._reset(each)
            self._enqueue(each, self.now)
        parent = job if again else self.jobs.get(job.parent or "")
        if parent is not None and parent.state.terminal:
            self._reset(parent)
            parent.state = JobState.RUNNING
        self._refill()
        return "revived"

    # ── what workers do ──────────────────────────────────────────────────────

    def claim(self, job_id: str, *, alone: bool) -> bool:
        """Return whether the job is to be had."""
        job = self.jobs.get(job_id)
        if job is None or job.state is not JobState.QUEUED or job.available > self.now:
            return False
        taken = not self._give_up(job) and (alone or job.crashes < self.settings.quarantine_crashes)
        if taken:
            self._leave_lane(job)
            job.state = JobState.RUNNING
            job.fence += 1
            job.attempts += 1
            job.start_by = None
            job.lease = self.now + self._ms(self.settings.lease_seconds)
        self._refill()
        return taken

    def renew(self, job_id: str, fence: int) -> str:
        """Return what a worker hears."""
        job = self.jobs[job_id]
        if not self.holds(job_id, fence):
            return "lost"
        job.lease = self.now + self._ms(self.settings.lease_seconds)
        if job.cancel:
            return "cancel"
        return "late" if job.deadline is not None and job.deadline <= self.now else "ok"

    def holds(self, job_id: str, fence: int) -> bool:
        """Return whether a claim still counts."""
        job = self.jobs[job_id]
        return job.state is JobState.RUNNING and job.fence == fence

    def finish(self, job_id: str, fence: int, state: JobState) -> bool:
        """Return whether the end counts."""
        if not self.holds(job_id, fence):
            job = self.jobs[job_id]
            return job.fence == fence and job.state is state
        self._end(self.jobs[job_id], state)
        self._refill()
        return True

    def requeue(self, job_id: str, fence: int, delay: int, *, counts: bool) -> bool:
        """Return whether the job went back."""
        job = self.jobs[job_id]
        if not self.holds(job_id, fence):
            return job.fence == fence and job.state is JobState.QUEUED
        if job.cancel:
            self._end(job, JobState.CANCELLED)
        else:
            job.attempts -= not counts
            self._enqueue(job, self.now + delay)
        self._refill()
        return True

    def postpone(self, job_id: str, fence: int, available: int) -> str:
        """Return kept, lost or over; ``available`` is when the ledger lets it run again."""
        job = self.jobs[job_id]
        if not self.holds(job_id, fence):
            return "kept" if job.fence == fence and job.state is JobState.QUEUED else "lost"
        if job.cancel:
            self._end(job, JobState.CANCELLED)
            self._refill()
            return "kept"
        since = self.now if job.missed is None else job.missed
        if self.now - since >= self._ms(self.settings.outage_budget_seconds):
            return "over"
        job.missed = since
        job.attempts -= 1
        self._enqueue(job, available)
        self._refill()
        return "kept"

    def lose(self, job_id: str, fence: int) -> bool:
        """Return whether the loss counts."""
        if not self.holds(job_id, fence):
            return False
        self._lose(self.jobs[job_id])
        self._refill()
        return True

    def reconcile(self) -> None:
        """Act on every job whose time has come; on what has ended after the others."""
        over = [job for job in self.jobs.values() if job.state.terminal]
        for job in self.open():
            if job.state is JobState.RUNNING:
                self._look_at_running(job)
            elif not self._give_up(job) and job.lane is None and job.available <= self.now:
                self._line_up(job)
        for job in over:
            if job.kept_until <= self.now:
                self._keep_or_forget(job)
        self._refill()

    # ── what is true ─────────────────────────────────────────────────────────

    def open(self) -> list[Entry]:
        """Return the jobs that have not ended."""
        return [job for job in self.jobs.values() if not job.state.terminal]

    def pending(self, job: Entry) -> int:
        """Return how many children of a batch have not ended."""
        return sum(not self.jobs[child].state.terminal for child in job.children)

    # ── inside ───────────────────────────────────────────────────────────────

    def _look_at_running(self, job: Entry) -> None:
        if not job.queue:
            return
        if job.lease <= self.now:
            self._lose(job)
        elif job.deadline is not None and job.deadline + GRACE <= self.now:
            self._end(job, JobState.FAILED)

    def _lose(self, job: Entry) -> None:
        job.crashes += 1
        backoff = self._ms(self.settings.backoff_seconds)
        late = job.deadline is not None and job.deadline <= self.now
        if job.cancel:
            self._end(job, JobState.CANCELLED)
        elif late or job.crashes >= self.settings.max_crashes:
            self._end(job, JobState.FAILED)
        else:
            self._enqueue(job, self.now + backoff * (job.crashes - 1))

    def _give_up(self, job: Entry) -> bool:
        over = [at for at in (job.deadline, job.start_by) if at is not None and at <= self.now]
        if over:
            self._end(job, JobState.FAILED)
        return bool(over)

    def _end(self, job: Entry, state: JobState) -> None:
        self._leave_lane(job)
        job.state, job.missed = state, None
        job.kept_until = self.now + self._ms(self.settings.retention_seconds)
        parent = self.jobs.get(job.parent or "")
        if parent is None or parent.state is not JobState.RUNNING or self.pending(parent):
            return
        states = {self.jobs[child].state for child in parent.children}
        worst = (JobState.FAILED, JobState.CANCELLED, JobState.SUCCEEDED)
        self._end(parent, next(each for each in worst if each in states))

    def _keep_or_forget(self, job: Entry) -> None:
        parent = self.jobs.get(job.parent or "")
        if parent is not None and not parent.state.terminal:
            job.kept_until = self.now + self._ms(self.settings.retention_seconds)
            return
        del self.jobs[job.id]
        if job.parent in self.jobs:
            self.jobs[job.parent].children.remove(job.id)
        self.keys = {key: held for key, held in self.keys.items() if held[0] != job.id}

    def _enqueue(self, job: Entry, available: int) -> None:
        job.state, job.available = JobState.QUEUED, available
        if available <= self.now:
            self._line_up(job)

    def _line_up(self, job: Entry) -> None:
        alone = job.crashes >= self.settings.quarantine_crashes
        job.lane, job.hinted = (job.queue, job.priority // 3 * 3, alone, job.submitter), False

    def _leave_lane(self, job: Entry) -> None:
        job.lane, job.hinted = None, False

    def _refill(self) -> None:
        lanes = defaultdict[tuple[str, int, bool, str], list[Entry]](list)
        for job in self.jobs.values():
            if job.lane is not None:
                lanes[job.lane].append(job)
        for lane in lanes.values():
            free = self.settings.window - sum(job.hinted for job in lane)
            waiting = sorted((job for job in lane if not job.hinted), key=lambda job: job.order)
            for job in waiting[: max(free, 0)]:
                job.hinted = True

    def _reset(self, job: Entry) -> None:
        job.attempts = job.crashes = 0
        job.cancel = False
        self._set_deadlines(job)

    def _set_deadlines(self, job: Entry) -> None:
        job.deadline = None if job.lifetime is None else self.now + job.lifetime
        job.start_by = None if job.start_within is None else self.now + job.start_within

    @staticmethod
    def _undone(job: Entry) -> bool:
        return job.state in {JobState.FAILED, JobState.CANCELLED}

    @staticmethod
    def _ms(seconds: float) -> int:
        return round(seconds * 1000)
