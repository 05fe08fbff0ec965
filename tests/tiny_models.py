"""Models of a few hundred kilobytes, made on the spot: nothing is downloaded.

The same seed gives the same files. Their answers depend on what they are asked: with the usual
initial weights a tiny model says the same to everything, and a test of parity would pass on noise.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
CONTEXT_TOKENS = 256

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message.role) }}{% endif %}"
    "{{ '<|' + message.role + '|>' + message.content + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

_CORPUS = (
    "the quick brown fox jumps over the lazy dog",
    "a model that nobody asks is a model that nobody needs",
    "zażółć gęślą jaźń, größer als füße, señor niño",
    "日本語のテキストと漢字、中文也可以",
    "emoji 🙂🚀 and more 🎉",
)


def tiny_llama(
    directory: Path,
    *,
    seed: int = 0,
    chat_template: str | None = CHAT_TEMPLATE,
    hidden: int = 64,
    layers: int = 2,
    context_tokens: int = CONTEXT_TOKENS,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Save a Llama and its byte-level tokenizer; return the directory."""
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = chat_template
    config = LlamaConfig(
        **vocabulary_of(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context_tokens,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.mul_(8)
        # Never ends by itself, and never says a special token.
        model.lm_head.weight[tokenizer.all_special_ids] = 0
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    model.config.dtype = dtype
    disable_progress_bar()  # type: ignore[no-untyped-call]
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def byte_level_tokenizer(vocabulary: int = 400) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, whose tokens cut characters of several bytes apart."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=100_000,
    )


def _corpus() -> Iterator[str]:
    for _ in range(4):
        yield from _CORPUS


def vocabulary_of(tokenizer: Any) -> dict[str, Any]:
    """Return what a text model's configuration says of its vocabulary."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
