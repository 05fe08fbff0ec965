"""What lakeFS and the network answer, as errors of the platform."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import urllib3

from shared.errors import (
    ConflictError,
    InvalidInputError,
    LifecycleError,
    NotFoundError,
    RequestError,
    UnavailableError,
)


def unavailable(reason: object) -> UnavailableError:
    """Return the error of a store that does not answer, or cannot now."""
    return UnavailableError(
        f"lakeFS is not available: {reason}", code="lakefs_unavailable", service="lakeFS"
    )


def from_status(status: int, body: str | bytes | None) -> LifecycleError:
    """Return the error that an HTTP status of lakeFS means."""
    detail = f"lakeFS answered {status}: {_message(body)}"
    # 0 is what the SDK makes of a failed TLS handshake.
    if status in {0, 408, 429} or (status >= 500 and status != 501):
        return unavailable(detail)
    if status in {401, 403}:
        who = "does not accept the platform's credentials" if status == 401 else "refuses"
        return RequestError(f"lakeFS {who} ({_message(body)})", code="lakefs_unauthorized")
    if status in {404, 410}:
        return NotFoundError(detail)
    if status in {409, 412}:
        return ConflictError(detail, code="lakefs_conflict")
    if status == 400:
        return InvalidInputError(detail, code="lakefs_refused")
    return RequestError(detail, code="lakefs_refused")


def check(response: httpx.Response) -> None:
    """Raise what a response's status means, unless it is a success; reads the body for that."""
    if not response.is_success:
        response.read()
        raise from_status(response.status_code, response.content)


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the network raises into errors of the platform."""
    try:
        yield
    except (urllib3.exceptions.HTTPError, httpx.TransportError) as error:
        # Without the address: a presigned link in a log is a secret in a log.
        raise unavailable(_reason(error)) from error


def _reason(error: urllib3.exceptions.HTTPError | httpx.TransportError) -> str:
    """Return what went wrong on the network, without the address that was asked."""
    if isinstance(error, httpx.TransportError):
        return f"{type(error).__name__}: {error}"
    return type(getattr(error, "reason", None) or error).__name__


def _message(body: str | bytes | None) -> str:
    """Return lakeFS' own words from the body of an error."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or "no reason given"
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        return text[:500]
    return str(message)[:500]
