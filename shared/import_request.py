"""The request of an import: everything from a download to a stage, in one job."""

import re
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from shared.readable_json import JsonObject
from shared.requests import (
    BranchName,
    DownloadRequest,
    EngineName,
    Flag,
    JobRequest,
    ModelParams,
    RegisteredName,
    RepoName,
    Stage,
    TaskName,
    check_options,
    without_alias,
)
from shared.tasks import Engine, Task

_NOT_IN_REPO_NAMES = re.compile(r"[^a-z0-9]+")
#: lakeFS' own bounds.
_REPO_LETTERS = (3, 63)


class SmokeTest(JobRequest):
    """An inference that a new version must pass before it gets its stage."""

    data: JsonObject
    options: JsonObject = Field(default_factory=dict)
    #: What the answer's text must have in it; without it, any answer will do.
    expect_contains: Annotated[str, Field(min_length=1, max_length=2000)] | None = None


class ImportRequest(DownloadRequest):
    """Download a model, commit it to lakeFS, register it, try it, and give it a stage."""

    #: Made from the model's name if absent.
    repo_name: RepoName | None = None
    branch: BranchName | None = Field(
        None, description="Branch to commit to (default: the repository's default branch)"
    )
    registered_name: RegisteredName
    task: TaskName
    #: What the source goes with if absent: ``ollama`` or ``transformers``.
    engine: EngineName = Engine.TRANSFORMERS.value
    stage: Stage | None = None
    #: Billions of parameters; counted if absent.
    model_params: ModelParams | None = None
    version_description: Annotated[str, Field(max_length=5000)] | None = None
    set_priority_to_one: Flag = False
    archive_existing_versions: Flag = False
    smoke_test: SmokeTest | None = None

    @property
    def from_ollama(self) -> bool:
        """Whether Ollama keeps the model's files: they go neither to a staging area nor lakeFS."""
        return self.model_source == "ollama"

    @property
    def repository(self) -> str:
        """The lakeFS repository that the model goes to."""
        return self.repo_name or repository_of(self.model_name)

    @model_validator(mode="before")
    @classmethod
    def _with_engine(cls, fields: Any) -> Any:
        """Fill in the engine of models of Ollama, and read the alias for them."""
        fields = without_alias(fields)
        if not isinstance(fields, dict):
            return fields
        if fields.get("model_source") == "ollama":
            fields = {"engine": Engine.OLLAMA.value} | fields
        return fields

    @field_validator("repo_name", "branch")
    @classmethod
    def _only_of_lakefs(cls, given: object, info: ValidationInfo) -> object:
        if given is not None and info.data.get("model_source") == "ollama":
            raise ValueError(f"models of Ollama have no {info.field_name}: they stay with it")
        return given

    @field_validator("engine")
    @classmethod
    def _of_its_source(cls, engine: str, info: ValidationInfo) -> str:
        if (engine == Engine.OLLAMA) != (info.data.get("model_source") == "ollama"):
            raise ValueError("Ollama runs the models of its own store, and no other engine does")
        if engine == Engine.OLLAMA and info.data.get("task") != Task.TEXT_GENERATION:
            raise ValueError("Ollama does text-generation")
        return engine

    @field_validator("smoke_test")
    @classmethod
    def _known_options(cls, test: SmokeTest | None, info: ValidationInfo) -> SmokeTest | None:
        task, engine = info.data.get("task"), info.data.get("engine")
        if test and task and engine:
            check_options(task, engine, test.options)
        return test


def repository_of(model_name: str) -> str:
    """Return a name that lakeFS allows, made from a model's."""
    shortest, longest = _REPO_LETTERS
    name = _NOT_IN_REPO_NAMES.sub("-", model_name.lower()).strip("-")[:longest].strip("-")
    return name if len(name) >= shortest else f"model-{name}".rstrip("-")
