"""What OpenAPI says of the answers that many calls share."""

from typing import Any

from fastapi import Security
from fastapi.params import Depends
from fastapi.security import APIKeyHeader, HTTPBearer

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

#: How a call shows its API key. They only describe: the guard has looked before a route is reached.
KEY_SCHEMES: list[Depends] = [
    Security(HTTPBearer(auto_error=False, scheme_name="bearer")),
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="header")),
]

#: What a call is answered that shows no key, the wrong one, or one too often.
KEY_ANSWERS: dict[int | str, dict[str, Any]] = {
    401: PROBLEM | {"description": "An API key is needed, and none that is good is shown."},
    403: PROBLEM | {"description": "The API key's role does not allow the call."},
    429: PROBLEM | {"description": "Too many calls; `Retry-After` says when to come back."},
}
