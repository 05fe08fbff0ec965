"""What can go wrong, with the status and the JSON body that lakeFS answers.

LakeFSError (500)
├── InvalidError (400)
├── UnauthorizedError (401)
├── ForbiddenError (403)
├── NotFoundError (404)
├── ConflictError (409)
│   └── MergeConflictError
├── GoneError (410)
├── PreconditionFailedError (412)
├── RangeError (416)
└── UnsupportedError (501)
"""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response


class LakeFSError(Exception):
    """A request that fails."""

    status = 500
    headers: Mapping[str, str] | None = None

    def body(self) -> dict[str, str]:
        """Return the JSON body of the answer."""
        return {"message": str(self)}


class InvalidError(LakeFSError):
    """The request makes no sense, or nothing would change."""

    status = 400


class UnauthorizedError(LakeFSError):
    """The credentials are missing or wrong."""

    status = 401

    def __init__(self) -> None:
        super().__init__("error authenticating request")


class ForbiddenError(LakeFSError):
    """The caller is known but may not do this."""

    status = 403


class NotFoundError(LakeFSError):
    """The repository, reference or object does not exist."""

    status = 404


class ConflictError(LakeFSError):
    """The name is taken."""

    status = 409


class MergeConflictError(ConflictError):
    """Both sides changed the same path; lakeFS answers with an empty merge result."""

    def __init__(self) -> None:
        super().__init__("conflict found")

    def body(self) -> dict[str, str]:
        """Return a merge result without a commit."""
        return {"reference": ""}


class GoneError(LakeFSError):
    """The entry is there and its bytes are not."""

    status = 410


class PreconditionFailedError(LakeFSError):
    """The path exists and the caller asked that it should not."""

    status = 412


class RangeError(LakeFSError):
    """The requested bytes do not exist."""

    status = 416

    def __init__(self, size_bytes: int) -> None:
        super().__init__("Requested Range Not Satisfiable")
        self.headers = {"Content-Range": f"bytes */{size_bytes}"}


class UnsupportedError(LakeFSError):
    """Part of lakeFS's API that is not offered."""

    status = 501


def install(app: FastAPI) -> None:
    """Teach `app` to answer failures as lakeFS does."""
    app.exception_handler(LakeFSError)(_refuse)
    app.exception_handler(RequestValidationError)(_reject)
    app.exception_handler(HTTPException)(_unknown)
    app.exception_handler(ClientDisconnect)(_hung_up)
    app.exception_handler(Exception)(_broken)


def _refuse(_request: Request, error: LakeFSError) -> Response:
    return JSONResponse(error.body(), error.status, error.headers)


def _reject(_request: Request, error: RequestValidationError) -> Response:
    problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return JSONResponse({"message": "; ".join(problems)}, 400)


def _unknown(request: Request, error: HTTPException) -> Response:
    if error.status_code == 404 or request.url.path.startswith("/api/"):
        # lakeFS does not tell a path that it does not know from a method.
        return JSONResponse({"message": "invalid API endpoint"}, 404)
    return JSONResponse({"message": error.detail}, error.status_code)


def _hung_up(_request: Request, _error: ClientDisconnect) -> Response:
    return Response(status_code=499)


def _broken(_request: Request, _error: Exception) -> Response:
    return JSONResponse({"message": "internal server error"}, 500)
