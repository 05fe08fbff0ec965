"""Every error as a problem document (RFC 9457): the one place that knows HTTP status codes."""

from collections.abc import Mapping
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from shared.errors import (
    BatchIncompleteError,
    ConflictError,
    DeadlineExceededError,
    DeniedError,
    ErrorInfo,
    FieldError,
    ForbiddenError,
    InsufficientDiskError,
    InvalidInputError,
    LifecycleError,
    ModelLoadError,
    NotFoundError,
    QueueFullError,
    RateLimitedError,
    RequestError,
    SmokeTestFailedError,
    TransientError,
    UnauthenticatedError,
)

#: The status of a class and of all that derive from it and do not say otherwise.
STATUS: dict[type[LifecycleError], int] = {
    LifecycleError: 500,
    InvalidInputError: 422,
    ModelLoadError: 422,
    # What a store or a hub refuses for a reason of its own.
    RequestError: 502,
    DeniedError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    BatchIncompleteError: 424,
    SmokeTestFailedError: 424,
    TransientError: 503,
    QueueFullError: 429,
    DeadlineExceededError: 504,
    InsufficientDiskError: 507,
    UnauthenticatedError: 401,
    ForbiddenError: 403,
    RateLimitedError: 429,
}
_CLASSES = {cls.code: cls for cls in LifecycleError.family()}
#: What goes with a status where the error does not say more.
_HEADERS = {
    401: {"WWW-Authenticate": 'Bearer realm="lifecycle"'},
    503: {"Retry-After": "5"},
}
#: The header that names a call, in the request, in the answer and in the log.
REQUEST_ID = "X-Request-ID"
#: What a path may allow; the app has no others.
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


class Problem(BaseModel):
    """What every failed call answers."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    #: Stable, for programs.
    code: str
    #: The fields of the request that are wrong.
    errors: list[FieldError] = Field(default_factory=list)
    #: The job that failed, where the call waited for one.
    job_id: str | None = None


class ProblemResponse(JSONResponse):
    """A problem document with its media type."""

    media_type = "application/problem+json"


def status_of(info: ErrorInfo) -> int:
    """Return the status of an error, by its class."""
    cls = _CLASSES.get(info.category or info.code, LifecycleError)
    return next(STATUS[parent] for parent in cls.__mro__ if parent in STATUS)


def refusal(error: LifecycleError) -> ProblemResponse:
    """Return an error that was raised as the answer of its call."""
    seconds = error.retry_after_seconds
    return problem(error.info(), headers={"Retry-After": str(seconds)} if seconds else {})


def problem(
    info: ErrorInfo, job_id: str | None = None, headers: Mapping[str, str] | None = None
) -> ProblemResponse:
    """Return an error as the answer of a call; ``job_id`` names the job that ended with it."""
    status = status_of(info)
    return _respond(
        Problem(
            title=HTTPStatus(status).phrase,
            status=status,
            detail=info.detail,
            code=info.code,
            errors=list(info.errors),
            job_id=job_id,
        ),
        headers,
    )


def install(app: FastAPI) -> None:
    """Make every error of an app a problem document."""
    app.add_exception_handler(LifecycleError, _on_lifecycle_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_defect)


def _respond(document: Problem, headers: Mapping[str, str] | None = None) -> ProblemResponse:
    return ProblemResponse(
        document.model_dump(exclude_none=True),
        status_code=document.status,
        headers={**_HEADERS.get(document.status, {}), **(headers or {})},
    )


def _on_lifecycle_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, LifecycleError)  # noqa: S101 - Starlette's type is wider
    return refusal(error)


def _on_invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors = [
        FieldError(field=_field(line["loc"]), detail=line["msg"].removeprefix(_OF_A_VALIDATOR))
        for line in error.errors()
    ]
    detail = "; ".join(f"{line.field}: {line.detail}" for line in errors)
    return _respond(
        Problem(
            title=HTTPStatus.UNPROCESSABLE_ENTITY.phrase,
            status=422,
            detail=detail,
            code=InvalidInputError.code,
            errors=errors,
        )
    )


def _field(location: tuple[int | str, ...]) -> str:
    """Return a field's dotted path; where in the request it is, the reader knows."""
    inside = location[1:] if location and location[0] in _PLACES else location
    return ".".join(map(str, inside)) or "body"


_PLACES = {"body", "query", "path", "header"}
#: What pydantic puts before the words of a validator.
_OF_A_VALIDATOR = "Value error, "


def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    document = Problem(title=phrase, status=error.status_code, detail=str(error.detail), code=code)
    allow = {"Allow": ", ".join(_allowed(request))} if error.status_code == 405 else {}
    return _respond(document, {**(error.headers or {}), **allow})


def _allowed(request: Request) -> list[str]:
    """Return the methods of a path; Starlette names those of the first of its routes only."""
    routes = request.app.router.routes
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes
        )
    ]


def _on_defect(_: Request, __: Exception) -> Response:
    # uvicorn logs the traceback, under the request's id; the client learns nothing of our inside.
    answer = problem(
        ErrorInfo(code="internal_error", detail="a defect of the platform; see its log")
    )
    # This is answered past every middleware.
    answer.headers[REQUEST_ID] = structlog.contextvars.get_contextvars().get("request_id", "")
    return answer
