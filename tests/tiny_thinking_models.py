"""Models that say what they are told to: each token decides the next, and nothing else does."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny_models import CHAT_TEMPLATE, byte_level_tokenizer, vocabulary_of

BEGIN, END = "<think>", "</think>"
#: As Qwen3's: a thought is there already, and empty, where the model is not to think.
QWEN_TEMPLATE = (
    CHAT_TEMPLATE
    + "{% if enable_thinking is defined and not enable_thinking %}"
    + f"{BEGIN}\n\n{END}\n\n{{% endif %}}"
)
#: As DeepSeek R1's: the answer begins within a thought.
R1_TEMPLATE = CHAT_TEMPLATE + BEGIN
#: What the prompt ends with, a thought, an answer, and its end.
SCRIPT = (">", BEGIN, "a", "b", END, "Ċ", "x", "y", "z", "</s>")
#: Thinks until it is stopped.
ENDLESS = (">", BEGIN, "a", "b", "a")


def tiny_thinker(
    directory: Path,
    *,
    script: Sequence[str] = SCRIPT,
    chat_template: str = QWEN_TEMPLATE,
    tags: Sequence[str] = (BEGIN, END),
) -> Path:
    """Save a Llama that follows a script of tokens; ``tags`` are tokens, though not special."""
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens(list(tags))
    tokenizer.chat_template = chat_template
    size = len(tokenizer) + len(tokenizer) % 2
    config = LlamaConfig(
        **{**vocabulary_of(tokenizer), "vocab_size": size},
        hidden_size=size,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    ids: list[Any] = [tokenizer.convert_tokens_to_ids(token) for token in script]
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.zero_()
        for token, following in pairwise(ids):
            model.lm_head.weight[following, token] = 1
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
