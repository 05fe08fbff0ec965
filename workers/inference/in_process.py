"""Composition root of inference without the queue, for scripts and notebooks."""

from shared.lakefs.store import LakeFSStore
from shared.registry import ModelRegistry
from shared.settings import Settings
from workers.inference.manager import InferenceManager, build_manager


def build() -> InferenceManager:
    """Build a manager on the registry and the store that the settings name."""
    settings = Settings()
    return build_manager(settings, ModelRegistry(settings.mlflow), LakeFSStore(settings.lakefs))
