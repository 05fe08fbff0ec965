"""A hub that refuses the platform's token, and not a model."""

from typing import Any

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from shared.errors import DeniedError, UnavailableError
from shared.hub import Hub
from shared.settings import HubSettings

INVALID = {"X-Error-Message": "Invalid credentials in Authorization header"}


class Api:
    """Answers as it is told."""

    def __init__(self) -> None:
        self.headers: dict[str, str] | None = None

    def model_info(self, *_: object, **__: object) -> Any:
        if self.headers is not None:
            request = httpx2.Request("GET", "https://hub/api/models/org/model")
            response = httpx2.Response(401, headers=self.headers, request=request)
            raise HfHubHTTPError("401", response=response)

        class Info:
            sha = "0" * 40
            siblings: tuple[()] = ()

        return Info()


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def hub(api: Api, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(HubSettings.model_validate({"endpoint": "https://hub", "token": "hf_x"}))
    monkeypatch.setattr(hub, "_api", api)
    return hub


def test_a_token_that_never_worked_is_wrong(hub: Hub, api: Api) -> None:
    api.headers = INVALID
    with pytest.raises(DeniedError, match="HF_TOKEN"):
        hub.model("org/model")


def test_a_token_that_has_worked_and_is_refused_is_an_outage(hub: Hub, api: Api) -> None:
    hub.model("org/model")
    api.headers = INVALID
    with pytest.raises(UnavailableError, match="worked before") as caught:
        hub.model("org/model")
    assert caught.value.service == "hub"


def test_a_model_that_the_token_may_not_read_is_no_outage(hub: Hub, api: Api) -> None:
    hub.model("org/model")
    api.headers = {}
    with pytest.raises(Exception, match="gated or private") as caught:
        hub.model("org/model")
    assert not isinstance(caught.value, UnavailableError)
