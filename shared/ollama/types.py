"""What the Ollama server tells, as the platform keeps it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

import ollama

#: A chat: messages with a ``role`` and a ``content``.
Messages = Sequence[Mapping[str, str]]

_NANOSECONDS = 1e9
#: What Ollama leaves out when it shows a name.
_DEFAULT_HOST = "registry.ollama.ai/"
_DEFAULT_NAMESPACE = "library/"
#: How a Modelfile names a file of the server's store.
_BLOB = re.compile(r"^FROM .*\bsha256[-:]([0-9a-f]{64})\s*$", re.MULTILINE)


def full_name(name: str) -> str:
    """Return a model's name as Ollama lists it: with its tag, without the default registry."""
    short = name.removeprefix(_DEFAULT_HOST).removeprefix(_DEFAULT_NAMESPACE)
    return short if ":" in short.rpartition("/")[2] else f"{short}:latest"


@dataclass(frozen=True)
class OllamaModel:
    """A model that the server has."""

    #: With its tag.
    name: str
    size_bytes: int
    modified_at: datetime
    #: Of the manifest, hexadecimal: names the model's exact content.
    digest: str
    family: str | None
    #: As Ollama writes it: ``8.0B``, ``567M``.
    parameter_size: str | None
    quantization: str | None

    @classmethod
    def of(cls, listed: ollama.ListResponse.Model) -> Self:
        """Read an entry of the server's list."""
        if not listed.model or not listed.digest or listed.size is None or not listed.modified_at:
            raise ValueError(f"an entry of its list of models is incomplete: {listed}")
        details = listed.details
        return cls(
            name=listed.model,
            size_bytes=int(listed.size),
            modified_at=listed.modified_at,
            digest=listed.digest,
            family=details.family if details else None,
            parameter_size=details.parameter_size if details else None,
            quantization=details.quantization_level if details else None,
        )


@dataclass(frozen=True)
class OllamaDetails:
    """What the server knows of one of its models."""

    family: str | None
    parameter_size: str | None
    quantization: str | None
    #: Exact, where the model's file says it.
    parameter_count: int | None
    #: ``completion``, ``embedding``, ``vision``, …; empty where the server does not say.
    capabilities: frozenset[str]
    #: Tokens that it was trained for.
    context_length: int | None = None
    #: Of its GGUF file, hexadecimal: the same on every host, as the manifest's digest is not.
    gguf_sha256: str | None = None

    @classmethod
    def of(cls, shown: ollama.ShowResponse) -> Self:
        """Read the server's answer about one model."""
        details, info = shown.details, shown.modelinfo or {}
        count = info.get("general.parameter_count")
        return cls(
            family=details.family if details else None,
            parameter_size=details.parameter_size if details else None,
            quantization=details.quantization_level if details else None,
            parameter_count=int(count) if count else None,
            capabilities=frozenset(shown.capabilities or ()),
            context_length=_context_length(info),
            gguf_sha256=_gguf_sha256(shown),
        )


def _context_length(info: Mapping[str, Any]) -> int | None:
    length = info.get(f"{info.get('general.architecture')}.context_length")
    return int(length) if length else None


def _gguf_sha256(shown: ollama.ShowResponse) -> str | None:
    """Read it where the server names the file that a model is made from."""
    parent = shown.details.parent_model if shown.details else None
    found = _BLOB.search(shown.modelfile or "") or _BLOB.search(f"FROM {parent}")
    return found[1] if found else None


@dataclass(frozen=True)
class LoadedOllamaModel:
    """A model in the server's memory."""

    name: str
    size_bytes: int
    #: The part of it on GPUs.
    vram_bytes: int
    expires_at: datetime | None
    #: Of the manifest, hexadecimal.
    digest: str = ""
    #: Tokens of prompt and answer that it is loaded for.
    context_length: int | None = None

    @classmethod
    def of(cls, running: ollama.ProcessResponse.Model) -> Self:
        """Read an entry of the server's list of loaded models."""
        return cls(
            name=running.model or running.name or "",
            size_bytes=int(running.size or 0),
            vram_bytes=int(running.size_vram or 0),
            expires_at=running.expires_at,
            digest=running.digest or "",
            context_length=running.context_length,
        )


@dataclass(frozen=True)
class Pulled:
    """What a pull brought, or found to be there already."""

    files: int
    size_bytes: int


@dataclass(frozen=True)
class OllamaSampling:
    """How an answer is to be generated; what is not set is the model's own."""

    #: Under Ollama's names.
    options: Mapping[str, Any] = field(default_factory=dict)
    keep_alive: float | str | None = None
    think: bool | str | None = None
    #: ``json`` or a JSON schema.
    format: Any = None


@dataclass(frozen=True)
class Ending:
    """How an answer came to its end, and what it took."""

    #: ``stop`` or ``length``.
    reason: str
    input_tokens: int
    output_tokens: int
    load_seconds: float
    prompt_seconds: float
    answer_seconds: float

    @classmethod
    def of(cls, last: ollama.GenerateResponse | ollama.ChatResponse) -> Self:
        """Read the last message of an answer."""
        return cls(
            reason=last.done_reason or "stop",
            input_tokens=last.prompt_eval_count or 0,
            output_tokens=last.eval_count or 0,
            load_seconds=(last.load_duration or 0) / _NANOSECONDS,
            prompt_seconds=(last.prompt_eval_duration or 0) / _NANOSECONDS,
            answer_seconds=(last.eval_duration or 0) / _NANOSECONDS,
        )


@dataclass(frozen=True)
class OllamaChunk:
    """A piece of an answer."""

    text: str
    #: Of models that think aloud before they answer.
    thinking: str = ""
    #: With the last chunk only.
    ending: Ending | None = None

    @classmethod
    def of(cls, message: ollama.GenerateResponse | ollama.ChatResponse) -> Self:
        """Read one message of an answer, to a prompt or to a chat."""
        if isinstance(message, ollama.ChatResponse):
            text, thinking = message.message.content, message.message.thinking
        else:
            text, thinking = message.response, message.thinking
        return cls(text or "", thinking or "", Ending.of(message) if message.done else None)
