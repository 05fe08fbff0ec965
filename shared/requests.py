"""The requests that become jobs: validated by the front, kept in the ledger, read by workers."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from shared.readable_json import JsonObject
from shared.tasks import NAME_PATTERN, Engine, Task, options_of


def _plain(name: str) -> str:
    """Refuse what could leave a directory or hide in one."""
    for part in ("..", "--", "//"):
        if part in name:
            raise ValueError(f"must not contain {part!r}")
    return name


def _inside(path: str) -> str:
    """Refuse a path with empty, ``.`` or ``..`` segments."""
    if path.endswith("/"):
        raise ValueError("must not end with '/'")
    if any(part in {"", ".", ".."} for part in path.split("/")):
        raise ValueError("must be a relative path without '.' and '..'")
    return path


#: What the two rules above say to readers of OpenAPI; pydantic's patterns know no negation.
_PLAIN = Field(json_schema_extra={"not": {"pattern": r"\.\.|--|//"}})
_INSIDE = Field(json_schema_extra={"not": {"pattern": r"(^|/)\.{0,2}(/|$)"}})
_WORD = r"[A-Za-z0-9_][A-Za-z0-9._-]"
#: ``org/name`` or ``name``, each part as the Hugging Face Hub allows it.
HubName = Annotated[
    str,
    StringConstraints(pattern=rf"^{_WORD}{{0,95}}(/{_WORD}{{0,95}})?$"),
    AfterValidator(_plain),
    _PLAIN,
]
_HUB_NAME = TypeAdapter(HubName)
#: ``[host/][namespace/]name[:tag]``, as Ollama writes it.
OllamaName = Annotated[
    str,
    StringConstraints(
        pattern=rf"^({_WORD}{{0,79}}(:[0-9]{{1,5}})?/)?({_WORD}{{0,79}}/)?{_WORD}{{0,79}}(:{_WORD}{{0,79}})?$"
    ),
]
#: A branch, a tag or a commit of the hub.
Revision = Annotated[
    str,
    StringConstraints(max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/-]*$"),
    AfterValidator(_inside),
    _INSIDE,
]
#: A directory's name in the staging area: one path segment that is not hidden.
LocalName = Annotated[
    str, StringConstraints(pattern=rf"^{_WORD}{{0,199}}$"), AfterValidator(_plain), _PLAIN
]
#: lakeFS' own rule for repositories.
RepoName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{2,62}$")]
BranchName = Annotated[
    str, StringConstraints(max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")
]
#: A commit's id or the beginning of it, never the name of a tag or branch.
CommitId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")]
#: A tag or a branch of lakeFS, without expressions such as ``main~1``.
RefName = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\s\x00-\x20/^:?*\[\\~@]+$")]
#: A directory inside a lakeFS commit.
StorePath = Annotated[
    str,
    StringConstraints(max_length=500, pattern=r"^[A-Za-z0-9_.][A-Za-z0-9._ /-]*$"),
    AfterValidator(_inside),
    _INSIDE,
]
RegisteredName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._ -]{0,199}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,9}$")]
#: A built-in task or a plugin's; the front knows which there are.
TaskName = Annotated[str, Field(pattern=NAME_PATTERN, examples=[*Task])]
#: A built-in engine or a plugin's.
EngineName = Annotated[str, Field(pattern=NAME_PATTERN, examples=[*Engine])]
Stage = Literal["production", "staging", "archived", "none"]
Priority = Annotated[int, Field(strict=True, ge=0, le=9)]
#: Yes or no, as JSON has it: neither 0 nor "no".
Flag = Annotated[bool, Field(strict=True)]
#: Billions of parameters.
ModelParams = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
#: A time that the ledger, which counts in milliseconds, can tell from none.
Seconds = Annotated[float, Field(strict=True, ge=0.001)]


#: What a model is chosen by at the hub; at Ollama its name says it all.
_OF_THE_HUB = ("revision", "allow_patterns", "ignore_patterns")


def _by_source(schema: dict[str, Any]) -> None:
    """Say to readers of OpenAPI that the rules of a download depend on the model's source."""
    schema["if"] = {
        "properties": {"model_source": {"const": "ollama"}},
        "required": ["model_source"],
    }
    schema["then"] = {"properties": {name: {"type": "null"} for name in _OF_THE_HUB}}
    schema["else"] = {"properties": {"model_name": _HUB_NAME.json_schema()}}


class JobRequest(BaseModel):
    """Base of all requests: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    #: A job that no worker started by then fails; a batch's holds for each of its downloads.
    start_within_seconds: Annotated[Seconds, Field(le=7 * 86400)] | None = None


class TimedRequest(JobRequest):
    """Base of the requests that a worker serves."""

    #: From acceptance to the deadline, after which the job fails.
    timeout_seconds: Annotated[Seconds, Field(le=30 * 86400)] | None = None


class DownloadRequest(TimedRequest):
    """Fetch a model from where it is published into the staging area."""

    model_config = ConfigDict(json_schema_extra=_by_source)

    model_source: Literal["huggingface", "ollama"] = "huggingface"
    #: ``org/name`` at the hub, ``name:tag`` at Ollama.
    model_name: OllamaName
    revision: Revision | None = None
    allow_patterns: tuple[str, ...] | None = None
    ignore_patterns: tuple[str, ...] | None = None

    @field_validator("model_name")
    @classmethod
    def _named_as_at_its_source(cls, name: str, info: ValidationInfo) -> str:
        if info.data.get("model_source") == "huggingface":
            return _HUB_NAME.validate_python(name)
        return name

    @field_validator(*_OF_THE_HUB)
    @classmethod
    def _only_of_the_hub(cls, given: object, info: ValidationInfo) -> object:
        if given is not None and info.data.get("model_source") == "ollama":
            raise ValueError(f"models of Ollama have no {info.field_name}: name:tag says it all")
        return given

    @property
    def local_model_name(self) -> str:
        """The model's name in the staging area."""
        return self.model_name.replace("/", "_")


class BatchDownloadRequest(JobRequest):
    """Several downloads under one parent."""

    downloads: Annotated[tuple[DownloadRequest, ...], Field(min_length=1, max_length=5000)]


class UploadRequest(TimedRequest):
    """Commit a model of the staging area to lakeFS."""

    repo_name: RepoName
    local_model_name: LocalName
    branch: BranchName | None = Field(
        None, description="Branch to commit to (default: the repository's default branch)"
    )
    commit_message: Annotated[str, Field(max_length=2000)] | None = None
    #: The hub's commit that must be staged; another download may have replaced it.
    revision: Revision | None = None
    #: The state that must be staged, as the result of its download names it.
    staged_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")] | None = None


def _commit_or_ref(schema: dict[str, Any]) -> None:
    """Say to readers of OpenAPI that exactly one of ``commit_id`` and ``ref`` is given."""
    one, other = "commit_id", "ref"
    schema["oneOf"] = [
        {
            "required": [given],
            "properties": {given: {"type": "string"}, absent: {"type": "null"}},
        }
        for given, absent in ((one, other), (other, one))
    ]


class RegisterRequest(TimedRequest):
    """Make a lakeFS commit a version in MLflow's registry."""

    model_config = ConfigDict(json_schema_extra=_commit_or_ref)

    registered_name: RegisteredName
    task: TaskName
    engine: EngineName = Engine.TRANSFORMERS.value
    lakefs_repo: RepoName
    commit_id: CommitId | None = Field(
        None, description="Id of a commit, or its first digits; never the name of a tag or branch"
    )
    ref: RefName | None = Field(
        None,
        description="Tag or branch, in place of commit_id; the version keeps the commit that it is "
        "when it is registered",
    )
    #: The model's directory in the commit; found by its config.json if absent.
    path: StorePath | None = None
    #: Billions of parameters; counted from the weights' headers if absent.
    model_params: ModelParams | None = None
    version_description: Annotated[str, Field(max_length=5000)] | None = None
    stage: Stage | None = None
    set_priority_to_one: Flag = False
    archive_existing_versions: Flag = False

    @model_validator(mode="after")
    def _one_commit(self) -> Self:
        if (self.commit_id is None) == (self.ref is None):
            raise ValueError("give either commit_id or ref")
        return self


#: Text generation on Ollama in one word.
OLLAMA_ALIAS = "text-generation-ollama"


class RegisterOllamaRequest(TimedRequest):
    """Make a model of the Ollama server a version in MLflow's registry."""

    local_model_name: OllamaName
    task: Literal["text-generation-ollama"] = "text-generation-ollama"
    model_params: ModelParams | None = None
    registered_name: RegisteredName | None = None
    version_description: Annotated[str, Field(max_length=5000)] | None = None
    stage: Stage | None = None
    set_priority_to_one: Flag = False
    #: Generate one token first, and do not register a model that cannot; if absent, where the
    #: stage is production.
    smoke_test: Flag | None = None


def affinity_of(model_name: str, version: str | None, stage: str | None) -> str:
    """Return what jobs of one model share: its name, with the version or stage that is asked for.

    A worker that has the model in memory takes such jobs first.
    """
    return f"{model_name}@{version or stage or ''}"


class InferRequest(TimedRequest):
    """Ask a registered model."""

    task: TaskName
    engine: EngineName = Engine.TRANSFORMERS.value
    model_name: RegisteredName
    data: JsonObject
    options: JsonObject = Field(default_factory=dict)
    version: Version | None = None
    stage: Literal["production", "staging"] | None = None
    priority: Priority | None = None
    stream: Flag = False

    @property
    def affinity(self) -> str:
        """What its job shares with others of the same model."""
        return affinity_of(self.model_name, self.version, self.stage)

    @model_validator(mode="before")
    @classmethod
    def _with_alias(cls, fields: Any) -> Any:
        """Read ``text-generation-ollama`` as the task and the engine that it stands for."""
        return without_alias(fields)

    @model_validator(mode="after")
    def _known_options(self) -> Self:
        check_options(self.task, self.engine, self.options)
        return self


def without_alias(fields: Any) -> Any:
    """Return a request's fields with the task and the engine that the alias stands for."""
    if not isinstance(fields, dict) or fields.get("task") != OLLAMA_ALIAS:
        return fields
    if (engine := fields.get("engine")) is not None and engine != Engine.OLLAMA:
        words = (
            f"the task {OLLAMA_ALIAS} contradicts the engine {engine!r}: leave out the engine, or "
            f"give the task {Task.TEXT_GENERATION}"
        )
        error = PydanticCustomError("contradiction", "{words}", {"words": words})
        details = InitErrorDetails(type=error, loc=("engine",), input=engine)
        raise ValidationError.from_exception_data("request", [details])
    return fields | {"task": Task.TEXT_GENERATION.value, "engine": Engine.OLLAMA.value}


def check_options(task: str, engine: str, options: dict[str, Any]) -> None:
    """Refuse an option that the task does not have, by its name; a plugin's handler does so."""
    model = options_of(task, engine)
    if model is None:
        return
    try:
        model.model_validate(options)
    except ValidationError as error:
        raise ValidationError.from_exception_data(
            "options",
            [
                InitErrorDetails(
                    type=PydanticCustomError(line["type"], "{msg}", {"msg": line["msg"]}),
                    loc=("options", *line["loc"]),
                    input=line["input"],
                )
                for line in error.errors()
            ],
        ) from error
