"""Every setting of the platform, in small groups.

Sources, the later wins: the defaults below, ``config/base.yaml`` (a section for each group; another
file through ``LIFECYCLE_CONFIG``), ``.env``, the environment. A variable's name is its group's
prefix and the field's name: ``REDIS_URL``, ``LAKEFS_ENDPOINT``, ``LEDGER_LEASE_SECONDS``.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from shared.redaction import keep_secret
from shared.tasks import KeepAlive

MIB = 1024 * 1024
GIB = 1024 * MIB


class Group(BaseSettings):
    """A group of settings: a section of the YAML file and a prefix in the environment."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True
    )
    section: ClassVar[str]
    #: Secrets that a service's own client takes from the environment.
    client_secrets: ClassVar[tuple[str, ...]] = ()

    def model_post_init(self, _: Any, /) -> None:
        """See to it that no log and no error of this process repeats a secret."""
        values = [getattr(self, name) for name in type(self).model_fields]
        values += [SecretStr(os.environ.get(name, "")) for name in self.client_secrets]
        for secret in (secret for value in values for secret in _secrets_in(value)):
            keep_secret(secret)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - by name
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the YAML file behind the environment."""
        path = Path(os.environ.get("LIFECYCLE_CONFIG", "config/base.yaml"))
        yaml = YamlConfigSettingsSource(settings_cls, yaml_file=path)
        section = yaml.yaml_data.get(cls.section) or {}
        yaml.init_kwargs = section
        return init_settings, env_settings, dotenv_settings, yaml


def _secrets_in(value: object) -> Iterator[str]:
    """Yield the passwords of an address or of ``user:password``, or else what is secret whole."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        return
    if "://" in text:
        password = urlsplit(text).password or ""
        yield from (password, unquote(password))
    elif isinstance(value, SecretStr):
        yield text
        yield from (pair.partition(":")[2] for pair in text.split(","))


class RedisSettings(Group):
    """Where the ledger lives, and Celery's messages."""

    section = "redis"
    model_config = SettingsConfigDict(env_prefix="REDIS_")

    url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="The ledger's database."
    )
    broker_url: SecretStr | None = Field(
        None, description="Celery's database; the ledger's if not set."
    )
    timeout_seconds: float = Field(
        2.0, gt=0, description="For a connection and for each answer of Redis."
    )


class LedgerSettings(Group):
    """How long things may take before the ledger acts."""

    section = "ledger"
    model_config = SettingsConfigDict(env_prefix="LEDGER_")

    prefix: str = Field("lifecycle", description="Before every key in Redis.")
    lease_seconds: float = Field(
        15.0, gt=0, description="A running job is lost when its worker was silent for this long."
    )
    heartbeat_seconds: float = Field(
        1.0, gt=0, description="How often a worker renews its leases and sees cancellations."
    )
    reconcile_seconds: float = Field(1.0, gt=0, description="How often a worker reconciles.")
    republish_seconds: float = Field(
        5.0, gt=0, description="A hinted job is looked at this often, and hinted again if need be."
    )
    window: int = Field(
        8,
        ge=1,
        description="Jobs of one submitter, queue and priority that Celery knows of at once; the "
        "next follow as these start, so that submitters take turns.",
    )
    max_queued: int = Field(
        20_000, ge=1, description="Jobs queued in one queue; a submit beyond it is a 429."
    )
    max_queued_per_submitter: int = Field(
        10_000, ge=1, description="Jobs queued by one API key, in all queues together."
    )
    max_request_bytes: int = Field(
        256 * MIB, ge=1, description="JSON of the requests of all jobs that have not ended."
    )
    max_attempts: int = Field(3, ge=1, description="Runs of a job whose errors may pass.")
    max_crashes: int = Field(
        3, ge=1, description="A job is failed as `crashed` when it lost this many workers."
    )
    quarantine_crashes: int = Field(
        2, ge=1, description="After this many a job runs alone, in a process of its own."
    )
    backoff_seconds: float = Field(
        2.0, gt=0, description="Wait before the second run; doubles with each further one."
    )
    backoff_max_seconds: float = Field(300.0, gt=0, description="The longest such wait.")
    max_seconds: float = Field(
        86400.0, gt=0, description="A job that runs for longer fails as `deadline_exceeded`."
    )
    retention_seconds: float = Field(
        7 * 86400.0, gt=0, description="Ended jobs are forgotten after this time."
    )
    events_max: int = Field(
        10_000, ge=100, description="Events kept for each job, about; the oldest go first."
    )


class ApiSettings(Group):
    """The front."""

    section = "api"
    # An admin key that is too short must not show in the error.
    model_config = SettingsConfigDict(env_prefix="API_", hide_input_in_errors=True)

    host: str = Field(
        "127.0.0.1",
        description="Address that the front listens on; beyond loopback, it takes keys to start.",
    )
    port: int = Field(8009, ge=0, le=65535, description="Port that the front listens on.")
    max_body_bytes: int = Field(8 * MIB, gt=0, description="The largest JSON body.")
    admin_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="An API key with the role `admin`, beside those that `lifecycle keys` makes.",
    )
    require_keys: bool = Field(
        False, description="Answer only to API keys, also before the first one is made."
    )
    allow_open: bool = Field(
        False,
        description="Serve beyond loopback although there are no keys: whoever can connect may do "
        "everything.",
    )
    key_cache_seconds: float = Field(
        5.0, ge=0, description="How long a key, and so its revocation, may be remembered."
    )
    calls_per_second: float = Field(
        0.0,
        ge=0,
        description="Calls other than GET that each key (without keys: each address) may make in "
        "the long run; 0: any number.",
    )
    calls_burst: int = Field(50, ge=1, description="And how many of them at once.")


class HubSettings(Group):
    """The Hugging Face Hub, under the names that its own client uses."""

    section = "hub"
    model_config = SettingsConfigDict(env_prefix="HF_")

    endpoint: str = Field("https://huggingface.co", description="The hub's address.")
    token: SecretStr | None = Field(None, description="For private and gated models.")
    timeout_seconds: float = Field(
        30.0, gt=0, description="A connection that gives nothing for this long is dropped."
    )
    concurrent_files: int = Field(4, ge=1, description="Files of one download fetched at once.")
    allow_pickle: bool = Field(
        False, description="Accept pickle weights of models that have no safetensors."
    )


class LakeFSSettings(Group):
    """The versioned store."""

    section = "lakefs"
    model_config = SettingsConfigDict(env_prefix="LAKEFS_")

    endpoint: str = Field("http://127.0.0.1:8000", description="lakeFS' address, without a path.")
    access_key_id: str = Field("", description="Who the platform is at lakeFS.")
    secret_access_key: SecretStr = Field(SecretStr(""), description="And its secret.")
    storage_namespace: str = Field(
        "",
        description="Storage namespaces of new repositories start with this; "
        "the store's own default if empty.",
    )
    timeout_seconds: float = Field(
        60.0, gt=0, description="A connection that gives nothing for this long is dropped."
    )
    concurrent_files: int = Field(4, ge=1, description="Files of one transfer moved at once.")


class MLflowSettings(Group):
    """The model registry."""

    section = "mlflow"
    model_config = SettingsConfigDict(env_prefix="MLFLOW_")
    client_secrets = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")

    tracking_uri: str = Field("http://127.0.0.1:5000", description="MLflow's address.")
    timeout_seconds: int = Field(10, ge=1, description="For each answer of MLflow.")
    resolution_cache_seconds: float = Field(
        5.0, ge=0, description="How long a name's resolution to a version may be remembered."
    )


class OllamaSettings(Group):
    """The Ollama server, under the name that its own client uses."""

    section = "ollama"
    model_config = SettingsConfigDict(env_prefix="OLLAMA_")
    client_secrets = ("OLLAMA_API_KEY",)

    host: str = Field("http://127.0.0.1:11434", description="Ollama's address.")
    timeout_seconds: float = Field(
        5.0, gt=0, description="For a connection, and for each answer that is not streamed."
    )
    auto_pull: bool = Field(
        False, description="Pull a registered model that the server lacks when it is asked for."
    )
    keep_alive: KeepAlive | None = Field(
        None,
        description="How long Ollama keeps a model in memory after its last use: `10m`, or "
        "seconds; negative: for ever. Ollama's own default if not set.",
    )


class FlowerSettings(Group):
    """The view of workers and Celery tasks, under the name that Flower itself reads."""

    section = "flower"
    model_config = SettingsConfigDict(env_prefix="FLOWER_")

    basic_auth: SecretStr | None = Field(
        None,
        description="Who may look at it: `user:password`, several with commas between; "
        "whoever is on its machine if not set.",
    )


class StorageSettings(Group):
    """Directories of this host."""

    section = "storage"
    model_config = SettingsConfigDict(env_prefix="STORAGE_")

    host_id: str = Field(
        default_factory=socket.gethostname,
        description="Names the host that the staging area belongs to.",
    )
    staging_dir: Path = Field(
        Path("tmp/models"), description="Models downloaded and not yet uploaded."
    )
    snapshots_dir: Path = Field(
        Path("data/models"), description="Models fetched from lakeFS for inference."
    )
    snapshots_max_bytes: int = Field(
        0, ge=0, description="Disk budget of the snapshots; 0: nine tenths of the disk."
    )
    reserve_bytes: int = Field(
        GIB, ge=0, description="Room that a download or a snapshot leaves free on the disk."
    )


class WorkerSettings(Group):
    """What both kinds of worker share."""

    section = "worker"
    model_config = SettingsConfigDict(env_prefix="WORKER_")

    cpu_concurrency: int = Field(4, ge=1, description="Lifecycle jobs in flight in a CPU worker.")
    gpu_concurrency: int = Field(2, ge=1, description="Inferences in flight in a GPU worker.")
    drain_seconds: float = Field(
        20.0, ge=0, description="After SIGTERM, running jobs may go on for this long."
    )
    stuck_seconds: float = Field(
        30.0,
        gt=0,
        description="A job that goes on for this long after it was cancelled, or after its "
        "deadline, costs the worker its process: the other jobs are given back, and a supervisor "
        "starts another. More for models that take longer to load.",
    )
    deaf_seconds: float = Field(
        15.0,
        gt=0,
        description="A worker that has a free slot and asked the broker for nothing for this long, "
        "although the broker answers, gives its jobs back and ends, for a supervisor to start "
        "another.",
    )
    host_lost_seconds: float = Field(
        300.0,
        gt=0,
        description="When an upload has waited for this long for the one host that has its files, "
        "while no worker is alive there, another host downloads them again and uploads them.",
    )


class InferenceSettings(Group):
    """Models in memory."""

    section = "inference"
    model_config = SettingsConfigDict(env_prefix="INFERENCE_")

    device: str = Field(
        "auto",
        description="`auto` (the first GPU, else the CPU), `cpu`, `cuda` or `cuda:N`; "
        "each further GPU has a worker of its own: `python -m workers gpu --device cuda:1`.",
    )
    cpu_fallback: bool = Field(
        True, description="Models too large for the GPU run on the CPU; so do all without a GPU."
    )
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="`auto` (as the model was saved), `bf16`, `fp16` or `fp32`."
    )
    cache_max_bytes: int = Field(
        0,
        ge=0,
        description="Memory for warm models on the worker's device; 0: four fifths of what is free "
        "at the start. Beside a GPU, models on the CPU may take four fifths of what is free there.",
    )
    cache_max_models: int = Field(8, ge=1, description="The most warm models.")
    wait_seconds: float = Field(
        60.0, ge=0, description="How long a load may wait for models in use to end."
    )
    idle_seconds: float = Field(
        1800.0,
        gt=0,
        description="A model that nobody used for this long is unloaded, unless it has priority.",
    )
    preload: bool = Field(
        True, description="A worker loads the priority-one models in production when it starts."
    )
    max_new_tokens: int = Field(
        512, ge=1, description="Tokens generated at most where the request does not say."
    )
    max_seconds: float = Field(
        600.0, gt=0, description="Deadline of an inference whose request does not say."
    )


class MediaSettings(Group):
    """Images, audio, video and documents that inference is asked about."""

    section = "media"
    model_config = SettingsConfigDict(env_prefix="MEDIA_")

    files_url: str = Field(
        "data/files",
        description="Where uploaded files are kept: a directory that API and GPU workers share, or "
        "any address that fsspec knows, such as `s3://bucket/files`.",
    )
    files_kept_seconds: float = Field(
        7 * 86400.0, gt=0, description="Uploaded files are deleted after this time."
    )
    roots: tuple[Path, ...] = Field(
        (),
        description="Directories whose files requests may name by path, as a JSON list; none if "
        "empty.",
    )
    max_bytes: int = Field(
        512 * MIB, gt=0, description="The largest upload, and the largest medium from elsewhere."
    )
    url_private_hosts: tuple[str, ...] = Field(
        (),
        description="Hosts, as a JSON list of `name` or `name:port`, that media may be fetched "
        "from although their addresses are not public.",
    )
    url_timeout_seconds: float = Field(
        10.0, gt=0, description="A server of media that gives nothing for this long is dropped."
    )
    url_max_seconds: float = Field(
        120.0, gt=0, description="Fetching a medium takes at most this long."
    )
    max_image_pixels: int = Field(50_000_000, gt=0, description="The largest image.")
    max_audio_seconds: float = Field(3600.0, gt=0, description="The longest audio.")
    max_video_seconds: float = Field(600.0, gt=0, description="The longest video.")
    max_video_pixels: int = Field(10_000_000, gt=0, description="The largest frame of a video.")
    max_video_frames: int = Field(64, ge=1, description="Frames looked at of one video.")
    max_document_pages: int = Field(20, ge=1, description="Pages looked at of one document.")
    document_dpi: int = Field(144, ge=36, le=600, description="Resolution of a document's pages.")


class Settings(BaseModel):
    """All groups."""

    redis: RedisSettings = Field(default_factory=RedisSettings)
    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    hub: HubSettings = Field(default_factory=HubSettings)
    lakefs: LakeFSSettings = Field(default_factory=LakeFSSettings)
    mlflow: MLflowSettings = Field(default_factory=MLflowSettings)
    ollama: OllamaSettings = Field(default_factory=OllamaSettings)
    flower: FlowerSettings = Field(default_factory=FlowerSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    inference: InferenceSettings = Field(default_factory=InferenceSettings)
    media: MediaSettings = Field(default_factory=MediaSettings)
