"""The platform's own parts: ledger, front, storage and workers."""

import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from shared.settings.group import GIB, MIB, Group


def _lower(given: object) -> object:
    return given.lower() if isinstance(given, str) else given


class LedgerSettings(Group):
    """How long things may take before the ledger acts."""

    section = "ledger"
    model_config = SettingsConfigDict(env_prefix="LEDGER_")

    prefix: str = Field("lifecycle", description="Before every key in Redis.")
    lease_seconds: float = Field(
        15.0, gt=0, description="A running job is lost when its worker was silent for this long."
    )
    heartbeat_seconds: float = Field(
        0.5, gt=0, description="How often a worker renews its leases and sees cancellations."
    )
    reconcile_seconds: float = Field(1.0, gt=0, description="How often a worker reconciles.")
    affinity_seconds: float = Field(
        10.0,
        ge=0,
        description="A job may wait for this long after its turn, while jobs of models that are "
        "warm at a worker go before it.",
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
    outage_budget_seconds: float = Field(
        900.0,
        ge=0,
        description="How long a job waits for lakeFS, its object store, MLflow, the hub, Ollama or "
        "Redis while one of them does not answer; then it fails. Progress starts the time anew.",
    )
    outage_backoff_max_seconds: float = Field(
        20.0, gt=0, description="The longest wait between two tries during an outage."
    )
    max_seconds: float = Field(
        86400.0, gt=0, description="A job that runs for longer fails as `deadline_exceeded`."
    )
    retention_seconds: float = Field(
        7 * 86400.0,
        gt=0,
        description="Ended jobs are forgotten after this time; the first of them before it when "
        "Redis has used 80 % of its `maxmemory`.",
    )
    events_seconds: float = Field(
        600.0, gt=0, description="The events of an ended job are kept for this long."
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
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that serve the port. A process uses one core and about 130 MB of "
        "memory; more than one helps only where the machine has idle cores.",
    )
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


class LogSettings(Group):
    """What the API and the workers write to standard error."""

    section = "log"
    model_config = SettingsConfigDict(env_prefix="LOG_")

    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info",
        description="Lines below this level are left out. `info` has a line for each call and job.",
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
    branch_sweep_seconds: float = Field(
        30.0,
        gt=0,
        description="How often a CPU worker deletes the branches in lakeFS that jobs left behind.",
    )
    version_branches_seconds: float = Field(
        300.0,
        gt=0,
        description="How often one CPU worker compares the branches that hold the commits of "
        "registered versions with the versions in MLflow.",
    )
