"""Jobs about models of Ollama: pulled with progress, registered in a real MLflow."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from shared.errors import (
    CancelledError,
    ModelLoadError,
    NotFoundError,
    UnavailableError,
    UnsupportedTaskError,
)
from shared.jobs import JobKind
from shared.ollama import OllamaServer
from shared.registry import ModelRegistry
from shared.settings import MLflowSettings, OllamaSettings
from tests.integration.conftest import NewRun
from tests.ollama_server import Model, OllamaTestServer, ollama_server
from workers.lifecycle.ollama import OllamaPull, RegisterOllama


@pytest.fixture
def model() -> Model:
    """A model of the test's own, so that its registered model is new too."""
    return Model(f"echo-{uuid.uuid4().hex[:8]}:latest")


@pytest.fixture
def remote(model: Model) -> Iterator[OllamaTestServer]:
    with ollama_server(model) as server:
        yield server


@pytest.fixture
def server(remote: OllamaTestServer) -> OllamaServer:
    return OllamaServer(OllamaSettings(host=remote.url))


@pytest.fixture
def registry(mlflow_server: str) -> ModelRegistry:
    return ModelRegistry(MLflowSettings(tracking_uri=mlflow_server, resolution_cache_seconds=0))


@pytest.fixture
def register(registry: ModelRegistry, server: OllamaServer) -> RegisterOllama:
    return RegisterOllama(registry, server)


def download(name: str, **extra: object) -> dict[str, Any]:
    return {"model_source": "ollama", "model_name": name, **extra}


def test_a_pull_gives_the_name_with_its_tag_and_ends_exact(
    remote: OllamaTestServer, server: OllamaServer, model: Model, new_run: NewRun
) -> None:
    remote.models.clear()
    remote.library[model.name] = model
    name = model.name.removesuffix(":latest")
    run = new_run(JobKind.DOWNLOAD, download(name))
    assert OllamaPull(server)(run.context) == {
        "local_model_name": model.name,
        "model_name": name,
        "model_source": "ollama",
        "revision": model.listed["digest"],
        "files": 3,
        "size_bytes": 7320,
    }
    run.context.flush()
    assert (run.reports[-1].completed, run.reports[-1].total) == (7320, 7320)
    assert {report.unit for report in run.reports} == {"bytes"}


def test_a_pull_of_what_does_not_exist_fails_for_good(
    server: OllamaServer, new_run: NewRun
) -> None:
    with pytest.raises(NotFoundError, match="none-such"):
        OllamaPull(server)(new_run(JobKind.DOWNLOAD, download("none-such")).context)


def test_a_model_that_is_there_is_not_asked_of_the_registry(
    remote: OllamaTestServer, server: OllamaServer, model: Model, new_run: NewRun
) -> None:
    remote.registry_fails = "dial tcp: lookup registry.ollama.ai: no such host"
    result = OllamaPull(server)(new_run(JobKind.DOWNLOAD, download(model.name)).context)
    assert (result["local_model_name"], result["revision"]) == (model.name, model.digest)
    assert f"Ollama has {model.name} already" in result["note"]
    assert not remote.bodies("/api/pull")


def test_a_registry_that_is_away_is_named_as_the_registry(
    remote: OllamaTestServer, server: OllamaServer, new_run: NewRun
) -> None:
    remote.registry_fails = "dial tcp: lookup registry.ollama.ai: no such host"
    with pytest.raises(UnavailableError, match=r"the registry that Ollama .*no such host") as away:
        OllamaPull(server)(new_run(JobKind.DOWNLOAD, download("none-such")).context)
    assert away.value.specific_code == "ollama_registry_unavailable"
    assert away.value.service == "Ollama's registry"


def test_a_pull_looks_at_its_token(server: OllamaServer, model: Model, new_run: NewRun) -> None:
    run = new_run(JobKind.DOWNLOAD, download(model.name.removesuffix(":latest")))
    run.token.cancel(CancelledError("by the test"))
    with pytest.raises(CancelledError):
        OllamaPull(server)(run.context)


def test_a_model_becomes_a_version_with_its_tags_and_stage(
    register: RegisterOllama, registry: ModelRegistry, model: Model, new_run: NewRun
) -> None:
    run = new_run(
        JobKind.REGISTER,
        {"local_model_name": model.name, "stage": "production", "set_priority_to_one": True},
    )
    result = register(run.context)
    name = model.name.replace(":", "_")
    assert result == {
        "name": name,
        "version": "1",
        "stage": "production",
        "tags": {
            "inference_task": "text-generation",
            "engine": "ollama",
            "model_source": "ollama",
            "model_name": model.name,
            "ollama_model_name": model.name,
            "revision": model.digest,
            "gguf_sha256": model.blob,
            "context_length": "8192",
            "model_params": "1.2358144",
            "inference_priority": "1",
            "stage": "production",
            "job_id": run.context.job.id,
        },
    }
    found = registry.resolve(name)
    assert found.version == "1"
    assert found.location is None
    assert found.has_priority


def test_a_request_may_say_name_parameters_and_description(
    register: RegisterOllama, registry: ModelRegistry, model: Model, new_run: NewRun
) -> None:
    name = f"chat {uuid.uuid4().hex[:8]}"
    request = {
        "local_model_name": model.name.removesuffix(":latest"),
        "registered_name": name,
        "model_params": 7.5,
        "version_description": "words",
    }
    result = register(new_run(JobKind.REGISTER, request).context)
    assert (result["name"], result["stage"]) == (name, "none")
    assert result["tags"]["model_params"] == "7.5"
    assert result["tags"]["ollama_model_name"] == model.name
    assert registry.resolve(name, version="1").description == "words"


def test_a_job_that_runs_again_makes_no_second_version(
    register: RegisterOllama, registry: ModelRegistry, model: Model, new_run: NewRun
) -> None:
    request = {"local_model_name": model.name, "stage": "staging"}
    job_id = str(uuid.uuid4())
    first = register(new_run(JobKind.REGISTER, request, job_id=job_id).context)
    again = register(new_run(JobKind.REGISTER, request, job_id=job_id, attempts=2).context)
    assert first == again
    assert len(registry.versions(first["name"], all_version=True)) == 1
    other = register(new_run(JobKind.REGISTER, request).context)
    assert other["version"] == "2"


def test_a_model_that_the_server_lacks_is_named(register: RegisterOllama, new_run: NewRun) -> None:
    run = new_run(JobKind.REGISTER, {"local_model_name": "none-such:9b"})
    with pytest.raises(NotFoundError, match="no model 'none-such:9b'"):
        register(run.context)


def test_a_near_name_is_named(
    remote: OllamaTestServer, register: RegisterOllama, new_run: NewRun
) -> None:
    remote.have(Model("smollm2:135m"), Model("other:1b"))
    run = new_run(JobKind.REGISTER, {"local_model_name": "smollm2"})
    with pytest.raises(NotFoundError, match=r"Did you mean 'smollm2:135m'\?"):
        register(run.context)


@pytest.mark.parametrize("asked", [{"stage": "production"}, {"smoke_test": True}])
def test_a_broken_model_does_not_become_a_version(
    remote: OllamaTestServer,
    register: RegisterOllama,
    registry: ModelRegistry,
    model: Model,
    new_run: NewRun,
    asked: dict[str, Any],
) -> None:
    remote.have(replace(model, broken=True))
    run = new_run(JobKind.REGISTER, {"local_model_name": model.name, **asked})
    with pytest.raises(ModelLoadError, match="corrupted or incomplete"):
        register(run.context)
    with pytest.raises(NotFoundError):
        registry.versions(model.name.replace(":", "_"), all_version=True)


@pytest.mark.parametrize(
    ("asked", "tries"),
    [
        ({"stage": "production"}, 1),
        ({"smoke_test": True}, 1),
        ({}, 0),
        ({"stage": "production", "smoke_test": False}, 0),
    ],
)
def test_one_token_is_generated_where_production_is_given(
    remote: OllamaTestServer,
    register: RegisterOllama,
    model: Model,
    new_run: NewRun,
    asked: dict[str, Any],
    tries: int,
) -> None:
    register(new_run(JobKind.REGISTER, {"local_model_name": model.name, **asked}).context)
    sent = [body["options"] for body in remote.bodies("/api/generate")]
    assert sent == [{"num_predict": 1}] * tries


def test_a_model_that_only_embeds_is_refused(
    remote: OllamaTestServer, register: RegisterOllama, new_run: NewRun
) -> None:
    remote.have(Model("embed:33m", capabilities=("embedding",)))
    run = new_run(JobKind.REGISTER, {"local_model_name": "embed:33m"})
    with pytest.raises(UnsupportedTaskError, match="it can: embedding"):
        register(run.context)
