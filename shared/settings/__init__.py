"""Every setting of the platform, in small groups.

Sources, the later wins: the defaults below, ``config/base.yaml`` (a section for each group; another
file through ``LIFECYCLE_CONFIG``), ``.env``, the environment. A variable's name is its group's
prefix and the field's name: ``REDIS_URL``, ``LAKEFS_ENDPOINT``, ``LEDGER_LEASE_SECONDS``.
"""

from pydantic import BaseModel, Field

from shared.settings.group import GIB, MIB, Group
from shared.settings.inference import InferenceSettings, MediaSettings
from shared.settings.platform import (
    ApiSettings,
    LedgerSettings,
    LogSettings,
    StorageSettings,
    WorkerSettings,
)
from shared.settings.refusal import exit_on_wrong_settings, removed_settings
from shared.settings.services import (
    FlowerSettings,
    HubSettings,
    LakeFSSettings,
    MLflowSettings,
    OllamaSettings,
    RedisSettings,
)

__all__ = [
    "GIB",
    "MIB",
    "ApiSettings",
    "FlowerSettings",
    "Group",
    "HubSettings",
    "InferenceSettings",
    "LakeFSSettings",
    "LedgerSettings",
    "LogSettings",
    "MLflowSettings",
    "MediaSettings",
    "OllamaSettings",
    "RedisSettings",
    "Settings",
    "StorageSettings",
    "WorkerSettings",
    "exit_on_wrong_settings",
    "removed_settings",
]


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
    log: LogSettings = Field(default_factory=LogSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    inference: InferenceSettings = Field(default_factory=InferenceSettings)
    media: MediaSettings = Field(default_factory=MediaSettings)
