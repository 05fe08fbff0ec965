"""What OpenAPI says of the answers that many calls share."""

from typing import Any

from api.errors import Problem
from api.views import JobView

#: The answers of a call that failed.
PROBLEM: dict[str, Any] = {"model": Problem, "content": {"application/problem+json": {}}}

#: The answers of every submit.
JOB_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": JobView, "description": "The job has ended within the wait."},
    202: {"model": JobView, "description": "The job is accepted and runs."},
    404: PROBLEM | {"description": "The request names something that does not exist."},
    409: PROBLEM | {"description": "The request does not fit the present state."},
    422: PROBLEM | {"description": "A field of the request is wrong."},
    503: PROBLEM | {"description": "The ledger cannot be reached; nothing was accepted."},
}
