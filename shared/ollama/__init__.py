"""The Ollama server: what it has, and how it pulls and runs models, through its own client."""

from shared.ollama.refusals import PROMPT_TOO_LONG, prompt_too_long
from shared.ollama.server import OllamaServer
from shared.ollama.types import (
    Ending,
    LoadedOllamaModel,
    Messages,
    OllamaChunk,
    OllamaDetails,
    OllamaModel,
    OllamaSampling,
    Pulled,
    full_name,
)

__all__ = [
    "PROMPT_TOO_LONG",
    "Ending",
    "LoadedOllamaModel",
    "Messages",
    "OllamaChunk",
    "OllamaDetails",
    "OllamaModel",
    "OllamaSampling",
    "OllamaServer",
    "Pulled",
    "full_name",
    "prompt_too_long",
]
