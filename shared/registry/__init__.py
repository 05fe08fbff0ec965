"""The model registry: MLflow's versions with the platform's tags, stages and resolution."""

from shared.registry.history import Cause
from shared.registry.registry import ModelRegistry

__all__ = ["Cause", "ModelRegistry"]
