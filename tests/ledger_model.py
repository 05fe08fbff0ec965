"""The ledger in plain Python: what its Lua must do, without indexes, scripts or Redis."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from shared.jobs import JobState
from shared.ledger import Want
from shared.ledger.scripts import DEADLINE_GRACE_SECONDS
from shared.settings import LedgerSettings

GRACE = DEADLINE_GRACE_SECONDS * 1000
#: How often the caller and the reconcilers go on with what is done to all children of a batch.
SWEEP = 1000
UNDONE = {JobState.FAILED, JobState.CANCELLED}


@dataclass(eq=False)
class Entry:
    """A job as the model knows it; times in milliseconds."""

    id: str
    submitter: str
    priority: int
    #: Empty for a batch.
    queue: str
    #: Of the request's JSON.
    size: int
    affinity: str = ""
    #: Whether its input is deleted when it ends.
    cut: bool = False
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
    nonce: str = ""
    cancel: bool = False
    followed: bool = False
    waiters: set[str] = field(default_factory=set)
    #: Since when it has missed a service.
    missed: int | None = None
    #: Where it stands while it is queued and available: its queue, or the one for jobs alone.
    lanes: str | None = None
    #: When a job with a warm model first went before it.
    passed: int | None = None
    #: Of a batch: what is done to its children, when to go on, how far it is, and the number of
    #: children that are still to be written or revived.
    sweep: str | None = None
    sweep_due: int = 0
    sweep_after: str = ""
    unswept: int = 0
    pieces: list[list["Entry"]] = field(default_factory=list)

    @property
    def order(self) -> tuple[int, int, str]:
        """By what it is sorted among those that wait."""
        return self.priority, self.created, self.id

    @property
    def lane(self) -> tuple[int, str]:
        """Its lane within the lanes of its queue."""
        return self.priority, self.submitter


class LedgerModel:
    """Every operation says what the real one must answer."""

    def __init__(self, settings: LedgerSettings, piece: int) -> None:
        self.settings = settings
        self.piece = piece
        self.now = 1_000_000
        self.jobs: dict[str, Entry] = {}
        self.keys: dict[tuple[str, str], tuple[str, str]] = {}
        #: By queue: the last turn taken, and the turns of its lanes.
        self.turns = Counter[str]()
        self.lanes = defaultdict[str, dict[tuple[int, str], int]](dict)
        #: By worker and slot: the nonce of the last claim, and what it got.
        self.slots: dict[tuple[str, str], tuple[str, list[str]]] = {}
        #: By worker: milliseconds of a load of each warm model, 0 where unknown.
        self.warm: dict[str, dict[str, int]] = {}
        self.pulse: int | None = None
        self.amnesty = 0
        #: The ends that were published, as channel and job.
        self.published = Counter[tuple[str, str]]()
        #: Ended jobs that a client, or the sweep of a batch, made new.
        self.revived: set[str] = set()

    # ── what clients do ──────────────────────────────────────────────────────

    def accept(self, family: list[Entry], key: str | None, request: str) -> tuple[str, str]:
        """Return the outcome and the job that the client gets; children are written later."""
        first, *others = family
        held = self.keys.get((first.submitter, key)) if key else None
        if held is not None:
            return ("existing" if held[1] == request else "conflict"), held[0]
        if not self.fits(family):
            return "refused", ""
        if key:
            self.keys[first.submitter, key] = (first.id, request)
        self._put(first)
        if first.queue:
            self._enqueue(first, self.now)
        else:
            first.state = JobState.RUNNING
            first.pieces = [
                others[at : at + self.piece] for at in range(0, len(others), self.piece)
            ]
            self._begin(first, "write", len(others))
        return "accepted", first.id

    def fits(self, asked: list[Entry]) -> bool:
        """Return whether so many more may wait."""
        wanted = Counter[str]()
        for job in asked:
            wanted["bytes"] += job.size
            if job.queue:
                wanted[f"queue {job.queue}"] += 1
                if job.submitter:
                    wanted[f"submitter {job.submitter}"] += 1
        for job in self.open():
            wanted["bytes"] += job.size
            if job.state is JobState.QUEUED:
                bounds = {f"queue {job.queue}", f"submitter {job.submitter}"}
                wanted.update(bounds & wanted.keys())
        most = {
            "bytes": self.settings.max_request_bytes,
            "queue": self.settings.max_queued,
            "submitter": self.settings.max_queued_per_submitter,
        }
        return all(number <= most[name.split()[0]] for name, number in wanted.items())

    def cancel(self, job_id: str) -> bool:
        """Return whether there was something to cancel."""
        job = self.jobs[job_id]
        if job.state.terminal:
            return False
        if job.state is JobState.QUEUED:
            self._end(job, JobState.CANCELLED)
            return True
        job.cancel = True
        if not job.queue:
            job.pieces = []
            unwritten = job.unswept
            self._begin(job, "cancel", 0)
            if unwritten:
                self._conclude_if_done(job)
            self.go_on(job_id)
        return True

    def revive(self, job_id: str) -> str:
        """Return revived, refused, freed, forgotten or full."""
        job = self.jobs[job_id]
        if job.state not in UNDONE:
            return "refused"
        if job.queue and job.cut:
            return "freed"
        again = [self.jobs[child] for child in job.children if self._may_run_again(child)]
        if not job.queue and not again:
            return "forgotten"
        if not self.fits([job, *again]):
            return "full"
        if not job.queue:
            self._reset(job)
            job.state = JobState.RUNNING
            self._begin(job, "revive", len(again))
            self.go_on(job_id)
            return "revived"
        parent = self.jobs.get(job.parent or "")
        if parent is not None and parent.state.terminal:
            self._reset(parent)
            parent.state = JobState.RUNNING
        self._reset(job)
        self._enqueue(job, self.now)
        return "revived"

    def go_on(self, job_id: str) -> bool:
        """Do one piece of what is done to a batch's children; return whether more is left."""
        job = self.jobs.get(job_id)
        if job is None or job.state.terminal or job.sweep is None:
            return False
        if job.sweep == "write":
            done = self._write_piece(job)
        else:
            after = sorted(child for child in job.children if child > job.sweep_after)
            for child in after[: self.piece]:
                self._sweep_child(job, self.jobs[child])
            job.sweep_after = max([job.sweep_after, *after[: self.piece]])
            done = len(after) < self.piece
        if job in self.open():
            job.sweep_due = self.now + SWEEP
        else:
            return False
        if done:
            leftover, job.sweep, job.unswept = job.unswept, None, 0
            if leftover:
                self._conclude_if_done(job)
        return not done

    def await_end(self, job_id: str, channel: str) -> bool:
        """Return whether the end will be published."""
        job = self.jobs.get(job_id)
        if job is None or job.state.terminal:
            return False
        job.waiters.add(channel)
        return True

    # ── what workers do ──────────────────────────────────────────────────────

    def claim(self, want: Want) -> tuple[list[str], int | None]:
        """Return the jobs that a slot gets, and else for how long it is to wait at most."""
        place = (want.owner, want.slot)
        nonce, held = self.slots.get(place, ("", []))
        if nonce == want.nonce:
            return [each for each in held if self._is_run(each, nonce)], None
        looked_at = 0
        while (first := self._first(want)) is not None:
            looked_at += 1
            if looked_at > self.piece:
                return [], 0
            if self._give_up(first):
                continue
            chosen = self._choose(first, want)
            if isinstance(chosen, int):
                return [], chosen
            if chosen is not first and self._give_up(chosen):
                continue
            taken = self._take_with_companions(chosen, want)
            if want.warm is not None and chosen.affinity and chosen.affinity not in want.warm:
                # Other workers know at once that this one loads the model.
                self.warm.setdefault(want.owner, {}).setdefault(chosen.affinity, 0)
            self.slots[place] = (want.nonce, taken)
            return taken, None
        return [], None

    def renew(self, job_id: str, fence: int, nonce: str) -> str:
        """Return what a worker hears."""
        job = self.jobs[job_id]
        if not self.holds(job_id, fence, nonce):
            return "lost"
        job.lease = self.now + self._ms(self.settings.lease_seconds)
        if job.cancel:
            return "cancel"
        return "late" if job.deadline is not None and job.deadline <= self.now else "ok"

    def holds(self, job_id: str, fence: int, nonce: str) -> bool:
        """Return whether a claim still counts."""
        job = self.jobs[job_id]
        return job.state is JobState.RUNNING and self.is_owner(job_id, fence, nonce)

    def is_owner(self, job_id: str, fence: int, nonce: str) -> bool:
        """Return whether a claim is the job's last."""
        job = self.jobs[job_id]
        return (job.fence, job.nonce) == (fence, nonce)

    def finish(self, job_id: str, fence: int, nonce: str, state: JobState) -> bool:
        """Return whether the end counts."""
        if not self.holds(job_id, fence, nonce):
            return self.is_owner(job_id, fence, nonce) and self.jobs[job_id].state is state
        self._end(self.jobs[job_id], state)
        return True

    def requeue(self, job_id: str, fence: int, nonce: str, delay: int, *, counts: bool) -> bool:
        """Return whether the job went back."""
        job = self.jobs[job_id]
        if not self.holds(job_id, fence, nonce):
            return self.is_owner(job_id, fence, nonce) and job.state is JobState.QUEUED
        if job.cancel:
            self._end(job, JobState.CANCELLED)
        else:
            job.attempts -= not counts
            self._enqueue(job, self.now + delay)
        return True

    def postpone(self, job_id: str, fence: int, nonce: str, available: int) -> str:
        """Return kept, lost or over; ``available`` is when the ledger lets it run again."""
        job = self.jobs[job_id]
        if not self.holds(job_id, fence, nonce):
            back = self.is_owner(job_id, fence, nonce) and job.state is JobState.QUEUED
            return "kept" if back else "lost"
        if job.cancel:
            self._end(job, JobState.CANCELLED)
            return "kept"
        since = self.now if job.missed is None else job.missed
        if self.now - since >= self._ms(self.settings.outage_budget_seconds):
            return "over"
        job.missed = since
        job.attempts -= 1
        self._enqueue(job, available)
        return "kept"

    def lose(self, job_id: str, fence: int, nonce: str) -> bool:
        """Return whether the loss counts."""
        if not self.holds(job_id, fence, nonce):
            return False
        self._lose(self.jobs[job_id])
        return True

    def reconcile(self) -> None:
        """Act on every job whose time has come; on what has ended after the others."""
        over = [job for job in self.jobs.values() if job.state.terminal]
        swept = [job for job in self.open() if job.sweep is not None and job.sweep_due <= self.now]
        self._look_at_leases()
        for job in self.open():
            if job.state is JobState.RUNNING:
                self._look_at_running(job)
            elif not self._give_up(job) and job.lanes is None and job.available <= self.now:
                self._line_up(job)
        for job in over:
            if job.kept_until <= self.now:
                self._keep_or_forget(job)
        for job in swept:
            while self.go_on(job.id):
                pass

    # ── what is true ─────────────────────────────────────────────────────────

    def open(self) -> list[Entry]:
        """Return the jobs that have not ended."""
        return [job for job in self.jobs.values() if not job.state.terminal]

    def pending(self, job: Entry) -> int:
        """Return how many children of a batch have not ended, those to be written included."""
        return job.unswept + sum(not self.jobs[child].state.terminal for child in job.children)

    def standing(self, lanes: str) -> list[Entry]:
        """Return the jobs of a queue that may start."""
        return [job for job in self.jobs.values() if job.lanes == lanes]

    # ── the order ────────────────────────────────────────────────────────────

    def _first(self, want: Want) -> Entry | None:
        suffix = ":alone" if want.alone else ""
        heads = [head for queue in want.queues if (head := self._head(queue + suffix))]
        return min(heads, key=lambda job: job.order, default=None)

    def _head(self, lanes: str) -> Entry | None:
        turns = self.lanes[lanes]
        if not turns:
            return None
        priority, submitter = min(
            turns, key=lambda lane: (lane[0], turns[lane], f"{lane[0]}:{lane[1]}")
        )
        jobs = [job for job in self.standing(lanes) if job.lane == (priority, submitter)]
        return min(jobs, key=lambda job: job.order)

    def _choose(self, first: Entry, want: Want) -> Entry | int:
        if want.warm is None or not first.affinity or first.affinity in want.warm:
            return first
        equals = [job for job in self.standing(first.lanes or "") if job.priority == first.priority]
        warm = [job for job in equals if job.affinity in want.warm]
        window = self._ms(self.settings.affinity_seconds)
        if warm:
            first.passed = self.now if first.passed is None else first.passed
            in_time = 0 <= self.now - first.passed < window
            return min(warm, key=lambda job: job.order) if in_time else first
        if not want.loads:
            return window
        loads = [
            models[first.affinity] or window
            for worker, models in self.warm.items()
            if worker != want.owner and first.affinity in models
        ]
        oldest = min(job.created for job in equals if job.affinity == first.affinity)
        waited, left = self.now - oldest, min([*loads, window]) if loads else 0
        return left - waited if 0 <= waited < left else first

    def _take_with_companions(self, chosen: Entry, want: Want) -> list[str]:
        lanes = chosen.lanes or ""
        if len(self.lanes[lanes]) > 1:
            # A lane that waits alone keeps its turn.
            self.turns[lanes] += 1
            self.lanes[lanes][chosen.lane] = self.turns[lanes]
        self._take(chosen, want)
        places = (want.warm or {}).get(chosen.affinity, 1) if chosen.affinity else 1
        equals = sorted(self.standing(lanes), key=lambda job: job.order)
        equals = [
            job
            for job in equals
            if (job.affinity, job.priority) == (chosen.affinity, chosen.priority)
        ]
        taken = [job for job in equals[: places - 1] if not self._give_up(job)]
        for job in taken:
            self._take(job, want)
        return [chosen.id, *(job.id for job in taken)]

    def _take(self, job: Entry, want: Want) -> None:
        self._leave_lane(job)
        job.state, job.nonce, job.start_by = JobState.RUNNING, want.nonce, None
        job.fence += 1
        job.attempts += 1
        job.lease = self.now + self._ms(self.settings.lease_seconds)

    # ── inside ───────────────────────────────────────────────────────────────

    def _is_run(self, job_id: str, nonce: str) -> bool:
        job = self.jobs.get(job_id)
        return job is not None and (job.state, job.nonce) == (JobState.RUNNING, nonce)

    def _look_at_leases(self) -> None:
        lease = self._ms(self.settings.lease_seconds)
        silence = max(lease // 2, self._ms(3 * self.settings.reconcile_seconds))
        pulse = self.now if self.pulse is None else self.pulse
        self.pulse = self.now
        if self.now - pulse > silence or pulse - self.now > 1000:
            self.amnesty = self.now + lease
        held = [job for job in self.open() if job.state is JobState.RUNNING and job.queue]
        for job in held:
            if job.lease >= self.now + 2 * lease:
                job.lease = self.now + lease
        if self.now < self.amnesty <= self.now + lease:
            return
        for job in held:
            if job.lease <= self.now:
                self._lose(job)

    def _look_at_running(self, job: Entry) -> None:
        if job.queue and job.deadline is not None and job.deadline + GRACE <= self.now:
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
        job.state, job.missed, job.sweep, job.unswept, job.pieces = state, None, None, 0, []
        job.kept_until = self.now + self._ms(self.settings.retention_seconds)
        for channel in job.waiters:
            self.published[channel, job.id] += 1
        job.waiters = set()
        parent = self.jobs.get(job.parent or "")
        if parent is not None and parent.state is JobState.RUNNING:
            self._conclude_if_done(parent)

    def _conclude_if_done(self, parent: Entry) -> None:
        if self.pending(parent) > 0:
            return
        states = {self.jobs[child].state for child in parent.children}
        if parent.cancel:
            states.add(JobState.CANCELLED)
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

    def _put(self, job: Entry) -> None:
        self.jobs[job.id] = job
        job.created = self.now
        self._set_deadlines(job)
        if job.parent:
            self.jobs[job.parent].children.append(job.id)

    def _begin(self, job: Entry, sweep: str, unswept: int) -> None:
        job.sweep, job.sweep_after, job.unswept = sweep, "", unswept
        job.sweep_due = self.now + SWEEP

    def _write_piece(self, job: Entry) -> bool:
        if job.pieces:
            written = job.pieces.pop(0)
            job.unswept -= len(written)
            for child in written:
                self._put(child)
                self._enqueue(child, self.now)
        return not job.pieces

    def _sweep_child(self, parent: Entry, child: Entry) -> None:
        if parent.sweep == "revive":
            if self._may_run_again(child.id):
                parent.unswept -= 1
                self._reset(child)
                self._enqueue(child, self.now)
        elif child.state is JobState.QUEUED:
            self._end(child, JobState.CANCELLED)
        elif child.state is JobState.RUNNING:
            child.cancel = True

    def _enqueue(self, job: Entry, available: int) -> None:
        job.state, job.available = JobState.QUEUED, available
        if available <= self.now:
            self._line_up(job)

    def _line_up(self, job: Entry) -> None:
        alone = job.crashes >= self.settings.quarantine_crashes
        job.lanes = f"{job.queue}:alone" if alone else job.queue
        self.lanes[job.lanes].setdefault(job.lane, self.turns[job.lanes])

    def _leave_lane(self, job: Entry) -> None:
        lanes, job.lanes, job.passed = job.lanes, None, None
        if lanes is not None and all(other.lane != job.lane for other in self.standing(lanes)):
            del self.lanes[lanes][job.lane]

    def _reset(self, job: Entry) -> None:
        self.revived.add(job.id)
        job.attempts = job.crashes = 0
        job.cancel = False
        self._set_deadlines(job)

    def _set_deadlines(self, job: Entry) -> None:
        job.deadline = None if job.lifetime is None else self.now + job.lifetime
        job.start_by = None if job.start_within is None else self.now + job.start_within

    def _may_run_again(self, job_id: str) -> bool:
        job = self.jobs[job_id]
        return job.state in UNDONE and not job.cut

    @staticmethod
    def _ms(seconds: float) -> int:
        return round(seconds * 1000)


def ids(jobs: Iterable[Entry]) -> set[str]:
    """Return the ids of some jobs."""
    return {job.id for job in jobs}
