"""Models run by transformers, from safetensors only and never with code of their own."""

import threading
from contextlib import contextmanager, nullcontext
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from shared.cancellation import CancelToken
from shared.errors import InvalidInputError, ModelLoadError, OutOfMemoryError, UnsafeModelError
from shared.settings import Settings
from shared.tasks import Task
from workers.inference.architectures import (
    TASKS,
    Family,
    architecture_of,
    check_model_supports,
    family_of,
    read_config,
)
from workers.inference.calls import InferenceCall
from workers.inference.engines.base import BaseEngine, LoadedModel, ModelSource
from workers.inference.weights import tensors, weight_files
