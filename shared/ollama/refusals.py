"""Which of Ollama's errors are final: what the request or the model's files are to blame for.

Ollama answers many of them with 500, or inside a stream whose status was 200. It has no codes; the
words are its own, or those of llama.cpp's server, which it passes on as the JSON that they were.
https://github.com/ollama/ollama/blob/main/llm/llama_server.go
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.errors import InvalidInputError, ModelLoadError, RequestError, UnsupportedTaskError

_INPUTS = "data.inputs"


#: Of an error that says that a prompt is longer than the model's context.
PROMPT_TOO_LONG = "prompt_too_long"


def prompt_too_long(prompt_tokens: int | None, context_tokens: int | None) -> InvalidInputError:
    """Return the error of such a prompt, with both lengths as far as they are known."""
    has = "too many" if prompt_tokens is None else str(prompt_tokens)
    takes = "" if context_tokens is None else f", and the model takes fewer than {context_tokens}"
    return InvalidInputError(
        f"the prompt has {has} tokens{takes}", field=_INPUTS, code=PROMPT_TOO_LONG
    )


@dataclass(frozen=True)
class Refusal:
    """Words of Ollama, and the error that they mean."""

    signs: tuple[str, ...]
    error: Callable[[str], RequestError]


def _field(name: str) -> Callable[[str], RequestError]:
    return lambda words: InvalidInputError(f"Ollama refuses: {words}", field=name)


def _broken(code: str) -> Callable[[str], RequestError]:
    return lambda words: ModelLoadError(f"Ollama cannot load the model: {words}", code=code)


_REFUSALS = (
    Refusal(
        (
            "exceed_context_size",
            "exceeds the available context",
            "input length exceeds the context length",
            "exceeds maximum context length",
            "prompt is longer than the context",
        ),
        lambda _: prompt_too_long(None, None),
    ),
    Refusal(
        ("does not support thinking", "invalid think value", "think must be"),
        _field("options.think"),
    ),
    Refusal(
        ("does not support generate", "does not support chat", "does not support completion"),
        lambda words: UnsupportedTaskError(f"the model generates no text: {words}", field="task"),
    ),
    Refusal(
        ("invalid format", "json schema", "unrecognized schema", "failed to parse grammar"),
        _field("options.format"),
    ),
    Refusal(
        ("unsupported value", "must be of type", "unknown type loading config"), _field("options")
    ),
    Refusal(
        ("invalid duration", "missing unit in duration", "unknown unit"),
        lambda words: InvalidInputError(f"Ollama refuses OLLAMA_KEEP_ALIVE: {words}"),
    ),
    Refusal(("unknown model architecture",), _broken("unsupported_architecture")),
    Refusal(
        (
            "error loading model",
            "unable to load model",
            "corrupted or incomplete",
            "not within the file bounds",
            "invalid file magic",
            "not in gguf format",
            "unexpected end of file",
        ),
        _broken("corrupt_weights"),
    ),
)
_OPTION = re.compile(r'option "(\w+)" must be')
_LENGTHS = re.compile(r"\((\d+) tokens\).*context size \((\d+) tokens\)")


def refusal_of(words: str) -> RequestError | None:
    """Return the final error that Ollama's words mean; None if another try may go well."""
    message, told = _unwrapped(words)
    said = f"{message} {told.get('type', '')}".lower()
    found = next((each for each in _REFUSALS if any(s in said for s in each.signs)), None)
    if found is None:
        return None
    if (option := _OPTION.search(message)) is not None:
        return InvalidInputError(f"Ollama refuses: {message}", field=f"options.{option[1]}")
    error = found.error(message)
    if error.specific_code == PROMPT_TOO_LONG:
        return prompt_too_long(*_lengths(message, told))
    return error


def _unwrapped(words: str) -> tuple[str, dict[str, Any]]:
    """Return the message of an error, and what llama.cpp's server says beside it."""
    try:
        told = json.loads(words)["error"]
        return str(told["message"]), dict(told)
    except (ValueError, LookupError, TypeError):
        return words, {}


def _lengths(message: str, told: dict[str, Any]) -> tuple[int | None, int | None]:
    if isinstance(told.get("n_prompt_tokens"), int) and isinstance(told.get("n_ctx"), int):
        return told["n_prompt_tokens"], told["n_ctx"]
    if (found := _LENGTHS.search(message)) is not None:
        return int(found[1]), int(found[2])
    return None, None
