"""How a job may end, given what was done to it; and the client who tries failed jobs again."""

import time
from collections.abc import Mapping
from typing import Any

from tests.chaos.driver import Driver, Order
from tests.chaos.incidents import Incidents
from tests.chaos.schedule import ENDS
from tests.chaos.submissions import Submission

Json = dict[str, Any]

#: Which place's failure an error speaks of.
_PLACES: Mapping[str, tuple[str, ...]] = {
    "insufficient_disk": ("staging", "snapshots"),
    "smoke_test_failed": ("lakefs", "mlflow", "snapshots"),
}
#: A client tries a job again at most so often.
MOST_RETRIES = 6
_PAGE = 500


class Judge:
    """Knows the faults and the rules."""

    def __init__(self, incidents: Incidents, max_crashes: int) -> None:
        self._incidents = incidents
        self._max_crashes = max_crashes

    def excuse(self, job: Json, since: float) -> str | None:
        """Return why a good job may have failed in this life; None if it may not.

        The disk was full, or the injector has hit the job's workers as often as a job may lose
        them. A service that was away is no excuse: a job waits for longer than any fault lasts.
        """
        error = job["error"] or {}
        code, now = str(error.get("code")), time.time()
        if code == "batch_incomplete":
            return code
        if code == "crashed":
            # Of a run whose end Redis forgot, the lease runs out.
            forgotten = self._incidents.lost(since, now) is not None
            struck = self._incidents.struck[job["job_id"]] + forgotten
            return code if struck >= self._max_crashes else None
        places = _PLACES.get(code, ())
        return code if any(self._incidents.hit(each, since, now) for each in places) else None

    def verdict(self, order: Order, job: Json) -> str | None:
        """Return what is wrong with the end of a job; None if nothing is."""
        state, submission = job["state"], order.submission
        code = (job["error"] or {}).get("code")
        if state not in {"succeeded", "failed", "cancelled"}:
            return f"stuck: {state}"
        if state == "cancelled":
            return None if order.cancelled else "cancelled by nobody"
        if submission.deed is not None:
            return self._poisoned(submission, job, order.since)
        if state == "failed" and not (order.cancelled and self.excuse(job, order.since)):
            return f"failed with {code}: {job['error'] and job['error']['detail']}"
        return None

    def _poisoned(self, submission: Submission, job: Json, since: float) -> str | None:
        code = (job["error"] or {}).get("code")
        assert submission.deed is not None
        wanted = ENDS[submission.deed]
        if job["state"] == "failed" and (code == wanted or self.excuse(job, since)):
            return None
        return f"ended as {job['state']} {code}, not as {wanted}"


async def retry_failed(driver: Driver, judge: Judge) -> None:
    """Try again what failed for a reason that has gone; what failed wrongly stays as it is."""
    orders = {job_id: order for order in driver.orders for job_id in order.job_ids}
    page = await driver.call("GET", "/jobs", params={"state": "failed", "limit": _PAGE})
    for job in page.json()["jobs"]:
        order = orders.get(job["job_id"])
        if order is None or order.submission.deed is not None or order.cancelled or order.wrong:
            continue
        excuse = judge.excuse(job, order.since)
        if excuse is None or len(order.retried) >= MOST_RETRIES:
            order.wrong = judge.verdict(order, job)
            continue
        response = await driver.call("POST", f"/jobs/{job['job_id']}/retry")
        # 409: a retry whose answer was lost.
        if response.status_code in {202, 409}:
            order.retried.append(excuse)
            order.since = time.time()
