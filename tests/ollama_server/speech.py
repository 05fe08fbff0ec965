"""A model that says back what it hears.

Its answer depends on the options as a real model's does, so that a test can see that they arrived:
``seed`` orders the words unless ``temperature`` is 0, ``num_predict`` and ``stop`` end the answer,
``repeat_penalty`` above 1 leaves out words that came before.
"""

from collections.abc import AsyncIterator
from random import Random

from tests.ollama_server.state import CREATED, Json


async def spoken(body: Json, prompt: str, key: str) -> AsyncIterator[Json]:
    """Yield the messages of an answer; all in one where the request wants no stream."""
    tokens, reason = _tokens(prompt, body.get("options") or {})
    head = {"model": body["model"], "created_at": CREATED}

    def say(text: str, **extra: str) -> Json:
        if key == "message":
            return {"message": {"role": "assistant", "content": text, **extra}}
        return {"response": text, **extra}

    end = {
        "done": True,
        "done_reason": reason,
        "total_duration": 7_000_000_000,
        "load_duration": 4_000_000_000,
        "prompt_eval_count": len(prompt.split()),
        "prompt_eval_duration": 1_000_000_000,
        "eval_count": len(tokens),
        "eval_duration": 2_000_000_000,
    }
    if not body.get("stream", True):
        yield {**head, **say("".join(tokens)), **end}
        return
    if body.get("think"):
        yield {**head, **say("", thinking="Let me see."), "done": False}
    for token in tokens:
        yield {**head, **say(token), "done": False}
    yield {**head, **say(""), **end}


def _tokens(prompt: str, options: Json) -> tuple[list[str], str]:
    """Return the tokens of an answer and why it ended."""
    words = prompt.split()
    if options.get("temperature", 0.8) > 0:
        Random(f"{options.get('seed', 0)}").shuffle(words)
    if options.get("repeat_penalty", 1.0) > 1:
        words = list(dict.fromkeys(words))
    tokens = [f" {word}" if place else word for place, word in enumerate(words)]
    for stop in options.get("stop", []):
        for place, token in enumerate(tokens):
            if stop in token:
                tokens = tokens[:place]
                break
    limit = options.get("num_predict", -1)
    return (tokens[:limit], "length") if 0 <= limit < len(tokens) else (tokens, "stop")
