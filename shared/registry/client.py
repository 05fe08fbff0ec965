"""MLflow's client with bounded waits and the platform's errors.

mlflow is imported at the first call. Where the full package is installed it brings pandas and scipy
and takes 2.5 s and 130 MB, which a process that never asks the registry should not pay.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from shared.errors import (
    ConflictError,
    InvalidInputError,
    LifecycleError,
    NotFoundError,
    RequestError,
    UnavailableError,
)
from shared.interruptible import interruptible
from shared.settings import MLflowSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

T = TypeVar("T")

#: Of MLflow's error codes, those that another attempt may not meet. A connection that failed and a
#: server error without a code come as INTERNAL_ERROR.
_PASSING = {
    "ABORTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "INTERNAL_ERROR",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "TEMPORARILY_UNAVAILABLE",
}
#: How mlflow begins its message where an answer has no JSON. MLflow's own errors have; this one was
#: cut off, or comes from something between.
_NOT_MLFLOWS = "API request to endpoint "
#: Codes of a call whose caller MLflow does not know.
_SHUT_OUT = {"CUSTOMER_UNAUTHORIZED", "UNAUTHENTICATED"}
#: SQLite's and PostgreSQL's words, which MLflow passes on, for a row that another call wrote first.
_LOST_RACE = ("IntegrityError", "UniqueViolation")


class Client:
    """Calls MLflow."""

    def __init__(self, settings: MLflowSettings) -> None:
        self._settings = settings
        #: Whether MLflow has let the platform in, in this process.
        self._was_let_in = False

    @cached_property
    def mlflow(self) -> "MlflowClient":
        """MLflow's own client, made when it is first used."""
        # MLflow takes these from the environment only. By default it tries a dead server for
        # minutes, and it repeats POST too, so that a version could be created twice.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(self._settings.timeout_seconds)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient  # noqa: PLC0415 - see the module's docstring

        uri = self._settings.tracking_uri
        return MlflowClient(tracking_uri=uri, registry_uri=uri)

    def call(self, method: Callable[["MlflowClient"], T]) -> T:
        """Make a call that may be repeated: once, where the connection or a race was lost."""
        with self._translated():
            try:
                return interruptible(lambda: method(self.mlflow))
            except Exception as error:
                if not (_is_broken_connection(error) or _is_lost_race(error)):
                    raise
            # Most likely the server had closed a connection that was idle.
            return interruptible(lambda: method(self.mlflow))

    def call_once(self, method: Callable[["MlflowClient"], T]) -> T:
        """Make a call that must not be repeated."""
        with self._translated():
            return interruptible(lambda: method(self.mlflow))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn MLflow's exceptions into errors of the platform."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        try:
            yield
        except MlflowException as error:
            if _is_shut_out(error):
                raise self._shut_out() from error
            raise _translation(error) from error
        self._was_let_in = True

    def _shut_out(self) -> LifecycleError:
        if self._was_let_in:
            return _unavailable(
                "it refuses the platform's credentials, which worked before: they were changed, "
                "or MLflow's database of users is away"
            )
        return RequestError(
            "MLflow does not accept the platform's credentials: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
            code="mlflow_unauthorized",
        )


def _unavailable(reason: str) -> UnavailableError:
    return UnavailableError(
        f"MLflow is not available: {reason}", code="mlflow_unavailable", service="MLflow"
    )


def _is_shut_out(error: "MlflowException") -> bool:
    """Return whether MLflow does not know who calls; what one may not do is another error."""
    return error.error_code in _SHUT_OUT or "failed with error code 401" in str(error.message)


def _translation(error: "MlflowException") -> LifecycleError:
    code, detail = error.error_code, f"MLflow: {error.message}"
    foreign = str(error.message).startswith(_NOT_MLFLOWS)
    if foreign or code in _PASSING:
        # Where the network failed, MLflow's message has the address, perhaps with a password.
        cause = error.__context__
        return _unavailable(type(cause).__name__ if cause and not foreign else str(error.message))
    if code in {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}:
        return NotFoundError(detail)
    if code in {"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS", "RESOURCE_CONFLICT"}:
        return ConflictError(detail, code="mlflow_conflict")
    if code == "PERMISSION_DENIED":
        return RequestError(detail, code="mlflow_unauthorized")
    if code in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}:
        return InvalidInputError(detail, code="mlflow_refused")
    return RequestError(detail, code="mlflow_refused")


def _is_lost_race(error: Exception) -> bool:
    """Return whether two calls wrote the same new row of MLflow; it is there now."""
    return any(sign in str(error) for sign in _LOST_RACE)


def _is_broken_connection(error: Exception) -> bool:
    from requests.exceptions import ConnectionError as BrokenConnection  # noqa: PLC0415
    from requests.exceptions import Timeout  # noqa: PLC0415

    cause = error.__context__
    return isinstance(cause, BrokenConnection) and not isinstance(cause, Timeout)
