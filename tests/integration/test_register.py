"""A model in a lakeFS commit becomes one version in MLflow, checked before it does."""

import hashlib
import json
import struct
import uuid
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import mlflow
import pytest
from pydantic import ValidationError

from shared.cancellation import CancelToken
from shared.errors import (
    CancelledError,
    ConflictError,
    InvalidInputError,
    LifecycleError,
    ModelLoadError,
    NotFoundError,
    UnsafeModelError,
    UnsupportedTaskError,
)
from shared.jobs import JobKind
from shared.lakefs.store import LakeFSStore
from shared.models import manifest_digest
from shared.registry import ModelRegistry
from shared.requests import RegisterRequest
from shared.settings import MLflowSettings
from tests.integration.conftest import NewRun
from workers.lifecycle.register import Register

CONFIG = json.dumps({"architectures": ["LlamaForCausalLM"]}).encode()

Commit = Callable[..., str]


class KilledError(Exception):
    """Stands for kill -9: nothing of the job's own runs after it."""


def safetensors(*shapes: tuple[int, ...], header_padding: int = 0, cut: int = 0) -> bytes:
    """Return a file of float32 tensors of these shapes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "padding": " " * header_padding}}
    end = 0
    for number, shape in enumerate(shapes):
        span = [end, end + 4 * prod(shape)]
        header[f"t{number}"] = {"dtype": "F32", "shape": shape, "data_offsets": span}
        end = span[1]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * (end - cut)


MODEL = {"config.json": CONFIG, "model.safetensors": safetensors((100, 10), (7,))}


@pytest.fixture
def registry(mlflow_server: str) -> ModelRegistry:
    return ModelRegistry(MLflowSettings(tracking_uri=mlflow_server))


@pytest.fixture
def register(registry: ModelRegistry, store: LakeFSStore) -> Register:
    return Register(registry, store)


@pytest.fixture
def name() -> str:
    return f"model-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def commit(store: LakeFSStore, repo: str, tmp_path: Path) -> Commit:
    """Commit a model's files to a directory, with metadata as an upload writes it."""

    def new(files: dict[str, bytes], /, path: str = "org_model", **metadata: str) -> str:
        for file, data in files.items():
            source = tmp_path / "source"
            source.write_bytes(data)
            store.put(
                repo,
                "main",
                f"{path}/{file}" if path else file,
                source,
                sha256=hashlib.sha256(data).hexdigest(),
                token=CancelToken(),
                on_bytes=lambda _: None,
            )
        return store.commit_changes(repo, "main", "a model", {"path": path} | metadata)

    return new


Submit = Callable[..., dict[str, Any]]


@pytest.fixture
def submit(register: Register, new_run: NewRun, repo: str, name: str) -> Submit:
    """Run a registration of a commit, with a job id if it is to be the same job."""

    def run(
        commit_id: str | None, job_id: str = "", work: Register = register, **changes: Any
    ) -> dict[str, Any]:
        request = {
            "registered_name": name,
            "task": "text-generation",
            "lakefs_repo": repo,
            "commit_id": commit_id,
        } | changes
        return work(new_run(JobKind.REGISTER, request, job_id=job_id).context)

    return run


@pytest.mark.parametrize("recorded", [{"manifest": "0" * 64}, {"files": "3"}])
def test_a_commit_with_other_files_than_its_upload_sent_is_refused(
    submit: Submit, commit: Commit, recorded: dict[str, str]
) -> None:
    with pytest.raises(ConflictError, match="Upload the model again") as refused:
        submit(commit(MODEL, **recorded))
    assert refused.value.specific_code == "manifest_mismatch"


def test_a_version_says_what_and_where_it_is_and_where_it_came_from(
    submit: Submit, commit: Commit, store: LakeFSStore, repo: str, name: str
) -> None:
    commit_id = commit(MODEL, model_source="huggingface", model_name="org/model", revision="r1")
    later = commit({"config.json": CONFIG}, path="other")
    result = submit(later[:12], "the-job", path="org_model", stage="production")
    uri = f"lakefs://{repo}/{later}/org_model"
    assert commit_id != later
    assert result == {
        "name": name,
        "version": "1",
        "stage": "production",
        "tags": {
            "inference_task": "text-generation",
            "engine": "transformers",
            "model_source": "huggingface",
            "model_name": "org/model",
            "revision": "r1",
            "lakefs_repo": repo,
            "lakefs_commit": later,
            "lakefs_path": "org_model",
            "lakefs_manifest": manifest_digest(store.files(repo, later, "org_model")),
            "physical_path": uri,
            "model_params": "0.000001007",
            "stage": "production",
            "inference_priority": "0",
            "job_id": "the-job",
        },
    }


def test_the_registered_version_resolves_to_its_commit(
    submit: Submit, commit: Commit, registry: ModelRegistry, mlflow_server: str, name: str
) -> None:
    commit_id = commit(MODEL)
    submit(commit_id, stage="production", set_priority_to_one=True, version_description="words")
    found = registry.resolve(name)
    assert found.location is not None
    assert (found.location.commit, found.location.path) == (commit_id, "org_model")
    assert found.has_priority
    assert found.description == "words"
    client = mlflow.MlflowClient(mlflow_server, mlflow_server)
    assert client.get_model_version_by_alias(name, "production").source == found.location.uri


def test_a_worker_killed_after_mlflow_took_the_version_leaves_one(
    submit: Submit,
    commit: Commit,
    store: LakeFSStore,
    registry: ModelRegistry,
    name: str,
) -> None:
    class Killer(ModelRegistry):
        def create_version(self, *args: Any, **options: Any) -> Any:
            registry.create_version(*args, **options)
            raise KilledError

    commit_id = commit(MODEL)
    killer = Killer(MLflowSettings())
    with pytest.raises(KilledError):
        submit(commit_id, "job", Register(killer, store), stage="production")
    assert submit(commit_id, "job", stage="production")["version"] == "1"
    assert submit(commit_id, "job", stage="production")["stage"] == "production"
    assert len(registry.versions(name, all_version=True)) == 1


def test_a_new_version_archives_the_old_one_if_asked(
    submit: Submit, commit: Commit, registry: ModelRegistry, name: str
) -> None:
    commit_id = commit(MODEL)
    submit(commit_id, stage="production")
    submit(commit_id, stage="production", archive_existing_versions=True)
    found = registry.versions(name, all_version=True)
    assert [(each.version, each.stage) for each in found] == [
        ("2", "production"),
        ("1", "archived"),
    ]


def test_parameters_are_given_or_counted_over_all_shards(submit: Submit, commit: Commit) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": names[0], "b": names[1], "c": names[1]}}
    files = {
        "config.json": CONFIG,
        "model.safetensors.index.json": json.dumps(index).encode(),
        names[0]: safetensors((1000, 1000)),
        names[1]: safetensors((1000,), (), header_padding=1 << 19),
        "consolidated.safetensors": safetensors((5,)),
    }
    commit_id = commit(files)
    assert submit(commit_id)["tags"]["model_params"] == "0.001001001"
    assert submit(commit_id, model_params=7)["tags"]["model_params"] == "7"


def test_a_model_at_the_root_is_found(submit: Submit, commit: Commit) -> None:
    tags = submit(commit(MODEL, path=""))["tags"]
    assert (tags["lakefs_path"], tags["model_source"]) == ("", "lakefs")


def test_a_model_inside_a_model_is_not_another(submit: Submit, commit: Commit) -> None:
    tags = submit(commit(MODEL | {"part/config.json": b"{}"}))["tags"]
    assert tags["lakefs_path"] == "org_model"


def refused(
    error: type[LifecycleError], submit: Submit, commit_id: str | None, **changes: Any
) -> LifecycleError:
    with pytest.raises(error) as refusal:
        submit(commit_id, **changes)
    return refusal.value


def test_several_models_must_be_told_apart(submit: Submit, commit: Commit) -> None:
    commit(MODEL, path="one")
    commit_id = commit(MODEL, path="two")
    error = refused(InvalidInputError, submit, commit_id)
    assert error.field == "path"
    assert "'one', 'two'" in error.detail
    assert submit(commit_id, path="two")["tags"]["lakefs_path"] == "two"


def test_what_does_not_exist_is_named(submit: Submit, commit: Commit) -> None:
    commit_id = commit({"README.md": b"no model"})
    missing = refused(NotFoundError, submit, "0" * 64)
    assert missing.specific_code == "commit_not_found"
    assert "0" * 64 in missing.detail
    assert refused(NotFoundError, submit, commit_id, path="none").specific_code == "path_not_found"
    unknown = refused(NotFoundError, submit, commit_id, lakefs_repo="no-such-repo")
    assert unknown.specific_code == "repository_not_found"
    assert "config.json" in refused(InvalidInputError, submit, commit_id).detail
    assert "config.json" in refused(InvalidInputError, submit, commit_id, path="org_model").detail


def test_models_that_cannot_do_the_task_are_refused(
    submit: Submit, commit: Commit, registry: ModelRegistry, name: str
) -> None:
    commit_id = commit(MODEL)
    assert refused(UnsupportedTaskError, submit, commit_id, task="asr").field == "task"
    assert refused(UnsupportedTaskError, submit, commit_id, engine="ollama").field == "engine"
    with pytest.raises(NotFoundError):
        registry.versions(name)


@pytest.mark.parametrize(
    ("files", "error", "code"),
    [
        ({"pytorch_model.bin": b"pickle"}, UnsafeModelError, "pickle_weights"),
        ({}, ModelLoadError, "missing_weights"),
        ({"model.safetensors": b""}, ModelLoadError, "corrupt_weights"),
        ({"model.safetensors": b"version https"}, ModelLoadError, "corrupt_weights"),
        ({"model.safetensors": safetensors((9,), cut=1)}, ModelLoadError, "corrupt_weights"),
        ({"model.safetensors.index.json": b"[]"}, ModelLoadError, "corrupt_weights"),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "gone.safetensors"}}'},
            ModelLoadError,
            "missing_weights",
        ),
        ({"config.json": b"{", "model.safetensors": b""}, ModelLoadError, "corrupt_config"),
        ({"config.json": b"[]", "model.safetensors": b""}, ModelLoadError, "corrupt_config"),
    ],
)
def test_unsafe_and_broken_models_are_refused(
    submit: Submit, commit: Commit, files: dict[str, bytes], error: type[LifecycleError], code: str
) -> None:
    commit_id = commit({"config.json": CONFIG} | files)
    assert refused(error, submit, commit_id).specific_code == code


def test_a_cancelled_registration_makes_nothing(
    register: Register,
    registry: ModelRegistry,
    new_run: NewRun,
    commit: Commit,
    repo: str,
    name: str,
) -> None:
    request = {
        "registered_name": name,
        "task": "text-generation",
        "lakefs_repo": repo,
        "commit_id": commit(MODEL),
    }
    run = new_run(JobKind.REGISTER, request)
    run.token.cancel(CancelledError("by the client"))
    with pytest.raises(CancelledError):
        register(run.context)
    with pytest.raises(NotFoundError):
        registry.versions(name)


def tag(store: LakeFSStore, repo: str, name: str, commit: str) -> None:
    store._control.call(store._control.tags.create_tag, repo, {"id": name, "ref": commit})


def test_a_commit_id_is_never_the_name_of_a_tag_or_a_branch(
    submit: Submit, commit: Commit, store: LakeFSStore, repo: str
) -> None:
    older = commit(MODEL)
    newer = commit({"note.txt": b"newer"})
    tag(store, repo, "20261128", older)
    store.ensure_branch(repo, newer[:10], source=older)  # shadows the commit's short id
    for name in ("20261128", newer[:10]):
        error = refused(InvalidInputError, submit, name)
        assert (error.specific_code, error.field) == ("not_a_commit_id", "commit_id")
    assert submit(newer[:12])["tags"]["lakefs_commit"] == newer
    assert submit(older)["tags"]["lakefs_commit"] == older


@pytest.mark.parametrize("ref", ["20261128", "v1.0"])
def test_a_ref_is_a_tag_and_the_version_keeps_its_commit(
    submit: Submit, commit: Commit, store: LakeFSStore, repo: str, ref: str
) -> None:
    tagged = commit(MODEL)
    tag(store, repo, ref, tagged)
    commit({"note.txt": b"later"})
    assert submit(None, ref=ref)["tags"]["lakefs_commit"] == tagged


def test_a_ref_is_the_head_of_a_branch(
    submit: Submit, commit: Commit, store: LakeFSStore, repo: str
) -> None:
    head = commit(MODEL)
    assert submit(None, ref="main")["tags"]["lakefs_commit"] == head
    for unknown in ("nothing", "v1.0", head):
        error = refused(NotFoundError, submit, None, ref=unknown)
        assert (error.specific_code, error.field) == ("ref_not_found", "ref")
        assert unknown in error.detail
    unknown_repo = refused(NotFoundError, submit, None, ref="main", lakefs_repo="no-such-repo")
    assert unknown_repo.specific_code == "repository_not_found"


def test_exactly_one_of_commit_and_ref_is_given() -> None:
    fields = {"registered_name": "m", "task": "text-generation", "lakefs_repo": "repo"}
    for wrong in ({}, {"commit_id": "a" * 64, "ref": "main"}, {"ref": "main~1"}, {"ref": "a/b"}):
        with pytest.raises(ValidationError):
            RegisterRequest.model_validate(fields | wrong)


def test_a_path_that_ends_with_a_slash_or_names_a_file_is_told_so(
    submit: Submit, commit: Commit
) -> None:
    commit_id = commit(MODEL)
    with pytest.raises(ValidationError, match="must not end with '/'"):
        submit(commit_id, path="org_model/")
    error = refused(InvalidInputError, submit, commit_id, path="org_model/config.json")
    assert (error.specific_code, error.field) == ("path_is_a_file", "path")
