"""What the client of MLflow does where an answer says that a race was lost."""

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from shared.errors import LifecycleError, RequestError, UnavailableError
from shared.registry.client import Client
from shared.settings import MLflowSettings

SQLITE = "(sqlite3.IntegrityError) UNIQUE constraint failed: registered_model_tags.key"
PSYCOPG = (
    "(psycopg.errors.UniqueViolation) duplicate key value violates unique constraint "
    '"registered_model_tag_pk"\nDETAIL:  Key (key, name)=(a, b) already exists.'
)


class Call:
    """Fails at first, as it is told."""

    def __init__(self, message: str) -> None:
        self._failures = [MlflowException(message)]
        self.calls = 0

    def __call__(self, _: MlflowClient) -> str:
        self.calls += 1
        if self._failures:
            raise self._failures.pop()
        return "done"


@pytest.fixture
def client() -> Client:
    return Client(MLflowSettings(tracking_uri="http://127.0.0.1:9"))


@pytest.mark.parametrize("message", [SQLITE, PSYCOPG], ids=["SQLite", "PostgreSQL"])
def test_a_lost_race_is_run_once_more(client: Client, message: str) -> None:
    call = Call(message)
    assert client.call(call) == "done"
    assert call.calls == 2


def test_what_is_no_lost_race_is_not_repeated(client: Client) -> None:
    call = Call("(psycopg.errors.SyntaxError) syntax error at or near")
    with pytest.raises(LifecycleError):
        client.call(call)
    assert call.calls == 1


UNAUTHENTICATED = (
    "API request to endpoint /api/2.0/mlflow/registered-models/search failed with error code 401 "
    "!= 200. Response body: 'You are not authenticated.'"
)


def test_credentials_that_never_worked_are_wrong(client: Client) -> None:
    with pytest.raises(RequestError, match="MLFLOW_TRACKING_USERNAME"):
        client.call(Call(UNAUTHENTICATED))


def test_credentials_that_have_worked_and_are_refused_are_an_outage(client: Client) -> None:
    client.call(lambda _: "let in")
    with pytest.raises(UnavailableError, match="worked before") as caught:
        client.call(Call(UNAUTHENTICATED))
    assert caught.value.service == "MLflow"
