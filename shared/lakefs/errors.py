"""What lakeFS and the network answer, as errors of the platform."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress

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
from shared.lakefs.connection import base_url
from shared.settings import LakeFSSettings

#: Statuses that only somebody who was let in gets.
_LET_IN = {404, 409, 410, 412}
#: Statuses with which another server refuses what it does not know.
_REFUSALS = {400, 403, 404, 405}
#: lakeFS' words in a 401 to keys that are good, and may not do this.
_NOT_ALLOWED = "insufficient permissions"
#: What did not answer in time may still be doing what it was asked for: it gets this much more.
LATE_SECONDS = 15


def unavailable(reason: object) -> UnavailableError:
    """Return the error of a lakeFS that does not answer, or cannot now."""
    return UnavailableError(
        f"lakeFS is not available: {reason}", code="lakefs_unavailable", service="lakeFS"
    )


def malformed() -> UnavailableError:
    """Return the error of an answer that cannot be read as lakeFS' own."""
    return unavailable("its answer is not whole, or not lakeFS'")


def object_store_unavailable(host: str, reason: str) -> UnavailableError:
    """Return the error of the store that presigned links lead to."""
    return UnavailableError(
        f"the object store at {host}, to which lakeFS' presigned links lead, {reason}. Workers "
        "must reach it: see blockstore.s3.endpoint and blockstore.s3.pre_signed_endpoint in the "
        "configuration of lakeFS",
        code="object_store_unavailable",
        service="object store",
    )


def from_status(status: int, body: str | bytes | None) -> LifecycleError:
    """Return the error that an HTTP status of lakeFS means."""
    detail = f"lakeFS answered {status}: {_message(body)}"
    # 0 is what the SDK makes of a failed TLS handshake.
    if status in {0, 408, 429} or (status >= 500 and status != 501):
        return unavailable(detail)
    if status in {401, 403}:
        return RequestError(f"lakeFS refuses ({_message(body)})", code="lakefs_unauthorized")
    if status in {404, 410}:
        return NotFoundError(detail)
    if status in {409, 412}:
        return ConflictError(detail, code="lakefs_conflict")
    if status == 400:
        return InvalidInputError(detail, code="lakefs_refused")
    return RequestError(detail, code="lakefs_refused")


class Answers:
    """What answers of one lakeFS mean, given whether it has answered properly before.

    lakeFS answers 401 to good keys while its database is away, and a proxy in front of it has pages
    of its own. So either is an outage where lakeFS has answered before, in this process, and a
    wrong setting where it has not.
    """

    def __init__(self, settings: LakeFSSettings) -> None:
        self._endpoint = settings.endpoint
        self._timeout_seconds = settings.timeout_seconds
        self._host = httpx.URL(base_url(settings)).netloc
        self._has_answered = False

    def accept(self) -> None:
        """Note that lakeFS has answered properly, to the platform's keys."""
        self._has_answered = True

    def error(self, status: int, body: str | bytes | None) -> LifecycleError:
        """Return the error that an answer of lakeFS means."""
        if status == 401:
            return self._unauthorized(body)
        if status in _REFUSALS and not body:
            return unavailable(
                f"it answered {status} without a body: the answer was cut, or LAKEFS_ENDPOINT "
                f"({self._endpoint}) is the address of another server"
            )
        if status in _REFUSALS and not _is_lakefs(body):
            return self.foreign(f"status {status}, {_message(body)[:120]!r}")
        if status in _LET_IN:
            self.accept()
        return from_status(status, body)

    def check(self, response: httpx.Response) -> None:
        """Raise what a response's status means; reads the body for that."""
        if response.is_success:
            self.accept()
            return
        response.read()
        raise self.error(response.status_code, response.content)

    def foreign(self, said: str) -> LifecycleError:
        """Return the error of an answer that is not lakeFS'."""
        if self._has_answered:
            return unavailable(f"something else answers at its address: {said}")
        return RequestError(
            f"the address LAKEFS_ENDPOINT ({self._endpoint}) answers, but is not lakeFS: {said}",
            code="lakefs_wrong_address",
        )

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what the network raises into errors of the platform."""
        try:
            yield
        except (urllib3.exceptions.HTTPError, httpx.TransportError) as error:
            raise self._network(error) from error

    def _unauthorized(self, body: str | bytes | None) -> LifecycleError:
        if _NOT_ALLOWED in _message(body).lower():
            self.accept()  # lakeFS knows who asks
            return from_status(401, body)
        if self._has_answered:
            return unavailable(
                "it refuses the platform's keys, which worked before: the keys were changed, or "
                f"lakeFS' database is away ({_message(body)})"
            )
        return RequestError(
            "lakeFS does not accept the platform's credentials: LAKEFS_ACCESS_KEY_ID or "
            "LAKEFS_SECRET_ACCESS_KEY is wrong, or lakeFS' database is away "
            f"({_message(body)})",
            code="lakefs_unauthorized",
        )

    def _network(
        self, error: urllib3.exceptions.HTTPError | httpx.TransportError
    ) -> UnavailableError:
        # Without the address: a presigned link in a log is a secret in a log.
        reason = _reason(error)
        if isinstance(error, httpx.TransportError):
            with suppress(RuntimeError):  # it knows of no request
                if error.request.url.netloc != self._host:
                    return object_store_unavailable(
                        error.request.url.netloc.decode(), f"does not answer ({reason})"
                    )
        if "ReadTimeout" in reason:
            late = unavailable(
                f"it did not answer within {self._timeout_seconds:g} s (LAKEFS_TIMEOUT_SECONDS): "
                "it is frozen or overloaded, or a hook takes long"
            )
            late.retry_after_seconds = LATE_SECONDS
            return late
        return unavailable(reason)


def _reason(error: urllib3.exceptions.HTTPError | httpx.TransportError) -> str:
    """Return what went wrong on the network, without the address that was asked."""
    if isinstance(error, httpx.TransportError):
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    return type(getattr(error, "reason", None) or error).__name__


def _is_lakefs(body: str | bytes | None) -> bool:
    """Return whether an error's body has lakeFS' form."""
    try:
        return isinstance(json.loads(body or "")["message"], str)
    except (ValueError, KeyError, TypeError):
        return False


def _message(body: str | bytes | None) -> str:
    """Return lakeFS' own words from the body of an error."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or "no reason given"
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        return text[:500]
    return str(message)[:500]
