"""The whole platform, with the stores in the state that OpenAPI's examples speak of."""

from collections.abc import Iterator

import pytest

from api.routes.lifecycle import SMOL
from embedded.hub.process import HubProcess
from embedded.hub.repository import publish
from shared.settings import LakeFSSettings
from tests.ollama_server import Model, ollama_server
from tests.platform import Platform
from tests.tiny_models import tiny_llama

#: With it in use, a call that shows none, or a wrong one, must be refused.
KEY = "the-key-of-the-fuzz"


@pytest.fixture(scope="session")
def platform(
    tmp_path_factory: pytest.TempPathFactory, mlflow_server: str, lakefs_server: LakeFSSettings
) -> Iterator[Platform]:
    """Front, workers and Redis on stores that are all up, and a model that answers."""
    root, directory = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("fuzz")
    publish(root, SMOL["model_name"], tiny_llama(directory / "model"))
    with HubProcess(root) as hub, ollama_server(Model("qwen3:0.6b")) as ollama:
        env = {
            "OLLAMA_HOST": ollama.url,
            "API_ADMIN_KEY": KEY,
            # A deployment may refuse longer time-outs than this; OpenAPI knows only the longest.
            "LEDGER_MAX_SECONDS": str(30 * 86400),
        }
        platform = Platform(directory, mlflow_server, lakefs_server, hub, **env)
        platform.http.headers["Authorization"] = f"Bearer {KEY}"
        with platform:
            _serve(platform)
            yield platform


def _serve(platform: Platform) -> None:
    """Bring the model of the examples into production."""
    local = platform.done("/models/download", model_name=SMOL["model_name"])["local_model_name"]
    upload = platform.done("/models/upload_to_lakefs", repo_name="smollm", local_model_name=local)
    platform.done(
        "/models/register_from_lakefs",
        registered_name="smollm",
        task="text-generation",
        lakefs_repo="smollm",
        commit_id=upload["commit_id"],
        path=upload["path"],
        stage="production",
    )
