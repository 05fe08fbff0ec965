"""A model that says back what it hears.

Its answer depends on the options as a real model's does, so that a test can see that they arrived:
``seed`` orders the words unless ``temperature`` is 0, ``num_predict`` and ``stop`` end the answer,
``repeat_penalty`` above 1 leaves out words that came before, and one of 0 kills its process. A word
is a token. A model that thinks does so for three tokens.
"""

import json
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tests.ollama_server.runners import BROKE_OFF, STOPPED, RefusedError, Runner
from tests.ollama_server.state import CREATED, Json

if TYPE_CHECKING:
    from tests.ollama_server.state import OllamaTestServer

_THOUGHT = ["Let", " me", " see."]
_LARGEST_FLOAT32 = 3.4028235e38
_SCHEMA_TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}
#: Ollama ends an answer without an end at so many times its context.
_CONTEXTS = 10


@dataclass(frozen=True)
class Question:
    """A prompt, or the messages of a chat."""

    body: Json
    #: The name of what holds the answer's text.
    key: str
    thinks: bool

    @property
    def options(self) -> Json:
        return self.body.get("options") or {}

    def words(self, context_length: int) -> list[str]:
        """Return the tokens of the prompt, without the oldest messages if it may be cut."""
        if self.key == "response":
            return str(self.body.get("prompt", "")).split()
        messages = list(self.body["messages"])
        while True:
            heard = " ".join(f"{m['role']}: {m.get('content', '')}" for m in messages)
            oldest = next((m for m in messages[:-1] if m["role"] != "system"), None)
            fits = len(heard.split()) <= context_length
            if fits or oldest is None or self.body.get("truncate") is False:
                return heard.split()
            messages.remove(oldest)


async def spoken(
    server: "OllamaTestServer", runner: Runner, question: Question
) -> AsyncGenerator[Json]:
    """Yield the messages of an answer; all in one where the request wants no stream."""
    async with runner.slots:
        if runner.died.is_set():
            raise RefusedError(500, STOPPED)
        _check_options(question)
        prompt = _fitted(server, runner, question)
        if question.options.get("repeat_penalty") == 0:
            server.scheduler.die(runner)
            raise RefusedError(500, BROKE_OFF)
        thought = _THOUGHT if question.thinks else []
        answer, reason = _tokens(prompt, question.options), "stop"
        most = _most_tokens(runner, question.options, len(prompt))
        tokens = [*((each, "thinking") for each in thought), *((each, "") for each in answer)]
        if len(tokens) > most:
            tokens, reason = tokens[:most], "length"
        head = {"model": question.body["model"], "created_at": CREATED}
        end = _ending(len(prompt), len(tokens), reason)
        if not question.body.get("stream", True):
            for _ in tokens:
                await runner.pause(server.token_seconds, BROKE_OFF)
            text = "".join(token for token, kind in tokens if not kind)
            thinking = "".join(token for token, kind in tokens if kind)
            yield {**head, **_say(question.key, text, thinking), **end}
            return
        for token, kind in tokens:
            await runner.pause(server.token_seconds, BROKE_OFF)
            said = ("", token) if kind else (token, "")
            yield {**head, **_say(question.key, *said), "done": False}
        yield {**head, **_say(question.key, "", ""), **end}


def check_types(options: Json) -> None:
    """Refuse options of a wrong type, as Ollama does; it ignores those that it does not know."""
    for name in ("num_ctx", "num_predict", "num_thread", "num_batch", "num_gpu", "top_k", "seed"):
        if isinstance(options.get(name), str | bool | list | dict):
            raise RefusedError(500, f'option "{name}" must be of type integer')
    for name in ("temperature", "top_p", "min_p", "repeat_penalty", "mirostat_tau"):
        if isinstance(options.get(name), str | bool | list | dict):
            raise RefusedError(500, f'option "{name}" must be of type float32')
    if not isinstance(options.get("stop", []), list):
        raise RefusedError(500, 'option "stop" must be of type array')


def _check_options(question: Question) -> None:
    if any(isinstance(x, float) and abs(x) > _LARGEST_FLOAT32 for x in question.options.values()):
        words = "failed to marshal completion request: json: unsupported value: +Inf"
        raise RefusedError(500, words)
    wanted = question.body.get("format")
    if wanted in (None, "", "json"):
        return
    if not isinstance(wanted, dict):
        words = (
            f'invalid format: {json.dumps(wanted)}; expected "json" or a valid JSON Schema object'
        )
        raise RefusedError(500, words)
    if wanted.get("type", "object") not in _SCHEMA_TYPES:
        message = f"JSON schema conversion failed:\nUnrecognized schema: {json.dumps(wanted)}"
        raise RefusedError(400, _native(400, message, "invalid_request_error"))


def _fitted(server: "OllamaTestServer", runner: Runner, question: Question) -> list[str]:
    """Return the tokens of a prompt that fit into the context; refuse it if it must not be cut."""
    limit = runner.launch.context_length
    words = question.words(limit)
    if len(words) < limit:
        return words
    if question.body.get("truncate") is False:
        if not server.tells_lengths:
            raise RefusedError(400, "the input length exceeds the context length")
        message = (
            f"request ({len(words)} tokens) exceeds the available context size ({limit} tokens), "
            "try increasing it"
        )
        extra = {"n_prompt_tokens": len(words), "n_ctx": limit}
        raise RefusedError(400, _native(400, message, "exceed_context_size_error", **extra))
    if not runner.launch.shift:
        raise RefusedError(
            400,
            "the prompt is longer than the context length currently available to the model; "
            "shorten the prompt, adjust the context length in settings, or use a model with a "
            "longer context length",
        )
    kept = min(question.options.get("num_keep", 4), limit - 1)
    rest = limit - max((limit - kept) // 2, 1) - kept
    return words[:kept] + words[len(words) - rest :]


def _most_tokens(runner: Runner, options: Json, prompt_tokens: int) -> int:
    """Return how many tokens an answer may have; without shifting, the context ends it."""
    context = runner.launch.context_length
    asked = options.get("num_predict", -1)
    most = min(asked, _CONTEXTS * context) if asked > 0 else _CONTEXTS * context
    return most if runner.launch.shift else min(most, context - prompt_tokens)


def _native(code: int, message: str, kind: str, **extra: int) -> str:
    """Return an error of llama.cpp's server, which Ollama passes on as it came."""
    return json.dumps({"error": {"code": code, "message": message, "type": kind, **extra}})


def _say(key: str, text: str, thinking: str) -> Json:
    extra = {"thinking": thinking} if thinking else {}
    if key == "message":
        return {"message": {"role": "assistant", "content": text, **extra}}
    return {"response": text, **extra}


def _ending(prompt_tokens: int, tokens: int, reason: str) -> Json:
    return {
        "done": True,
        "done_reason": reason,
        "total_duration": 7_000_000_000,
        "load_duration": 4_000_000_000,
        "prompt_eval_count": prompt_tokens,
        "prompt_eval_duration": 1_000_000_000,
        "eval_count": tokens,
        "eval_duration": 2_000_000_000,
    }


def _tokens(prompt: list[str], options: Json) -> list[str]:
    """Return the tokens of an answer."""
    words = list(prompt)
    if options.get("temperature", 0.8) > 0:
        seed = options.get("seed", -1)
        Random(secrets.randbits(32) if seed == -1 else seed % 2**32).shuffle(words)
    if options.get("repeat_penalty", 1.0) > 1:
        words = list(dict.fromkeys(words))
    tokens = [f" {word}" if place else word for place, word in enumerate(words)]
    for stop in options.get("stop", []):
        for place, token in enumerate(tokens):
            if stop in token:
                tokens = tokens[:place]
                break
    return tokens
