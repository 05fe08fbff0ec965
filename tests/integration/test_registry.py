"""The registry keeps its rules on a real MLflow server, and any MLflow client sees them."""

import json
import re
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlflow
import pytest
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

from shared.errors import (
    ConflictError,
    NoServableVersionError,
    NotFoundError,
    UnavailableError,
)
from shared.models import LakeFSLocation, ModelVersion
from shared.registry import Cause, ModelRegistry
from shared.settings import MLflowSettings
from shared.tasks import Engine, Task
from tests.processes import free_port

LOCATION = LakeFSLocation("models", "a" * 64, "org_model")
TAGS = {"inference_task": "text-generation", "engine": "transformers"}

Create = Callable[..., ModelVersion]


@pytest.fixture
def registry(mlflow_server: str) -> ModelRegistry:
    return ModelRegistry(MLflowSettings(tracking_uri=mlflow_server, resolution_cache_seconds=600))


@pytest.fixture
def client(mlflow_server: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(mlflow_server, mlflow_server)


@pytest.fixture
def name() -> str:
    return f"model-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def create(registry: ModelRegistry, name: str) -> Create:
    """Create a version of the test's model, in a stage."""

    def new(stage: str = "none", job_id: str = "", **tags: str) -> ModelVersion:
        made = registry.create_version(
            name, LOCATION, TAGS | tags, "words", job_id or uuid.uuid4().hex
        )
        return registry.set_stage(name, made.version, stage)

    return new


def stages(registry: ModelRegistry, name: str) -> dict[str, str]:
    return {each.version: each.stage for each in registry.versions(name, all_version=True)}


def test_a_version_is_what_it_was_created_as(
    registry: ModelRegistry, create: Create, name: str
) -> None:
    made = create(job_id="job", model_params="0.5")
    assert (made.name, made.version, made.stage) == (name, "1", "none")
    assert (made.task, made.engine) == (Task.TEXT_GENERATION, Engine.TRANSFORMERS)
    assert (made.location, made.description) == (LOCATION, "words")
    assert made.tags == TAGS | {"stage": "none", "job_id": "job", "model_params": "0.5"}
    assert made.created_at_ms > 0


def test_a_model_that_is_not_in_lakefs_has_no_location(registry: ModelRegistry, name: str) -> None:
    tags = {"inference_task": "text-generation", "engine": "ollama", "ollama_model_name": "q:1b"}
    made = registry.create_version(name, None, tags, None, "job")
    assert (made.engine, made.location) == (Engine.OLLAMA, None)


def test_a_job_creates_one_version(registry: ModelRegistry, create: Create, name: str) -> None:
    assert create(job_id="one").version == "1"
    assert create(job_id="two").version == "2"
    assert create(job_id="one").version == "1"
    assert len(stages(registry, name)) == 2


def test_two_runs_of_a_job_at_once_leave_one_version(
    registry: ModelRegistry, create: Create, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(job_id="job")
    search, answers = registry._made_by, iter([list[str]()])
    monkeypatch.setattr(registry, "_made_by", lambda *key: next(answers, None) or search(*key))
    assert create(job_id="job").version == "1"
    assert list(stages(registry, name)) == ["1"]


def test_aliases_follow_the_stages_for_any_client(
    registry: ModelRegistry, client: mlflow.MlflowClient, create: Create, name: str
) -> None:
    def alias(stage: str) -> str | None:
        version = client.get_registered_model(name).aliases.get(stage)
        return str(version) if version else None

    create("production")
    assert alias("production") == "1"
    create("production")
    assert alias("production") == "2"
    create("staging")
    assert (alias("production"), alias("staging")) == ("2", "3")
    assert client.get_model_version_by_alias(name, "production").source == LOCATION.uri
    assert registry.set_stage(name, "2", "archived").aliases == ()
    assert alias("production") == "1"
    assert registry.set_stage(name, "3", "production").aliases == ("production",)
    assert (alias("production"), alias("staging")) == ("3", None)
    registry.set_stage(name, "1", "production", archive_existing=True)
    assert stages(registry, name) == {"3": "archived", "2": "archived", "1": "production"}
    assert alias("production") == "1"


def test_the_production_uri_works_in_mlflow(
    mlflow_server: str, create: Create, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create("production")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    underlying = ModelsArtifactRepository.get_underlying_uri
    assert underlying(f"models:/{name}@production") == LOCATION.uri  # type: ignore[no-untyped-call]


def test_a_transition_cut_short_is_healed_by_repeating_it(
    registry: ModelRegistry, create: Create, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create("production")
    create("production")
    create()
    apply = registry._transitions._apply
    for writes in range(4):
        left = [None] * writes

        def die(*write: Any, left: list[None] = left) -> None:
            if not left:
                raise KeyboardInterrupt
            left.pop()
            apply(*write)

        monkeypatch.setattr(registry._transitions, "_apply", die)
        with pytest.raises(KeyboardInterrupt):
            registry.set_stage(name, "3", "production", archive_existing=True)
        assert registry.resolve(name).stage == "production"
        monkeypatch.setattr(registry._transitions, "_apply", apply)
        promoted = registry.set_stage(name, "3", "production", archive_existing=True)
        assert promoted.aliases == ("production",)
        assert stages(registry, name) == {"3": "production", "2": "archived", "1": "archived"}
        registry.set_stage(name, "1", "production")
        registry.set_stage(name, "2", "production")
        registry.set_stage(name, "3", "none")


def test_aliases_are_right_after_transitions_at_once(
    registry: ModelRegistry, client: mlflow.MlflowClient, create: Create, name: str
) -> None:
    versions = [create().version for _ in range(4)]
    with ThreadPoolExecutor(len(versions)) as pool:
        list(pool.map(lambda each: registry.set_stage(name, each, "production"), versions))
    assert str(client.get_registered_model(name).aliases["production"]) == "4"


def test_a_name_resolves_by_version_then_stage_then_production_then_staging(
    registry: ModelRegistry, create: Create, name: str
) -> None:
    create()
    with pytest.raises(NoServableVersionError, match=name):
        registry.resolve(name)
    create("staging")
    assert registry.resolve(name).version == "2"
    with pytest.raises(NoServableVersionError, match="production"):
        registry.resolve(name, stage="production")
    create("production")
    create("production")
    assert registry.resolve(name).version == "4"
    assert registry.resolve(name, stage="staging").version == "2"
    assert registry.resolve(name, version="1", stage="staging").version == "1"
    registry.set_stage(name, "3", "archived")
    assert registry.resolve(name, version="3").stage == "archived"


def test_registered_names_that_are_like_an_unknown_one_are_named(
    registry: ModelRegistry, create: Create, name: str
) -> None:
    create()
    with pytest.raises(NotFoundError, match=re.escape(f"Did you mean {name!r}")):
        registry.resolve(f"{name}_latest")


def test_unknown_names_and_versions_are_named(
    registry: ModelRegistry, create: Create, name: str
) -> None:
    for call in (
        lambda: registry.resolve(name),
        lambda: registry.resolve(name, version="1"),
        lambda: registry.resolve(name, stage="staging"),
        lambda: registry.versions(name),
        lambda: registry.set_stage(name, "1", "production"),
    ):
        with pytest.raises(NotFoundError, match=name) as error:
            call()
        assert error.value.specific_code == "registered_model_not_found"
    create()
    for call in (
        lambda: registry.resolve(name, version="2"),
        lambda: registry.set_stage(name, "2", "production"),
    ):
        with pytest.raises(NotFoundError, match="version 2") as error:
            call()
        assert error.value.specific_code == "version_not_found"


def test_a_resolution_is_remembered_until_a_transition(
    registry: ModelRegistry, create: Create, name: str, mlflow_server: str
) -> None:
    create("production")
    assert registry.resolve(name).version == "1"
    other = ModelRegistry(MLflowSettings(tracking_uri=mlflow_server))
    second = other.create_version(name, LOCATION, TAGS, None, "other")
    other.set_stage(name, second.version, "production")
    assert registry.resolve(name).version == "1"
    registry.set_stage(name, "1", "staging")
    assert registry.resolve(name).version == "2"


def test_lists_and_counts_leave_out_what_is_not_served(
    registry: ModelRegistry, client: mlflow.MlflowClient, create: Create, name: str
) -> None:
    create("archived")
    create("production", engine="ollama")
    create("staging", inference_task="asr")
    client.create_model_version(name, "s3://else/where", await_creation_for=0)

    def versions(found: list[ModelVersion]) -> list[str]:
        return [each.version for each in found if each.name == name]

    assert versions(registry.versions(name)) == ["3", "2"]
    assert versions(registry.versions(name, all_version=True)) == ["3", "2", "1"]
    assert versions(registry.list_models()) == ["3", "2"]
    assert versions(registry.list_models(show_all=True)) == ["3", "2", "1"]
    aliases = {each.version: each.aliases for each in registry.list_models() if each.name == name}
    assert aliases == {"3": ("staging",), "2": ("production",)}
    served, everything = registry.stats(), registry.stats(show_all=True)
    assert isinstance(served["versions"], int)
    assert isinstance(everything["versions"], int)
    assert everything["versions"] > served["versions"]
    assert isinstance(served["by_task"], dict)
    assert served["by_task"]["asr"] == 1
    with pytest.raises(ConflictError, match="not registered by this platform"):
        registry.resolve(name, version="4")


def test_lists_have_all_pages(
    registry: ModelRegistry, create: Create, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        create()
    monkeypatch.setattr("shared.registry.queries.PAGE", 2)
    assert list(stages(registry, name)) == ["5", "4", "3", "2", "1"]
    assert len([each for each in registry.list_models(show_all=True) if each.name == name]) == 5


def test_an_answer_takes_time(registry: ModelRegistry) -> None:
    assert 0 < registry.health() < 60


@pytest.fixture
def dead_registry() -> ModelRegistry:
    return ModelRegistry(MLflowSettings(tracking_uri=f"http://u:secret@127.0.0.1:{free_port()}"))


@pytest.mark.timeout(60)  # by itself MLflow would try for minutes
def test_a_dead_server_is_unavailable_within_seconds(dead_registry: ModelRegistry) -> None:
    with pytest.raises(UnavailableError) as error:
        dead_registry.resolve("any")
    assert error.value.specific_code == "mlflow_unavailable"
    assert "secret" not in error.value.detail


def audit(registry: ModelRegistry, name: str) -> dict[str, list[tuple[str, str, str]]]:
    return {
        each.version: [(change.from_stage, change.to_stage, change.kind) for change in each.history]
        for each in registry.versions(name, all_version=True)
    }


def test_a_rollback_gives_the_stage_back_for_any_client(
    registry: ModelRegistry, client: mlflow.MlflowClient, create: Create, name: str
) -> None:
    create("production")
    registry.set_stage(name, create().version, "production", archive_existing=True)
    assert registry.resolve(name).version == "2"
    back = registry.roll_back(name, "production", cause=Cause("rollback", key_id="key-a"))
    assert (back.version, back.aliases) == ("1", ("production",))
    assert registry.resolve(name).version == "1", "no older resolution is remembered"
    assert client.get_model_version_by_alias(name, "production").version == "1"
    assert stages(registry, name) == {"2": "archived", "1": "production"}
    assert audit(registry, name) == {
        "1": [
            ("none", "production", "transition"),
            ("production", "archived", "archive"),
            ("archived", "production", "rollback"),
        ],
        "2": [("none", "production", "transition"), ("production", "archived", "archive")],
    }
    assert [change.key_id for change in back.history] == ["", "", "key-a"]
    with pytest.raises(ConflictError) as none_before:
        registry.roll_back(name, "production", cause=Cause("rollback"))
    assert none_before.value.specific_code == "no_earlier_version"


def test_a_rollback_that_is_repeated_goes_back_once_if_it_says_from_where(
    registry: ModelRegistry, create: Create, name: str
) -> None:
    for _ in range(3):
        create("production")
    back = registry.roll_back(name, "production", cause=Cause("rollback"), from_version="3")
    assert back.version == "2"
    with pytest.raises(ConflictError, match="at version 2, not at version 3") as moved:
        registry.roll_back(name, "production", cause=Cause("rollback"), from_version="3")
    assert moved.value.specific_code == "stage_moved"
    assert registry.roll_back(name, "production", cause=Cause("rollback")).version == "1"
    assert stages(registry, name) == {"3": "archived", "2": "archived", "1": "production"}


def test_the_audit_trail_is_read_in_mlflow_and_bounded(
    registry: ModelRegistry,
    client: mlflow.MlflowClient,
    create: Create,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.registry.transitions.KEPT", 4)
    create()
    for number in range(7):
        registry.set_stage(name, "1", ("staging", "none")[number % 2])
        history = registry.resolve(name, version="1").history
        assert len(history) == min(number + 1, 4)
    tags = client.get_model_version(name, "1").tags
    kept = sorted(tag for tag in tags if tag.startswith("stage_history."))
    assert len(kept) == 4
    last = json.loads(tags[kept[-1]])
    assert last == {
        "from": "none",
        "to": "staging",
        "kind": "transition",
        "job_id": "",
        "key_id": "",
    }
    version = registry.resolve(name, version="1")
    assert version.tags == TAGS | {"stage": "staging", "job_id": version.tags["job_id"]}


def test_a_job_changes_a_stage_once_and_undoes_nothing_that_came_after(
    registry: ModelRegistry, create: Create, name: str
) -> None:
    create()
    cause = Cause("register", "job-a", "key-a")
    for _ in range(2):
        registry.set_stage(name, "1", "production", cause=cause)
    assert audit(registry, name) == {"1": [("none", "production", "register")]}
    registry.set_stage(name, "1", "archived")
    assert registry.set_stage(name, "1", "production", cause=cause).stage == "archived"
    assert len(registry.resolve(name, version="1").history) == 2


def test_a_job_cut_short_after_writing_its_change_down_does_it(
    registry: ModelRegistry, create: Create, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create()
    cause = Cause("register", "job-a")

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    apply = registry._transitions._apply
    monkeypatch.setattr(registry._transitions, "_apply", die)
    with pytest.raises(KeyboardInterrupt):
        registry.set_stage(name, "1", "production", cause=cause)
    monkeypatch.setattr(registry._transitions, "_apply", apply)
    assert registry.set_stage(name, "1", "production", cause=cause).stage == "production"
    assert audit(registry, name) == {"1": [("none", "production", "register")]}


def test_transitions_at_once_lose_nothing_of_the_audit_trail(
    registry: ModelRegistry, create: Create, name: str
) -> None:
    create()
    create()
    wishes = [("1", "staging"), ("1", "production"), ("2", "production"), ("2", "staging")]
    with ThreadPoolExecutor(len(wishes)) as pool:
        list(pool.map(lambda wish: registry.set_stage(name, *wish), wishes))
    written = audit(registry, name)
    for version, found in stages(registry, name).items():
        ends = {to for _, to, _ in written[version]}
        assert ends == {"staging", "production"}
        assert found in ends
