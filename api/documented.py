"""What OpenAPI says of the answers that many calls share."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Security
from fastapi.params import Depends
from fastapi.security import APIKeyHeader, HTTPBearer

from api.errors import STATUS, Problem
from api.views import JobView

Answers = dict[int | str, dict[str, Any]]

#: The answers of a call that failed; ``describe`` gives them their media type.
PROBLEM: dict[str, Any] = {"model": Problem}
RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}

NOT_FOUND: Answers = {404: PROBLEM | {"description": "There is no such thing, or no longer."}}
CONFLICT: Answers = {409: PROBLEM | {"description": "The request does not fit the present state."}}
#: The answers of every call that needs a store.
STORE_ANSWERS: Answers = {
    502: PROBLEM | {"description": "A store refused, for a reason of its own."},
    503: PROBLEM | {"description": "A store does not answer; try again.", "headers": RETRY_AFTER},
}

#: How a call shows its API key. They only describe: the guard has looked before a route is reached.
KEY_SCHEMES: list[Depends] = [
    Security(HTTPBearer(auto_error=False, scheme_name="bearer")),
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="header")),
]

#: What a call is answered that shows no key, the wrong one, or one too often.
KEY_ANSWERS: Answers = {
    401: PROBLEM | {"description": "An API key is needed, and none that is good is shown."},
    403: PROBLEM | {"description": "The API key's role does not allow the call."},
    429: PROBLEM
    | {
        "description": "Too many calls, or too much waits already; `Retry-After` says when.",
        "headers": RETRY_AFTER,
    },
}
#: The answers of every submit. A job that fails within the wait gives the status of its error.
JOB_ANSWERS: Answers = {
    **{
        status: PROBLEM | {"description": "The job failed within the wait; `code` says why."}
        for status in sorted(set(STATUS.values()))
    },
    200: {"model": JobView, "description": "The job has ended within the wait."},
    202: {
        "model": JobView,
        "description": "The job is accepted and runs.",
        "headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}},
    },
    404: PROBLEM | {"description": "The request names something that does not exist."},
    **CONFLICT,
    **KEY_ANSWERS,
    503: STORE_ANSWERS[503],
}
#: One server-sent event. OpenAPI 3.1 has no word for the items of a stream; readers know 3.2's.
EVENT_STREAM: dict[str, Any] = {
    "itemSchema": {
        "type": "object",
        "required": ["event", "data", "id"],
        "properties": {
            "event": {"enum": ["state", "progress", "thinking", "token", "restart", "done"]},
            "data": {"type": "string", "contentMediaType": "application/json"},
            "id": {"type": "string", "description": "Give it as `Last-Event-ID` to go on."},
        },
    },
    "example": 'event: token\ndata: {"text": "Hello"}\nid: 1763805600000-0\n\n',
}

_WITH_BODY = {
    "400": "The body cannot be read.",
    "413": "The body is too large.",
}
_INVALID = "A field of the request is wrong; `errors` names it."


def describe(app: FastAPI) -> None:
    """Complete an app's OpenAPI by what holds for all calls."""
    plain = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(plain())
        return app.openapi_schema or {}

    # FastAPI's own way to extend what it generates.
    app.openapi = complete  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    for call in _calls(document):
        answers = call["responses"]
        if "requestBody" in call:
            answers |= {code: {"description": text} for code, text in _WITH_BODY.items()}
        if "422" in answers:
            answers["422"]["description"] = _INVALID
        for status, answer in answers.items():
            if int(status) >= 400:
                schema = {"$ref": "#/components/schemas/Problem"}
                answer["content"] = {"application/problem+json": {"schema": schema}}
        for parameter in call.get("parameters", ()):
            _drop_null(parameter["schema"])
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)


def _calls(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        yield from methods.values()


def _drop_null(schema: dict[str, Any]) -> None:
    """Say of an optional parameter what it is when it is there: a URL and a header know no null."""
    given = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(given) == 1:
        del schema["anyOf"]
        schema |= given[0]
