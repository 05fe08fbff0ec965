"""An answer that breaks off is a store that is not available, wherever it breaks."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from embedded.hub.process import HubProcess
from shared.errors import UnavailableError
from shared.hub import Hub
from shared.lakefs.store import LakeFSStore
from shared.registry import ModelRegistry
from shared.settings import HubSettings, LakeFSSettings, MLflowSettings
from tests.chaos.proxy import FaultyProxy, WireFault, proxies

#: More than any client tries by itself.
ALWAYS = 100
FAULTS = [WireFault.STATUS, WireFault.CUT, WireFault.BEHEAD, WireFault.DROP_ANSWER]


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def unavailable(proxy: FaultyProxy, fault: WireFault, *calls: Callable[[], object]) -> None:
    for call in calls:
        proxy.fail(fault, ALWAYS)
        with pytest.raises(UnavailableError):
            call()
        proxy.lift()


@pytest.mark.parametrize("fault", FAULTS)
def test_lakefs(lakefs_server: LakeFSSettings, repo: str, fault: WireFault) -> None:
    with proxies(port_of(lakefs_server.endpoint)) as [proxy]:
        settings = lakefs_server.model_copy(update={"endpoint": proxy.url})
        with closing(LakeFSStore(settings)) as store:
            unavailable(
                proxy,
                fault,
                lambda: store.commit(repo, "main"),
                lambda: store.files(repo, "main", "m"),
                lambda: store.ensure_repository(repo),
                lambda: store.ensure_branch(repo, "own", source="main"),
                lambda: store.has_changes(repo, "main", since="main"),
                lambda: store.find_commit(repo, "main", "j", since=datetime.now(UTC)),
            )


# Not beheaded: mlflow takes a 200 without a body for an empty answer.
@pytest.mark.parametrize("fault", [WireFault.STATUS, WireFault.CUT, WireFault.DROP_ANSWER])
def test_mlflow(mlflow_server: str, fault: WireFault) -> None:
    with proxies(port_of(mlflow_server)) as [proxy]:
        registry = ModelRegistry(MLflowSettings(tracking_uri=proxy.url))
        unavailable(
            proxy,
            fault,
            lambda: registry.resolve("m"),  # an answer of 404
            lambda: registry.list_models(show_all=True),
            lambda: registry.versions("m"),
            lambda: registry.set_stage("m", "1", "production"),
        )


@pytest.mark.parametrize("fault", FAULTS)
def test_hub(tmp_path: Path, fault: WireFault) -> None:
    model = tmp_path / "org" / "m"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    with HubProcess(tmp_path) as process, proxies(port_of(process.url)) as [proxy]:
        hub = Hub(HubSettings(endpoint=proxy.url))
        unavailable(proxy, fault, lambda: hub.model("org/m"))
