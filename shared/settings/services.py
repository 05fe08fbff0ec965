"""The services that the platform works with, most of them under their own clients' names."""

from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from shared.settings.group import Group
from shared.tasks import KeepAlive, OllamaHostOptions

#: Requests that Ollama is taken to serve in parallel where nobody says it.
USUAL_PARALLEL = 8
_REDIS_SCHEMES = ("redis", "rediss", "unix")


class RedisSettings(Group):
    """The ledger's Redis, which is also Celery's broker."""

    section = "redis"
    # An address may hold a password, which must not show in the error.
    model_config = SettingsConfigDict(env_prefix="REDIS_", hide_input_in_errors=True)

    url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="The ledger's database."
    )
    broker_url: SecretStr | None = Field(
        None,
        description="Of earlier versions: Celery uses the ledger's database now, and another "
        "address is refused.",
    )
    timeout_seconds: float = Field(
        2.0, gt=0, description="For a connection and for each answer of Redis."
    )

    @field_validator("broker_url")
    @classmethod
    def _is_the_ledgers(cls, url: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """Refuse a database apart: no worker would look there."""
        if url is not None and url != info.data.get("url", url):
            raise ValueError(
                "it names another database than REDIS_URL, which Celery uses now: remove it"
            )
        return url

    @field_validator("url")
    @classmethod
    def _is_one_server(cls, url: SecretStr | None) -> SecretStr | None:
        """Refuse Redis Sentinel and Redis Cluster, whose clients differ from those used here."""
        scheme, _, rest = url.get_secret_value().partition("://") if url else ("redis", "", "")
        servers = rest.partition("/")[0].rpartition("@")[2]
        kind = next((each for each in ("sentinel", "cluster") if each in scheme.lower()), None)
        if kind or "," in servers or ";" in rest:
            name = f"Redis {kind.capitalize()}" if kind else "an address with several servers"
            raise ValueError(
                f"{name} is not supported: give the address of one Redis primary, or of a proxy or "
                "a DNS name that follows it, as redis://host:port/0"
            )
        if scheme not in _REDIS_SCHEMES:
            schemes = ", ".join(f"{each}://" for each in _REDIS_SCHEMES)
            raise ValueError(f"the address must begin with one of {schemes}")
        return url


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
    concurrency: int = Field(
        0,
        ge=0,
        description="Requests that an Ollama worker sends at once; 0: `OLLAMA_NUM_PARALLEL` and a "
        "quarter more where that is set, else 10. Ollama queues what it cannot serve yet.",
    )
    num_parallel: int = Field(
        0,
        ge=0,
        description="Ollama's own setting: requests to one model that it serves at once. Its API "
        "does not tell it; set it here too, and `OLLAMA_CONCURRENCY` follows it.",
    )
    auto_pull: bool = Field(
        False, description="Pull a registered model that the server lacks when it is asked for."
    )
    keep_alive: KeepAlive | None = Field(
        None,
        description="How long Ollama keeps a model in memory after its last use: `10m`, or "
        "seconds; negative: for ever. Ollama's own default if not set.",
    )
    options: OllamaHostOptions = Field(
        OllamaHostOptions(),
        description="Options of Ollama that concern its host, as a JSON object: `num_thread`, "
        "`num_batch`, `num_gpu`, `main_gpu`, `use_mmap`, `use_mlock`, `numa`, "
        "`draft_num_predict`, `low_vram`, `f16_kv`, and the `num_ctx` of requests that do not "
        "set it. Requests may not set them, except for `num_ctx`.",
    )
    replaced_models: Literal["refuse", "serve"] = Field(
        "refuse",
        description="What becomes of a request to a version whose model has been replaced in "
        "Ollama since it was registered: `refuse` (a conflict that names both digests) or "
        "`serve` (the digest that answered is in `metadata`).",
    )

    @property
    def slots(self) -> int:
        """How many requests an Ollama worker sends at once.

        More than Ollama serves in parallel, so that the next request is there when one ends.
        """
        parallel = self.num_parallel or USUAL_PARALLEL
        return self.concurrency or parallel + (parallel + 3) // 4


class FlowerSettings(Group):
    """The view of workers and Celery tasks, under the name that Flower itself reads."""

    section = "flower"
    model_config = SettingsConfigDict(env_prefix="FLOWER_")

    basic_auth: SecretStr | None = Field(
        None,
        description="Who may look at it: `user:password`, several with commas between; "
        "whoever is on its machine if not set.",
    )
